"""A policy that is one number, its skill: a trainer and a server for it, quick enough to live through many lives.

An adapter holds the skill. The policy answers a question rightly where a number drawn from question and seed is below
its skill, so that greedy answers are right for the easier questions.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optograph.errors import UserError
from optograph.jobs import Job
from optograph.jobs.training.parts import Moved, Parts, Progress, Trained
from optograph.optimizers.policy import TrainingRow
from optograph.optimizers.policy.config import PolicyConfig
from optograph.serving import Completion, ModelIdentity, Request, ScriptedLM
from optograph.serving.vllm.adapters import Probe, ServedAdapterError, adapter_hash, served_name
from optograph.serving.vllm.metrics import ServerMetrics
from optograph.storage import content_hash

STEPS = 4
"""Logged steps of a training."""

JOB = """
name = "toy"

[workflow]
target = "app.py:build"

[task]
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
inputs = ["question"]
expected = "answer"

[policy]
method = "oreo"
rounds = 2
samples = 3

[acceptance]
confidence = 0.5
"""

APP = '''
"""A workflow of one call."""

import optograph as og
from optograph.context import call_context
from optograph.serving import Request


def build(lm):
    @og.op
    async def solve(question):
        with call_context(node="solve"):
            return (await lm.complete(Request(prompt=question, max_tokens=4))).text

    return solve
'''


PROMPTED = '''
"""A workflow of one call with an instruction."""

import optograph as og
from optograph.context import call_context
from optograph.serving import Request


class Solver(og.Module):
    def __init__(self, lm):
        self.lm = lm
        self.instruction = og.Parameter("Answer.", name="instruction")

    async def forward(self, question):
        return await solve(self.lm, self.instruction, question)


@og.op
async def solve(lm, instruction, question):
    with call_context(node="solve"):
        return (await lm.complete(Request(prompt=f"{instruction} {question}", max_tokens=4))).text


def build(lm):
    return Solver(lm)
'''


TASKS = '''
"""A workflow whose first two calls are made at once; the one that $SLOW names waits for something else before it."""

import asyncio
import os

import optograph as og
from optograph.context import call_context
from optograph.serving import Request


def build(lm):
    async def ask(node, question):
        await asyncio.sleep(0.02 * (os.environ["SLOW"] == node))
        with call_context(node=node):
            return (await lm.complete(Request(prompt=f"{node} {question}", max_tokens=9))).text

    @og.op
    async def solve(question):
        await asyncio.gather(ask("left", question), ask("right", question))
        return await ask("solve", question)

    return solve
'''


NODES = '''
"""A graph whose first two nodes run at once, in threads; the one that $SLOW names waits for something else first."""

import os
import time
from typing import TypedDict

from langgraph.graph import START, StateGraph
from optograph.agents.langgraph import trace_langgraph
from optograph.context import call_context
from optograph.serving import Request


class State(TypedDict, total=False):
    question: str
    left: str
    right: str
    solve: str


def build(lm):
    def asks(node):
        def ask(state):
            time.sleep(0.02 * (os.environ["SLOW"] == node))
            with call_context(node=node):
                return {node: lm.ask(Request(prompt=f"{node} {state['question']}", max_tokens=9)).text}

        return ask

    graph = StateGraph(State)
    for node in ("left", "right", "solve"):
        graph.add_node(node, asks(node))
    for before, after in ((START, "right"), (START, "left"), ("left", "solve"), ("right", "solve")):
        graph.add_edge(before, after)
    return trace_langgraph(graph.compile(), output="solve")
'''


def write_job(folder: Path, text: str = JOB, app: str = APP, sizes: tuple[int, int, int] = (8, 30, 20)) -> Path:
    """Write a job with its data and workflow, and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(app, encoding="utf-8")
    for split, size in zip(("train", "dev", "test"), sizes, strict=True):
        rows = [{"id": f"{split}{n}", "question": f"{split} {n}?", "answer": f"yes {n}"} for n in range(size)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    file = folder / "toy.toml"
    file.write_text(text, encoding="utf-8")
    return file


def write_adapter(folder: Path, skill: float, rank: int = 2) -> Path:
    """Write an adapter that holds a skill, in the form that PEFT gives it."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}), encoding="utf-8")
    header = json.dumps({"skill": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    content = struct.pack("<Q", len(header)) + header + struct.pack("<f", skill)
    (folder / "adapter_model.safetensors").write_bytes(content)
    return folder


def skill_of(folder: Path | None) -> float:
    """Return the skill that an adapter holds; the base model has a little."""
    if folder is None:
        return 0.3
    return float(struct.unpack("<f", (folder / "adapter_model.safetensors").read_bytes()[-4:])[0])


def probe_of(skill: float) -> Probe:
    """Return what a policy of that skill gives for some answer."""
    return Probe((1, 2), (3,), (-skill,))


class ToyTrainer:
    """Adds to the skill what good rows there are, the more the less is known; every call is kept."""

    def __init__(self, gain: Callable[[int], float] = lambda number: 0.5) -> None:
        self.gain = gain
        self.calls: list[dict[str, Any]] = []
        self.during: Callable[[int], None] = lambda step: None

    @property
    def pinned(self) -> Mapping[str, str]:
        """Hashes of the base."""
        return {"policy.base weights": "toy", "policy.base chat template": "none"}

    def sft_rows(self, file: Path) -> Sequence[TrainingRow]:
        """Make a row of each line."""
        rows = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
            row = {"rollout": f"sft/{number}", "example": line, "call": 0, "node": None, "adapter": "policy"}
            ids = {"input_ids": (1, 2), "action_mask": (False, True), "run_tokens": 1, "weight": 1.0, "reward": 1.0}
            rows.append(TrainingRow.model_validate({**row, **ids, "policy": "person"}))
        return rows

    def train(
        self,
        rows: Sequence[TrainingRow],
        config: PolicyConfig,
        *,
        out: Path,
        start: Path | None,
        reference: Path | None,
        previous: Path | None,
        progress: Progress,
    ) -> Trained:
        """Train."""
        if out.exists():
            raise UserError(f"there is something at {str(out)!r}")
        before = skill_of(start)
        call: dict[str, Any] = {"method": config.method, "seed": config.seed, "rows": len(rows)}
        others = {"start": start, "reference": reference, "previous": previous}
        call |= {name: None if one is None else skill_of(one) for name, one in others.items()}
        self.calls.append(call)
        for step in range(1, STEPS + 1):
            self.during(step)
            progress(step, STEPS, {"loss": 1.0 / step, "kl": 0.1 * step})
        good = sum(row.reward for row in rows) / len(rows)
        noise = int(content_hash([[row.model_dump(mode="json") for row in rows], config.seed])[:6], 16) / 16**6
        skill = before + self.gain(len(self.calls)) * (1 - before) * (0.5 + 0.5 * good) + 1e-4 * noise
        write_adapter(out, skill)
        history = [{"step": float(step), "loss": 1.0 / step, "kl": 0.1 * step} for step in range(1, STEPS + 1)]
        return Trained(out, {"loss": 1.0 / STEPS}, history, probe_of(skill_of(out)))

    def fresh(self, config: PolicyConfig, *, out: Path) -> Trained:
        """Write the base's own skill."""
        return Trained(write_adapter(out, skill_of(None)), {}, [], probe_of(skill_of(out)))

    def extrapolate(
        self, current: Path, previous: Path, alpha: float, *, out: Path, rows: Sequence[TrainingRow]
    ) -> Moved:
        """Go on by alpha times the last step."""
        last = skill_of(current)
        write_adapter(out, last + alpha * (last - skill_of(previous)), rank=4)
        return Moved(out, 0.9, probe_of(skill_of(out)))

    def probe(self, adapter: Path) -> Probe:
        """Make the probe of a given adapter."""
        return probe_of(skill_of(adapter))

    def merge(self, adapter: Path, out: Path) -> Path:
        """Copy it."""
        shutil.copytree(adapter, out)
        return out


class Served(ScriptedLM):
    """The policy, with the identity of a served adapter."""

    async def identity(self) -> ModelIdentity:
        """Name it."""
        return ModelIdentity("toy", self.name, None)

    async def _complete(self, request: Request) -> Completion:
        completion = await super()._complete(request)
        return Completion(
            **{name: getattr(completion, name) for name in Completion.__dataclass_fields__ if name != "identity"},
            identity=await self.identity(),
        )


def half_cached(asked: int) -> ServerMetrics:
    """Return what a server counts that found half of the prompts' tokens in its cache."""
    tokens = 10 * asked
    return ServerMetrics(
        running=0,
        waiting=0,
        kv_use=0.0,
        prefix_queries=tokens,
        prefix_hits=tokens // 2,
        prompt_tokens=tokens,
        generated_tokens=asked,
    )


class ToyServer:
    """Serves skills; it counts what is asked, and can be told to serve wrong ones."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.loaded: dict[str, float] = {}
        self.wrong: Callable[[float], float] = lambda skill: skill
        self.during: Callable[[int], None] = lambda number: None
        self.loading: Callable[[], None] = lambda: None
        self.asked: list[str] = []

    def start(self) -> ToyServer:
        """Start."""
        self.log.append("start")
        return self

    def close(self) -> None:
        """End."""
        self.log.append("close")
        self.loaded.clear()

    def load_adapter(self, folder: Path) -> str:
        """Load."""
        self.loading()
        name = served_name(adapter_hash(folder))
        self.log.append(f"load {skill_of(folder):.3f}")
        self.loaded[name] = self.wrong(skill_of(folder))
        return name

    def unload_adapter(self, name: str) -> None:
        """Unload."""
        self.log.append(f"unload {self.loaded.pop(name):.3f}")

    def check_adapter(self, name: str, probe: Probe, *, tolerance: float) -> float:
        """Compare."""
        difference = probe.difference([-self.loaded[name]])
        if difference > tolerance:
            raise ServedAdapterError(f"{name!r} is not what was trained: off by {difference:.3f}")
        return difference

    def metrics(self) -> ServerMetrics:
        """Count."""
        return half_cached(len(self.asked))

    def lm(self, adapter: str | None = None) -> ScriptedLM:
        """Return a model."""
        skill = skill_of(None) if adapter is None else self.loaded[adapter]

        def reply(request: Request) -> str:
            self.during(len(self.asked))
            self.asked.append(content_hash([adapter, request.to_json()]))
            if request.prompt is None:  # OptoPrime asks
                suggestion = {"instruction": "Answer carefully."}
                return json.dumps({"reasoning": "r", "answer": "CHANGE", "suggestion": suggestion})
            question = re.search(r"\w+ (\d+)\?", request.prompt)
            assert question is not None
            drawn = question[0] if request.temperature == 0 else [question[0], request.sampling_seed]
            luck = int(content_hash(drawn)[:8], 16) / 16**8 - 0.2 * ("carefully" in request.prompt)
            return f"yes {question[1]}" if luck < skill else f"no {question[1]} {luck:.2f}"

        return Served(reply, name=adapter or "base")


class Toy:
    """Trainer and server of a run, for one life of it."""

    def __init__(self, gain: Callable[[int], float] = lambda number: 0.5) -> None:
        self.log: list[str] = []
        self.trainer = ToyTrainer(gain)
        self.server = ToyServer(self.log)
        self.embedded: Callable[[], ScriptedLM] | None = None

    def parts(self, job: Job, base: Path, run_dir: Path) -> Parts:
        """Make the parts."""
        return Parts(self.trainer, lambda: self.server, ScriptedLM([]).capabilities, self.embedded)

"""Measure what the evaluator costs beside a bare load loop and DSPy's ``Evaluate``, and hold it to its bars.

2,000 requests, at most 64 at once (the server counts them), to a process of its own that answers in 50 ms:

* bare: aiohttp alone, the same bodies, the answers parsed; nothing is kept.
* ours: ``Evaluator`` over 2,000 examples whose async workflow makes one journalled call each; every call and every
  evaluation is durable in the journal on disk. The model allows 64 calls at once; 96 examples are in progress, so that
  those that wait for the disk leave no place at the server empty. The bar is held to this row.
* ours, 64 examples: the same with no more examples in progress than calls.
* calls only: ``JournaledLM.complete`` without an evaluator.
* DSPy: ``Evaluate`` over the same examples and server, 64 threads, no cache, in an environment of its own.

Bare and ours take turns, so that a drift of the machine meets both; medians count. The checkpoint part runs a whole
optimization over 1,000 examples of 10 KB each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from optograph import Module, Step, optimize
from optograph.evals import Evaluator, EvaluatorOptions, Example, SealedSplit, Task, Trial, choice
from optograph.graphs import Candidate
from optograph.jobs import RunOptions
from optograph.optimizers import OptoPrime, OptoPrimeOptions
from optograph.optimizers.checkpoints import CHECKPOINTS
from optograph.serving import JournaledLM, Message, OpenAILM, Request, ScriptedLM, run_sync
from optograph.storage import Journal

CONCURRENCY = 64
EXAMPLES = 96
LATENCY_S = 0.05
SHARE_BAR = 0.90
FRAMEWORK_MS_BAR = 0.3
CHECKPOINT_MB_BAR = 5.0
MODEL = "bench"
PEER_PACKAGE = "dspy==3.4.1"
PEER_SCRIPT = """
import json, sys, time
import dspy

url, count = sys.argv[1], int(sys.argv[2])
dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
lm = dspy.LM("openai/bench", api_base=url, api_key="EMPTY", cache=False, max_tokens=16, num_retries=0)
dspy.configure(lm=lm)

class Ask(dspy.Module):
    def forward(self, text):
        said = lm(messages=[{"role": "user", "content": text}])
        return dspy.Prediction(said=str(said[0]))

def run(n, offset):
    rows = [dspy.Example(text=f"question {offset + i}").with_inputs("text") for i in range(n)]
    evaluate = dspy.Evaluate(devset=rows, metric=lambda row, out, trace=None: float(bool(out.said)),
                             num_threads=64, display_progress=False, max_errors=10**6)
    start = time.perf_counter()
    score = evaluate(Ask())
    return time.perf_counter() - start, float(score.score)

run(128, 10**6)
wall, score = run(count, 0)
print(json.dumps({"wall": wall, "score": score}))
"""


def request(number: int) -> Request:
    """Return the request of one example."""
    return Request(messages=(Message("user", f"question {number}"),), max_tokens=16)


@contextmanager
def server() -> Iterator[str]:
    """Run the server in a process of its own, and give its URL."""
    command = [sys.executable, "-m", "optograph.testing.fastserver", "--latency-ms", str(1000 * LATENCY_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def asked(url: str, method: str, path: str) -> dict[str, Any]:
    """Ask the server for its counts, or set them to zero."""
    with urllib.request.urlopen(urllib.request.Request(f"{url.removesuffix('/v1')}/{path}", method=method)) as answer:
        return dict(json.load(answer))


@dataclass
class Timer:
    """Wall-clock and processor seconds of a ``with`` block: from the first request until all is durable."""

    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> None:
        self._used, self._start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        used, now = self._used, resource.getrusage(resource.RUSAGE_SELF)
        self.wall = time.perf_counter() - self._start
        self.cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


async def many(count: int, one: Callable[[int], Awaitable[Any]]) -> None:
    """Make so many calls, 64 at once."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


def bare(url: str, count: int) -> Timer:
    """Load the server with aiohttp alone."""
    timer = Timer()

    async def run() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(number: int) -> None:
                body = {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": f"question {number}"}],
                    "max_tokens": 16,
                    "temperature": 0.0,
                }
                async with session.post(f"{url}/chat/completions", json=body) as answer:
                    said = json.loads(await answer.read())
                    if not said["choices"][0]["message"]["content"]:
                        raise RuntimeError("the server gave no text")

            with timer:
                await many(count, one)

    asyncio.run(run())
    return timer


def model(url: str, journal: Journal) -> JournaledLM:
    """Return a journalled model at the server."""
    inner = OpenAILM(MODEL, base_url=url, flavour="vllm", max_concurrency=CONCURRENCY)
    return JournaledLM(inner, journal)


def calls_only(url: str, count: int) -> Timer:
    """Make the calls through the journal, without an evaluator."""
    timer = Timer()
    with tempfile.TemporaryDirectory() as folder, Journal.open(folder) as journal:
        lm = model(url, journal)

        async def run() -> None:
            await many(count, lambda number: lm.complete(request(number)))

        with timer:
            run_sync(run())
        run_sync(lm.aclose())
        if len(journal.calls()) != count:
            raise RuntimeError("a call is not in the journal")
    return timer


def ours(url: str, count: int, examples: int = EXAMPLES) -> Timer:
    """Evaluate all examples, so many of them at once."""
    timer = Timer()
    rows = [Example(f"e{number}", {"number": number}) for number in range(count)]
    other = [Example("x", {"number": -1})]
    with tempfile.TemporaryDirectory() as folder, Journal.open(folder) as journal:
        lm = model(url, journal)

        async def workflow(number: int) -> str:
            return (await lm.complete(request(number))).text

        def said(example: Example, output: Any) -> Any:
            from optograph.graphs import Feedback

            return Feedback(score=float(bool(output)))

        task = Task(rows, other, SealedSplit([Example("y", {"number": -2})]), said)
        evaluator = Evaluator(workflow, task, {}, journal, EvaluatorOptions(concurrency=examples))
        trial = Trial(Candidate({}), "train", tuple(row.id for row in rows))
        with timer:
            (evaluation,) = evaluator.evaluate([trial])
        run_sync(lm.aclose())
        if evaluation.mean != 1.0 or len(journal.evaluations()) != count or len(journal.calls()) != count:
            raise RuntimeError("an evaluation is missing")
    return timer


def dspy(url: str, count: int) -> float:
    """Run DSPy in an environment of its own, and return its wall-clock seconds."""
    home = Path(__file__).resolve().parent.parent / ".venv-harness"
    python = home / "bin" / "python"
    if not (home / ".ready").exists():
        venv.create(home, with_pip=True, clear=True, symlinks=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PEER_PACKAGE], check=True)
        (home / ".ready").touch()
    done = subprocess.run([python, "-c", PEER_SCRIPT, url, str(count)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"DSPy failed: {done.stderr[-800:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    if said["score"] != 100.0:
        raise RuntimeError(f"DSPy scored {said['score']}")
    return float(said["wall"])


class _Text(BaseModel):
    text: str


class _Label(BaseModel):
    label: Literal["a", "b"]


class _Labels(Module):
    def __init__(self, lm: ScriptedLM) -> None:
        self.judge = Step("judge", lm=lm, inputs=_Text, output=_Label, instruction="Judge.")

    def forward(self, text: str) -> Any:
        return self.judge(text=text).label


def checkpoint_mb(count: int = 1000, size: int = 10_000) -> tuple[float, float]:
    """Optimize over large examples; return the size of the checkpoint file and of the journal in MB."""

    def rows(prefix: str, number: int) -> list[Example]:
        return [Example(f"{prefix}{i}", {"text": f"{prefix} {i} " + "x" * size}, "ab"[i % 2]) for i in range(number)]

    def reply(asked: Request) -> Any:
        if "improve a program" in asked.messages[0].content:
            return {"reasoning": "r", "answer": "CHANGE", "suggestion": {"judge.instruction": f"Judge {asked.draw}."}}
        return {"label": "a"}

    task = Task(rows("t", 100), rows("d", count), SealedSplit(rows("s", 50)), choice(["a", "b"]))
    with tempfile.TemporaryDirectory() as folder:
        optimizer = OptoPrime(OptoPrimeOptions(steps=3, minibatch=8))
        optimize(_Labels(ScriptedLM(reply)), task, optimizer=optimizer, options=RunOptions(run_dir=Path(folder)))
        sizes = [sum(one.stat().st_size for one in Path(folder).glob(f"{name}*")) for name in (CHECKPOINTS, "journal")]
    return sizes[0] / 1e6, sizes[1] / 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether every bar is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true", help="leave DSPy out")
    given = parser.parse_args(arguments)
    count = given.requests
    works: dict[str, Callable[[str, int], Timer]] = {
        "bare aiohttp": bare,
        "ours: Evaluator, journal on": ours,
        "ours: Evaluator, 64 examples": lambda url, count: ours(url, count, CONCURRENCY),
        "ours: calls only, journal on": calls_only,
    }
    most = dict.fromkeys(works, 0)
    seen: dict[str, list[Timer]] = {name: [] for name in works}
    with server() as url:
        for work in works.values():
            work(url, 128)
        for _ in range(given.rounds):
            for name, work in works.items():
                asked(url, "POST", "reset")
                seen[name].append(work(url, count))
                most[name] = max(most[name], asked(url, "GET", "stats")["most_in_flight"])
        peer = None if given.no_peer else dspy(url, count)
    wall = {name: statistics.median(one.wall for one in times) for name, times in seen.items()}
    cpu = {name: statistics.median(one.cpu for one in times) for name, times in seen.items()}
    if peer is not None:
        wall["DSPy Evaluate, 64 threads"] = peer
    checkpoint, journal = checkpoint_mb()
    bare_s = wall["bare aiohttp"]
    table = Table(title=f"{count} requests, {CONCURRENCY} at once, a server that answers in {LATENCY_S * 1000:.0f} ms")
    for column in ("", "requests/s", "of ideal", "of bare", "framework ms a call", "CPU ms a call", "most at once"):
        table.add_column(column, justify="left" if not column else "right")
    for name, seconds in wall.items():
        own = f"{1000 * cpu[name] / count:.2f}" if name in cpu else ""
        table.add_row(
            name,
            f"{count / seconds:.0f}",
            f"{count * LATENCY_S / CONCURRENCY / seconds:.0%}",
            f"{bare_s / seconds:.0%}",
            f"{1000 * (seconds - bare_s) / count:.3f}",
            own,
            str(most.get(name, "")),
        )
    console = Console(width=120)
    console.print(table)
    console.print(f"1,000 examples of 10 KB: checkpoint file {checkpoint:.2f} MB, journal {journal:.1f} MB")
    ours_s = wall["ours: Evaluator, journal on"]
    share, framework = bare_s / ours_s, 1000 * (ours_s - bare_s) / count
    fair = max(most.values()) <= CONCURRENCY
    kept = fair and share >= SHARE_BAR and framework <= FRAMEWORK_MS_BAR and checkpoint <= CHECKPOINT_MB_BAR
    figures = {
        "share_of_bare": f"{share:.3f}",
        "framework_ms": f"{framework:.3f}",
        "share_at_64_examples": f"{bare_s / wall['ours: Evaluator, 64 examples']:.3f}",
        "most_at_once": str(max(most.values())),
        "ours_rps": f"{count / ours_s:.0f}",
        "bare_rps": f"{count / bare_s:.0f}",
        "dspy_rps": "none" if peer is None else f"{count / peer:.0f}",
        "ratio_to_dspy": "none" if peer is None else f"{peer / ours_s:.2f}",
        "checkpoint_mb": f"{checkpoint:.2f}",
    }
    print(" ".join(f"{name}={value}" for name, value in figures.items()))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

"""The job of the kill test: a workflow of two steps over an endpoint, its data, and the job file."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

TONES = ("calm", "angry", "pleased")
TEAMS = ("billing", "technical", "account", "shipping")
INSTRUCTIONS = {"tone": "How does the writer feel?", "route": "Name the team."}
CONCURRENCY = 8
MINIBATCH = 8
SPLITS = {"train": 48, "dev": 24, "test": 28}

APP = f'''"""Hears the tone of a ticket, then routes it."""
from typing import Any, Literal

from pydantic import BaseModel

from optograph.agents import Module, Step
from optograph.graphs import op
from optograph.serving import LM


class Ticket(BaseModel):
    """A customer's message."""

    text: str


class Tone(BaseModel):
    """How the writer feels."""

    tone: Literal{list(TONES)}


class Routing(BaseModel):
    """The team that answers."""

    team: Literal{list(TEAMS)}


@op(description="Put the tone before the message.")
def marked(text: str, tone: str) -> str:
    """Return the message with its tone."""
    return f"[{{tone}}] {{text}}"


class Desk(Module):
    """Two steps; each has an instruction to improve."""

    def __init__(self, lm: LM) -> None:
        self.tone = Step("tone", lm=lm, inputs=Ticket, output=Tone, instruction={INSTRUCTIONS["tone"]!r})
        self.route = Step("route", lm=lm, inputs=Ticket, output=Routing, instruction={INSTRUCTIONS["route"]!r})

    async def forward(self, text: str) -> Any:
        """Return the name of the team."""
        tone = await self.tone.acall(text=text)
        return (await self.route.acall(text=marked(text, tone.tone))).team


def build(lm: LM) -> Desk:
    """Make the workflow for a job."""
    return Desk(lm)
'''

JOB = """name = "killtest"

[workflow]
target = "app.py:build"

[task]
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
scorer = "choice"

[models]
task = "vllm/{model}@{url}"

[optimizer]
seed = {seed}

[[optimizer.stages]]
name = "optoprime"
steps = 5
minibatch = {minibatch}

[[optimizer.stages]]
name = "fewshot"
parameter = "route.demos"
sets = 6
size = 4
first_rung = 8

[acceptance]
confidence = 0.6

[evaluation]
concurrency = {concurrency}

[budget]
calls = {calls}
"""


def truth(number: int) -> str:
    """Return the right team of a ticket."""
    return TEAMS[int.from_bytes(hashlib.sha256(f"ticket {number}".encode()).digest()[:4], "big") % len(TEAMS)]


def ticket_number(text: str) -> int:
    """Return the number that stands in a ticket's text, or 0."""
    found = re.search(r"#(\d+)", text)
    return int(found.group(1)) if found else 0


def rows(split: str) -> list[dict[str, str]]:
    """Return the examples of a split: texts that no two splits share."""
    first = 1 + sum(count for name, count in SPLITS.items() if list(SPLITS).index(name) < list(SPLITS).index(split))
    numbers = range(first, first + SPLITS[split])
    return [{"id": f"{split}-{n}", "text": f"Ticket #{n}: please see to it.", "label": truth(n)} for n in numbers]


def write_job(folder: Path, url: str, model: str, *, seed: int, calls: int) -> Path:
    """Write workflow, data and job file into a folder.

    Args:
        folder: Made where it is not there.
        url: Base URL of the server.
        model: Name that the server goes by.
        seed: Of the optimizers.
        calls: Budget of the search.

    Returns:
        The job file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(APP, encoding="utf-8")
    for split in SPLITS:
        lines = "".join(json.dumps(row) + "\n" for row in rows(split))
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    job = folder / "job.toml"
    text = JOB.format(model=model, url=url, seed=seed, concurrency=CONCURRENCY, minibatch=MINIBATCH, calls=calls)
    job.write_text(text, encoding="utf-8")
    return job

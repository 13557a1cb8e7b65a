"""A small workflow whose model obeys its instruction, shared by the tests of evaluators, optimizers and jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from optograph.agents import Module, Step
from optograph.evals import Example, SealedSplit, Task, choice
from optograph.graphs import op
from optograph.serving import Request, ScriptedLM


class Note(BaseModel):
    """A note."""

    text: str


class Mood(BaseModel):
    """A mood."""

    mood: Literal["happy", "sad"]


@op
def trim(text: str) -> str:
    """Return the text without outer space."""
    return text.strip()


class Moods(Module):
    """Trims a note, then says how its writer feels."""

    def __init__(self, lm: ScriptedLM) -> None:
        self.judge = Step("judge", lm=lm, inputs=Note, output=Mood, instruction="Judge.", description="Judge a note.")

    def forward(self, text: str) -> Any:
        """Return the mood."""
        return self.judge(text=trim(text)).mood


def obedient(request: Request) -> str:
    """Answer well with a careful instruction or two fitting demonstrations, else always happy."""
    system, *turns, question = [message.content for message in request.messages]
    careful = "carefully" in system or {"rain", "sun"} <= {word for turn in turns for word in turn.split()}
    return "sad" if careful and "rain" in question else "happy"


def notes(prefix: str, count: int) -> list[Example]:
    """Return notes, every other one sad."""
    return [
        Example(
            f"{prefix}{number}",
            {"text": f" {'rain' if number % 2 else 'sun'} came over the town on day {number} of {prefix} "},
            "sad" if number % 2 else "happy",
        )
        for number in range(count)
    ]


@pytest.fixture
def task() -> Task:
    """Sixty notes."""
    return Task(notes("a", 24), notes("b", 16), SealedSplit(notes("c", 20)), choice(["happy", "sad"]), "moods")


@pytest.fixture
def task_lm() -> ScriptedLM:
    """A model that does what its instruction says."""
    return ScriptedLM(obedient, name="obedient")


@pytest.fixture
def moods(task_lm: ScriptedLM) -> Moods:
    """The workflow over the obedient model."""
    return Moods(task_lm)


@pytest.fixture
def make_moods() -> Callable[[ScriptedLM], Moods]:
    """Make the workflow over any model."""
    return Moods

"""BIG-Bench Hard object counting: the model reasons in words, an op reads off the number."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from optograph.agents import Module, Step, StepOptions
from optograph.evals import last_number
from optograph.graphs import op
from optograph.serving import LM


class Question(BaseModel):
    """A question that asks how many things there are."""

    input: str


class Reasoning(BaseModel):
    """What the model writes."""

    answer: str


@op(description="Read the last number in the model's answer.")
def read_number(answer: str) -> str:
    """Return the number as text, or an empty text where there is none."""
    number = last_number(answer)
    return "" if number is None else f"{number:g}"


class Counting(Module):
    """Asks a model, then reads its number."""

    def __init__(self, lm: LM) -> None:
        self.solve = Step(
            "solve",
            lm=lm,
            inputs=Question,
            output=Reasoning,
            instruction="Answer the question.",
            description="Count the things that the question names.",
            options=StepOptions(answer="text", max_tokens=160),
        )

    def forward(self, input: str) -> Any:
        """Return the number as text."""
        return read_number(self.solve(input=input).answer)


def build(lm: LM) -> Counting:
    """Make the workflow for a job."""
    return Counting(lm)

"""Is a customer happy? One step that is shown solved examples, which are texts of real customers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from optograph.agents import Module, Step, StepOptions
from optograph.evals import Example
from optograph.serving import LM


class Review(BaseModel):
    """A customer's review."""

    text: str


class Judgement(BaseModel):
    """What the customer thinks."""

    sentiment: Literal["positive", "negative"]


class Reviews(Module):
    """Judges a review."""

    def __init__(self, lm: LM, train: Sequence[Example]) -> None:
        self.judge = Step(
            "judge",
            lm=lm,
            inputs=Review,
            output=Judgement,
            instruction="Classify the customer review.",
            description="Say whether the customer is happy.",
            options=StepOptions(answer="score"),
        )
        self.judge.calibrate([{"text": row.input["text"]} for row in train[:16]])

    def forward(self, text: str) -> Any:
        """Return ``positive`` or ``negative``."""
        return self.judge(text=text).sentiment


def build(lm: LM, train: Sequence[Example]) -> Reviews:
    """Make the workflow for a job."""
    return Reviews(lm, train)

"""Is a customer happy? A two-step workflow that the smallest embedded model can learn to do well."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from optograph.agents import Module, Step, StepOptions
from optograph.evals import Example
from optograph.graphs import op
from optograph.serving import LM

_PRIVATE = re.compile(r"\S+@\S+|\b\d{4,}\b")


class Review(BaseModel):
    """A customer's review."""

    text: str


class Judgement(BaseModel):
    """What the customer thinks."""

    sentiment: Literal["positive", "negative"]


@op(description="Take e-mail addresses and long numbers out before a model reads the text.")
def redact(text: str) -> str:
    """Return the text without private details."""
    return _PRIVATE.sub("[removed]", text)


class Reviews(Module):
    """Redacts a review, then judges it."""

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
        self.judge.calibrate([{"text": redact(row.input["text"]).data} for row in train[:32]])

    def forward(self, text: str) -> Any:
        """Return ``positive`` or ``negative``."""
        return self.judge(text=redact(text)).sentiment


def build(lm: LM, train: Sequence[Example]) -> Reviews:
    """Make the workflow for a job."""
    return Reviews(lm, train)

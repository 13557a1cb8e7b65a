"""Feedback: what an evaluation says about one output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optograph.errors import UserError
from optograph.graphs.shown import shown

_AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "mean": lambda scores: sum(scores) / len(scores),
    "min": min,
    "max": max,
    "sum": sum,
}


@dataclass(frozen=True)
class Feedback:
    """A judgement of one output; higher scores are better.

    Args:
        score: A finite float, named finite floats, or None where there is only text.
        text: What is right or wrong, in words.
        failure_type: Short kind of failure, such as ``"parse"`` or ``"timeout"``; None for a success.
        span: First and last-plus-one character of the output's text that the judgement is about.
        notes: Notes on single values, by their names.
        aggregate: How named scores become one `total`: ``"mean"``, ``"min"``, ``"max"``, ``"sum"``, or the
            name of the score that counts.

    Raises:
        UserError: A score is not finite, or a field has the wrong type.
    """

    score: float | Mapping[str, float] | None
    text: str = ""
    failure_type: str | None = None
    span: tuple[int, int] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    aggregate: str = "mean"

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        if isinstance(self.score, Mapping):
            if not self.score:
                raise UserError("named scores must not be empty: pass score=None where there is no score")
            set_field(self, "score", {str(name): _finite(score) for name, score in self.score.items()})
        elif self.score is not None:
            set_field(self, "score", _finite(self.score))
        if not isinstance(self.text, str):
            raise UserError(f"text must be a str, got {shown(self.text)}")
        if not (self.failure_type is None or isinstance(self.failure_type, str)):
            raise UserError(f"failure_type must be a str or None, got {shown(self.failure_type)}")
        if self.span is not None:
            set_field(self, "span", _span(self.span))
        set_field(self, "notes", {str(name): str(note) for name, note in self.notes.items()})
        named = self.score if isinstance(self.score, Mapping) else {}
        if self.aggregate not in _AGGREGATES and self.aggregate not in named:
            raise UserError(
                f"aggregate must be one of {', '.join(_AGGREGATES)} or the name of a score, got {self.aggregate!r}"
            )

    @property
    def total(self) -> float:
        """The one number used for comparison; higher is better.

        Raises:
            UserError: There is no score.
        """
        if self.score is None:
            raise UserError(f"this feedback has no score to compare: {shown(self.text)}; pass score=...")
        if isinstance(self.score, Mapping):
            if self.aggregate in self.score:
                return self.score[self.aggregate]
            return float(_AGGREGATES[self.aggregate](list(self.score.values())))
        return self.score

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON data."""
        score = dict(self.score) if isinstance(self.score, Mapping) else self.score
        return {
            "score": score,
            "text": self.text,
            "failure_type": self.failure_type,
            "span": None if self.span is None else list(self.span),
            "notes": dict(self.notes),
            "aggregate": self.aggregate,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Feedback:
        """Return the record that `to_json` wrote.

        Raises:
            UserError: A field is missing, unknown or wrong.
        """
        try:
            return cls(**data)
        except TypeError as error:
            raise UserError(f"not a feedback record ({error}): {shown(data)}") from None


def _finite(score: Any) -> float:
    try:
        number = float(score)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(score, str) or not math.isfinite(number):
        raise UserError(f"a score must be a finite number, got {shown(score)}")
    return number


def _span(span: Any) -> tuple[int, int]:
    try:
        start, end = span
    except (TypeError, ValueError):
        start, end = None, None
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end):
        raise UserError(f"span must be two characters' positions (start <= end), got {shown(span)}")
    return start, end

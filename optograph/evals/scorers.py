"""Scorers: each judges one output against its example and says in words what was wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from optograph.errors import UserError
from optograph.evals.task import Example, Scorer
from optograph.graphs import Feedback

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def exact(*, ignore_case: bool = True) -> Scorer:
    """Score 1 where the output equals the expected answer, else 0; strings are compared without outer spaces."""

    def score(example: Example, output: Any) -> Feedback:
        same = _plain(output, ignore_case) == _plain(example.expected, ignore_case)
        return _verdict(same, output, example.expected)

    return score


def choice(options: Sequence[str] | None = None) -> Scorer:
    """Score 1 where the output names the expected option; an output outside ``options`` is a failure of its own."""
    known = None if options is None else {option.strip().lower() for option in options}

    def score(example: Example, output: Any) -> Feedback:
        given = str(output).strip().strip(".\"'").lower()
        if known is not None and given not in known:
            text = f"The answer {_short(output)} is none of the options {sorted(known)}."
            return Feedback(score=0.0, text=text, failure_type="not_an_option")
        return _verdict(given == str(example.expected).strip().lower(), output, example.expected)

    return score


def numeric(*, tolerance: float = 1e-6) -> Scorer:
    """Score 1 where the last number in the output is within ``tolerance`` of the answer (relative above 1)."""

    def score(example: Example, output: Any) -> Feedback:
        given, wanted = last_number(output), last_number(example.expected)
        if wanted is None:
            raise UserError(f"example {example.id!r} expects {example.expected!r}, which holds no number")
        if given is None:
            return Feedback(score=0.0, text=f"No number in {_short(output)}.", failure_type="no_number")
        return _verdict(abs(given - wanted) <= tolerance * max(1.0, abs(wanted)), output, example.expected)

    return score


def regex(pattern: str | None = None) -> Scorer:
    """Score 1 where the pattern (the expected answer, if none is given) matches somewhere in the output."""
    fixed = None if pattern is None else _compiled(pattern)

    def score(example: Example, output: Any) -> Feedback:
        wanted = fixed or _compiled(str(example.expected))
        found = wanted.search(str(output)) is not None
        text = "" if found else f"{_short(output)} does not match {wanted.pattern!r}."
        return Feedback(score=float(found), text=text, failure_type=None if found else "no_match")

    return score


def from_callable(function: Callable[[Any, Any], Any]) -> Scorer:
    """Make a scorer of ``function(expected, output)`` giving a number, a bool, ``(score, text)`` or a ``Feedback``."""

    def score(example: Example, output: Any) -> Feedback:
        result = function(example.expected, output)
        if isinstance(result, Feedback):
            return result
        value, text = result if isinstance(result, tuple) else (result, "")
        return Feedback(score=float(value), text=str(text), failure_type=None if float(value) >= 1 else "wrong")

    return score


SCORERS: dict[str, Callable[..., Scorer]] = {
    "exact": exact,
    "choice": choice,
    "numeric": numeric,
    "regex": regex,
}


def scorer_by_name(name: str, **options: Any) -> Scorer:
    """Make a built-in scorer from its name and options.

    Raises:
        UserError: The name or an option is unknown.
    """
    if name not in SCORERS:
        raise UserError(f"unknown scorer {name!r}: use one of {sorted(SCORERS)}, or FILE.py:FUNCTION")
    try:
        return SCORERS[name](**options)
    except TypeError as error:
        raise UserError(f"scorer {name!r} does not take {options!r}: {error}") from error


def last_number(value: Any) -> float | None:
    """Return the last finite number in a value's text, or None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    for text in reversed(_NUMBER.findall(str(value))):
        number = float(text.replace(",", ""))
        if math.isfinite(number):
            return number
    return None


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{pattern!r} is no regular expression: {error}") from error


def _plain(value: Any, ignore_case: bool) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip()
    return text.lower() if ignore_case else text


def _verdict(correct: bool, output: Any, expected: Any) -> Feedback:
    if correct:
        return Feedback(score=1.0, text="Correct.")
    return Feedback(
        score=0.0,
        text=f"Wrong: the answer was {_short(output)}, the expected answer is {_short(expected)}.",
        failure_type="wrong",
    )


def _short(value: Any, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"

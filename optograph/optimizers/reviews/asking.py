"""Putting together what a person is shown of a candidate: its scores, its parameters, some examples that changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optograph.evals import Evaluation, ExampleResult, Task
from optograph.graphs import Candidate, Parameter, to_plain
from optograph.optimizers.base import Verdict
from optograph.optimizers.reviews.records import ReviewRequest

SHOWN_EXAMPLES = 6
LONGEST = 600
"""Characters of an input, an answer or a value that is shown."""


def make_request(
    verdict: Verdict,
    incumbent: Candidate,
    evaluations: tuple[Evaluation, Evaluation],
    task: Task,
    parameters: Mapping[str, Parameter],
    **asked: Any,
) -> ReviewRequest:
    """Put together what a person is shown.

    Args:
        verdict: What the acceptance test said of the candidate.
        incumbent: The best so far.
        evaluations: Of the incumbent and of the candidate on the dev split.
        task: Where the examples are.
        parameters: The workflow's parameters, by name.
        asked: ``step``, ``optimizer`` and ``edits`` of the request.
    """
    described = {name: _described(parameters[name]) for name in verdict.candidate.values if name in parameters}
    return ReviewRequest(
        candidate=verdict.candidate,
        incumbent=incumbent,
        reason=verdict.reason,
        score=verdict.score,
        incumbent_score=verdict.incumbent_score,
        low=verdict.low,
        high=verdict.high,
        n=verdict.n,
        examples=tuple(_changed_examples(evaluations, task)),
        parameters=described,
        **asked,
    )


def _described(parameter: Parameter) -> dict[str, Any]:
    spec = parameter.spec
    return {
        "kind": spec.kind,
        "description": parameter.description,
        "constraint": spec.describe(),
        "schema": spec.json_schema(),
    }


def _changed_examples(evaluations: tuple[Evaluation, Evaluation], task: Task) -> list[dict[str, Any]]:
    """Return some examples that changed: those that became worse and better in turn, then other answers."""
    before, after = evaluations
    pairs = list(zip(before.results, after.results, strict=True))
    worse = [pair for pair in pairs if _gain(pair) < 0]
    better = [pair for pair in pairs if _gain(pair) > 0]
    other = [pair for pair in pairs if _gain(pair) == 0 and to_plain(pair[0].output) != to_plain(pair[1].output)]
    half = SHOWN_EXAMPLES // 2
    few = worse[: max(half, SHOWN_EXAMPLES - len(better))]
    few += better[: SHOWN_EXAMPLES - len(few)]
    few += other[: SHOWN_EXAMPLES - len(few)]
    return [_example(old, new, task) for old, new in few]


def _gain(pair: tuple[ExampleResult, ExampleResult]) -> float:
    old, new = pair
    return (new.score or 0.0) - (old.score or 0.0)


def _example(old: ExampleResult, new: ExampleResult, task: Task) -> dict[str, Any]:
    row = task.example("dev", new.example)
    inside = next(iter(row.input.values())) if len(row.input) == 1 else dict(row.input)
    return {
        "id": new.example,
        "input": short_text(inside),
        "expected": short_text(row.expected),
        "before": short_text(old.output if old.error is None else old.error),
        "after": short_text(new.output if new.error is None else new.error),
        "before_score": old.score,
        "after_score": new.score,
        "feedback": short_text("" if new.feedback is None else new.feedback.text),
    }


def short_text(value: Any) -> str:
    """Return a value as text of bounded length."""
    text = value if isinstance(value, str) else repr(to_plain(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"

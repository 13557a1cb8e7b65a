"""What the outer loop tells: its events, its result, and its decisions as the journal keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optograph.evals import Evaluation
from optograph.graphs import Candidate
from optograph.optimizers.base import Verdict
from optograph.storage import DecisionRow


@dataclass(frozen=True, slots=True)
class LoopEvent:
    """Something that happened in the loop, for progress views.

    Attributes:
        kind: ``"ask"``, ``"evaluate"``, ``"accept"``, ``"review"`` (a person is asked) or ``"verdict"``.
        optimizer: Name of the optimizer at work.
        step: Acceptance tests so far.
        total: Acceptance tests expected.
        verdict: The verdict, where there is one.
    """

    kind: str
    optimizer: str
    step: int
    total: int
    verdict: Verdict | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON data, the candidate by its id."""
        verdict = self.verdict
        return {
            "kind": self.kind,
            "optimizer": self.optimizer,
            "step": self.step,
            "total": self.total,
            "verdict": None if verdict is None else verdict.kind,
            "candidate": None if verdict is None else verdict.candidate.id,
            "reason": None if verdict is None else verdict.reason,
            "score": None if verdict is None else verdict.score,
            "incumbent_score": None if verdict is None else verdict.incumbent_score,
        }


@dataclass(frozen=True, slots=True)
class LoopResult:
    """How a loop ended.

    Attributes:
        best: The incumbent at the end.
        start: The candidate it began with.
        best_dev: Evaluation of the best on the dev split.
        start_dev: Evaluation of the start on the dev split.
        status: ``"finished"``, or ``"budget"`` where the budget was spent first.
    """

    best: Candidate
    start: Candidate
    best_dev: Evaluation | None
    start_dev: Evaluation
    status: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict as it is written down.

    Attributes:
        verdict: The verdict.
        incumbent: Id of the candidate that it was tested against; None for the starting point.
        kind: The word for it, where that is not the verdict's own: ``"seed"`` or ``"edited"``.
        optimizer: Who proposed the candidate, where that is not the optimizer at work.
    """

    verdict: Verdict
    incumbent: str | None = None
    kind: str = ""
    optimizer: str = ""

    def row(self, *, step: int, optimizer: str, calls: int, seconds: float) -> DecisionRow:
        """Return the journal's row.

        Args:
            step: Acceptance tests so far.
            optimizer: The optimizer at work.
            calls: Calls paid so far.
            seconds: Time at work so far.
        """
        verdict = self.verdict
        return DecisionRow(
            step=step,
            optimizer=self.optimizer or optimizer,
            candidate=verdict.candidate.id,
            incumbent=self.incumbent,
            verdict=self.kind or verdict.kind,
            reason=verdict.reason,
            score=verdict.score,
            incumbent_score=verdict.incumbent_score,
            low=verdict.low,
            high=verdict.high,
            n=verdict.n,
            calls=calls,
            seconds=seconds,
        )

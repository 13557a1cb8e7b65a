"""The acceptance test: a candidate replaces the incumbent only if held-out data says so, example by example."""

from __future__ import annotations

from dataclasses import dataclass

from optograph.errors import UserError
from optograph.evals import Evaluation, paired_bootstrap
from optograph.graphs import Candidate
from optograph.optimizers.base import Verdict


@dataclass(frozen=True, slots=True)
class AcceptanceRule:
    """How sure to be.

    Attributes:
        confidence: Least share of bootstrap resamples of the paired difference that must favour the candidate,
            from 0.5 (any gain) to below 1.
    """

    confidence: float = 0.8

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise UserError(f"confidence must be from 0.5 to below 1, not {self.confidence!r}")


def judge(
    candidate: Candidate,
    incumbent: Candidate,
    after: Evaluation | None,
    before: Evaluation | None,
    rule: AcceptanceRule,
) -> Verdict:
    """Compare a nominated candidate with the incumbent on the same held-out examples.

    Args:
        candidate: The nominated candidate.
        incumbent: The best so far.
        after: Evaluation of the candidate; None where it was not evaluated because it is identical.
        before: Evaluation of the incumbent on the same examples.
        rule: How sure to be.
    """
    if candidate.id == incumbent.id or after is None or before is None:
        return Verdict("identical", "The candidate is the incumbent: nothing was changed.", candidate)
    if after.missing or before.missing:
        gone = after.missing + before.missing
        return Verdict(
            "missing",
            f"{gone} scores are missing because the endpoint failed; no verdict without them.",
            candidate,
        )
    difference = paired_bootstrap(before.scores, after.scores)
    favour = f"{difference.positive:.0%} of resamples favour it"
    gain = f"{before.mean:.3f} → {after.mean:.3f} on {difference.n} held-out examples"
    accepted = difference.mean > 0 and difference.positive >= rule.confidence
    reason = f"{gain}; {favour}, {rule.confidence:.0%} are needed."
    return Verdict(
        "accepted" if accepted else "rejected",
        reason,
        candidate,
        after.mean,
        before.mean,
        difference.low,
        difference.high,
        difference.n,
    )

"""What a review leads to: the verdict, the feedback that the optimizer gets, and the record in the journal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from optograph.graphs import Feedback
from optograph.optimizers.base import Verdict
from optograph.optimizers.reviews.asking import short_text
from optograph.optimizers.reviews.records import Review, ReviewRequest

EVENT = "review"
"""Kind of the journal's event of a review that was used."""

_SAID = {"approve": "approved", "reject": "rejected", "edit": "edited"}


def feedback_of(request: ReviewRequest, review: Review) -> Feedback | None:
    """Return what the optimizer is told of a review; None for an approval without words."""
    if review.verdict == "approve" and not review.comment.strip():
        return None
    what = _SAID[review.verdict]
    values = request.candidate.to_json()["values"]
    notes = {name: f"{what}: {short_text(values[name])}" for name in request.changed}
    for name, value in review.values.items():
        notes[name] = f"{what} to: {short_text(value)}"
    failure = "review" if review.verdict == "reject" else None
    return Feedback(None, review.comment.strip() or f"A person {what} this proposal.", failure, notes=notes)


def with_review(verdict: Verdict, review: Review) -> Verdict:
    """Return the verdict that a review leaves of the acceptance test's."""
    said = f"{_SAID[review.verdict].capitalize()} by {review.by}."
    kind = verdict.kind if review.verdict != "reject" else "rejected"
    return replace(verdict, kind=kind, reason=f"{verdict.reason} {said}")


def record_of(request: ReviewRequest, review: Review, verdict: Verdict) -> dict[str, Any]:
    """Return what the journal's ``review`` event says: who said what of which candidate, when, and what came of it.

    Args:
        request: What was asked.
        review: What was answered.
        verdict: What it led to, for the candidate or for the edit in its place.
    """
    return {
        "step": request.step,
        "candidate": request.candidate.id,
        "decides": verdict.candidate.id,
        "verdict": review.verdict,
        "comment": review.comment,
        "changed": sorted(review.values),
        "by": review.by,
        "at": review.at,
        "outcome": verdict.kind,
    }

"""Reviews: people judge candidates before these become the incumbent."""

from __future__ import annotations

from optograph.optimizers.reviews.asking import make_request
from optograph.optimizers.reviews.desk import (
    LOOP_STATE,
    ORIGIN,
    ReviewDesk,
    edited,
    file_review,
    find_review,
    now,
    pending_review,
    system_user,
)
from optograph.optimizers.reviews.outcome import EVENT, feedback_of, record_of, with_review
from optograph.optimizers.reviews.records import Review, Reviewer, ReviewKind, ReviewRequest

__all__ = [
    "EVENT",
    "LOOP_STATE",
    "ORIGIN",
    "Review",
    "ReviewDesk",
    "ReviewKind",
    "ReviewRequest",
    "Reviewer",
    "edited",
    "feedback_of",
    "file_review",
    "find_review",
    "make_request",
    "now",
    "pending_review",
    "record_of",
    "system_user",
    "with_review",
]

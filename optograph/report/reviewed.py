"""What a person said of a candidate, as the report shows it beside the decision."""

from __future__ import annotations

from optograph.report.record import Row


class ReviewRow(Row):
    """What a person said of a candidate.

    Attributes:
        verdict: ``"approve"``, ``"reject"`` or ``"edit"``.
        by: Who said it.
        at: When, as an ISO 8601 text.
        comment: In words.
    """

    verdict: str
    by: str = ""
    at: str = ""
    comment: str = ""

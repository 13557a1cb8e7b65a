"""What the rows of a report add up to."""

from __future__ import annotations

from collections.abc import Iterable


def known_sum(values: Iterable[float | None]) -> float | None:
    """Return the sum; None where one of the values is unknown, or there are none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if known and len(known) == len(found) else None

"""Code as a parameter: a function fails its unit tests, and the optimizer's model repairs it."""

from __future__ import annotations

from typing import Any

from optograph.agents import Module
from optograph.graphs import Feedback, op


class Durations(Module):
    """Reads durations such as ``1h 30m`` as minutes."""

    def __init__(self) -> None:
        @op(trainable=True, name="minutes")
        def minutes(text: str) -> int:
            """Return the number of minutes in a duration such as '45m', '2h' or '1h 30m'."""
            return int(text.rstrip("m"))

        self.minutes = minutes

    def forward(self, text: str) -> Any:
        """Return the minutes."""
        return self.minutes(text)


def unit_test(expected: int, output: object) -> Feedback:
    """Judge one unit test."""
    if output == expected and type(output) is int:
        return Feedback(score=1.0, text="Passed.")
    return Feedback(score=0.0, text=f"Failed: expected {expected!r}, got {output!r}.", failure_type="failed_test")


def build() -> Durations:
    """Make the workflow for a job."""
    return Durations()

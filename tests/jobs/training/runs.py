"""What tests of whole training runs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from optograph.jobs import RunResult
from optograph.jobs.training.records import STATE, TrainState
from optograph.storage import Journal

Run = Callable[..., RunResult]
"""Trains a job with a toy and overrides."""


class Crash(BaseException):
    """Something that nobody catches, as a dying process."""


def state_of(directory: Path) -> TrainState:
    """Return where a run stands."""
    with Journal.read(directory) as journal:
        return TrainState.model_validate(journal.load_state(STATE))

"""A job whose policy is one number, and what trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optograph.jobs import RunResult, load_job
from optograph.jobs.training.train import train_job
from tests.jobs.training.runs import Run
from tests.jobs.training.toys import Toy, write_job


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The job's file."""
    return write_job(tmp_path / "job")


@pytest.fixture
def train(job: Path, tmp_path: Path) -> Run:
    """Train the job in ``tmp_path / "run"``."""

    def run(toy: Toy, *overrides: str, directory: Path | None = None, **options: Any) -> RunResult:
        loaded = load_job(job, list(overrides))
        return train_job(loaded, job.parent, directory or tmp_path / "run", make_parts=toy.parts, **options)

    return run

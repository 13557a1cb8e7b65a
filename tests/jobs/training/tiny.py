"""Real training and real tokens over a tiny model: trainer and server of one life of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optograph.jobs import Job
from optograph.jobs.training.defaults import PolicyTrainer
from optograph.jobs.training.parts import Parts, Progress, Trained
from optograph.optimizers.policy.base import BaseModelFiles
from tests.jobs.training.tiny_server import CAPABILITIES, TinyServer


class WatchedTrainer(PolicyTrainer):
    """Trains, and tells of each step."""

    during: Callable[[int], None] = staticmethod(lambda step: None)

    def train(self, *rows: Any, progress: Progress, **options: Any) -> Trained:
        """Train."""

        def told(done: int, total: int, metrics: Mapping[str, float]) -> None:
            self.during(done)
            progress(done, total, metrics)

        return super().train(*rows, progress=told, **options)


class Tiny:
    """Trainer and server of a run."""

    def __init__(self, base: BaseModelFiles) -> None:
        self.trainer = WatchedTrainer(base)
        self.server = TinyServer(base)

    def parts(self, job: Job, base: Path, run_dir: Path) -> Parts:
        """Make the parts."""
        return Parts(self.trainer, lambda: self.server, CAPABILITIES)

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
from tests.jobs.training.toys import write_job

JOB = """
name = "tiny"

[workflow]
target = "app.py:build"

[task]
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
inputs = ["question"]
expected = "answer"
scorer = "app.py:score"

[models]
task = "{base}"

[policy]
method = "oreo"
rounds = 2
samples = 4
rank = 4
learning_rate = 0.02
critic_learning_rate = 0.02
batch_size = 8
beta = 0.05
threads = 1
warmup = 0
epochs = 3

[evaluation]
concurrency = 4

[acceptance]
confidence = 0.5
"""

APP = '''
"""A workflow of one call, judged by how much of the answer is written in small letters from a to m."""

import optograph as og
from optograph.context import call_context
from optograph.serving import Request


def build(lm):
    @og.op
    async def solve(question):
        with call_context(node="solve"):
            return (await lm.complete(Request(messages=og.serving.messages_of(question), max_tokens=6))).text

    return solve


def score(expected, output):
    return sum("a" <= one <= "m" for one in output) / 6
'''


def write_tiny_job(folder: Path, base: Path) -> Path:
    """Write a job for the tiny model, and return its file."""
    return write_job(folder, JOB.replace("{base}", str(base)), APP, sizes=(6, 8, 6))


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

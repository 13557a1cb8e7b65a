"""A job for a tiny model, quick to train; nothing heavy is imported for it."""

from __future__ import annotations

from pathlib import Path

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

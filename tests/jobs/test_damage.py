"""What a disk or a clock can do to a run: flipped bytes, a cut file, no space, another day. It goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import StorageError
from optograph.evals import Task
from optograph.jobs import RunOptions, optimize
from optograph.optimizers import OptoPrime, OptoPrimeOptions
from optograph.serving import Request, ScriptedLM
from optograph.storage import Journal

FLIPS = 200


@pytest.fixture
def start(make_moods: Callable[[ScriptedLM], Any], task: Task, task_lm: ScriptedLM) -> Callable[[Path], bytes]:
    """Begin or go on with a run; returns the bytes of its result."""

    def reply(request: Request) -> Any:
        if "improve a program" in request.messages[0].content:
            return {"reasoning": "r", "answer": "CHANGE", "suggestion": {"judge.instruction": "Judge carefully."}}
        assert task_lm._script is not None
        return task_lm._script(request)

    def run(directory: Path) -> bytes:
        lm = ScriptedLM(reply, name="obedient")
        optimizer = OptoPrime(OptoPrimeOptions(steps=1, minibatch=4))
        optimize(make_moods(lm), task, optimizer=optimizer, options=RunOptions(run_dir=directory))
        return (directory / "result.json").read_bytes()

    return run


def copy_of(whole: Path, directory: Path) -> Path:
    """Copy a run as it was just before its result was written; returns the journal's file."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(whole, directory)
    (directory / "result.json").unlink()
    return directory / "journal.db"


def test_flipped_bytes_never_change_a_result(start: Callable[[Path], bytes], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    expected = start(whole)
    rng = random.Random(0)
    for _ in range(FLIPS):
        file = copy_of(whole, tmp_path / "run")
        data = bytearray(file.read_bytes())
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        assert start(tmp_path / "run") == expected, f"a flip at byte {at} changed the result"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_a_cut_journal_is_filled_again(start: Callable[[Path], bytes], tmp_path: Path, share: float) -> None:
    expected = start(tmp_path / "whole")
    file = copy_of(tmp_path / "whole", tmp_path / "run")
    os.truncate(file, int(file.stat().st_size * share))
    assert start(tmp_path / "run") == expected


@pytest.mark.parametrize("days", [-1, 1])
def test_another_day_changes_nothing(
    start: Callable[[Path], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    expected = start(tmp_path / "whole")
    copy_of(tmp_path / "whole", tmp_path / "run")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400 * days)
    assert start(tmp_path / "run") == expected
    with Journal.read(tmp_path / "run") as journal:
        assert 0 < journal.active_s < 3600


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_ends_a_run_with_advice_and_it_goes_on_later(
    start: Callable[[Path], bytes], tmp_path: Path, small_disk: Path
) -> None:
    expected = start(tmp_path / "whole")
    (small_disk / "ballast").write_bytes(b"x" * 150_000)
    with pytest.raises((StorageError, OSError)) as caught:
        start(small_disk / "run")
    assert isinstance(caught.value, StorageError), repr(caught.value)
    assert "resume" in str(caught.value)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert start(small_disk / "run") == expected
    assert json.loads(expected)["status"] == "finished"

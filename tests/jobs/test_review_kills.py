"""A run that is paused for a review is killed around each pause and answer, and on other days: nothing is lost."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import StorageError
from optograph.optimizers import pending_review
from optograph.optimizers.checkpoints import CHECKPOINTS
from optograph.storage import Journal

WAITING, FINISHED, ANSWERED = 3, 4, 5
"""How a life ends; see ``review_lives.py``."""
KILLED = -signal.SIGKILL
KINDS = ("run", "answer", "run", "answer", "run", "answer", "run")
"""The lives of the run that nobody kills: an edit that fails, a rejection with words, an edit that passes."""
MOST_LIVES = 20


class Lives:
    """Starts lives of runs, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.passes: list[int] = []

    def live(self, directory: Path, do: str, **how: Any) -> int:
        """Live a life to its end; returns its exit status."""
        self.tell({"do": do, "directory": str(directory), **how})
        end = self.hear()
        self.passes.append(end["passes"])
        return int(end["status"])

    def tell(self, how: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(how) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the parent of the lives has ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def finish(self, directory: Path, **how: Any) -> list[int]:
        """Run and answer in turn until the run is finished; returns the exit statuses."""
        ends: list[int] = []
        while FINISHED not in ends:
            assert len(ends) < MOST_LIVES, ends
            waits = ends and ends[-1] == WAITING
            ends.append(self.live(directory, "answer" if waits else "run", **how))
            assert ends[-1] in (WAITING, ANSWERED, FINISHED), ends
        return ends


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    command = [sys.executable, "-W", "error", "-m", "tests.jobs.review_lives"]
    folder = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Lives(process)


@pytest.fixture(scope="module")
def whole(lives: Lives, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody killed."""
    folder = tmp_path_factory.mktemp("whole")
    directory = folder / "run"
    lives.passes.clear()
    for number, kind in enumerate(KINDS):
        if number:
            shutil.copytree(directory, folder / str(number))
        lives.live(directory, kind)
    (folder / "passes.json").write_text(json.dumps(lives.passes))
    assert (directory / "result.json").is_file()
    return directory


def story(directory: Path) -> dict[str, Any]:
    """Return what a run decided, without times."""
    with Journal.read(directory) as journal:
        decisions = [row.model_dump() | {"seconds": 0.0, "calls": 0} for row in journal.decisions()]
        events = [
            one | {"at": "", "seconds": 0} for kind in ("review", "optoprime.step") for one in journal.events(kind)
        ]
        assert all(one["by"] and one["at"].endswith("+00:00") for one in journal.events("review"))
        asked = [row.key for row in journal.calls()]
    assert len(asked) == len(set(asked))
    return {"decisions": decisions, "events": events, "result": (directory / "result.json").read_bytes()}


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_a_kill_at_any_commit_changes_nothing(lives: Lives, whole: Path, tmp_path: Path, number: int) -> None:
    """Each life is killed before, and after, each of its commits around the pause, the answer and its use."""
    expected, kills = story(whole), 0
    passes = json.loads((whole.parent / "passes.json").read_text())[number]
    # What is far from a pause is killed elsewhere.
    hits = range(passes - 4, passes + 1) if number == 0 else range(2, min(passes, 13) + 1)
    for hit, failpoint in zip(hits, itertools.cycle(["journal.committed", "journal.commit"]), strict=False):
        directory = tmp_path / str(hit)
        if number:
            shutil.copytree(whole.parent / str(number), directory)
        end = lives.live(directory, KINDS[number], failpoint=failpoint, hit=hit)
        kills += end == KILLED
        assert end == KILLED or lives.passes[-1] < hit  # fewer commits, each of more batches
        for suffix in ("", "-wal", "-shm"):
            (directory / f"{CHECKPOINTS}{suffix}").unlink(missing_ok=True)
        lives.finish(directory)
        assert story(directory) == expected, hit
    assert kills >= 2


def test_a_kill_while_a_function_waits_for_its_person(lives: Lives, whole: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    lives.tell({"do": "run", "directory": str(directory), "asking": True, "hangs": True})
    pid = lives.hear()["pid"]
    while not _waits(directory):
        assert Path(f"/proc/{pid}").exists()
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert lives.hear()["status"] == KILLED
    assert lives.live(directory, "run", asking=True) == FINISHED
    assert story(directory) == story(whole)


def _waits(directory: Path) -> bool:
    try:
        with Journal.read(directory) as journal:
            return pending_review(journal) is not None
    except StorageError:  # it is only starting
        return False


@pytest.mark.parametrize("days", [-1, 1])
def test_another_day_changes_nothing(lives: Lives, whole: Path, tmp_path: Path, days: int) -> None:
    directory = tmp_path / "run"
    assert lives.live(directory, "run") == WAITING
    assert lives.live(directory, "answer", days=days) == ANSWERED
    lives.finish(directory, days=days)
    assert story(directory) == story(whole)
    with Journal.read(directory) as journal:
        assert journal.active_s < 600
        at = datetime.fromisoformat(journal.events("review")[0]["at"])
    assert abs((at - datetime.now(UTC)).total_seconds() - 86_400 * days) < 600

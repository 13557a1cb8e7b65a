"""A process killed at any point of a write: what was committed is there, what was not is wholly absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from optograph.errors import UserError
from optograph.storage import FAILPOINTS, Journal, failpoint, failpoints

BATCHES = 12

LIFE = """
import sys, threading
from optograph.storage import CallRow, EvaluationRow, DecisionRow, Journal, writer
writer._CHECKPOINT_BYTES = 1  # so that checkpoints come between the batches
writer._IDLE_S = 0.0001
with Journal.open(sys.argv[1]) as journal:
    for index in range(len(journal.calls()), int(sys.argv[2])):
        batch = journal.batch()
        request, completion = batch.put(["q", index, "x" * 6000]), batch.put(["a", index])
        batch.add_call(CallRow(key=f"k{index}", context={}, identity={}, request=request, completion=completion))
        batch.add_evaluation(
            EvaluationRow(candidate="c", split="dev", example=f"e{index}", feedback={"score": 1.0}, output=completion)
        )
        batch.add_decision(
            DecisionRow(step=index, optimizer="o", candidate="c", incumbent=None, verdict="v", reason="")
        )
        batch.save_state("loop", {"next": index + 1})
        batch.add_event("tick", n=index)
        batch.set_meta("at", index)
        batch.commit()
        print(index, flush=True)
        if index % 3 == 0:
            threading.Event().wait(0.01)
"""


def live(directory: Path, setting: str) -> tuple[int, int]:
    """Run a life; returns its exit status, and the number of the last batch that it knew to be committed (-1: none)."""
    done = subprocess.run(
        [sys.executable, "-c", LIFE, str(directory), str(BATCHES)],
        env={**os.environ, "OPTOGRAPH_FAILPOINT": setting},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = done.stdout.split()
    return done.returncode, int(lines[-1]) if lines else -1


def check(directory: Path) -> int:
    """Check that batches are there wholly or not at all; returns how many are."""
    with Journal.open(directory) as journal:
        assert not journal.damage
        calls = journal.calls()
        number = len(calls)
        assert [row.key for row in calls] == [f"k{index}" for index in range(number)]
        for index, row in enumerate(calls):
            assert row.completion is not None
            assert journal.get(row.request)[:2] == ["q", index]
            assert journal.get(row.completion) == ["a", index]
            assert journal.find_evaluation("c", "dev", f"e{index}", 0) is not None
        assert len(journal.evaluations()) == number
        assert [row.step for row in journal.decisions()] == list(range(number))
        assert [one["n"] for one in journal.events("tick")] == list(range(number))
        assert journal.load_state("loop") == (None if number == 0 else {"next": number})
        assert journal.get_meta("at") == (None if number == 0 else number - 1)
        return number


@pytest.mark.parametrize("name", [name for name in FAILPOINTS if name.startswith("journal.")])
def test_a_kill_at_each_point_loses_no_committed_batch(tmp_path: Path, name: str) -> None:
    known = -1
    for hit in (1, 4, 19):
        status, last = live(tmp_path, f"{name}:{hit}")
        assert status in (-signal.SIGKILL, 0)
        known = max(known, last)
        there = check(tmp_path)
        assert known + 1 <= there <= known + 2, f"{name}:{hit}"
        if hit == 1:
            assert status == -signal.SIGKILL
    assert live(tmp_path, "")[0] == 0
    assert check(tmp_path) == BATCHES


@pytest.mark.parametrize("setting", ["nothing:1", "journal.begin:0", "journal.begin:x"])
def test_a_wrong_setting_is_refused(setting: str) -> None:
    with pytest.raises(UserError, match=setting):
        failpoints._Armed(setting)


def test_a_point_that_is_not_armed_does_nothing() -> None:
    for name in FAILPOINTS:
        failpoint(name)

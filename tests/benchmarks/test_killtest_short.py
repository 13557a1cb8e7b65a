"""The kill test in its short form: twenty kills, every bar kept, and the counting itself can see what it is to find."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.kills.outside import Committed  # noqa: E402 - found by the line above
from benchmarks.kills.series import Kill, Run  # noqa: E402
from benchmarks.kills.server import Logged  # noqa: E402
from benchmarks.kills.tally import answered_again, least_progress, phases, tally  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd and /proc")

WHOLE = Run(
    log=[Logged(name, "route", answered=True) for name in "abcd"],
    result=b"result",
    final=Committed(Counter("abcd"), Counter("ABCD"), Counter("abcdABCD"), ("seed",), has_job=True),
)


def killed(asked: str, at: int, on_disk: str, **final: Counter[str]) -> Run:
    """Make a run that was killed once: after ``at`` requests, with calls (small) and evaluations (capital) on disk."""
    small = Counter(letter for letter in on_disk if letter.islower())
    committed = Committed(small, Counter(on_disk.upper()) & WHOLE.final.evaluations, Counter(on_disk))
    end = Committed(
        WHOLE.final.calls,
        final.get("evaluations", WHOLE.final.evaluations),
        final.get("rows", WHOLE.final.rows),
        ("seed",),
        has_job=True,
    )
    log = [Logged(letter, "route", answered=True) for letter in asked]
    return Run(log, [Kill("random", at, frozenset(range(at)), committed)], b"result", end)


def test_twenty_kills_keep_every_bar() -> None:
    command = [sys.executable, "benchmarks/killtest.py", "--kills", "20", "--latency-ms", "10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(pair.split("=") for pair in done.stdout.splitlines()[-1].split())
    assert figures["repeated_calls"] == figures["lost_evaluations"] == figures["over_budget"] == "0"
    assert int(figures["extra_per_kill_max"]) <= 8
    assert figures["identical"] == figures["slow_lives_finished"] == "1"
    assert int(figures["kills"]) >= 20


def test_a_call_in_flight_is_extra_and_not_repeated() -> None:
    counted = tally([killed("abcbcd", 3, "aA")], WHOLE)
    assert (counted.repeated, counted.lost, counted.extra) == (0, 0, (2,))
    assert (counted.requests, counted.distinct) == (6, 4)


def test_a_committed_call_asked_again_is_seen() -> None:
    run = killed("abacd", 2, "aA")
    counted = tally([run], WHOLE)
    assert (counted.repeated, counted.extra) == (1, (1,))
    assert answered_again(run) == 1


def test_a_lost_or_repeated_row_is_seen() -> None:
    gone = killed("abcd", 2, "aA", rows=Counter("bcdABCD"))
    redone = killed("abcd", 2, "aA", evaluations=Counter("AABCD"))
    missing = killed("abcd", 2, "aA", evaluations=Counter("BCD"))
    assert [tally([run], WHOLE).lost for run in (gone, redone, missing)] == [1, 1, 1]
    assert [tally([run], WHOLE, cut_short=True).lost for run in (gone, redone, missing)] == [1, 1, 0]


def test_another_result_is_seen() -> None:
    run = killed("abcd", 2, "aA")
    run.result = b"another"
    counted = tally([run, killed("abcd", 2, "aA")], WHOLE)
    assert (counted.runs, counted.same_result, counted.same_decisions) == (2, 1, 2)


def test_progress_and_phases_are_counted() -> None:
    run = killed("abcd", 2, "aA")
    run.kills.append(Kill("random", 4, frozenset(range(4)), run.kills[0].committed))
    assert least_progress(run) == 0
    assert phases([run]) == (0, 1, 0, 1)

"""A short form of the fault benchmark: every evaluation ends, typed where it failed, and none is scored silently."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "faults.py"


def test_one_hundred_evaluations_against_a_broken_server() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--evaluations", "100"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(pair.split("=") for pair in done.stdout.splitlines()[-1].split())
    assert figures["evaluations"] == "200"
    assert figures["untyped"] == figures["scored_silently"] == "0"
    assert int(figures["modes"]) >= 14
    assert int(figures["failed_typed"]) > 0

"""A short form of the blame benchmark: the graph finds the wrong prompt, and without it nothing does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "blame.py"


def test_the_wrong_prompt_of_each_node_is_found_and_mended() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--seeds", "13"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(pair.split("=") for pair in done.stdout.splitlines()[-1].split())
    assert float(figures["repaired_graph"]) >= 0.95
    assert float(figures["repaired_masked"]) < 0.5 and float(figures["repaired_shuffled"]) < 0.5
    assert figures["subgraphs_sound"] == "1"

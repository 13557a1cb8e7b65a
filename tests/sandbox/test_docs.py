"""The code in the sandbox's page of the documentation runs, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from optograph.sandbox import availability
from tests.sandbox.attacks import ATTACKS

PAGE = (Path(__file__).parents[2] / "docs/sandbox.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
pytestmark = pytest.mark.skipif(not availability().usable, reason="; ".join(availability().reasons) or "usable")


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_each_block_runs(block: str, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(block)
    done = subprocess.run(
        [sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"# ?> (.*)", block)


def test_figures_and_names_are_true() -> None:
    assert f"makes {len(ATTACKS)} attacks" in PAGE
    assert len(BLOCKS) == 2

"""What docs/policy.md shows is true, and losses say what they need where torch is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs/policy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("block", BLOCKS, ids=["rows", "groups", "losses", "search"])
def test_each_block_runs_and_prints_what_it_says(block: str, tmp_path: Path) -> None:
    file = tmp_path / "block.py"  # source is read from files
    file.write_text(block, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = re.findall(r"# ?> (.*)", block)
    assert expected
    assert done.stdout.splitlines() == expected


def test_rows_need_no_torch_and_losses_say_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from optograph.errors import UserError\n"
        "from optograph.optimizers.policy import training_rows\n"
        "from optograph.optimizers import policy\n"
        "try: policy.oreo_losses\n"
        "except UserError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "'oreo_losses' needs torch: pip install 'optograph[train]'", done.stderr

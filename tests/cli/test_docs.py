"""The page about the command line tells the truth: its commands and options exist, and its code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from optograph import cli

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
ROOT = get_command(cli.app)


def options_of(words: list[str]) -> set[str]:
    command = ROOT
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    return {option for one in command.params for option in one.opts}


ROWS = re.findall(r"^\| `optograph ([^|]*) \|([^\n]*)$", PAGE, re.MULTILINE)


def test_every_command_has_a_row() -> None:
    assert {row[0].split()[0].strip("`") for row in ROWS} == set(ROOT.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("row", ROWS, ids=[row[0].split()[0].strip("`") for row in ROWS])
def test_the_options_of_each_row_exist(row: tuple[str, str]) -> None:
    name = row[0].split()[0].strip("`")
    words = ["models", "pull"] if name == "models" else [name]
    assert set(re.findall(r"--[a-z-]+", row[1])) <= options_of(words)


def test_the_commands_of_the_page_parse() -> None:
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            words = line.partition("#")[0].rstrip(" &").split()[1:]
            ROOT.commands[words[0]].make_context(words[0], words[1:])  # type: ignore[attr-defined]


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_the_code_of_the_page_runs(block: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

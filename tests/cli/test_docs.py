"""The pages about the command line tell the truth: their commands and options exist, and their code runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from optograph import cli
from optograph.storage import schema

FOLDER = Path(__file__).parents[2]
LEAST_COMMANDS = {
    "README.md": 7,
    "docs/command-line.md": 4,
    "docs/runs.md": 5,
    "docs/review.md": 4,
    "docs/langgraph.md": 3,
}
"""Pages that show commands, and how many of them they show at least."""
TEXTS = {name: (FOLDER / name).read_text(encoding="utf-8") for name in LEAST_COMMANDS}
PAGE = TEXTS["docs/command-line.md"]
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


def commands_in(page: str) -> list[list[str]]:
    """Return the words of each command line of optograph in a page's shell blocks, without comments."""
    lines = "\n".join(re.findall(r"```(?:ba)?sh\n(.*?)```", page, re.DOTALL)).splitlines()
    words = (shlex.split(line, comments=True) for line in lines)
    return [[word for word in one if word != "&"] for one in words if one[:1] == ["optograph"]]


def test_commands_are_found() -> None:
    assert commands_in("```sh\nls\noptograph stop A  # now\n```\n```bash\noptograph diff 'A B' C &\n```\n") == [
        ["optograph", "stop", "A"],
        ["optograph", "diff", "A B", "C"],
    ]
    found = {name: len(commands_in(text)) for name, text in TEXTS.items()}
    assert all(found[name] >= least for name, least in LEAST_COMMANDS.items()), found


@pytest.mark.parametrize(
    "words", [pytest.param(one, id=" ".join(one[1:])) for text in TEXTS.values() for one in commands_in(text)]
)
def test_the_commands_of_the_pages_parse(words: list[str]) -> None:
    command: Any = ROOT
    rest = words[1:]
    while hasattr(command, "commands"):
        name, *rest = rest
        assert name in command.commands
        command = command.commands[name]
    with command.make_context(name, list(rest)) as context:
        given = [
            str(one) for value in context.params.values() for one in (value if isinstance(value, list) else [value])
        ]
    assert {word for word in rest if not word.startswith("-")} <= set(given)
    with pytest.raises(Exception, match="No such option: --wrong"):
        command.make_context(name, [*rest, "--wrong"])


BLOCKS = [
    pytest.param(block, id=f"{name}-{number}")
    for name in ("command-line", "runs", "journal", "langgraph")
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", (FOLDER / "docs" / f"{name}.md").read_text(encoding="utf-8"), re.DOTALL)
    )
]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_code_of_the_pages_runs_and_prints_what_they_say(block: str, tmp_path: Path) -> None:
    script = tmp_path / "block.py"  # a file, so that functions have a source
    script.write_text(block, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"# ?> (.*)", block)


def test_the_page_about_the_journal_knows_its_tables_and_version() -> None:
    page = (FOLDER / "docs" / "journal.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [*schema.TABLES, "payloads", "meta"]
    assert f"The schema version stands in `meta`; it is {schema.SCHEMA_VERSION}." in page


def test_there_is_code_to_run() -> None:
    assert len(BLOCKS) >= 8

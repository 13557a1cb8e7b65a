"""Every command explains itself: a purpose, an example that parses, completion, and plain output where it belongs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from optograph import __version__, cli
from optograph.cli import output, rundirs
from optograph.errors import StorageError

Command = Callable[..., Any]

NAMES = {
    "run",
    "train",
    "resume",
    "status",
    "stop",
    "report",
    "review",
    "graph",
    "inspect",
    "diff",
    "export",
    "estimate",
    "doctor",
    "serve",
    "models list",
    "models pull",
}


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command with its full name."""
    for name, one in group.commands.items():
        if getattr(one, "commands", None):
            yield from commands(one, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", one


COMMANDS = dict(commands(get_command(cli.app)))


def test_all_commands_are_there() -> None:
    assert set(COMMANDS) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_help_has_a_purpose_and_an_example_that_parses(name: str) -> None:
    shown = CliRunner().invoke(cli.app, [*name.split(), "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert shown.exit_code == 0
    purpose = (COMMANDS[name].callback.__doc__ or "").split("\n")[0]
    assert purpose.endswith(".")
    assert "--json" in shown.output
    found = re.search(r"Example: (optograph .*?)\s*$", shown.output, re.MULTILINE)
    assert found, shown.output
    words = shlex.split(found[1])
    assert words[1 : 1 + len(name.split())] == name.split()
    with COMMANDS[name].make_context(name, words[1 + len(name.split()) :]) as context:
        assert context.params


def test_help_and_version_in_a_process(process: Command) -> None:
    done = process("--help")
    assert done.code == 0
    assert all(name.split()[0] in done.out for name in NAMES)
    assert "130 interrupted" in done.out
    assert process("--version").out.strip() == f"optograph {__version__}"


def test_help_and_completion_load_nothing_heavy() -> None:
    code = "import sys, optograph.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"datasets", "langgraph", "xllamacpp", "jinja2", "aiohttp", "openai", "pydantic"}
    assert not heavy & set(seen.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_produced(shell: str) -> None:
    environment = {**os.environ, "_OPTOGRAPH_COMPLETE": f"source_{shell}", "SHELL": f"/bin/{shell}"}
    command = [sys.executable, "-m", "optograph"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert "_OPTOGRAPH_COMPLETE" in done.stdout, done.stderr
    assert "complete" in done.stdout


def test_the_shell_completes_commands_and_runs(folder: Path, finished: Path) -> None:
    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - (0 if line.endswith(" ") else 1))}
        environment = {**os.environ, "_OPTOGRAPH_COMPLETE": "complete_bash", **words}
        command = [sys.executable, "-m", "optograph"]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=folder, check=False, timeout=60
        )
        return done.stdout.split()

    assert "resume" in completed("optograph re")
    assert completed("optograph status mo") == ["moods-001"]
    assert completed("optograph diff runs/m") == ["runs/moods-001"]
    assert completed("optograph run job.toml --fork mo") == ["moods-001"]


def test_completion_of_run_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rundirs.complete_runs("") == []
    assert rundirs.complete_runs("nowhere/x") == []
    for name in ("runs/a-001", "runs/a-002", "runs/b-001", "own"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "journal.db").touch()
    (tmp_path / "runs" / "a-notes").mkdir()
    assert rundirs.complete_runs("a") == ["a-001", "a-002"]
    assert rundirs.complete_runs("o") == ["own"]
    assert rundirs.complete_runs("runs/b") == ["runs/b-001"]
    assert rundirs.complete_runs(f"{tmp_path}/runs/a") == [f"{tmp_path}/runs/a-001", f"{tmp_path}/runs/a-002"]


@pytest.mark.parametrize("name", ["resume", "status", "stop", "report", "export"])
def test_a_run_that_is_not_there(here: Command, finished: Path, name: str) -> None:
    near = here(name, "moods-01")
    assert (near.code, near.out) == (2, "")
    assert "did you mean 'runs/moods-001'" in near.err
    far = here(name, "nothing/at/all", "--json")
    assert far.code == 2
    assert far.data["error"]["type"] == "UserError"
    assert "'nothing/at/all' does not exist" in far.data["error"]["message"]
    assert "Traceback" not in far.err


def test_a_wrong_call_is_a_document_too(here: Command) -> None:
    done = here("status", "--json", "--wtach")
    assert done.code == 2
    assert done.data["error"]["type"] == "UsageError"
    assert "--wtach" in done.err


def test_a_defect_is_no_failed_check(here: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(rundirs, "is_run", broken)
    done = here("report", "x")
    assert done.code == 2
    assert "Traceback" in done.err
    assert "defect of optograph" in done.err

    def full(*arguments: Any) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr(rundirs, "is_run", full)
    done = here("report", "x")
    assert (done.code, done.err.strip()) == (2, "error: no space left")


def test_hostile_texts_do_not_reach_the_terminal(here: Command) -> None:
    done = here("status", "\x1b]0;title\x07 [bold]runs[/bold]")
    assert done.code == 2
    assert "\x1b" not in done.err
    assert "[bold]runs[/bold]" in done.err


def test_no_colours_where_none_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert output.console().no_color

"""What the commands share: exit codes, the job and its options, consoles, and one way to print results and errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

EXIT_FAILED = 1
"""A check or a comparison failed."""
EXIT_ERROR = 2
"""The user, an endpoint or the storage must be put right."""
EXIT_INTERRUPTED = 130
"""Ctrl-C or SIGTERM ended the command."""

PIPE_WIDTH = 120
"""Columns where the output is no terminal, so that tables in logs are not cut to 80."""

JobArgument = Annotated[Path, typer.Argument(metavar="JOB", help="The job file (TOML).", show_default=False)]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on standard output; all else goes to standard error."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key of the job, such as optimizer.seed=1; may be repeated."
    ),
]


def console(*, errors: bool = False) -> Console:
    """Return a console on standard output, or on standard error.

    Colours and control codes go to terminals only, and ``NO_COLOR`` is honoured.
    """
    from rich.console import Console

    stream = sys.stderr if errors else sys.stdout
    return Console(stderr=errors, highlight=False, width=None if stream.isatty() else PIPE_WIDTH)


def print_json(data: Any) -> None:
    """Print the one JSON document of a command that was called with ``--json``."""
    typer.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))


def complain(message: str, *notes: str) -> None:
    """Print an error and what can be done about it on standard error."""
    from rich.text import Text

    from optograph.report.record import clean_text

    errors = console(errors=True)
    errors.print(Text.assemble(("error: ", "bold red"), clean_text(message)), soft_wrap=True)
    for note in notes:
        errors.print(Text(clean_text(note)), soft_wrap=True)


def say(message: str) -> None:
    """Print a remark on standard error, where it cannot mix with a result."""
    from rich.text import Text

    from optograph.report.record import clean_text

    console(errors=True).print(Text(clean_text(message)), soft_wrap=True)

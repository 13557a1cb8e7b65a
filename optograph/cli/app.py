"""The command line put together: every command under its name, and what becomes of errors."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
from typing import Annotated

import typer

from optograph.cli import (
    doctor,
    exporting,
    graphing,
    inspecting,
    models,
    planning,
    reports,
    reviewing,
    running,
    serving,
    stopping,
    training,
    watching,
)
from optograph.cli.output import EXIT_ERROR, EXIT_INTERRUPTED, complain, print_json
from optograph.errors import OptographError

app = typer.Typer(
    name="optograph",
    help="Trace workflows as graphs and improve what the feedback blames: prompts, code, numbers and weights.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a check or comparison failed, 2 something must be put right, 130 interrupted.",
)
models_app = typer.Typer(help="List and fetch the models that run inside this process.", no_args_is_help=True)

for _panel, _name, _command in (
    ("Run", "run", running.run),
    ("Run", "train", training.train),
    ("Run", "resume", running.resume),
    ("Run", "review", reviewing.review),
    ("Run", "stop", stopping.stop),
    ("Look", "status", watching.status),
    ("Look", "report", reports.report),
    ("Look", "diff", reports.diff),
    ("Look", "export", exporting.export),
    ("Prepare", "doctor", doctor.doctor),
    ("Prepare", "estimate", planning.estimate),
    ("Prepare", "graph", graphing.graph),
    ("Prepare", "inspect", inspecting.inspect),
    ("Prepare", "serve", serving.serve),
):
    app.command(_name, rich_help_panel=_panel)(_command)
app.add_typer(models_app, name="models", rich_help_panel="Prepare")
models_app.command("list")(models.list_models)
models_app.command("pull")(models.pull_model)


def _print_version(wanted: bool) -> None:
    if wanted:
        from optograph import __version__

        typer.echo(f"optograph {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before the command."""


def main() -> None:
    """Run the command line; errors that a user can put right show no traceback and exit with 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a mark that the terminal cannot show is no reason to fail
    try:
        app(prog_name="optograph")
    except SystemExit as ended:
        if ended.code == EXIT_ERROR and _wants_json():  # a mistake in the call itself, told already
            print_json({"error": {"type": "UsageError", "message": "the call is wrong: see standard error"}})
        raise
    except OptographError as error:
        _fail(type(error).__name__, str(error), *getattr(error, "__notes__", ()))
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        where = f"{str(error.filename)!r}: " if error.filename else ""
        _fail(type(error).__name__, f"{where}{error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - the last door: an exit code of 1 would read as a failed check
        traceback.print_exception(error)
        _fail(type(error).__name__, f"{error}", "This is a defect of optograph: please report it with the lines above.")


def _wants_json() -> bool:
    return "--json" in sys.argv[1:]


def _fail(kind: str, message: str, *notes: str) -> None:
    """Print an error, as a document too where one was asked for, and exit."""
    complain(message, *notes)
    if _wants_json():
        with contextlib.suppress(BrokenPipeError):
            print_json({"error": {"type": kind, "message": " ".join([message, *notes])}})
    sys.exit(EXIT_ERROR)

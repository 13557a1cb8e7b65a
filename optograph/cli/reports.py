"""``optograph report`` and ``optograph diff``: a run as a page, and two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optograph.cli.exporting import VALUES
from optograph.cli.output import EXIT_FAILED, AsJson, console, print_json, say
from optograph.cli.rundirs import RunArgument, find_run, is_run, run_argument
from optograph.errors import UserError

if TYPE_CHECKING:
    from optograph.report import Comparison, RunReport


def report(
    directory: RunArgument,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the HTML report of a run again, finished or not, and print where it is.

    Example: [bold]optograph report runs/reviews-001 --open[/bold]
    """
    from optograph.jobs.reporting import rebuild_report

    path = rebuild_report(find_run(directory))
    if as_json:
        print_json({"report": str(path)})
    else:
        typer.echo(str(path))
    if open_it and not _open(path):
        say(f"no browser could be opened here: open {path} yourself")


def _open(path: Path) -> bool:
    import webbrowser

    return webbrowser.open(path.resolve().as_uri())


Side = Annotated[Path, run_argument("A run, by directory or name, or a file of exported parameters.", metavar=None)]


def diff(
    a: Side,
    b: Side,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit with 1 where B scores below A, or where the scores cannot be compared."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how two runs or two exported candidates differ: settings, parameters, scores and cost.

    Example: [bold]optograph diff runs/reviews-001 runs/reviews-002[/bold]
    """
    from optograph.report import compare_runs, print_comparison

    found = compare_runs(_side(a), _side(b))
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_comparison(found, console())
    problem = _why_worse(found) if check else None
    if problem is not None:
        say(f"check failed: {problem}")
        raise typer.Exit(EXIT_FAILED)


def _why_worse(found: Comparison) -> str | None:
    """Say why the second side is no match for the first; None where it is: on the sealed test, else on dev."""
    for row in found.scores:
        if row.a is None or row.b is None:
            continue
        below = row.b < row.a if row.difference is None else row.verdict == "loss"
        return f"{found.b!r} scores {row.b:.3f} on {row.split}, {found.a!r} scores {row.a:.3f}" if below else None
    return f"{found.a!r} and {found.b!r} have no scores on the same split"


def _side(given: Path) -> RunReport:
    """Return what is to be compared: the report of a run, or a report that holds nothing but exported values."""
    from optograph.jobs.reporting import load_report
    from optograph.report import CandidateRow, RunReport

    file = given / VALUES if (given / VALUES).is_file() and not is_run(given) else given
    if not file.is_file():
        return load_report(find_run(given))
    values = _exported(file)
    name = file.parent.name if file.name == VALUES else file.stem
    candidate = CandidateRow(id=name or "exported", origin="exported", values=values, accepted=True, final=True)
    return RunReport(title=str(given), run=name, status="exported values", candidates=[candidate])


def _exported(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {str(file)!r} ({error}): give a run, or a {VALUES} that export wrote") from error
    if isinstance(data, dict) and isinstance(data.get("values"), dict) and "id" in data:
        data = data["values"]  # a candidate's record
    if not isinstance(data, dict):
        raise UserError(f"{str(file)!r} holds no parameters by name: give a run, or a {VALUES} that export wrote")
    return data

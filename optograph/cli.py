"""The command line: run jobs, and list or fetch the embedded models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optograph.errors import OptographError

if TYPE_CHECKING:
    from optograph.optimizers import LoopEvent
    from optograph.report import LiveView

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="optograph",
    help="Trace workflows as graphs and improve what the feedback blames: prompts, demonstrations, code and numbers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
models_app = typer.Typer(help="List and fetch the models that run inside this process.", no_args_is_help=True)
app.add_typer(models_app, name="models")


class JobView:
    """Shows a job's progress in the live view."""

    def __init__(self, live: LiveView, max_calls: int | None) -> None:
        self._live = live
        self._max_calls = max_calls

    def loop(self, event: LoopEvent) -> None:
        """Show what the loop does."""
        words = {"ask": "proposing", "evaluate": "trying", "accept": "testing on dev", "verdict": "decided"}
        stage = f"{event.optimizer}: {words.get(event.kind, event.kind)}"
        note = score = incumbent = None
        if event.verdict is not None:
            note = f"{event.verdict.kind}: {event.verdict.reason}"
            score = event.verdict.score
            incumbent = score if event.verdict.kind == "accepted" else event.verdict.incumbent_score
        self._live.update(stage=stage, step=event.step, steps=event.total, note=note, score=score, incumbent=incumbent)

    def progress(self, done: int, total: int) -> None:
        """Show how far the evaluation in flight is."""
        self._live.advance(done, total)

    def phase(self, text: str) -> None:
        """Show which part of the run begins."""
        self._live.update(stage=text)

    def spent(self, calls: int, tokens: int) -> None:
        """Show what has been spent."""
        self._live.update(calls=calls, tokens=tokens, max_calls=self._max_calls)


@app.command()
def run(
    job: Annotated[Path, typer.Argument(help="The job file (TOML).", show_default=False)],
    run_dir: Annotated[
        Path | None, typer.Option(help="Where the run is kept; a new folder under runs/ by default.")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a key of the job, such as optimizer.seed=1; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Run an optimization job, then print its result and where the report is.

    Example: [bold]optograph run examples/reviews/job.toml --set budget.minutes=3[/bold]
    """
    from rich.console import Console

    from optograph.jobs import load_job, run_job
    from optograph.jobs.reporting import result_data
    from optograph.report import LiveView, RunReport, print_summary

    loaded = load_job(job, override)
    name = loaded.name or job.stem
    directory = run_dir or _new_directory(Path("runs"), name)
    errors = Console(stderr=True)
    with LiveView(errors, title=name) as live:
        result = run_job(loaded, job.resolve().parent, directory, JobView(live, loaded.budget.calls))
    if as_json:
        typer.echo(json.dumps(result_data(result) | {"run_dir": str(directory)}, ensure_ascii=False))
        return
    report = RunReport.model_validate_json((directory / "report.json").read_text(encoding="utf-8"))
    console = Console()
    print_summary(report, console)
    console.print(f"\nReport: {directory / 'report.html'}", soft_wrap=True)


@models_app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the embedded models and whether they are here.

    Example: [bold]optograph models list[/bold]
    """
    from optograph.serving.fetch import catalogue

    rows = catalogue()
    if as_json:
        typer.echo(json.dumps([{"name": one.name, "size": one.size, "present": one.present} for one in rows]))
        return
    for one in rows:
        typer.echo(f"local/{one.name}  {one.size / 1e6:.0f} MB  {'here' if one.present else 'not fetched yet'}")


@models_app.command("pull")
def pull_model(
    name: Annotated[str, typer.Argument(help="Name of the model, such as smollm2-135m.", show_default=False)],
) -> None:
    """Fetch an embedded model and check it.

    Example: [bold]optograph models pull smollm2-135m[/bold]
    """
    from optograph.serving.fetch import fetch_model

    typer.echo(str(fetch_model(name.removeprefix("local/"))))


def _new_directory(root: Path, name: str) -> Path:
    number = 1
    while (root / f"{name}-{number:03d}").exists():
        number += 1
    return root / f"{name}-{number:03d}"


def main() -> None:
    """Run the command line; errors that a user can put right show no traceback and exit with 2."""
    try:
        app(standalone_mode=True)
    except OptographError as error:
        _complain(str(error))
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(EXIT_INTERRUPTED)


def _complain(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


if __name__ == "__main__":
    main()

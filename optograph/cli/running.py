"""``optograph run`` and ``optograph resume``: a job from its file, or a run from its directory, to a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from optograph.cli.output import EXIT_INTERRUPTED, AsJson, JobArgument, Overrides, console, print_json, say
from optograph.cli.rundirs import (
    ForkOption,
    ReplayOption,
    ReviewOption,
    RunArgument,
    RunDirOption,
    find_run,
    is_run,
    new_directory,
    resume_command,
    review_command,
)
from optograph.errors import OptographError, RunStopped, StorageError, UserError

if TYPE_CHECKING:
    from optograph.jobs import RunResult
    from optograph.optimizers import LoopEvent
    from optograph.report import LiveView


_DOING = {
    "ask": "proposing",
    "evaluate": "trying",
    "accept": "testing on dev",
    "review": "to be reviewed by a person",
    "verdict": "decided",
    "start": "making the first adapter",
    "baseline": "testing the start on dev",
    "extrapolate": "extrapolating",
    "collect": "collecting rollouts",
    "rows": "making rows",
    "train": "training",
    "serve": "serving the new weights",
    "decide": "deciding",
    "prompts": "optimizing prompts",
}


class JobView:
    """Shows a job's progress in the live view."""

    def __init__(self, live: LiveView, directory: Path, max_calls: int | None) -> None:
        self._live = live
        self._directory = directory
        self._max_calls = max_calls
        self._begun = False

    def loop(self, event: LoopEvent) -> None:
        """Show what the loop does."""
        stage = f"{event.optimizer}: {_DOING.get(event.kind, event.kind)}"
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
        """Show which part of the run begins; at the first one, say where the run is kept."""
        if not self._begun:
            self._begun = True
            self._live.log(f"Run directory: {self._directory}")
        self._live.update(stage=text)

    def spent(self, calls: int, tokens: int) -> None:
        """Show what has been spent."""
        self._live.update(calls=calls, tokens=tokens, max_calls=self._max_calls)


def run(
    job: JobArgument,
    run_dir: RunDirOption = None,
    override: Overrides = None,
    fork: ForkOption = None,
    replay: ReplayOption = None,
    review: ReviewOption = None,
    as_json: AsJson = False,
) -> None:
    """Run an optimization job, then print its result and where the report is.

    Example: [bold]optograph run examples/reviews/job.toml --set budget.minutes=3[/bold]
    """
    from optograph.jobs import load_job, run_job
    from optograph.jobs.run import may_change

    if fork is not None and replay is not None:
        raise UserError("--fork and --replay exclude each other: a run takes its answers from another one in one way")
    other = {"fork": fork, "replay": replay}
    sources = {name: None if given is None else find_run(given) for name, given in other.items()}
    override = _with_review(override, review)
    loaded = load_job(job, override)
    directory = run_dir or new_directory(loaded.name or job.stem)
    names = {one.partition("=")[0].strip() for one in override or ()}
    changed = {name for name in names if may_change(name)}

    def start(view: JobView) -> RunResult:
        base = job.resolve().parent
        return run_job(loaded, base, directory, view, job_file=job, changed=changed, **sources)

    show_run(directory, loaded.name or job.stem, loaded.budget.calls, start, as_json=as_json)


def resume(
    directory: RunArgument, override: Overrides = None, review: ReviewOption = None, as_json: AsJson = False
) -> None:
    """Continue a run that was stopped, interrupted or killed, that waited for a review, or that gets a larger budget.

    Example: [bold]optograph resume runs/reviews-001 --set budget.calls=4000[/bold]
    """
    from optograph.jobs import resume_job

    found = find_run(directory)

    def start(view: JobView) -> RunResult:
        return resume_job(found, view, overrides=_with_review(override, review))

    show_run(found, found.resolve().name, None, start, as_json=as_json)


def _with_review(overrides: list[str] | None, review: bool | None) -> list[str]:
    given = list(overrides or ())
    return given if review is None else [*given, f"review.when={'accepted' if review else 'never'}"]


def show_run(
    directory: Path, title: str, max_calls: int | None, start: Callable[[JobView], RunResult], *, as_json: bool
) -> None:
    """Run with the live view, then print what came out of it.

    Raises:
        typer.Exit: The run was stopped: 0 after a stop file or where it waits for a review, 130 after a signal.
    """
    from optograph.jobs.reporting import result_data
    from optograph.report import LiveView

    try:
        with LiveView(console(errors=True), title=title) as live:
            result = start(JobView(live, directory, max_calls))
    except RunStopped as stopped:
        _say_where_it_stands(directory, stopped, as_json=as_json)
        raise typer.Exit(EXIT_INTERRUPTED if stopped.interrupted else 0) from None
    except KeyboardInterrupt:  # the second Ctrl-C
        say(f"interrupted; to continue: {resume_command(directory)}")
        if as_json:
            print_json({"status": "interrupted", "run_dir": str(directory)})
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except OptographError as error:
        if is_run(directory) and not isinstance(error, UserError | StorageError):
            error.add_note(f"What was learned is kept; to continue: {resume_command(directory)}")
        raise
    if as_json:
        print_json(result_data(result) | {"run_dir": str(directory)})
        return
    _print_result(directory)


def _print_result(directory: Path) -> None:
    from rich.text import Text

    from optograph.jobs.reporting import load_report
    from optograph.jobs.training.store import adapter_folder
    from optograph.report import print_summary

    out = console()
    report = load_report(directory)
    print_summary(report, out)
    for one in report.training.adapters if report.training is not None else ():
        if one.final:
            out.print(Text(f"Adapter {one.name}: {adapter_folder(directory, one.hash)}"), soft_wrap=True)
    out.print(Text(f"\nReport: {directory / 'report.html'}"), soft_wrap=True)


def _say_where_it_stands(directory: Path, stopped: RunStopped, *, as_json: bool) -> None:
    from optograph.cli.runstate import read_state

    say(str(stopped))
    state = read_state(directory)
    say(f"So far: {state.headline}")
    waits = state.state == "waiting"
    say(f"To review: {review_command(directory)}" if waits else f"To continue: {resume_command(directory)}")
    if as_json:
        told = {"status": state.state, "run_dir": str(directory), "best": state.best, "score": state.best_score}
        print_json(told | ({"review": state.review} if waits else {}))

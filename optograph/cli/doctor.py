"""``optograph doctor``: is everything here that a run needs, and how to put right what is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optograph.cli.checks import Check, check_machine
from optograph.cli.output import EXIT_FAILED, AsJson, Overrides, console, print_json
from optograph.cli.rundirs import RUNS
from optograph.errors import OptographError, UserError

if TYPE_CHECKING:
    from rich.text import Text

    from optograph.jobs import Job

_MARKS = {True: ("✔", "green"), False: ("✘", "bold red"), None: ("\u2013", "dim")}


def doctor(
    job: Annotated[
        Path | None,
        typer.Argument(
            metavar="JOB", help="A job file: its data, workflow and models are looked at, too.", show_default=False
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="M", help="A model to try out, such as vllm/NAME@URL; may be repeated."),
    ] = None,
    override: Overrides = None,
    run_dir: Annotated[Path, typer.Option(metavar="DIR", help="Where runs are kept.")] = RUNS,
    as_json: AsJson = False,
) -> None:
    """Check machine, job and models with tiny real calls, and say how to put right what is broken.

    ✔ is good, ✘ must be put right (the exit code is 1 then), and a dash stands where nothing is needed.

    Example: [bold]optograph doctor examples/reviews/job.toml --model vllm/tiny@http://127.0.0.1:8000/v1[/bold]
    """
    found, loaded, sandboxed = _check_job(job, override)
    models = _models(loaded, model or [])
    embedded = any(name.startswith("local/") for name, _ in models)
    checks = check_machine(run_dir, needs_sandbox=sandboxed, needs_engine=embedded) + found
    checks += _check_models(models)
    good = all(one.ok is not False for one in checks)
    if as_json:
        print_json({"ok": good, "checks": [one.to_json() for one in checks]})
    else:
        _show(checks)
    if not good:
        raise typer.Exit(EXIT_FAILED)


def _show(checks: Sequence[Check]) -> None:
    out = console()
    for one in checks:
        out.print(_line(one), soft_wrap=True)
    broken = sum(one.ok is False for one in checks)
    out.print()
    out.print(f"{broken} of {len(checks)} checks must be put right" if broken else "Everything that is needed is here.")


def _line(check: Check) -> Text:
    from rich.text import Text

    from optograph.report.record import clean_text

    mark, style = _MARKS[check.ok]
    line = Text.assemble((mark, style), " ", (clean_text(check.name), "bold"), f": {clean_text(check.detail)}")
    if check.fix and check.ok is not True:
        line.append(f"\n  → {clean_text(check.fix)}", style="yellow" if check.ok is False else "dim")
    return line


def _check_job(path: Path | None, override: Sequence[str] | None) -> tuple[list[Check], Job | None, bool | None]:
    """Return what the job's own checks found, the job where it can be read, and whether it needs the sandbox."""
    from optograph.jobs import load_job, load_task

    if path is None:
        return [], None, None
    if not path.is_file():
        raise UserError(f"job file {str(path)!r} does not exist: check the path, or copy one from examples/")
    try:
        job = load_job(path, list(override or ()))
    except UserError as error:
        return [Check("job file", False, str(error), "correct the job file")], None, None
    base, found = path.resolve().parent, [Check("job file", True, str(path))]
    task = None
    try:
        task = load_task(job.task, base)
        sizes = f"{len(task.train)} train, {len(task.dev)} dev and {len(task.test)} test examples"
        found.append(Check("data", True, sizes))
    except OptographError as error:
        found.append(Check("data", False, str(error), "correct the table [task] of the job file"))
    sandboxed = None
    try:
        kinds = _parameter_kinds(job, base, [] if task is None else task.train)
        found.append(_workflow_check(job, kinds))
        sandboxed = "code" in kinds.values() and not job.workflow.allow_unsandboxed
    except OptographError as error:
        found.append(Check("workflow", False, str(error), "correct the workflow, or workflow.target in the job file"))
    return found, job, sandboxed


def _parameter_kinds(job: Job, base: Path, train: Sequence[Any]) -> dict[str, str]:
    """Build the workflow over a model that answers nothing, and return the kinds of its trainable parameters."""
    from optograph.jobs.workflows import build_workflow, find_target
    from optograph.serving import ScriptedLM

    nothing = ScriptedLM(lambda request: "", name="nothing")
    workflow = build_workflow(find_target(job.workflow, base), job.workflow, nothing, train)
    find = getattr(workflow, "parameters", None)
    return {one.name: one.spec.kind for one in (find() if callable(find) else []) if one.trainable}


def _workflow_check(job: Job, kinds: dict[str, str]) -> Check:
    target = job.workflow.target
    if not kinds:
        fix = "derive it from Module, so that its parameters are found"
        return Check("workflow", False, f"{target} has no trainable parameters", fix)
    listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    return Check("workflow", True, f"{target} builds; it can change {listed}")


def _models(job: Job | None, given: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the models to try, each once, with the options that the job gives them."""
    of_job = [] if job is None else [job.models.task_model(), job.models.optimizer_model()]
    found = [(one.name, one.options) for one in of_job] + [(name, {}) for name in given]
    return [one for number, one in enumerate(found) if one not in found[:number]]


def _check_models(models: Sequence[tuple[str, dict[str, Any]]]) -> list[Check]:
    from optograph.cli.model_checks import check_catalogued, check_model
    from optograph.serving.fetch import catalogue

    if models:
        return [check for name, options in models for check in check_model(name, options)]
    return [check_catalogued(one, needed=False) for one in catalogue()]

"""Running a job file: load its data, models and workflow, then optimize."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from optograph.errors import UserError
from optograph.evals import (
    EvaluatorOptions,
    Example,
    Scorer,
    SealedSplit,
    Task,
    from_callable,
    load_examples,
    scorer_by_name,
)
from optograph.graphs import allow_unsandboxed
from optograph.jobs.books import JOB, SOURCE, open_books
from optograph.jobs.job import Job, Named, SplitSource, TaskSection, job_from
from optograph.jobs.optimize import make_session, optimize_with
from optograph.jobs.options import Origin, RunOptions, RunResult, SilentView, Telemetry, View
from optograph.jobs.paths import path_of
from optograph.jobs.pricing import settle_prices
from optograph.jobs.stages import make_sequence
from optograph.jobs.targets import resolve
from optograph.jobs.workflows import build_workflow, find_target, wants_model
from optograph.optimizers import AcceptanceRule, Optimizer
from optograph.serving import BaseLM, OpenAILM, load_lm, run_sync
from optograph.storage import Journal, content_hash

FREE_SECTIONS = ("budget", "evaluation", "review", "telemetry")
"""Sections of a job that may change within a run."""

FREE_SETTINGS = (
    *("policy.rounds", "policy.patience", "policy.keep"),
    *("policy.server.python", "policy.server.ready_timeout_s"),
)
"""Settings outside of these sections that may change as well."""


def may_change(setting: str) -> bool:
    """Tell whether a setting, by its dotted name, may change within a run."""
    return setting.partition(".")[0] in FREE_SECTIONS or setting in FREE_SETTINGS


def run_job(
    job: Job,
    base: str | Path,
    run_dir: str | Path,
    view: View | None = None,
    *,
    fork: str | Path | None = None,
    replay: str | Path | None = None,
    job_file: str | Path | None = None,
    changed: Iterable[str] = (),
) -> RunResult:
    """Run a job, or go on with it where the run directory holds it already.

    Args:
        job: The job.
        base: Folder of the job file; its paths are relative to it.
        run_dir: Directory of the run.
        view: Told of progress.
        fork: Directory of a run to start from.
        replay: Directory of a run that gives all answers; no endpoint is asked.
        job_file: The job file, for the record.
        changed: Dotted names of settings that may differ from those that the run was started with.

    Raises:
        UserError: The job names something that is not there, or the directory holds a run with other inputs.
        ServingError: A model's endpoint cannot be reached.
        BudgetExceeded: The budget does not cover the final test.
        RunStopped: The run was asked to end before it was finished.
        StorageError: The run directory cannot be used.
    """
    view = view or SilentView()
    base, run_dir = path_of(base, "base"), path_of(run_dir, "run_dir")
    optimizer = make_optimizer(job)
    task = load_task(job.task, base)
    target = find_target(job.workflow, base)
    task_model, optimizer_model = job.models.task_model(), job.models.optimizer_model()
    file = None if job_file is None else path_of(job_file, "job_file")
    origin = Origin(job.model_dump(mode="json"), base, file, frozenset(changed))
    options = run_options(job, run_dir, origin, fork, replay)
    with open_books(options, view) as books:
        wanted = [task_model, optimizer_model] if wants_model(target) else [optimizer_model]
        models = load_models(wanted, preflight=replay is None)
        try:
            if replay is None:
                named = (("task", _key(task_model)), ("optimizer", _key(optimizer_model)))
                settle_prices(books.budget, [(role, models[key]) for role, key in named if key in models])
            wrapped = {key: books.wrap(lm) for key, lm in models.items()}
            workflow = build_workflow(target, job.workflow, wrapped.get(_key(task_model)), task.train)
            set_parameters(workflow, job.parameters)
            with allow_unsandboxed() if job.workflow.allow_unsandboxed else nullcontext():
                session = make_session(books, workflow, task, optimizer, options, view)
                return optimize_with(books, session, wrapped[_key(optimizer_model)])
        finally:
            for lm in models.values():
                run_sync(lm.aclose())


def resume_job(run_dir: str | Path, view: View | None = None, *, overrides: Sequence[str] = ()) -> RunResult:
    """Go on with the run of a directory, with the job that is kept there.

    Args:
        run_dir: Directory of the run.
        view: Told of progress.
        overrides: ``budget.KEY=VALUE``, ``evaluation.KEY=VALUE``, ``review.KEY=VALUE`` or ``telemetry.KEY=VALUE``
            strings; nothing else may change within a run.

    Raises:
        UserError: There is no run of a job, or what it was started with has changed.
        ServingError: A model's endpoint cannot be reached.
        BudgetExceeded: The budget does not cover the final test.
        RunStopped: The run was asked to end before it was finished.
        StorageError: The run directory cannot be used.
    """
    run_dir = path_of(run_dir, "run_dir")
    with Journal.read(run_dir) as journal:
        kept, source = journal.get_meta(JOB), journal.get_meta(SOURCE)
    if kept is None:
        raise UserError(
            f"{str(run_dir)!r} does not say which job it ran: give the job file, optograph run JOB --run-dir {run_dir}"
        )
    changed = {one.partition("=")[0].strip() for one in overrides}
    other = sorted(name for name in changed if not may_change(name))
    if other:
        raise UserError(
            f"{other[0]!r} cannot change within a run (only {', '.join((*FREE_SECTIONS, *FREE_SETTINGS))} can): "
            f"start a new run from this one, optograph run JOB --fork {run_dir}"
        )
    base = Path(kept["base"])
    if not base.is_dir():
        raise UserError(
            f"the folder of the job, {str(base)!r}, is gone: put it back, or give the job file where it is now, "
            f"optograph run JOB --run-dir {run_dir}"
        )
    job = job_from(kept["job"], overrides, f"the job kept in {str(run_dir)!r}")
    if kept.get("command") == "train":
        from optograph.jobs.training.train import train_job

        return train_job(job, base, run_dir, view, job_file=kept["file"], changed=changed)
    fork, replay = ((source or {}).get(name) for name in ("fork", "replay"))
    return run_job(
        job,
        base,
        run_dir,
        view,
        fork=fork,
        replay=replay,
        job_file=kept["file"],
        changed=changed,
    )


def make_optimizer(job: Job) -> Optimizer:
    """Make the optimizer of a job, or its stages in sequence.

    Raises:
        UserError: It is unknown, or an option is wrong.
    """
    section = job.optimizer
    if not section.stages:
        return make_sequence([(section.name, section.options)])
    if section.options:
        raise UserError(f"optimizer has stages, so {sorted(section.options)!r} must stand in the table of a stage")
    return make_sequence([(one.name, one.options) for one in section.stages])


def load_models(wanted: list[Named], *, preflight: bool) -> dict[str, BaseLM]:
    """Load each model once, and make sure that its endpoint answers before anything else is done."""
    models: dict[str, BaseLM] = {}
    try:
        for model in wanted:
            if "api_key" in model.options:
                raise UserError("a job file holds no secrets: leave api_key out and set OPENAI_API_KEY")
            if _key(model) not in models:
                models[_key(model)] = load_lm(model.name, **model.options)
        for lm in models.values() if preflight else ():
            _preflight(lm)
    except BaseException:
        for lm in models.values():
            run_sync(lm.aclose())
        raise
    return models


def _preflight(lm: BaseLM) -> None:
    """Find out now whether an endpoint can be reached and serves the model."""
    run_sync(lm.identity())
    if isinstance(lm, OpenAILM):
        served = run_sync(lm.served_models())
        if served and lm.model not in served:
            raise UserError(f"{lm.base_url} does not serve {lm.model!r}; it serves {', '.join(served)}")


def _key(model: Named) -> str:
    return content_hash([model.name, model.options])


def set_parameters(workflow: Any, values: dict[str, Any]) -> None:
    """Give parameters of a workflow the starting values of a job.

    Raises:
        UserError: There is no such parameter, or it does not take the value.
    """
    find = getattr(workflow, "parameters", None)
    known = {one.name: one for one in find()} if values and callable(find) else {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"the job sets parameter {name!r}; the workflow has {sorted(known)!r}")
        try:
            known[name].set(known[name].spec.from_json(value))
        except UserError as error:
            raise UserError(f"parameter {name!r}: {error}") from error


def load_task(section: TaskSection, base: str | Path) -> Task:
    """Load the data and the scorer of a job."""
    base = path_of(base, "base")
    return Task(
        train=_split(section, section.train, base),
        dev=_split(section, section.dev, base),
        test=SealedSplit(_split(section, section.test, base)),
        scorer=_scorer(section, base),
        name=section.name,
        disjoint=section.disjoint,
    )


def _split(section: TaskSection, split: str | SplitSource, base: Path) -> Sequence[Example]:
    source = SplitSource(path=split) if isinstance(split, str) else split
    path = source.path or section.source
    if path is None:
        raise UserError("a split has no path, and the task has no source: set task.source or the split's path")
    return load_examples(
        path if path.startswith("hf:") else base / path,
        inputs=section.inputs,
        expected=section.expected,
        id_field=section.id,
        rows_key=section.rows_key,
        start=source.start,
        limit=source.limit,
    )


def _scorer(section: TaskSection, base: Path) -> Scorer:
    if ":" in section.scorer:
        function: Any = resolve(section.scorer, base)
        if not callable(function) or section.scorer_options:
            raise UserError(
                f"scorer {section.scorer!r} must be a function of (expected, output), without scorer_options"
            )
        return from_callable(function)
    return scorer_by_name(section.scorer, **section.scorer_options)


def run_options(
    job: Job,
    run_dir: Path,
    origin: Origin,
    fork: str | Path | None = None,
    replay: str | Path | None = None,
    *,
    seed: int | None = None,
) -> RunOptions:
    """Return how a job's run is done; its seed is the optimizer's where none is given."""
    return RunOptions(
        seed=job.optimizer.seed if seed is None else seed,
        evaluation=EvaluatorOptions(job.evaluation.concurrency, job.evaluation.deadline_s),
        rule=AcceptanceRule(job.acceptance.confidence),
        review=job.review.when,
        limits=job.limits(),
        prices=job.price_table(),
        run_dir=run_dir,
        title=job.name or "",
        workflow_name=job.workflow.target,
        fork=None if fork is None else path_of(fork, "fork"),
        replay=None if replay is None else path_of(replay, "replay"),
        origin=origin,
        telemetry=Telemetry(job.telemetry.otel, job.telemetry.content),
    )

"""Running a job file: load its data, models and workflow, then optimize."""

from __future__ import annotations

from collections.abc import Sequence
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
from optograph.jobs.job import Job, Named, SplitSource, TaskSection
from optograph.jobs.optimize import RunOptions, RunResult, View, optimize, refuse_earlier_run
from optograph.jobs.stages import make_sequence
from optograph.jobs.targets import call_with, resolve, takes
from optograph.optimizers import AcceptanceRule, Optimizer
from optograph.serving import BaseLM, Budget, BudgetLimits, JournaledLM, OpenAILM, load_lm, run_sync
from optograph.storage import Journal, content_hash


def run_job(job: Job, base: Path, run_dir: Path, view: View | None = None) -> RunResult:
    """Run a job.

    Args:
        job: The job.
        base: Folder of the job file; its paths are relative to it.
        run_dir: Directory of the run; must not hold an earlier run.
        view: Told of progress.

    Raises:
        UserError: The job names something that is not there.
        ServingError: A model's endpoint cannot be reached.
        StorageError: The run directory cannot be used.
    """
    refuse_earlier_run(run_dir)
    optimizer = _make_optimizer(job)
    task = load_task(job.task, base)
    factory = resolve(job.workflow.target, base)
    if not callable(factory):
        raise UserError(f"{job.workflow.target!r} is no function: name one that builds the workflow")
    limits = BudgetLimits(job.budget.calls, job.budget.tokens, job.budget.minutes)
    task_model, optimizer_model = job.models.task_model(), job.models.optimizer_model()
    models = _load_models([task_model, optimizer_model] if takes(factory, "lm") else [optimizer_model])
    try:
        with Journal.open(run_dir) as journal:
            journal.add_event("job", job=job.model_dump(mode="json"))
            budget = Budget(limits)
            wrapped = {key: JournaledLM(lm, journal, budget) for key, lm in models.items()}
            workflow = call_with(factory, {"lm": wrapped.get(_key(task_model)), "train": task.train})
            _set_parameters(workflow, job.parameters)
            with allow_unsandboxed() if job.workflow.allow_unsandboxed else nullcontext():
                return optimize(
                    workflow,
                    task,
                    optimizer=optimizer,
                    optimizer_lm=wrapped[_key(optimizer_model)],
                    options=_options(job, run_dir, limits),
                    view=view,
                    journal=journal,
                    budget=budget,
                )
    finally:
        for lm in models.values():
            run_sync(lm.aclose())


def _make_optimizer(job: Job) -> Optimizer:
    section = job.optimizer
    if not section.stages:
        return make_sequence([(section.name, section.options)])
    if section.options:
        raise UserError(f"optimizer has stages, so {sorted(section.options)!r} must stand in the table of a stage")
    return make_sequence([(one.name, one.options) for one in section.stages])


def _load_models(wanted: list[Named]) -> dict[str, BaseLM]:
    """Load each model once, and make sure that its endpoint answers before anything else is done."""
    models: dict[str, BaseLM] = {}
    try:
        for model in wanted:
            if "api_key" in model.options:
                raise UserError("a job file holds no secrets: leave api_key out and set OPENAI_API_KEY")
            if _key(model) not in models:
                models[_key(model)] = load_lm(model.name, **model.options)
        for lm in models.values():
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


def _set_parameters(workflow: Any, values: dict[str, Any]) -> None:
    find = getattr(workflow, "parameters", None)
    known = {one.name: one for one in find()} if values and callable(find) else {}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"the job sets parameter {name!r}; the workflow has {sorted(known)!r}")
        try:
            known[name].set(known[name].spec.from_json(value))
        except UserError as error:
            raise UserError(f"parameter {name!r}: {error}") from error


def load_task(section: TaskSection, base: Path) -> Task:
    """Load the data and the scorer of a job."""
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


def _options(job: Job, run_dir: Path, limits: BudgetLimits) -> RunOptions:
    return RunOptions(
        seed=job.optimizer.seed,
        evaluation=EvaluatorOptions(job.evaluation.concurrency, job.evaluation.deadline_s),
        rule=AcceptanceRule(job.acceptance.confidence),
        limits=limits,
        run_dir=run_dir,
        title=job.name or "",
        workflow_name=job.workflow.target,
    )

"""Running an optimization from start to report: the one path behind the command line and the Python call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from optograph.agents import Module, Step
from optograph.errors import UserError
from optograph.evals import Evaluation, Evaluator, EvaluatorOptions, Interval, Task, Trial, paired_bootstrap
from optograph.graphs import Candidate, Parameter
from optograph.jobs.stages import make_sequence
from optograph.optimizers import AcceptanceRule, Loop, LoopEvent, LoopResult, Optimizer, OptimizerContext
from optograph.serving import LM, Budget, BudgetLimits, JournaledLM
from optograph.storage import Journal


class View(Protocol):
    """Watches a run."""

    def loop(self, event: LoopEvent) -> None:
        """Told what the loop does."""

    def progress(self, done: int, total: int) -> None:
        """Told as examples finish."""

    def phase(self, text: str) -> None:
        """Told which part of the run begins."""

    def spent(self, calls: int, tokens: int) -> None:
        """Told what has been spent so far."""


class SilentView:
    """Shows nothing."""

    def loop(self, event: LoopEvent) -> None:
        """Ignore it."""

    def progress(self, done: int, total: int) -> None:
        """Ignore it."""

    def phase(self, text: str) -> None:
        """Ignore it."""

    def spent(self, calls: int, tokens: int) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is done.

    Attributes:
        seed: Seed of all randomness.
        evaluation: Concurrency and deadline.
        rule: How sure an acceptance must be.
        limits: Budget of the search (the final test is not part of it).
        run_dir: Directory of the journal and the report; None keeps everything in memory and writes no report.
        title: Heading of the report.
        workflow_name: Where the workflow comes from, for the report.
    """

    seed: int = 0
    evaluation: EvaluatorOptions = field(default_factory=EvaluatorOptions)
    rule: AcceptanceRule = field(default_factory=AcceptanceRule)
    limits: BudgetLimits = field(default_factory=BudgetLimits)
    run_dir: Path | None = None
    title: str = ""
    workflow_name: str = ""


@dataclass(frozen=True)
class RunResult:
    """What a run found.

    Attributes:
        best: The accepted candidate.
        start: The candidate it began with.
        status: ``"finished"`` or ``"budget"``.
        dev: Evaluations of start and best on the dev split.
        test: Evaluations of start and best on the sealed test.
        difference: Best minus start on the sealed test, paired by example, with its 95 % interval.
        report: Path of the HTML report, or None.
    """

    best: Candidate
    start: Candidate
    status: str
    dev: tuple[Evaluation | None, Evaluation | None]
    test: tuple[Evaluation, Evaluation]
    difference: Interval
    report: Path | None = None


@dataclass
class Session:
    """The parts of a run in progress."""

    workflow: Any
    task: Task
    optimizer: Optimizer
    options: RunOptions
    journal: Journal
    budget: Budget
    parameters: Mapping[str, Parameter]
    optimizer_lm: LM | None
    view: View
    models: dict[str, LM] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)


def optimize(
    workflow: Any,
    task: Task,
    *,
    optimizer: str | Optimizer | Sequence[tuple[str, Mapping[str, Any]]] = "optoprime",
    optimizer_lm: LM | None = None,
    parameters: Sequence[Parameter] | None = None,
    options: RunOptions | None = None,
    view: View | None = None,
    journal: Journal | None = None,
    budget: Budget | None = None,
) -> RunResult:
    """Improve a workflow on a task, and say on the sealed test what that was worth.

    Args:
        workflow: Module or callable; an example's input becomes its keyword arguments. Its parameters hold the best
            values when the call returns. The models of its steps are journalled and charged to the budget; a model that
            the workflow calls by itself is where it is a ``JournaledLM`` over the same journal, as jobs make them.
        task: Data and scorer.
        optimizer: Name, optimizer, or list of (name, options) stages that run in sequence.
        optimizer_lm: Model that proposes; where it is None, the model of the workflow's first step.
        parameters: What may change; None for all that the workflow finds in itself.
        options: Seed, budget, run directory and so on.
        view: Told of progress.
        journal: Journal to use instead of one in ``options.run_dir``; the caller closes it.
        budget: Ledger to use instead of a new one, where the caller's models already charge it.

    Returns:
        The best candidate and its scores.

    Raises:
        UserError: Something in the call is wrong.
        ServingError: The model's endpoint is down.
    """
    options = options or RunOptions()
    own = journal is None
    if own and options.run_dir is not None:
        refuse_earlier_run(options.run_dir)
    book = journal or (Journal.memory() if options.run_dir is None else Journal.open(options.run_dir))
    session = Session(
        workflow=workflow,
        task=task,
        optimizer=_optimizer(optimizer),
        options=options,
        journal=book,
        budget=budget or Budget(options.limits),
        parameters=_parameters(workflow, parameters),
        optimizer_lm=None,
        view=view or SilentView(),
    )
    try:
        with _journaling(session):
            session.optimizer_lm = _optimizer_lm(session, optimizer_lm)
            return _run(session)
    finally:
        if own:
            book.close()


def refuse_earlier_run(run_dir: Path) -> None:
    """Raise ``UserError`` where a directory holds a run already: its evaluations belong to another workflow."""
    if (run_dir / "journal.db").exists():
        raise UserError(f"{str(run_dir)!r} holds an earlier run: choose another run directory, or delete it")


def _run(session: Session) -> RunResult:
    from optograph.jobs.reporting import write_reports

    evaluator = Evaluator(
        session.workflow,
        session.task,
        session.parameters,
        session.journal,
        session.options.evaluation,
        _progress(session),
    )
    context = OptimizerContext(
        session.parameters, session.task, session.journal, session.optimizer_lm, session.options.seed
    )
    start = Candidate(
        {name: one.spec.to_json(one.base) for name, one in session.parameters.items()},
        origin="starting point",
    )
    session.optimizer.bind(context, start)
    session.view.phase("search")
    loop = Loop(
        session.optimizer,
        evaluator,
        session.journal,
        session.options.rule,
        session.view.loop,
        lambda: session.budget.calls,
    )
    found = loop.run()
    with _unlimited(session.budget):
        session.view.phase("sealed test")
        test = _sealed_test(session, evaluator, found)
        trace = evaluator.evaluate([Trial(found.best, "dev", (session.task.dev[0].id,), want_trace=True)])[0]
    for name, value in found.best.to_json()["values"].items():
        parameter = session.parameters[name]
        parameter.set(parameter.spec.from_json(value))
    result = RunResult(
        best=found.best,
        start=found.start,
        status=found.status,
        dev=(found.start_dev, found.best_dev),
        test=test,
        difference=paired_bootstrap(test[0].scores, test[1].scores),
    )
    return write_reports(session, result, trace.results[0])


def _progress(session: Session) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        session.view.spent(session.budget.calls, session.budget.tokens)
        session.view.progress(done, total)

    return progress


def _sealed_test(session: Session, evaluator: Evaluator, found: LoopResult) -> tuple[Evaluation, Evaluation]:
    rows = session.task.test.unseal("final report")
    ids = tuple(row.id for row in rows)
    trials = [Trial(found.start, "test", ids)]
    if found.best.id != found.start.id:
        trials.append(Trial(found.best, "test", ids))
    evaluations = evaluator.evaluate_sealed(trials, rows)
    return evaluations[0], evaluations[-1]


def _optimizer(optimizer: str | Optimizer | Sequence[tuple[str, Mapping[str, Any]]]) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    stages = [(optimizer, {})] if isinstance(optimizer, str) else list(optimizer)
    if not stages or not all(isinstance(one, tuple) and len(one) == 2 for one in stages):
        raise UserError(f"optimizer must be a name, an Optimizer, or a list of (name, options), not {optimizer!r}")
    return make_sequence(stages)


def _parameters(workflow: Any, given: Sequence[Parameter] | None) -> dict[str, Parameter]:
    find: Callable[[], Sequence[Parameter]] | None = getattr(workflow, "parameters", None)
    found = list(given) if given is not None else list(find()) if callable(find) else []
    chosen = {one.name: one for one in found if one.trainable}
    if len(chosen) != len([one for one in found if one.trainable]):
        raise UserError("two parameters of the workflow have the same name: give each step its own name")
    if not chosen:
        raise UserError("the workflow has no trainable parameters: derive it from Module, or pass parameters=[...]")
    return chosen


def _steps(workflow: Any) -> list[Step]:
    if not isinstance(workflow, Module):
        return []
    return [one for one in workflow.modules() if isinstance(one, Step)]


@contextmanager
def _journaling(session: Session) -> Iterator[None]:
    """Put the journal before the model of each step for the time of the run."""
    before: list[tuple[Step, LM]] = []
    wrapped: dict[int, LM] = {}
    for step in _steps(session.workflow):
        before.append((step, step.lm))
        if not isinstance(step.lm, JournaledLM):
            step.lm = wrapped.setdefault(id(step.lm), JournaledLM(step.lm, session.journal, session.budget))
        session.models.setdefault("task", step.lm)
    try:
        yield
    finally:
        for step, lm in before:
            step.lm = lm


def _optimizer_lm(session: Session, given: LM | None) -> LM | None:
    lm = given
    if lm is None:
        return session.models.get("task")
    if not isinstance(lm, JournaledLM):
        lm = JournaledLM(lm, session.journal, session.budget)
    session.models["optimizer"] = lm
    return lm


@contextmanager
def _unlimited(budget: Budget) -> Iterator[None]:
    """Lift the limits: the final test is told beforehand and is no part of the search's budget."""
    limits, budget.limits = budget.limits, BudgetLimits()
    try:
        yield
    finally:
        budget.limits = limits

"""Running an optimization from start to report: the one path behind the command line and the Python call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from optograph.agents import Agent, Module, Step
from optograph.errors import BudgetExceeded, UserError
from optograph.evals import Evaluation, Evaluator, Task, Trial, paired_bootstrap
from optograph.graphs import Candidate, Parameter
from optograph.jobs.books import Books, best_candidate, open_books
from optograph.jobs.fingerprint import describe_optimizer, fingerprint_of, local_sources
from optograph.jobs.options import RunOptions, RunResult, SilentView, View
from optograph.jobs.pricing import settle_prices
from optograph.jobs.stages import make_sequence
from optograph.jobs.tracing import example_to_trace
from optograph.optimizers import Loop, LoopResult, Optimizer, OptimizerContext, ReviewDesk
from optograph.optimizers.loopgraph import apart
from optograph.serving import LM, Budget, Need, run_sync
from optograph.storage import Journal


@dataclass
class Session:
    """The parts of a run in progress.

    Attributes:
        workflow: What is improved.
        task: Data and scorer.
        optimizer: Proposes values of the parameters; None where a run trains weights only.
        options: How the run is done.
        books: Its journal, budget and request to stop.
        parameters: What may change, by name.
        view: Told of progress.
        optimizer_lm: The model that proposes.
        models: The models that take part, by role.
        method: How weights are trained; empty in a run that trains none.
        pinned: Further inputs that a resumed run must find unchanged, by name.
    """

    workflow: Any
    task: Task
    optimizer: Optimizer | None
    options: RunOptions
    books: Books
    parameters: Mapping[str, Parameter]
    view: View
    optimizer_lm: LM | None = None
    models: dict[str, LM] = field(default_factory=dict)
    method: str = ""
    pinned: Mapping[str, str] = field(default_factory=dict)

    @property
    def optimizer_name(self) -> str:
        """Who improves the workflow: the method that trains its policy, or else the optimizer."""
        return self.method or (self.optimizer.name if self.optimizer is not None else "")

    @property
    def journal(self) -> Journal:
        """The run's journal."""
        return self.books.journal

    @property
    def budget(self) -> Budget:
        """The run's ledger."""
        return self.books.budget

    def begin(self, phase: str) -> None:
        """Record which part of the run begins, and tell the view."""
        self.books.begin(phase)
        self.view.phase(phase)


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

    A run directory that holds this run already is continued: with the same inputs and a deterministic model it comes to
    the result that it would have had without the interruption, and no finished call is made twice.

    Args:
        workflow: Module or callable; an example's input becomes its keyword arguments. Its parameters hold the best
            values when the call returns. The models of its steps and agents are journalled and charged to the budget; a
            model that the workflow calls by itself is where it is a ``JournaledLM`` over the same journal, as jobs make
            them.
        task: Data and scorer.
        optimizer: Name, optimizer, or list of (name, options) stages that run in sequence.
        optimizer_lm: Model that proposes; where it is None, the model of the workflow's first step or agent.
        parameters: What may change; None for all that the workflow finds in itself.
        options: Seed, budget, run directory and so on.
        view: Told of progress.
        journal: Journal to use instead of one in ``options.run_dir``; the caller closes it.
        budget: Ledger to use instead of a new one, where the caller's models already charge it.

    Returns:
        The best candidate and its scores.

    Raises:
        UserError: Something in the call is wrong, or the run directory holds a run with other inputs.
        ServingError: The model's endpoint is down.
        BudgetExceeded: The budget does not cover the final test.
        RunStopped: The run was asked to end before it was finished.
        WaitingForReview: A person must judge a candidate: see ``RunOptions.review``.
        StorageError: The run directory cannot be used.
    """
    options, view = options or RunOptions(), view or SilentView()
    chosen = chosen_parameters(workflow, parameters)
    made = _optimizer(optimizer)
    with open_books(options, view, journal, budget) as books:
        session = Session(workflow, task, made, options, books, chosen, view)
        return apart(lambda: optimize_with(books, session, optimizer_lm))


def optimize_with(books: Books, session: Session, optimizer_lm: LM | None, search: Search | None = None) -> RunResult:
    """Run over books that are open already; the caller's models are entered in them.

    Args:
        books: The books.
        session: The parts of the run.
        optimizer_lm: Model that proposes.
        search: Finds the best candidate; by default the session's optimizer in the outer loop.
    """
    from optograph.jobs.reporting import record_setup
    from optograph.jobs.watching import watched

    with _journaling(session):
        session.optimizer_lm = _optimizer_lm(session, optimizer_lm)
        if not books.replay:
            settle_prices(books.budget, _asked(session))
        books.check_same_run(_fingerprint(session), session.options.origin)
        record_setup(session)
        books.keep_source(session.options)
        with watched(session) as watch:
            return watch.ended(_run(session, search or optimizer_search))


Search = Callable[[Session, Evaluator], LoopResult]
"""Finds the best candidate of a session, from the start or from where the journal says."""


def make_session(
    books: Books, workflow: Any, task: Task, optimizer: Optimizer, options: RunOptions, view: View
) -> Session:
    """Gather the parts of a run over all trainable parameters of a workflow."""
    return Session(workflow, task, optimizer, options, books, chosen_parameters(workflow, None), view)


def _run(session: Session, search: Search) -> RunResult:
    from optograph.jobs.reporting import write_reports

    evaluator = Evaluator(
        session.workflow,
        session.task,
        session.parameters,
        session.journal,
        session.options.evaluation,
        _progress(session),
        session.books.stop,
    )
    found = search(session, evaluator)
    session.begin("sealed test")
    session.budget.release()
    session.budget.limits = replace(session.budget.limits, minutes=None)
    test = _sealed_test(session, evaluator, found)
    example = example_to_trace(found.start_dev, found.best_dev)
    trace = evaluator.evaluate([Trial(found.best, "dev", (example,), want_trace=True)])[0]
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
    result = write_reports(session, result, trace.results[0])
    session.books.set_status(found.status)
    return result


def optimizer_search(session: Session, evaluator: Evaluator) -> LoopResult:
    """Have the session's optimizer search from the starting point, in the outer loop."""
    optimizer = session.optimizer
    if optimizer is None:
        raise UserError("the run has no optimizer: name one, or train the policy")
    context = OptimizerContext(
        session.parameters, session.task, session.journal, session.optimizer_lm, session.options.seed
    )
    optimizer.bind(context, starting_candidate(session))
    session.begin("search")
    loop = Loop(
        optimizer,
        evaluator,
        session.journal,
        session.options.rule,
        session.view.loop,
        lambda: session.budget.calls,
        session.budget.limits.to_json(),
        FinalTest(session).put_aside,
        _review_desk(session),
    )
    return loop.run()


@dataclass
class FinalTest:
    """Keeps enough of the budget for the final test, by what the examples of the dev split have cost at most."""

    session: Session
    _calls: int = 0
    _tokens: int = 0
    _seconds: float = 0.0

    def put_aside(self, evaluation: Evaluation) -> None:
        """Take an evaluation into account, and keep what the test needs for the start and for the best.

        Raises:
            BudgetExceeded: The rest of the budget does not cover the test.
        """
        results, budget = evaluation.results, self.session.budget
        self._calls = max(self._calls, *(one.calls for one in results))
        self._tokens = max(self._tokens, *(one.prompt_tokens + one.completion_tokens for one in results))
        self._seconds = max(self._seconds, sum(one.seconds for one in results) / len(results))
        examples = 2 * len(self.session.task.test)
        tokens, spent, left = self._tokens * examples, budget.spent("task"), budget.remaining().seconds
        usd = 1.25 * (spent.usd or 0.0) * tokens / spent.tokens if spent.tokens else 0.0
        seconds = self._seconds * examples / self.session.options.evaluation.concurrency
        # Time is no hard limit: half of what is left is kept at most, and the test may take longer.
        kept = min(seconds, left / 2) if left is not None else 0.0
        budget.hold(Need(calls=self._calls * examples, tokens=tokens, usd=usd, seconds=kept))


def _review_desk(session: Session) -> ReviewDesk | None:
    """Return where candidates are reviewed; a replayed run takes the reviews of the recorded one."""
    review, books = session.options.review, session.books
    if review == "never":
        return None
    if review == "accepted" and books.journal.directory is None:
        raise UserError("a run that waits for reviews needs a run_dir, or review=FUNCTION, which is asked at once")
    run = str(books.journal.directory or "")
    return ReviewDesk(books.journal, review if callable(review) else None, books.cache if books.replay else None, run)


def starting_candidate(session: Session) -> Candidate:
    """Return the starting point: the workflow's own values, or the best of the run that is forked."""
    values = {name: one.spec.to_json(one.base) for name, one in session.parameters.items()}
    fork, cache = session.options.fork, session.books.cache
    if fork is None or cache is None:
        return Candidate(values, origin="starting point")
    found = best_candidate(cache)
    if found is None:
        raise UserError(f"the run in {str(fork)!r} has accepted no candidate yet, so there is nothing to start from")
    taken = {}
    for name, value in found[0].to_json()["values"].items():
        if name in session.parameters:
            spec = session.parameters[name].spec
            taken[name] = spec.to_json(spec.validate(spec.from_json(value)))
    return Candidate(values | taken, origin=f"best of {fork.name}")


def _fingerprint(session: Session) -> Any:
    options = session.options
    if options.origin is not None:
        left_out = ("name", "review", "telemetry") + (() if session.method else ("policy",))
        settings = {key: value for key, value in options.origin.job.items() if key not in left_out}
        source = local_sources(options.origin.base)
    else:
        models = {role: run_sync(lm.identity()).key for role, lm in session.models.items()}
        source = {}
        settings = {
            "optimizer": None if session.optimizer is None else describe_optimizer(session.optimizer),
            "seed": options.seed,
            "confidence": options.rule.confidence,
            "models": models,
        }
    return fingerprint_of(session.workflow, session.task, session.parameters, settings | dict(session.pinned), source)


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
    try:
        evaluations = evaluator.evaluate_sealed(trials, rows)
    except BudgetExceeded as error:
        raise BudgetExceeded(
            f"the budget ended within the final test ({error}); what was done is kept: resume with a larger budget"
        ) from error
    return evaluations[0], evaluations[-1]


def _optimizer(optimizer: str | Optimizer | Sequence[tuple[str, Mapping[str, Any]]]) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    stages = [(optimizer, {})] if isinstance(optimizer, str) else list(optimizer)
    if not stages or not all(isinstance(one, tuple) and len(one) == 2 for one in stages):
        raise UserError(f"optimizer must be a name, an Optimizer, or a list of (name, options), not {optimizer!r}")
    return make_sequence(stages)


def chosen_parameters(workflow: Any, given: Sequence[Parameter] | None) -> dict[str, Parameter]:
    """Return the trainable ones of the given parameters, or of the workflow's own, by name.

    Raises:
        UserError: There are none, or two have the same name.
    """
    find: Callable[[], Sequence[Parameter]] | None = getattr(workflow, "parameters", None)
    found = list(given) if given is not None else list(find()) if callable(find) else []
    chosen = {one.name: one for one in found if one.trainable}
    if len(chosen) != len([one for one in found if one.trainable]):
        raise UserError("two parameters of the workflow have the same name: give each step its own name")
    if not chosen:
        raise UserError("the workflow has no trainable parameters: derive it from Module, or pass parameters=[...]")
    return chosen


def _asking(workflow: Any) -> list[Step | Agent]:
    """Return what asks models in a workflow."""
    if not isinstance(workflow, Module):
        return []
    return [one for one in workflow.modules() if isinstance(one, Step | Agent)]


@contextmanager
def _journaling(session: Session) -> Iterator[None]:
    """Put the journal before the model of each step and agent for the time of the run."""
    before: list[tuple[Step | Agent, LM]] = []
    wrapped: dict[int, LM] = {}
    for step in _asking(session.workflow):
        before.append((step, step.lm))
        step.lm = wrapped.setdefault(id(step.lm), session.books.wrap(step.lm))
        session.models.setdefault("task", step.lm)
    try:
        yield
    finally:
        for step, lm in before:
            step.lm = lm


def _asked(session: Session) -> list[tuple[str, LM]]:
    """Return the models that the run will ask, each with the role that pays."""
    steps = [("task", step.lm) for step in _asking(session.workflow)]
    return steps if session.optimizer_lm is None else [*steps, ("optimizer", session.optimizer_lm)]


def _optimizer_lm(session: Session, given: LM | None) -> LM | None:
    lm = given
    if lm is None:
        return session.models.get("task")
    session.models["optimizer"] = session.books.wrap(lm)
    return session.models["optimizer"]

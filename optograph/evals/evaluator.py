"""The evaluator: runs (candidate x example) concurrently, scores each, and journals what it saw."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optograph.agents import recording_calls
from optograph.agents.threads import ExitCalled, in_thread
from optograph.context import call_context
from optograph.errors import (
    BudgetExceeded,
    OptographError,
    RunStopped,
    ServingError,
    StorageError,
    UserError,
)
from optograph.evals.heap import heap_set_aside
from optograph.evals.task import Example, Task
from optograph.evals.trial import Evaluation, ExampleResult, Trial
from optograph.graphs import (
    Feedback,
    OpError,
    Parameter,
    Value,
    applying,
    propagate,
    run_scope,
    to_plain,
    trace_to_json,
)
from optograph.serving import CallEvent, counting_draws, observing, ordering_calls, run_sync
from optograph.stopping import StopRequest
from optograph.storage import Batch, CandidateRow, EvaluationRow, Journal
from optograph.telemetry import span

Workflow = Callable[..., Any]
Progress = Callable[[int, int], None]

INFRASTRUCTURE_TRIES = 2
SYSTEMIC = frozenset({"down", "replay_miss"})
"""Kinds of `ServingError` that concern every example, so that the run ends instead of going on without scores."""

_ENDS_RUN = (UserError, BudgetExceeded, RunStopped, StorageError)


@dataclass(frozen=True, slots=True)
class EvaluatorOptions:
    """How an evaluator works.

    Attributes:
        concurrency: Examples in progress at once, at least 1. The model's own ``max_concurrency`` bounds the calls;
            half as many examples again keep a fast server busy while some of them wait for the journal.
        deadline_s: Longest time for one example, in seconds. Longer than the longest model call, so that a hung
            endpoint is told apart from a workflow that takes too long.
    """

    concurrency: int = 8
    deadline_s: float = 900.0

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.deadline_s <= 0:
            raise UserError(f"concurrency must be at least 1 and deadline_s above 0, not {self!r}")


@dataclass(slots=True)
class _Cost:
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    truncated: int = 0

    def __call__(self, event: CallEvent) -> None:
        self.calls += 1
        if event.completion is not None:
            self.prompt_tokens += event.completion.usage.prompt_tokens
            self.completion_tokens += event.completion.usage.completion_tokens
            # One token is asked for where only its log-probabilities matter.
            self.truncated += event.request.max_tokens > 1 and "length" in event.completion.finish_reasons


@dataclass
class Evaluator:
    """Runs a workflow over examples under candidates.

    One failed example is a scored failure with its type. A failure of the infrastructure (endpoint, engine, time
    limit of a call) is tried again and then *missing*, never 0. Results do not depend on the order of completion.
    A journal belongs to one workflow and one task: what it holds is not run again.

    Attributes:
        workflow: Sync or async callable; an example's input becomes its keyword arguments.
        task: Data and scorer.
        parameters: What candidates may set, by name.
        journal: Where evaluations are recorded and read again.
        options: Concurrency and deadline.
        progress: Called with (done, total) as examples finish.
        stop: When it says so, no further example is begun.
    """

    workflow: Workflow
    task: Task
    parameters: Mapping[str, Parameter]
    journal: Journal = field(default_factory=Journal.memory)
    options: EvaluatorOptions = field(default_factory=EvaluatorOptions)
    progress: Progress | None = None
    stop: StopRequest = field(default_factory=StopRequest)

    def evaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Run the trials and return one evaluation each, in their order.

        Raises:
            BudgetExceeded: The budget was spent on the way; finished examples stay journalled.
            RunStopped: The run was asked to end; likewise.
            ServingError: The endpoint is down, or no example of a trial could be run at all.
            UserError: An example or a parameter of a candidate is unknown.
        """
        return run_sync(self.aevaluate(trials))

    async def aevaluate(self, trials: Sequence[Trial]) -> list[Evaluation]:
        """Like ``evaluate``, for callers on an event loop."""
        work = [(trial, self.task.example(trial.split, name)) for trial in trials for name in trial.examples]
        return await self._run(trials, work)

    def evaluate_sealed(self, candidate_trials: Sequence[Trial], examples: Sequence[Example]) -> list[Evaluation]:
        """Run trials over the unsealed test rows; for the final report only."""
        index = {example.id: example for example in examples}
        work = [(trial, index[name]) for trial in candidate_trials for name in trial.examples]
        return run_sync(self._run(candidate_trials, work))

    async def _run(self, trials: Sequence[Trial], work: list[tuple[Trial, Example]]) -> list[Evaluation]:
        await self._announce(trials)
        # What is the same for all examples is entered once: their tasks inherit it.
        with heap_set_aside(), run_scope(self.parameters.values()), recording_calls():
            results = iter(await self._results(work))
        evaluations = [Evaluation(trial, tuple(next(results) for _ in trial.examples)) for trial in trials]
        for evaluation in evaluations:
            if evaluation.results and evaluation.missing == len(evaluation.results):
                raise ServingError(f"no example could be evaluated: {evaluation.results[0].error}", kind="systemic")
        return evaluations

    async def _results(self, work: Sequence[tuple[Trial, Example]]) -> list[ExampleResult]:
        """Run each example in a task of its own, as many at once as allowed; the results are in the order of `work`."""
        gate = asyncio.Semaphore(self.options.concurrency)
        results: dict[int, ExampleResult] = {}
        running: set[asyncio.Task[None]] = set()
        failure: BaseException | None = None

        async def one(number: int, trial: Trial, example: Example) -> None:
            nonlocal failure
            try:
                results[number] = await self._result(trial, example, gate)
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - raised below, when what is in flight has ended
                failure = failure or error
                return
            if self.progress is not None:
                self.progress(len(results), len(work))

        try:
            for number, (trial, example) in enumerate(work):
                await gate.acquire()
                if failure is not None:
                    break
                task = asyncio.create_task(one(number, trial, example))
                running.add(task)
                task.add_done_callback(running.discard)
            if running:
                await asyncio.wait(running)
        finally:
            for task in running:
                task.cancel()
        if failure is not None:
            raise failure
        return [results[number] for number in range(len(work))]

    async def _announce(self, trials: Sequence[Trial]) -> None:
        """Check the trials and record their candidates."""
        batch = self.journal.batch()
        for trial in trials:
            self._check(trial)
            values = batch.put(trial.candidate.to_json()["values"])
            candidate = trial.candidate
            batch.add_candidate(
                CandidateRow(id=candidate.id, parents=candidate.parents, origin=candidate.origin, values=values)
            )
        await batch.acommit()

    def _check(self, trial: Trial) -> None:
        unknown = sorted(set(trial.candidate.values) - set(self.parameters))
        if unknown:
            raise UserError(f"the candidate sets unknown parameters {unknown!r}; known: {sorted(self.parameters)!r}")

    async def _result(self, trial: Trial, example: Example, gate: asyncio.Semaphore) -> ExampleResult:
        """Return what the journal holds, or run the example; its place is freed as soon as it has run."""
        try:
            self.stop.check()
            row = self.journal.find_evaluation(trial.candidate.id, trial.split, example.id, trial.repeat)
            if row is not None and (row.subgraph is not None or not trial.want_trace):
                return self._from_row(row)
            batch = self.journal.batch()
            result = await self._attempt(trial, example, batch)
            for _ in range(INFRASTRUCTURE_TRIES - 1):
                if result.feedback is not None:
                    break
                result = await self._attempt(trial, example, batch)
        finally:
            gate.release()  # the place is another example's while this one becomes durable
        batch.add_evaluation(self._to_row(trial, result, batch))
        await batch.acommit()
        return result

    async def _attempt(self, trial: Trial, example: Example, batch: Batch) -> ExampleResult:
        cost, started = _Cost(), time.monotonic()
        output: Any = None
        feedback: Feedback | None = None
        error: str | None = None
        with (
            call_context(role="task", candidate=trial.candidate.id, example=example.id, repeat=trial.repeat),
            applying(trial.candidate),
            counting_draws(),
            ordering_calls() as calls,
            observing(cost),
            span("example", example.id, trial) as told,
        ):
            try:
                async with asyncio.timeout(self.options.deadline_s) as deadline:
                    output = await self._call(example)
                feedback = self._score(example, output)
            except _ENDS_RUN:
                raise
            except Exception as failure:  # noqa: BLE001 - what a workflow raises is this example's failure, not the job's
                if isinstance(failure, TimeoutError) and deadline.expired():
                    error = f"no result within {self.options.deadline_s:g} s"
                    feedback = Feedback(score=0.0, text=error, failure_type="timeout")
                else:
                    output, feedback, error = _failed(failure)
            subgraph, trace = self._evidence(trial, output, feedback, batch)
            told.outcome((feedback, error))
        return ExampleResult(
            example=example.id,
            feedback=feedback,
            output=_jsonable(to_plain(output)),
            subgraph=subgraph,
            trace=trace,
            error=error,
            calls=cost.calls,
            prompt_tokens=cost.prompt_tokens,
            completion_tokens=cost.completion_tokens,
            seconds=time.monotonic() - started,
            truncated=cost.truncated,
            order=calls.keys,
        )

    async def _call(self, example: Example) -> Any:
        call = getattr(self.workflow, "acall", self.workflow)
        try:
            if inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__):
                return await call(**example.input)
            result = await in_thread(lambda: call(**example.input))
            return await result if inspect.isawaitable(result) else result
        except SystemExit as stop:  # would end the loop that all models share
            raise ExitCalled(f"the workflow called exit({stop.code!r})", stop) from None

    def _score(self, example: Example, output: Any) -> Feedback:
        try:
            feedback = self.task.scorer(example, to_plain(output))
        except UserError:
            raise
        except Exception as error:
            # A scorer that fails says nothing about the workflow, and would score every candidate 0.
            raise UserError(f"the scorer failed on example {example.id!r}: {type(error).__name__}: {error}") from error
        if not isinstance(feedback, Feedback) or feedback.score is None:
            raise UserError(
                f"the scorer must return a Feedback with a score for example {example.id!r}, not {feedback!r}"
            )
        return feedback

    def _evidence(
        self, trial: Trial, output: Any, feedback: Feedback | None, batch: Batch
    ) -> tuple[str | None, str | None]:
        if not trial.want_trace or feedback is None or not isinstance(output, Value):
            return None, None
        subgraph = propagate(output, feedback, list(self.parameters.values()))
        return batch.put(subgraph.to_json()), batch.put(trace_to_json(output))

    def _to_row(self, trial: Trial, result: ExampleResult, batch: Batch) -> EvaluationRow:
        return EvaluationRow(
            candidate=trial.candidate.id,
            split=trial.split,
            example=result.example,
            repeat=trial.repeat,
            feedback=None if result.feedback is None else result.feedback.to_json(),
            output=batch.put(result.output),
            subgraph=result.subgraph,
            trace=result.trace,
            error=result.error,
            calls=result.calls,
            prompt_tokens=result.prompt_tokens,
            completion_tokens=result.completion_tokens,
            seconds=result.seconds,
            truncated=result.truncated,
            order=result.order,
        )

    def _from_row(self, row: EvaluationRow) -> ExampleResult:
        return ExampleResult(
            example=row.example,
            feedback=None if row.feedback is None else Feedback.from_json(row.feedback),
            output=None if row.output is None else self.journal.get(row.output),
            subgraph=row.subgraph,
            trace=row.trace,
            error=row.error,
            calls=row.calls,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            seconds=row.seconds,
            truncated=row.truncated,
            order=row.order,
        )


def _failed(failure: Exception) -> tuple[Any, Feedback | None, str]:
    """Return the output to go backward from, the verdict (None: nothing can be said), and the error in one line."""
    output: Any = None
    original: BaseException = failure
    if isinstance(failure, OpError):
        output = failure.value
        original = failure.original or failure
    if isinstance(original, _ENDS_RUN) or (isinstance(original, ServingError) and original.kind in SYSTEMIC):
        raise original
    kind = type(original).__name__
    error = f"{kind}: {original}" if str(original) else kind
    if isinstance(original, ServingError):
        return output, None, error
    text = str(failure) if isinstance(failure, OptographError) else error
    return output, Feedback(score=0.0, text=f"The workflow failed. {text}", failure_type=kind), error


def _jsonable(data: Any) -> Any:
    if data is None or isinstance(data, bool | int | str):
        return data
    if isinstance(data, float):
        return data if data == data and abs(data) != float("inf") else repr(data)
    if isinstance(data, Mapping):
        return {str(key): _jsonable(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_jsonable(value) for value in data]
    dump = getattr(data, "model_dump", None)
    return _jsonable(dump(mode="json")) if callable(dump) else repr(data)

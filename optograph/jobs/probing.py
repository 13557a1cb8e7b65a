"""A probe: a few train examples on the real model, to measure calls, tokens and time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from optograph.evals import Evaluator, EvaluatorOptions, Task, Trial
from optograph.graphs import allow_unsandboxed
from optograph.jobs.job import Job
from optograph.jobs.pricing import settle_prices
from optograph.jobs.rehearsal import starting_point, trainable
from optograph.jobs.run import _key, load_models, set_parameters
from optograph.jobs.sizing import CallSize, Range
from optograph.jobs.workflows import build_workflow, find_target, wants_model
from optograph.optimizers import Plan
from optograph.serving import Budget, JournaledLM, make_request, run_sync
from optograph.storage import CallRow, Journal

TIMED_TOKENS = 64
"""Longest answer that the optimizer's model is timed with."""


class Probe(BaseModel):
    """What a few train examples have used on the real model."""

    model_config = ConfigDict(frozen=True)

    examples: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    """Wall-clock time of all of them, at the job's concurrency."""


@dataclass
class Measured:
    """A probe with what it says of a call.

    Attributes:
        probe: The sums.
        size: Tokens of a call of the workflow.
        calls: Calls for an example.
        overhead: Calls that belong to no example.
        seconds_a_call: Wall-clock time, at the job's concurrency.
        seconds_a_token: Time in which the optimizer's model writes a token; 0 where there is none.
    """

    probe: Probe
    size: CallSize
    calls: Range
    overhead: int
    seconds_a_call: float
    seconds_a_token: float


def run_probe(job: Job, base: Path, task: Task, plan: Plan | None, count: int) -> Measured:
    """Run the first train examples on the job's models, with a journal in memory.

    Args:
        job: The job.
        base: Folder of the job file.
        task: Data and scorer.
        plan: The optimizer's plan, where it has one.
        count: Examples, at least 1.

    Raises:
        UserError: The job names something that is not there.
        ServingError: A model cannot be reached.
        BudgetExceeded: The budget does not cover the probe.
    """
    target = find_target(job.workflow, base)
    task_model, optimizer_model = job.models.task_model(), job.models.optimizer_model()
    asks = plan is None or plan.calls[1] > 0
    wanted = [*([task_model] if wants_model(target) else []), *([optimizer_model] if asks else [])]
    models = load_models(wanted, preflight=True)
    try:
        journal, budget = Journal.memory(), Budget(job.limits(), prices=job.price_table())
        settle_prices(budget, [("task", lm) for lm in models.values()])
        wrapped = {key: JournaledLM(lm, journal, budget) for key, lm in models.items()}
        workflow = build_workflow(target, job.workflow, wrapped.get(_key(task_model)), task.train)
        set_parameters(workflow, job.parameters)
        options = EvaluatorOptions(job.evaluation.concurrency, job.evaluation.deadline_s)
        parameters = trainable(workflow)
        examples = tuple(example.id for example in task.train[:count])
        started = time.monotonic()
        with allow_unsandboxed() if job.workflow.allow_unsandboxed else nullcontext():
            evaluator = Evaluator(workflow, task, parameters, journal, options)
            evaluator.evaluate([Trial(starting_point(parameters), "train", examples)])
        seconds = time.monotonic() - started
        rows = journal.calls()
        proposer = wrapped.get(_key(optimizer_model)) if asks else None
        return _measured(rows, examples, seconds, 0.0 if proposer is None else _time_a_token(proposer, plan))
    finally:
        for lm in models.values():
            run_sync(lm.aclose())


def _time_a_token(lm: JournaledLM, plan: Plan | None) -> float:
    """Return the seconds that the optimizer's model takes to write a token."""
    most = TIMED_TOKENS if plan is None else min(TIMED_TOKENS, max(1, plan.max_tokens))
    answer = lm.ask(make_request("Write the numbers from one to fifty as words.", max_tokens=most))
    return answer.latency_s / max(1, answer.usage.completion_tokens)


def _measured(rows: Sequence[CallRow], examples: Sequence[str], seconds: float, token_s: float) -> Measured:
    answered = [row for row in rows if row.completion is not None]
    counts = [sum(row.context.get("example") == name for row in rows) for name in examples]
    reads = fmean(row.prompt_tokens for row in answered) if answered else 0.0
    writes = fmean(row.completion_tokens for row in answered) if answered else 0.0
    probe = Probe(
        examples=len(examples),
        calls=len(rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        completion_tokens=sum(row.completion_tokens for row in rows),
        seconds=seconds,
    )
    # Examples differ, the more the fewer were measured.
    spread = 1 + 1 / math.sqrt(max(1, len(examples)))
    return Measured(
        probe=probe,
        size=CallSize(
            Range(low=reads / spread**2, high=reads * spread), Range(low=writes / spread**2, high=writes * spread**2)
        ),
        calls=Range(low=min(1, *counts) if len(counts) > 1 else min(1, sum(counts)), high=max(counts)),
        overhead=sum(row.context.get("example") is None for row in rows),
        seconds_a_call=seconds / max(1, len(rows)),
        seconds_a_token=token_s,
    )

"""What a job will use, told beforehand: from its data, its optimizer's plan and its prompts, or from a probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from optograph.agents import Agent, Step
from optograph.errors import UserError
from optograph.evals import Task
from optograph.jobs.job import Job
from optograph.jobs.paths import path_of
from optograph.jobs.probing import Measured, Probe, run_probe
from optograph.jobs.rehearsal import Rehearsal, StandIn, rehearse
from optograph.jobs.run import load_task, make_optimizer, set_parameters
from optograph.jobs.sizing import (
    BudgetLine,
    CallSize,
    Cost,
    Range,
    Splits,
    Workload,
    budget_lines,
    cost_of,
    fixed_calls,
    search_calls,
    shown,
)
from optograph.jobs.training.section import PolicySection
from optograph.jobs.workflows import build_workflow, find_target, wants_model
from optograph.optimizers import Plan
from optograph.serving import Choice, Request

if TYPE_CHECKING:
    from rich.console import Console


class RoleEstimate(BaseModel):
    """What one role will use."""

    model_config = ConfigDict(frozen=True)

    role: str
    model: str
    cost: Cost


class Estimate(BaseModel):
    """What a job will use. Failed calls, which are made again, are not foreseen."""

    model_config = ConfigDict(frozen=True)

    job: str
    train: int
    dev: int
    test: int
    steps: int
    """Acceptance tests that the optimizer expects."""
    roles: list[RoleEstimate]
    total: Cost
    budget: list[BudgetLine]
    notes: list[str]
    """What was assumed, and what is not known."""
    probe: Probe | None = None


def estimate_job(job: Job, base: str | Path, *, probe: int = 0) -> Estimate:
    """Tell what a job will use.

    Without a probe, no model is asked and no server is needed: the workflow runs on a few train examples with a
    stand-in for its model, whose prompts are measured in bytes.

    Args:
        job: The job.
        base: Folder of the job file; its paths are relative to it.
        probe: Train examples to run on the real model, which measures tokens and time; 0 for none.

    Raises:
        UserError: The job names something that is not there, or `probe` is negative.
        ServingError: A model cannot be reached (with a probe only).
        BudgetExceeded: The budget does not cover the probe.
    """
    if probe < 0:
        raise UserError(f"probe must be a number of examples, at least 0, not {probe!r}")
    base = path_of(base, "base")
    task = load_task(job.task, base)
    optimizer = make_optimizer(job)
    plan = optimizer.plan(task)
    notes = [] if job.policy is None else [_training_note(job.policy, task)]
    if plan is None:
        notes.append(f"The optimizer {optimizer.name!r} does not say what it will do: only the rest is counted.")
    load, growth = _rehearsed(job, base, task, notes), 0 if plan is None else plan.growth
    measured = run_probe(job, base, task, plan, probe) if probe else None
    if measured is not None and load is not None:
        size = CallSize(
            _narrowed(load.size.prompt, measured.size.prompt), _narrowed(load.size.completion, measured.size.completion)
        )
        load = Workload(_hull(load.calls, measured.calls), max(load.overhead, measured.overhead), size)
    splits = _splits(task)
    fixed, search = _costs(job, splits, load, plan, growth)
    if measured is not None:
        fixed, search = _timed(job, fixed, search, plan, measured)
    roles = [RoleEstimate(role="task", model=job.models.task_model().name, cost=fixed + search["task"])]
    if search["optimizer"].calls.high != 0:
        cost = search["optimizer"]
        roles.append(RoleEstimate(role="optimizer", model=job.models.optimizer_model().name, cost=cost))
    lacking = [one.model for one in roles if one.cost.usd is None]
    notes += [f"The price of {name!r} is not known: add it under [prices]." for name in dict.fromkeys(lacking)]
    return Estimate(
        job=job.name or "",
        train=splits.train,
        dev=splits.dev,
        test=splits.test,
        steps=optimizer.rounds(),
        roles=roles,
        total=sum((one.cost for one in roles[1:]), roles[0].cost),
        budget=budget_lines(job.limits(), fixed, search, optimizer.rounds(), lacking),
        notes=notes,
        probe=None if measured is None else measured.probe,
    )


# -- what is known without a model ----------------------------------------------------------------


def _training_note(policy: PolicySection, task: Task) -> str:
    rollouts = policy.rounds * policy.samples * len(task.train)
    tests = (policy.rounds + 1) * len(task.dev) + 2 * len(task.test)
    return (
        "These are the figures of `optograph run`. `optograph train` runs the workflow up to "
        f"{rollouts + tests:,} times on its own server: {rollouts:,} rollouts, {tests:,} for the tests on dev and the "
        "sealed split; and it trains in between."
    )


def _splits(task: Task) -> Splits:
    held_out = {repr(row.input) for rows in (task.dev, task.test.peek()) for row in rows}
    return Splits(len(task.train), len(task.dev), len(task.test), len(held_out))


def _rehearsed(job: Job, base: Path, task: Task, notes: list[str]) -> Workload | None:
    """Return how the workflow uses its model; None where it takes none."""
    target = find_target(job.workflow, base)
    lm = StandIn(job.models.task_model().name)
    workflow = build_workflow(target, job.workflow, lm, task.train)
    set_parameters(workflow, job.parameters)
    found = rehearse(job, workflow, task, lm)
    requests = found.all_requests()
    if found.error is not None:
        notes.append(f"The workflow could not be rehearsed with a stand-in for its model: {found.error}")
    elif found.failures:
        notes.append(
            f"{found.failures} of {len(found.examples)} rehearsed examples failed, which may be the stand-in's fault."
        )
    if not requests and not found.overhead and not found.steps and not wants_model(target):
        notes.append("The workflow takes no `lm` and no `model`: what it calls by itself is not charged to the budget.")
        return None
    counts = [len(one) for one in found.requests.values()]
    attempts = max(1, sum(_attempts(step, lm.name) for step in found.steps))
    calls = Range(low=min([1, *counts]), high=max([attempts, *counts]))
    notes.append(_calls_note(found, calls))
    if not requests:
        notes.append("No prompt was seen, so the tokens of the task's calls are not known.")
        nothing_known = Range(low=0, high=None)
        return Workload(calls, len(found.overhead), CallSize(nothing_known, nothing_known))
    notes.append(f"Prompts are those of {len(found.examples)} train examples, at 2 to 7 bytes a token.")
    return Workload(calls, len(found.overhead), _size([*requests, *found.overhead], lm.name))


def _attempts(step: Step | Agent, model: str) -> int:
    """Return how often a step or agent may ask for one input: again where an answer may not fit."""
    if isinstance(step, Agent):
        return step.options.max_steps * (1 + step.options.repairs)
    held = step.form == "choice" and _holds(model)
    fits = step.form == "score" or held or (step.form == "text" and _is_text(step))
    return 1 if fits else 1 + step.options.repairs


def _holds(model: str) -> bool:
    """Tell whether a model's engine holds its answers to a choice for sure."""
    return model.startswith(("local/", "vllm/"))


def _is_text(step: Step) -> bool:
    return all(one.annotation is str and not one.metadata for one in step.output.model_fields.values())


def _calls_note(found: Rehearsal, calls: Range) -> str:
    if found.steps:
        agents = sum(isinstance(step, Agent) for step in found.steps)
        steps = len(found.steps) - agents
        parts = [f"{count} {name}{'s' * (count != 1)}" for count, name in ((steps, "step"), (agents, "agent")) if count]
        what = f"{' and '.join(parts)}, and another call where an answer may not fit"
    else:
        what = "as many as were seen in the rehearsal, or 1"
    more = f"; {len(found.overhead)} more for each candidate" if found.overhead else ""
    return f"Calls for an example: {_range(calls)} ({what}){more}."


def _size(requests: Sequence[Request], model: str) -> CallSize:
    sizes = [len(one.text.encode("utf-8", "replace")) for one in requests]
    limit = max(_most_written(one, model) for one in requests)
    return CallSize.of_bytes(fmean(sizes), max(len(one.messages) for one in requests), limit)


def _most_written(request: Request, model: str) -> int:
    most = request.max_tokens
    if isinstance(request.schema, Choice) and _holds(model):
        # No token is shorter than a byte; one more ends the answer.
        most = min(most, max(len(one.encode()) for one in request.schema.options) + 1)
    return most * request.n


def _costs(
    job: Job, splits: Splits, load: Workload | None, plan: Plan | None, growth: int
) -> tuple[Cost, dict[str, Cost]]:
    """Return what is used without any search, and what the search uses by role."""
    prices = job.price_table()
    price = prices.find(job.models.task_model().name)
    fixed, task = Cost(), Cost()
    if load is not None:
        share = splits.test / (splits.dev + 2 * splits.test)  # the start's prompts do not grow
        fixed = cost_of(fixed_calls(splits, load), load.size, price, math.ceil(growth * share))
        task = cost_of(search_calls(splits, load, plan), load.size, price, growth)
    optimizer = Cost()
    if plan is None:
        unknown = CallSize(Range(high=None), Range(high=None))
        optimizer = cost_of(Range(high=None), unknown, prices.find(job.models.optimizer_model().name))
    elif plan.calls[1]:
        calls, size = Range(low=plan.calls[0], high=plan.calls[1]), _own_size(plan)
        optimizer = cost_of(calls, size, prices.find(job.models.optimizer_model().name))
    return fixed, {"task": task, "optimizer": optimizer}


def _own_size(plan: Plan) -> CallSize:
    low, high = plan.prompt_tokens
    return CallSize(Range(low=low, high=high), Range(low=1, high=plan.max_tokens))


def _hull(one: Range, other: Range) -> Range:
    most = None if one.high is None or other.high is None else max(one.high, other.high)
    return Range(low=min(one.low, other.low), high=most)


def _narrowed(judged: Range, measured: Range) -> Range:
    """Return what both ranges have in common; the measured one where that is nothing."""
    low = max(judged.low, measured.low)
    high = min(one.high for one in (judged, measured) if one.high is not None)
    return Range(low=low, high=high) if low <= high else measured


def _timed(
    job: Job, fixed: Cost, search: dict[str, Cost], plan: Plan | None, measured: Measured
) -> tuple[Cost, dict[str, Cost]]:
    """Add minutes: the task's calls at the probe's pace, the optimizer's by the tokens that they may write."""

    def paced(cost: Cost) -> Cost:
        pace = measured.seconds_a_call / 60
        return cost.model_copy(update={"minutes": cost.calls.times(0.5 * pace, 2 * pace)})

    pace = measured.seconds_a_token / 60
    optimizer = search["optimizer"]
    writing = optimizer.completion_tokens.times(0.5 * pace, 2 * pace)
    timed = {"task": paced(search["task"]), "optimizer": optimizer.model_copy(update={"minutes": writing})}
    return paced(fixed), timed


# -- for people -----------------------------------------------------------------------------------


def print_estimate(estimate: Estimate, console: Console) -> None:
    """Show an estimate as a table, what the budget says to it, and what was assumed."""
    from rich.table import Table

    table = Table(title=f"What {estimate.job} will use", caption=_splits_line(estimate), title_justify="left")
    table.add_column("role")
    table.add_column("model")
    timed = estimate.total.minutes is not None
    for name in ("calls", "tokens in", "tokens out", "US dollars", *(["minutes"] if timed else [])):
        table.add_column(name, justify="right")
    for one in estimate.roles:
        table.add_row(one.role, one.model, *_cells(one.cost, timed=timed))
    if len(estimate.roles) > 1:
        table.add_section()
        table.add_row("total", "", *_cells(estimate.total, timed=timed))
    console.print(table)
    if estimate.probe is not None:
        probe = estimate.probe
        console.print(
            f"Measured on {probe.examples} train examples: {probe.calls} calls, {probe.prompt_tokens:,} tokens in, "
            f"{probe.completion_tokens:,} out, {probe.seconds:.1f} s."
        )
    marks = {"covers": "[green]✔[/green]", "may stop": "[yellow]![/yellow]", "too small": "[red]✘[/red]"}
    for line in estimate.budget:
        text = line.text[:1].upper() + line.text[1:]
        console.print(f"{marks.get(line.verdict, '-')} ", end="")
        console.print(f"{text}.", markup=False, highlight=False)
    for note in estimate.notes:
        console.print(f"- {note}", markup=False, highlight=False, style="dim")


def _splits_line(estimate: Estimate) -> str:
    return (
        f"{estimate.train} train, {estimate.dev} dev and {estimate.test} test examples; {estimate.steps} steps at most"
    )


def _cells(cost: Cost, *, timed: bool) -> list[str]:
    ranges = [cost.calls, cost.prompt_tokens, cost.completion_tokens, cost.usd, *([cost.minutes] if timed else [])]
    return [_range(one) for one in ranges]


def _range(one: Range | None) -> str:
    if one is None:
        return "unknown"
    if one.high is None:
        return f"{shown(one.low)} or more"
    return shown(one.low) if one.low == one.high else f"{shown(one.low)} to {shown(one.high)}"

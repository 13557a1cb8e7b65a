"""What each part of a candidate is worth: instructions only, demonstrations only, and both, on the sealed test.

Runs the shipped reviews job with its own stages for several seeds, without its time limit. Arms share one journal, so
that what they have in common (the starting point, the demonstrations of a seed) is computed once. Fails where OptoPrime
alone does not gain, or where both together do not: the 95 % paired-bootstrap interval over the examples, averaged over
the seeds, must lie above 0.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from optograph.evals import EvaluatorOptions, Interval, paired_bootstrap
from optograph.jobs import RunOptions, load_job, load_task, optimize
from optograph.jobs.targets import call_with, resolve
from optograph.optimizers import AcceptanceRule
from optograph.serving import Budget, JournaledLM, load_lm
from optograph.storage import Journal

JOB = Path(__file__).parent.parent / "examples" / "reviews" / "job.toml"
ARMS = {"instructions": ("optoprime",), "demonstrations": ("fewshot",), "both": ("fewshot", "optoprime")}


def main() -> int:
    """Run all arms and print the table."""
    options = arguments()
    job = load_job(JOB, options.set)
    task = load_task(job.task, JOB.parent)
    model = job.models.task_model()
    journal, budget = Journal.memory(), Budget()
    lm = JournaledLM(load_lm(model.name, **model.options), journal, budget)
    optimizer_model = job.models.optimizer_model()
    proposer = lm
    if optimizer_model != model:
        proposer = JournaledLM(load_lm(optimizer_model.name, **optimizer_model.options), journal, budget)
    stages = {one.name: one.options for one in job.optimizer.stages}
    build = resolve(job.workflow.target, JOB.parent)
    table = Table("arm", "seed", "dev", "test before", "test after", "difference", "95 % interval", "calls", "s")
    pooled: dict[str, tuple[list[list[float]], list[list[float]]]] = {arm: ([], []) for arm in options.arms}
    for seed in options.seeds:
        for arm in options.arms:
            started, calls = time.monotonic(), budget.calls
            result = optimize(
                call_with(build, {"lm": lm, "train": task.train}),
                task,
                optimizer=[(name, stages[name]) for name in ARMS[arm]],
                optimizer_lm=proposer,
                options=RunOptions(
                    seed=seed,
                    rule=AcceptanceRule(job.acceptance.confidence),
                    evaluation=EvaluatorOptions(job.evaluation.concurrency, job.evaluation.deadline_s),
                ),
                journal=journal,
                budget=budget,
            )
            before, after = (scores(one) for one in result.test)
            pooled[arm][0].append(before)
            pooled[arm][1].append(after)
            cost = (str(budget.calls - calls), f"{time.monotonic() - started:.0f}")
            table.add_row(arm, str(seed), *row(result.dev[1], before, after, result.difference), *cost)
            print(f"{arm} seed {seed}: {result.difference.mean:+.3f}", file=sys.stderr, flush=True)
    intervals = {arm: paired_bootstrap(mean(before), mean(after)) for arm, (before, after) in pooled.items()}
    for arm, interval in intervals.items():
        before, after = (mean(one) for one in pooled[arm])
        table.add_row(arm, "all", *row(None, before, after, interval), "", "", style="bold")
    Console(width=120).print(table)
    print(
        f"model={model.name} proposer={optimizer_model.name} seeds={len(options.seeds)}",
        *(figures(arm, one) for arm, one in intervals.items()),
    )
    needed = [intervals[arm] for arm in ("instructions", "both") if arm in intervals]
    return 0 if all(interval.low > 0 for interval in needed) else 1


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the job")
    return parser.parse_args()


def scores(evaluation: Any) -> list[float]:
    """Return an evaluation's scores; none may be missing."""
    if evaluation.missing:
        raise SystemExit(f"{evaluation.missing} scores are missing, so nothing can be compared")
    return [float(score) for score in evaluation.scores]


def mean(rows: list[list[float]]) -> list[float]:
    """Average example by example."""
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def row(dev: Any, before: list[float], after: list[float], difference: Interval) -> list[str]:
    """Format the scores of one row."""
    return [
        "" if dev is None else f"{dev.mean:.3f}",
        f"{sum(before) / len(before):.3f}",
        f"{sum(after) / len(after):.3f}",
        f"{difference.mean:+.3f}",
        f"{difference.low:+.3f} to {difference.high:+.3f}",
    ]


def figures(arm: str, interval: Interval) -> str:
    """Format the last line's part of one arm."""
    return f"{arm}_gain={interval.mean:.3f} {arm}_low={interval.low:.3f}"


if __name__ == "__main__":
    sys.exit(main())

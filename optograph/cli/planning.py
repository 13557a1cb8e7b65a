"""``optograph estimate``: what a job will use, said before anything is paid."""

from __future__ import annotations

from typing import Annotated

import typer

from optograph.cli.output import AsJson, JobArgument, Overrides, console, print_json


def estimate(
    job: JobArgument,
    override: Overrides = None,
    probe: Annotated[
        int, typer.Option(min=0, metavar="N", help="Run N train examples on the real model and measure them.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Say what a job will use: calls, tokens and USD by role. Nothing is called unless --probe is given.

    Example: [bold]optograph estimate examples/reviews/job.toml --set budget.calls=2000[/bold]
    """
    from optograph.jobs import load_job
    from optograph.jobs.estimate import estimate_job, print_estimate

    found = estimate_job(load_job(job, override), job.resolve().parent, probe=probe)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_estimate(found, console())

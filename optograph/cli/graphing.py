"""``optograph graph``: the loop that optimizes, as a picture in text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optograph.cli.output import AsJson, Overrides, print_json


def graph(
    job: Annotated[
        Path | None,
        typer.Argument(metavar="JOB", help="The job file whose optimizer is drawn; OptoPrime where it is left out."),
    ] = None,
    override: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Print the loop of a run as a Mermaid diagram: its LangGraph graph, with the optimizer's own graph inside.

    Example: [bold]optograph graph examples/reviews/job.toml[/bold]
    """
    from optograph.jobs import load_job
    from optograph.jobs.run import make_optimizer
    from optograph.optimizers import OptoPrime, optimization_graph

    optimizer = OptoPrime() if job is None else make_optimizer(load_job(job, override))
    drawn = optimization_graph(optimizer).get_graph(xray=True).draw_mermaid()
    if as_json:
        print_json({"mermaid": drawn})
    else:
        typer.echo(drawn)

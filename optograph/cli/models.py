"""``optograph models``: list and fetch the models that run inside this process."""

from __future__ import annotations

from typing import Annotated

import typer

from optograph.cli.output import AsJson, print_json


def complete_models(incomplete: str) -> list[str]:
    """Return the names of the embedded models that begin so, for the shell's completion."""
    from optograph.serving.fetch import models

    return [name for name in models() if name.startswith(incomplete)]


def list_models(as_json: AsJson = False) -> None:
    """List the embedded models and whether they are here.

    Example: [bold]optograph models list[/bold]
    """
    from optograph.serving.fetch import catalogue

    rows = catalogue()
    if as_json:
        print_json([{"name": one.name, "size": one.size, "present": one.present} for one in rows])
        return
    for one in rows:
        typer.echo(f"local/{one.name}  {one.size / 1e6:.0f} MB  {'here' if one.present else 'not fetched yet'}")


def pull_model(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of the model, such as smollm2-135m.", show_default=False, autocompletion=complete_models
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Fetch an embedded model and check it.

    Example: [bold]optograph models pull smollm2-135m[/bold]
    """
    from optograph.serving.fetch import fetch_model

    plain = name.removeprefix("local/")
    path = fetch_model(plain)
    if as_json:
        print_json({"name": plain, "path": str(path)})
        return
    typer.echo(str(path))

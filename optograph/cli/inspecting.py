"""``optograph inspect``: what can be learned in a LangGraph app, and where it stands."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optograph.cli.output import AsJson, Overrides, console, print_json
from optograph.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from optograph.agents.langgraph import FoundPrompt, TracedGraph
    from optograph.graphs import Parameter
    from optograph.jobs import Job

_SHORT = 48


def inspect(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="MODULE:NAME or PATH.py:NAME of a compiled LangGraph app or a function that makes one; or a job file.",
            show_default=False,
        ),
    ],
    override: Overrides = None,
    full: Annotated[bool, typer.Option("--full", help="Show whole texts.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the prompts of a LangGraph app, by the names that its parameters have, with node, file and line.

    The app is imported, and a function is called, but no model is. For a job file, names, frozen parameters and further
    settings are those of its table workflow.langgraph; a workflow of optograph's own shows its parameters.

    Example: [bold]optograph inspect examples/langgraph_qa/job.toml[/bold]
    """
    from rich.text import Text

    workflow = _load(target, override)
    if as_json:
        print_json({"target": target, **_facts(workflow)})
        return
    out = console()
    if full:
        _print_whole(out, workflow)
    else:
        out.print(_prompts_table(workflow) if _is_app(workflow) else _parameters_table(_parameters(workflow)))
        settings = _settings(workflow) if _is_app(workflow) else []
        if settings:
            out.print()
            out.print(_parameters_table(settings))
    if _is_app(workflow):
        out.print()
        out.print(_nodes_table(workflow))
    found = len({one.name for one in workflow.prompts}) if _is_app(workflow) else len(_parameters(workflow))
    out.print()
    out.print(Text(_ending(workflow, found), style="dim"))


# -- finding it -----------------------------------------------------------------------------------


def _load(target: str, override: Sequence[str] | None) -> Any:
    """Build the workflow over a model that answers nothing; what the user's code prints goes to standard error."""
    from optograph.jobs.job import WorkflowSection
    from optograph.jobs.workflows import build_workflow, find_target
    from optograph.serving import ScriptedLM

    path, job, base = Path(target), None, Path.cwd()
    if path.suffix == ".toml":
        from optograph.jobs import load_job

        job, base = load_job(path, list(override or ())), path.resolve().parent
    elif override:
        raise UserError("--set changes a job: give a job file, or leave it out")
    section = WorkflowSection(target=target) if job is None else job.workflow
    with contextlib.redirect_stdout(sys.stderr), _importable(base):
        if job is None:
            _check_form(target, base)
        found = find_target(section, base)
        nothing = ScriptedLM(lambda request: "", name="nothing")
        workflow = build_workflow(found, section, nothing, _train(job, found, base))
    if not (_is_app(workflow) or _parameters(workflow)):
        raise UserError(
            f"{section.target!r} gives a {type(workflow).__name__}: name a compiled LangGraph app, or a function that "
            "returns one"
        )
    return workflow


@contextlib.contextmanager
def _importable(base: Path) -> Iterator[None]:
    """Let modules be imported from the folder that the command is called in, as ``python -m`` does."""
    sys.path.insert(0, str(base))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(base))


def _check_form(target: str, base: Path) -> None:
    where, separator, name = target.rpartition(":")
    file = base / (where if separator else target)
    if file.suffix == ".py" and not file.is_file():
        raise UserError(f"{str(file)!r} does not exist: give the path of the file, then a colon and the app's name")
    if not separator or not name:
        raise UserError(f"{target!r} names no app: write {where or target}:NAME{_hint(where or target, base)}")


def _hint(where: str, base: Path) -> str:
    """Say which apps a module holds."""
    from optograph.jobs.targets import load_module
    from optograph.jobs.workflows import is_langgraph

    module = load_module(where, base)
    names = [name for name, one in vars(module).items() if is_langgraph(one) and hasattr(one, "invoke")]
    return f"; it holds the apps {names!r}" if names else "; NAME is a compiled app, or a function that returns one"


def _train(job: Job | None, target: Any, base: Path) -> Sequence[Any]:
    from optograph.jobs import load_task
    from optograph.jobs.targets import takes

    return load_task(job.task, base).train if job is not None and callable(target) and takes(target, "train") else []


# -- what it holds --------------------------------------------------------------------------------


def _is_app(workflow: Any) -> bool:
    return hasattr(workflow, "prompts") and hasattr(workflow, "app")


def _parameters(workflow: Any) -> list[Parameter]:
    find = getattr(workflow, "parameters", None)
    return list(find()) if callable(find) else []


def _settings(workflow: TracedGraph) -> list[Parameter]:
    """Return the parameters that the user named beside the prompts."""
    names = {one.name for one in workflow.prompts}
    return [one for one in workflow.parameters() if one.name not in names]


def _facts(workflow: Any) -> dict[str, Any]:
    if not _is_app(workflow):
        return {"parameters": [_fact(one) for one in _parameters(workflow)]}
    from optograph.agents.langgraph.outline import outline

    return {
        "prompts": [asdict(one) for one in workflow.prompts],
        "settings": [_fact(one) for one in _settings(workflow)],
        "nodes": [asdict(one) for one in outline(workflow.app)],
    }


def _fact(one: Parameter) -> dict[str, Any]:
    value = one.spec.to_json(one.base)
    return {"name": one.name, "kind": one.spec.kind, "value": value, "trainable": one.trainable}


def _grouped(prompts: Sequence[FoundPrompt]) -> dict[str, list[FoundPrompt]]:
    groups: dict[str, list[FoundPrompt]] = {}
    for one in prompts:
        groups.setdefault(one.name, []).append(one)
    return groups


# -- how it looks ---------------------------------------------------------------------------------


def _prompts_table(workflow: TracedGraph) -> Table:
    from rich.text import Text

    from optograph.report import svg

    table = _table("parameter", "node", "where", "source", "text")
    for name, found in _grouped(workflow.prompts).items():
        first = found[0]
        label = Text(name, style="dim" if first.frozen else "bold", overflow="fold")
        if first.frozen:
            label.append(" (frozen)", style="not bold yellow")
        nodes = ", ".join(dict.fromkeys(one.node for one in found))
        table.add_row(
            label,
            Text(nodes, overflow="fold"),
            first.where,
            Text(_place(first.file, first.line), overflow="fold"),
            Text(_clean(svg.clip(first.text, _SHORT))),
        )
    return table


def _parameters_table(parameters: Sequence[Parameter]) -> Table:
    from rich.text import Text

    from optograph.report import svg

    table = _table("parameter", "kind", "value")
    for one in parameters:
        label = Text(one.name, style="bold" if one.trainable else "dim", overflow="fold")
        if not one.trainable:
            label.append(" (frozen)", style="not bold yellow")
        table.add_row(label, one.spec.kind, Text(_clean(svg.clip(str(one.spec.to_json(one.base)), 2 * _SHORT))))
    return table


def _nodes_table(workflow: TracedGraph) -> Table:
    from rich.text import Text

    from optograph.agents.langgraph.outline import outline

    table = _table("node", "runs", "source", "is given", "then (? if chosen)")
    for one in outline(workflow.app):
        then = [f"{name}?" if name in one.conditional else name for name in one.then]
        table.add_row(
            Text(one.node, style="bold", overflow="fold"),
            one.kind,
            Text(_place(one.file, one.line), overflow="fold"),
            Text(", ".join(one.channels), overflow="fold"),
            Text(", ".join("END" + name[7:] if name.startswith("__end__") else name for name in then), overflow="fold"),
        )
    return table


def _print_whole(out: Console, workflow: Any) -> None:
    """Print each text as it is, under its name."""
    from rich.text import Text

    for name, found in _grouped(workflow.prompts).items() if _is_app(workflow) else ():
        first = found[0]
        nodes = ", ".join(dict.fromkeys(one.node for one in found))
        about = f"  {first.where} of {nodes}, {_place(first.file, first.line)}{', frozen' if first.frozen else ''}"
        out.print(Text.assemble((name, "bold"), (about, "dim")), soft_wrap=True)
        out.print(Text(_clean(first.text)), soft_wrap=True)
        out.print()
    for one in _settings(workflow) if _is_app(workflow) else _parameters(workflow):
        out.print(Text.assemble((one.name, "bold"), (f"  {one.spec.kind}", "dim")), soft_wrap=True)
        out.print(Text(_clean(str(one.spec.to_json(one.base)))), soft_wrap=True)
        out.print()


def _ending(workflow: Any, found: int) -> str:
    if not _is_app(workflow):
        return f"{found} parameters."
    if not found:
        return "No prompt was found in the app's code: its texts may come from a file, a database or a service."
    return (
        f"{found} prompts. [workflow.langgraph] in a job file renames, freezes and adds; what the app computes as it "
        "runs shows in TracedGraph.computed."
    )


def _table(*headings: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for heading in headings:
        table.add_column(heading)
    return table


def _place(file: str, line: int) -> str:
    if not file:
        return ""
    path = Path(file)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}:{line}"


def _clean(text: str) -> str:
    from optograph.report.record import clean_text

    return clean_text(text)

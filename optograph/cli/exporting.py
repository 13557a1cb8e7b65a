"""``optograph export``: the best candidate of a run, or a named one, as plain files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optograph.cli.output import AsJson, print_json, say
from optograph.cli.plainfiles import safe_names, write_files
from optograph.cli.rundirs import RunArgument, find_run
from optograph.errors import UserError
from optograph.secrets import scrub

if TYPE_CHECKING:
    from optograph.graphs import Candidate
    from optograph.storage import DecisionRow, Journal

VALUES = "parameters.json"
"""The file that holds all values by name, for programs."""

_SUFFIX = {"text": "txt", "code": "py"}
_README = "README.txt"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is exported.

    Attributes:
        candidate: The candidate.
        decision: The newest decision about it, or None.
        best: Whether it is the best of the run so far.
        kinds: Kind of each parameter, such as ``"text"`` or ``"code"``, as far as the run tells.
    """

    candidate: Candidate
    decision: DecisionRow | None
    best: bool
    kinds: Mapping[str, str]


def export(
    directory: RunArgument,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write; a folder `export` in the run directory by default."),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Another candidate than the best; the start of its identifier will do."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that hold something else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the best candidate so far as plain files, one for each parameter. Works while the run goes on, too.

    Example: [bold]optograph export runs/reviews-001 --to best[/bold]
    """
    from optograph.storage import Journal

    run = find_run(directory)
    target = to or run / "export"
    with Journal.read(run) as journal:
        chosen = _choose(journal, candidate)
        texts = _texts(chosen)
        texts[_README] = _readme(run, journal, chosen, texts)
    written = write_files(target, {name: scrub(text) for name, text in texts.items()}, force=force)
    if as_json:
        print_json(
            {
                "run_dir": str(run),
                "candidate": chosen.candidate.id,
                "directory": str(target),
                "files": [str(path) for path in written],
            }
        )
        return
    say(f"candidate {chosen.candidate.id}{' (the best so far)' if chosen.best else ''}")
    for path in written:
        typer.echo(str(path))


def _choose(journal: Journal, wanted: str | None) -> Chosen:
    from optograph.jobs import best_candidate
    from optograph.jobs.reporting import stored_setup

    rows = (stored_setup(journal) or {}).get("report", {}).get("parameters", [])
    kinds = {str(row["name"]): str(row["kind"]) for row in rows}
    best = best_candidate(journal)
    if wanted is None:
        if best is None:
            raise UserError("the run has accepted no candidate yet: wait until its starting point has been measured")
        return Chosen(*best, best=True, kinds=kinds)
    found = _find_candidate(journal, wanted)
    decisions = [row for row in journal.decisions() if row.candidate == found.id]
    is_best = best is not None and best[0].id == found.id
    return Chosen(found, decisions[-1] if decisions else None, best=is_best, kinds=kinds)


def _find_candidate(journal: Journal, wanted: str) -> Candidate:
    from optograph.graphs import Candidate

    rows = journal.candidates()
    found = [row for row in rows if row.id == wanted] or [row for row in rows if wanted and row.id.startswith(wanted)]
    if len(found) == 1:
        return Candidate(journal.get(found[0].values), found[0].parents, found[0].origin)
    listed = found or rows[-8:]
    shown = ", ".join(row.id for row in listed) or "none yet"
    if found:
        raise UserError(f"candidate {wanted!r} could be any of {shown}: give more of its identifier")
    raise UserError(f"the run has no candidate {wanted!r}; its latest are {shown}")


def _texts(chosen: Chosen) -> dict[str, str]:
    """Return the content of each file by its name, but for the README."""
    values = chosen.candidate.to_json()["values"]
    suffixes = {name: _suffix(value, chosen.kinds.get(name)) for name, value in values.items()}
    names = safe_names(suffixes, taken=(VALUES, _README))
    texts = {names[name]: _text(value, suffixes[name]) for name, value in values.items()}
    texts[VALUES] = json.dumps(values, ensure_ascii=False, indent=2) + "\n"
    return texts


def _suffix(value: Any, kind: str | None) -> str:
    return _SUFFIX.get(kind or "text", "json") if isinstance(value, str) else "json"


def _text(value: Any, suffix: str) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=2) if suffix == "json" else str(value)
    return text if text.endswith("\n") else text + "\n"


def _readme(run: Path, journal: Journal, chosen: Chosen, texts: Mapping[str, str]) -> str:
    """Say where the files come from and how they are loaded; without times, so that equal exports are equal bytes."""
    from optograph.jobs.reporting import settings_of

    settings = settings_of(journal)
    candidate, decision = chosen.candidate, chosen.decision
    facts = {
        "run": run.resolve().name,
        "workflow": settings.get("workflow.target"),
        "task model": settings.get("models.task", settings.get("models.task.name")),
        "candidate": candidate.id + (" (the best of the run when it was exported)" if chosen.best else ""),
        "made by": candidate.origin,
        "made from": ", ".join(candidate.parents),
        "verdict": None if decision is None else f"{decision.verdict}: {decision.reason}",
        "dev score": None
        if decision is None or decision.score is None
        else f"{decision.score:.4f} on {decision.n} examples",
        "start's dev score": _start_score(journal),
        "sealed test": _sealed(run, candidate.id),
    }
    lines = [f"{name + ':':<20}{value}" for name, value in facts.items() if value]
    listed = [f"  {name}" for name in texts]
    return "\n".join([*_OPENING, *lines, "", "Files:", *listed, "", *_LOADING]) + "\n"


_OPENING = ("Values of a workflow's parameters, exported by optograph.", "")
_LOADING = (
    f"Each parameter has a file of its own to read; {VALUES} holds all of them for programs:",
    "",
    "    import json",
    "    from pathlib import Path",
    "",
    f'    values = json.loads(Path("{VALUES}").read_text(encoding="utf-8"))',
    "    workflow.load_state_dict({**workflow.state_dict(), **values})",
)


def _start_score(journal: Journal) -> str | None:
    first = next(iter(journal.decisions()), None)
    return None if first is None or first.score is None else f"{first.score:.4f}"


def _sealed(run: Path, identifier: str) -> str | None:
    """Return the result on the sealed test where it belongs to this candidate."""
    try:
        data = json.loads((run / "result.json").read_text(encoding="utf-8"))
        test = data["test"] if data["best"]["id"] == identifier else None
    except (OSError, ValueError, KeyError, TypeError):  # not there yet
        return None
    if not isinstance(test, dict) or test.get("after") is None or test.get("before") is None:
        return None
    return (
        f"{test['before']:.4f} before, {test['after']:.4f} after, difference {test['difference']:+.4f} "
        f"(95 % interval {test['low']:+.4f} to {test['high']:+.4f}, {test['n']} examples)"
    )

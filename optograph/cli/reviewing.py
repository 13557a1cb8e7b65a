"""``optograph review``: what a run wants a person to judge, and the person's answer."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from optograph.cli.output import AsJson, console, print_json, say
from optograph.cli.rundirs import RunArgument, find_run, resume_command
from optograph.errors import UserError

if TYPE_CHECKING:
    from optograph.optimizers import Review, ReviewRequest

_TEXTS = ("text", "code")
_DONE = {"approve": "approved", "reject": "rejected", "edit": "edited"}


def review(
    directory: RunArgument,
    approve: Annotated[bool, typer.Option("--approve", help="Take the candidate.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Turn the candidate down.")] = False,
    feedback: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Tell the optimizer; without another answer this turns the candidate down."),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Put another value in the place of a parameter's."),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--edit", metavar="NAME=FILE", help="Likewise, with the value that a file holds."),
    ] = None,
    by: Annotated[str, typer.Option(metavar="NAME", help="Who answers; the user of the system by default.")] = "",
    go_on: Annotated[bool, typer.Option("--go-on", help="Resume the run at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the candidate that a run waits for, and answer: approve, reject, edit, or say what should be better.

    In a terminal the answer is asked for; elsewhere it is given by options, and without any the candidate is shown.

    Example: [bold]optograph review runs/reviews-001 --approve --feedback "Keep it short."[/bold]
    """
    run = find_run(directory)
    request, answered = _waiting(run)
    given = _from_options(request, approve, reject, feedback, values or [], files or [])
    if not as_json and (given is None or sys.stdout.isatty()):
        from optograph.cli.review_view import draw_request

        console().print(draw_request(request, answered))
    if given is None and not as_json and sys.stdin.isatty():
        given = _asked(request)
    if given is not None:
        answered = _file(run, request, given, by)
    if go_on and answered is not None:
        from optograph.cli.running import resume

        resume(run, as_json=as_json)
    elif as_json:
        print_json({"run_dir": str(run), "request": request.to_json(), "answer": answered and answered.to_json()})
    elif answered is not None:
        say(f"To continue: {resume_command(run)}")
    else:
        say("To answer: --approve, --reject, --feedback TEXT, --set NAME=VALUE or --edit NAME=FILE")


def _waiting(run: Path) -> tuple[ReviewRequest, Review | None]:
    from optograph.cli.runstate import read_line
    from optograph.optimizers import pending_review
    from optograph.storage import Journal

    with Journal.read(run) as journal:
        pending = pending_review(journal)
    if pending is None:
        raise UserError(f"{str(run)!r} waits for no review ({read_line(run).headline})")
    return pending


_Answer = tuple[str, str, dict[str, Any]]
"""Verdict, comment, and new values."""


def _from_options(
    request: ReviewRequest,
    approve: bool,
    reject: bool,
    feedback: str | None,
    values: list[str],
    files: list[str],
) -> _Answer | None:
    """Return the answer that the options give, or None where they give none."""
    edits = {name: _value(request, name, text) for name, text in map(_pair, values)}
    edits |= {name: _value(request, name, _read(request, name, Path(file))) for name, file in map(_pair, files)}
    wanted = [
        name for name, is_set in (("--approve", approve), ("--reject", reject), ("an edit", bool(edits))) if is_set
    ]
    if len(wanted) > 1:
        raise UserError(f"{wanted[0]} and {wanted[1]} exclude each other: give one answer")
    if edits:
        return "edit", feedback or "", edits
    if approve:
        return "approve", feedback or "", {}
    if reject or feedback:
        return "reject", feedback or "", {}
    return None


def _pair(given: str) -> tuple[str, str]:
    name, separator, value = given.partition("=")
    if not separator or not name:
        raise UserError(f"cannot read {given!r}: write NAME=VALUE for --set and NAME=FILE for --edit")
    return name, value


def _read(request: ReviewRequest, name: str, file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {str(file)!r} for {name!r}: {error}") from error
    return _without_added_end(text, _current(request, name))


def _without_added_end(text: str, before: Any) -> str:
    """Take off the line end that editors add, where the value had none."""
    return text if not isinstance(before, str) or before.endswith("\n") else text.removesuffix("\n")


def _current(request: ReviewRequest, name: str) -> Any:
    known = request.candidate.to_json()["values"]
    if name not in known:
        raise UserError(f"{name!r} is no parameter of the candidate; it has {sorted(known)!r}")
    return known[name]


def _value(request: ReviewRequest, name: str, text: str) -> Any:
    """Return a value from its text: as it is for texts and code, the choice that it names, else as JSON."""
    before = _current(request, name)
    known = request.parameters.get(name, {})
    kind = known.get("kind")
    if kind in _TEXTS or (kind is None and isinstance(before, str)):
        return text
    if kind == "choice" and text in known.get("schema", {}).get("enum", ()):
        return text  # before it is read as JSON: the choice may be "2", not 2
    try:
        return json.loads(text)
    except ValueError:
        if kind == "choice":
            return text
        raise UserError(f"the value of {name!r} must be JSON ({_constraint(request, name)}), not {text!r}") from None


def _constraint(request: ReviewRequest, name: str) -> str:
    return str(request.parameters.get(name, {}).get("constraint") or "as it is now")


def _file(run: Path, request: ReviewRequest, given: _Answer, by: str) -> Review:
    """Write the answer into the run's journal."""
    from optograph.optimizers import Review, file_review
    from optograph.storage import Journal

    verdict, comment, edits = given
    answer = Review.from_json({"verdict": verdict, "comment": comment, "values": edits, "by": by})
    with Journal.open(run, counted=False) as journal:
        filed = file_review(journal, request, answer)
    say(f"{filed.by} {_DONE[filed.verdict]} candidate {request.candidate.id} at {filed.at}")
    return filed


# -- in a terminal --------------------------------------------------------------------------------


def _asked(request: ReviewRequest) -> _Answer | None:
    """Ask for the answer; None where the person leaves without one."""
    words = "[a]pprove, [r]eject, [e]dit, [f]eedback, [q]uit"
    while True:
        choice = typer.prompt(words, default="q", show_default=False, err=True).strip().lower()[:1]
        if choice == "q":
            return None
        if choice == "e":
            edits = _edited(request)
            if edits:
                return "edit", _comment("Why (the optimizer reads it; may be empty)"), edits
        if choice in ("a", "r"):
            comment = _comment("A word to the optimizer (may be empty)")
            return "approve" if choice == "a" else "reject", comment, {}
        if choice == "f":
            comment = _comment("What should be better")
            if comment:
                return "reject", comment, {}


def _comment(question: str) -> str:
    return str(typer.prompt(question, default="", show_default=False, err=True)).strip()


def _in_editor(text: str, suffix: str) -> str:
    """Have the person edit a text, and return it."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="optograph-") as folder:
        file = Path(folder) / f"value{suffix}"
        file.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)  # noqa: S603 - the person's own editor
            return file.read_text(encoding="utf-8")
        except (OSError, subprocess.CalledProcessError, UnicodeDecodeError, ValueError) as error:
            raise UserError(f"the editor {editor!r} failed ({error}): set EDITOR, or use --edit NAME=FILE") from error


def _edited(request: ReviewRequest) -> dict[str, Any]:
    """Open the changed values in the person's editor, one after the other; returns those that were changed."""
    edits: dict[str, Any] = {}
    for name in request.changed or list(request.candidate.values):
        before = _current(request, name)
        kind = request.parameters.get(name, {}).get("kind")
        text = before if isinstance(before, str) else json.dumps(before, indent=2, ensure_ascii=False)
        suffix = {"code": ".py", "text": ".txt"}.get(str(kind), ".json")
        try:
            value = _value(request, name, _without_added_end(_in_editor(text, suffix), before))
            if value != before:
                edits[name] = value
        except UserError as error:
            say(f"{error}: {name} is left as it was")
    return edits

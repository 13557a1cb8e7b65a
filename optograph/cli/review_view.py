"""How a candidate looks in a terminal when a person is to judge it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from optograph.optimizers import Review, ReviewRequest

_MARKS = {"same": "  ", "removed": "- ", "added": "+ "}
_STYLES = {"same": "dim", "removed": "red", "added": "green"}
_CONTEXT = 2
"""Unchanged lines that are shown beside a change."""


def draw_request(request: ReviewRequest, answered: Review | None) -> RenderableType:
    """Return what a person needs in order to judge: scores, each changed value, and some examples that changed."""
    from rich.console import Group
    from rich.text import Text

    from optograph.report.record import clean_text

    parts: list[RenderableType] = [_heading(request), Text(clean_text(request.reason), style="dim")]
    before, after = request.incumbent.to_json()["values"], request.candidate.to_json()["values"]
    for name in request.changed:
        parts += [Text(), _name(name, request.parameters.get(name, {})), *_difference(before.get(name), after[name])]
    if request.examples:
        parts += [Text(), _examples(request.examples)]
    for one in request.edits:
        parts += [Text(), Text(clean_text(f"Edit {one['candidate']} did not pass: {one['reason']}"), style="yellow")]
    if answered is not None:
        said = f": {answered.comment}" if answered.comment else ""
        words = f"Answered by {answered.by} at {answered.at}: {answered.verdict}{said} (not used yet)"
        parts += [Text(), Text(clean_text(words), style="bold")]
    return Group(*parts)


def _heading(request: ReviewRequest) -> Text:
    from rich.text import Text

    from optograph.report import svg

    gain = (request.score or 0.0) - (request.incumbent_score or 0.0)
    head = Text(f"Candidate {request.candidate.id}", style="bold")
    head.append(f"  step {request.step}, {request.optimizer}", style="not bold dim")
    head.append(f"\ndev {svg.score(request.incumbent_score)} → {svg.score(request.score)}", style="bold")
    if request.low is not None and request.high is not None:
        span = f"{svg.signed(request.low)} to {svg.signed(request.high)}"
        head.append(f"  {svg.signed(gain)} (95 %: {span}) on {request.n} examples", style="not bold")
    return head


def _name(name: str, described: Mapping[str, Any]) -> Text:
    from rich.text import Text

    from optograph.report.record import clean_text

    text = Text(clean_text(name), style="bold")
    text.append(clean_text(f"  {described.get('constraint', '')}"), style="not bold dim")
    return text


def _difference(before: Any, after: Any) -> list[RenderableType]:
    """Return the difference of two values line by line; lists by items, on one line each."""
    from rich.text import Text

    from optograph.report.diff import diff_items, diff_lines
    from optograph.report.record import clean_text

    if isinstance(before, list) and isinstance(after, list):
        rows = [
            (one.kind, [(one.kind, json.dumps(one.value, ensure_ascii=False))]) for one in diff_items(before, after)
        ]
    else:
        lines = diff_lines(_text(before), _text(after))
        rows = [(line.kind, [(piece.kind, piece.text.rstrip("\n")) for piece in line.pieces]) for line in lines]
    shown: list[RenderableType] = []
    for place, (kind, pieces) in enumerate(rows):
        if kind == "same" and all(one[0] == "same" for one in rows[max(0, place - _CONTEXT) : place + _CONTEXT + 1]):
            continue
        text = Text(_MARKS[kind], style=_STYLES[kind])
        for piece_kind, words in pieces:
            marked = kind != "same" and piece_kind != "same" and len(pieces) > 1
            text.append(clean_text(words), style="bold underline" if marked else "")
        shown.append(text)
    return shown


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False, indent=2)


def _examples(examples: Sequence[Mapping[str, Any]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from optograph.report import svg
    from optograph.report.record import clean_text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for title in ("example", "score", "input", "before", "after", "expected"):
        table.add_column(title, overflow="fold", max_width=48 if title == "input" else 24)
    for one in examples:
        old, new = one["before_score"], one["after_score"]
        style = "" if None in (old, new) or old == new else "green" if new > old else "red"
        cells = [Text(clean_text(svg.clip(str(one[name]), 160))) for name in ("input", "before", "after", "expected")]
        table.add_row(Text(clean_text(one["id"])), Text(f"{svg.score(old)} → {svg.score(new)}", style=style), *cells)
    return table

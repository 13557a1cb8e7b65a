"""How a run's state looks in a terminal: header, budget, cost by role, decisions, failures; and the list of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optograph.cli.rundirs import resume_command, review_command
from optograph.cli.runstate import RunLine, RunState

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from optograph.report import LimitRow, UsageRow

_STYLES = {
    "running": "cyan",
    "waiting": "magenta",
    "finished": "green",
    "budget": "green",
    "stopped": "yellow",
    "interrupted": "yellow",
    "failed": "red",
    "unreadable": "red",
}
_VERDICTS = {"accepted": "green", "seed": "dim", "rejected": "yellow", "missing": "red", "identical": "dim"}
_BAR = 24
SHOWN_DECISIONS = 8


def draw_state(state: RunState) -> RenderableType:
    """Return the whole picture of one run."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_header(state), _facts(state)]
    if state.limits:
        parts += [Text(), _budget(state.limits)]
    if state.usage:
        parts += [Text(), _usage(state.usage)]
    if state.decisions:
        parts += [Text(), _decisions(state)]
    parts += _troubles(state)
    if state.report:
        parts += [Text(), Text(f"Report: {state.report}", overflow="fold")]
    if state.state == "waiting" and not state.answered:
        parts += [Text(), Text(f"To review: {review_command(Path(state.directory))}", overflow="fold")]
    if state.can_resume:
        parts += [Text(), Text(f"To continue: {resume_command(Path(state.directory))}", overflow="fold")]
    return Group(*parts)


def draw_list(lines: Sequence[RunLine]) -> RenderableType:
    """Return the table of all runs."""
    from rich.text import Text

    from optograph.report import svg

    table = _table(
        ("run", False), ("state", False), ("decisions", True), ("start", True), ("best", True), ("time", True)
    )
    for line in lines:
        words = Text(line.words, style=_STYLES[line.state])
        if line.state == "running" and line.phase:
            words.append(f": {line.phase}", style="dim")
        table.add_row(
            Text(line.run),
            words,
            str(line.decisions_made),
            svg.score(line.start_score),
            svg.score(line.best_score),
            svg.duration(line.active_s),
        )
    return table


def one_line(state: RunState) -> str:
    """Return the state as one plain line, for logs."""
    from optograph.report import svg

    parts = [state.run, state.headline, f"{svg.count(state.calls)} calls", f"{len(state.decisions)} decisions"]
    return " | ".join(parts)


def _header(state: RunState) -> Text:
    from rich.text import Text

    head = Text(state.title or state.run, style="bold", overflow="fold")
    head.append(f"  {state.directory}", style="not bold dim")
    head.append(f"  {state.words}", style=f"not bold {_STYLES[state.state]}")
    if state.pid is not None:
        head.append(f" (process {state.pid})", style="not bold dim")
    if state.phase and state.state not in ("finished", "budget", "waiting"):
        head.append(f"  {state.phase}", style="not bold")
    return head


def _facts(state: RunState) -> Table:
    from rich.table import Table
    from rich.text import Text

    from optograph.report import svg
    from optograph.report.terminal import sparkline

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    if state.error:
        grid.add_row("error", Text(state.error, style="red"))
    if state.best_score is not None:
        best = Text(f"{svg.score(state.start_score)} → {svg.score(state.best_score)} on dev", style="bold")
        best.append(f"  candidate {state.best}", style="not bold dim")
        grid.add_row("best so far", best)
    scores = [one.score for one in state.decisions if one.score is not None]
    if len(scores) > 1:
        grid.add_row("scores", Text(sparkline(scores), style="cyan"))
    if state.test is not None:
        test = state.test
        grid.add_row(
            "sealed test",
            Text(
                f"{svg.score(test.before)} → {svg.score(test.after)}, {svg.signed(test.difference)} "
                f"({svg.signed(test.low)} to {svg.signed(test.high)})",
                style="bold",
            ),
        )
    tokens = f"{svg.count(state.prompt_tokens)} tokens in, {svg.count(state.completion_tokens)} out"
    money = f", {svg.money(state.usd)}" if state.usd is not None else ""
    grid.add_row("used", Text(f"{svg.count(state.calls)} calls, {tokens}{money}"))
    starts = f", started {state.lives} times" if state.lives > 1 else ""
    if state.review is not None:
        grid.add_row("review", Text(_review(state.review), style="magenta"))
    grid.add_row("time", Text(f"{svg.duration(state.active_s)} at work{starts}"))
    return grid


def _review(review: Mapping[str, Any]) -> str:
    waits = f"candidate {review['candidate']} of step {review['step']}, by {review['optimizer']}"
    return f"{waits}: {review['verdict']}, by {review['by']} at {review['at']}" if review.get("by") else waits


def _budget(limits: Sequence[LimitRow]) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(width=_BAR)
    for row in limits:
        share = min(1.0, row.used / row.limit)
        name = f"{row.role} {row.what}" if row.role else row.what
        amounts = f"{_amount(row.what, row.used)} of {_amount(row.what, row.limit)}"
        bar = ProgressBar(total=1.0, completed=share, width=_BAR)
        grid.add_row(Text(f"budget: {name}"), Text(amounts), bar, Text(f"{share:.0%}"))
    return grid


def _amount(what: str, value: float) -> str:
    from optograph.report import svg

    return svg.money(value) if what == "usd" else f"{value:.1f}" if what == "minutes" else svg.count(int(value))


def _usage(usage: Sequence[UsageRow]) -> Table:
    from rich.text import Text

    from optograph.report import svg

    columns = ("role", False), ("model", False), ("calls", True), ("failed", True), ("in", True), ("out", True)
    table = _table(*columns, ("USD", True))
    for row in usage:
        table.add_row(
            Text(row.role),
            Text(svg.clip(row.model, 40)),
            svg.count(row.calls),
            svg.count(row.failed) if row.failed else svg.DASH,
            svg.count(row.prompt_tokens),
            svg.count(row.completion_tokens),
            svg.money(row.usd) if row.usd is not None else svg.DASH,
        )
    return table


def _decisions(state: RunState) -> Table:
    from rich.text import Text

    from optograph.report import svg

    table = _table(
        ("step", True), ("by", False), ("candidate", False), ("verdict", False), ("dev", True), ("why", False)
    )
    hidden = len(state.decisions) - SHOWN_DECISIONS
    if hidden > 0:
        table.add_row("", Text(f"{hidden} earlier", style="dim"), "", "", "", "")
    for one in state.decisions[-SHOWN_DECISIONS:]:
        table.add_row(
            str(one.step),
            Text(svg.clip(one.optimizer, 20)),
            Text(one.candidate),
            Text(one.verdict, style=_VERDICTS.get(one.verdict, "")),
            svg.score(one.score),
            Text(svg.clip(one.reason, 100)),
        )
    return table


def _troubles(state: RunState) -> list[RenderableType]:
    """Return what went wrong, in one line each; nothing where nothing did."""
    from rich.text import Text

    from optograph.report import svg

    lines = []
    if state.failures:
        listed = ", ".join(f"{row.kind} {svg.count(row.search)}" for row in state.failures if row.search)
        lines.append(f"Failed examples: {listed}" if listed else "")
    if state.failed_calls:
        lines.append("Failed calls: " + ", ".join(f"{kind} {number}" for kind, number in state.failed_calls.items()))
    if state.facts.damaged:
        lines.append(f"Damaged records of the journal: {state.facts.damaged}; they are asked for again")
    shown: list[RenderableType] = [Text(line, style="yellow") for line in lines if line]
    return [Text(), *shown] if shown else []


def _table(*columns: tuple[str, bool]) -> Table:
    """Return an open table; a column is (heading, whether it holds numbers)."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for heading, numeric in columns:
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric)
    return table

"""A comparison of two runs in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optograph.report.compare import Comparison, ParameterDiff, ScoreDiff
from optograph.report.diff import diff_lines, diff_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_MOST_EXAMPLES = 12
_LONGEST = 4000
_STYLES = {"gain": "green", "loss": "red", "unclear": "yellow"}


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print how two runs differ: scores, settings, values word by word, examples, and cost.

    Args:
        comparison: What ``compare_runs`` found.
        console: Where to print; its width decides how much is cut.
    """
    from rich.text import Text

    console.print()
    console.print(Text.assemble(("A  ", "dim"), (comparison.a, "bold"), ("    B  ", "dim"), (comparison.b, "bold")))
    if comparison.scores:
        console.print()
        _print_scores(comparison, console)
    _print_examples(comparison, console)
    console.print()
    _print_settings(comparison, console)
    console.print()
    _print_parameters(comparison, console)
    if comparison.cost:
        console.print()
        _print_cost(comparison, console)


def _table(*columns: tuple[str, bool]) -> Table:
    from optograph.report.terminal import open_table

    return open_table(*columns)


def _print_scores(comparison: Comparison, console: Console) -> None:
    from rich.text import Text

    from optograph.report import svg

    table = _table(
        ("score", False), ("A", True), ("B", True), ("B \u2212 A", True), ("95 % interval", True), ("n", True)
    )
    for row in comparison.scores:
        paired = row.difference is not None and row.low is not None and row.high is not None
        table.add_row(
            "sealed test" if row.split == "test" else "dev",
            svg.score(row.a),
            svg.score(row.b),
            Text(svg.signed(row.difference or 0.0), style=_STYLES[row.verdict]) if paired else svg.DASH,
            f"{svg.signed(row.low or 0.0)} to {svg.signed(row.high or 0.0)}" if paired else svg.DASH,
            svg.count(row.n) if paired else svg.DASH,
        )
    console.print(table)
    for row in comparison.scores:
        console.print(Text(f"{'Sealed test' if row.split == 'test' else 'Dev'}: {sentence(row)}", style="dim"))


def sentence(row: ScoreDiff) -> str:
    """Return what a comparison of scores allows to say."""
    said = {
        "gain": "B is better; the whole interval lies above zero",
        "loss": "A is better; the whole interval lies below zero",
        "unclear": "the interval includes zero: neither is shown to be better",
    }
    parts = [said[row.verdict] if row.difference is not None else "", row.note]
    return ("; ".join(filter(None, parts)) or "not compared") + "."


def _print_examples(comparison: Comparison, console: Console) -> None:
    from rich.text import Text

    from optograph.report import svg

    if not comparison.examples:
        return
    better = sum(row.b > row.a for row in comparison.examples)
    worse = len(comparison.examples) - better
    line = Text(f"Examples: {better} better in B", style="green")
    line.append(f", {worse} better in A", style="red")
    console.print(line)
    shown = comparison.examples[:_MOST_EXAMPLES]
    words = ", ".join(f"{row.id} {svg.score(row.a)} \u2192 {svg.score(row.b)}" for row in shown)
    rest = len(comparison.examples) - len(shown)
    console.print(Text(words + (f" and {rest} more" if rest else ""), style="dim"))


def _print_settings(comparison: Comparison, console: Console) -> None:
    from rich.text import Text

    if not comparison.settings:
        console.print(Text("Settings: the same"))
        return
    table = _table(("setting", False), ("A", False), ("B", False))
    for row in comparison.settings:
        table.add_row(Text(row.key), Text(_short(row.a)), Text(_short(row.b)))
    console.print(table)


def _print_parameters(comparison: Comparison, console: Console) -> None:
    from rich.text import Text

    same = [row.name for row in comparison.parameters if row.state == "same"]
    for row in comparison.changed:
        where = {"only_a": "  only in A", "only_b": "  only in B"}.get(row.state, "")
        console.print(Text.assemble((row.name, "bold"), (f"  {row.kind}" if row.kind else "", "dim"), (where, "dim")))
        console.print(_marked(row), soft_wrap=False)
        console.print()
    if same:
        console.print(Text(f"The same in both: {', '.join(same)}", style="dim"))


def _marked(row: ParameterDiff) -> Text:
    """Return the difference of two values with what is gone in red and what is new in green."""
    from rich.text import Text

    from optograph.report.views import as_text

    old, new = ("" if value is None else as_text(value) for value in (row.a, row.b))
    text = Text()
    if isinstance(row.a, str) and isinstance(row.b, str) and row.kind == "code":
        signs = {"same": ("  ", ""), "removed": ("- ", "red"), "added": ("+ ", "green")}
        for line in diff_lines(old, new):
            sign, style = signs[line.kind]
            text.append(sign + line.text.rstrip("\n") + "\n", style=style)
    else:
        styles = {"same": "", "removed": "red strike", "added": "green"}
        marks = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
        for piece in diff_text(old, new):
            before, after = marks[piece.kind]
            text.append(before + piece.text + after, style=styles[piece.kind])
    text.truncate(_LONGEST)
    return text


def _print_cost(comparison: Comparison, console: Console) -> None:
    from rich.text import Text

    from optograph.report import svg

    priced = any(one is not None for row in comparison.cost for one in row.usd)
    columns = [("cost", False), ("calls A", True), ("B", True), ("tokens A", True), ("B", True)]
    columns += [("model time A", True), ("B", True)] + ([("price A", True), ("B", True)] if priced else [])
    table = _table(*columns)
    for row in comparison.cost:
        cells: list[Any] = [Text(row.role, style="bold" if row.role == "total" else "")]
        cells += [svg.count(one) for one in (*row.calls, *row.tokens)]
        cells += [svg.duration(one) for one in row.seconds]
        cells += [svg.money(one) for one in row.usd] if priced else []
        table.add_row(*cells)
    console.print(table)


def _short(value: Any) -> str:
    from optograph.report.svg import DASH, clip
    from optograph.report.views import as_text

    return DASH if value is None else clip(as_text(value), 60)

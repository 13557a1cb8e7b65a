"""Where the feedback points, as a chart: each node's failed and right runs, and how often it was named at fault."""

from __future__ import annotations

from markupsafe import Markup

from optograph.report.credit import Credit, NodeCredit
from optograph.report.svg import clip, count, tag

MAX_NODES = 20
"""Nodes that are drawn; the table holds all."""

_WIDTH = 1040.0
_LEFT, _RIGHT = 214.0, 760.0
_BAR, _STEP, _GAP, _TOP = 10.0, 19.0, 16.0, 6.0


def credit_chart(credit: Credit) -> Markup | None:
    """Draw a row of bars for each node.

    A bar is as long as the share of all traced runs that led through the node, and its failed part is marked; below it
    stands the share of the proposals that named the node at fault.

    Args:
        credit: What is known.

    Returns:
        The chart, or None where there is neither a traced run nor a proposal that names anything.
    """
    rows = [(node, _bars(node, credit)) for node in drawn(credit)]
    rows = [(node, bars) for node, bars in rows if bars]
    if not rows:
        return None
    y = _TOP
    parts: list[Markup] = []
    for node, bars in rows:
        middle = y + (len(bars) * _STEP) / 2
        name = tag("title", node.node)
        parts.append(tag("text", name, clip(node.node, 27), x=_LEFT - 16, y=middle + 4, class_="node-name"))
        for text, pieces in bars:
            parts.append(_bar(y, pieces))
            parts.append(tag("text", text, x=_RIGHT + 14, y=y + _BAR / 2 + 8.5, class_="bar-text"))
            y += _STEP
        y += _GAP
        parts.append(tag("line", x1=0, x2=_WIDTH, y1=y - _GAP / 2 + 2, y2=y - _GAP / 2 + 2, class_="grid"))
    parts.pop()  # no line below the last row
    label = "; ".join(f"{node.node}: {', '.join(text for text, _ in bars)}" for node, bars in rows)
    return tag(
        "svg", *parts, viewBox=f"0 0 {_WIDTH:g} {y - _GAP / 2:g}", role="img", aria_label=label, class_="credit-chart"
    )


def drawn(credit: Credit) -> list[NodeCredit]:
    """Return the nodes that the chart shows: those with the most to say, in the order in which they run."""
    if len(credit.nodes) <= MAX_NODES:
        return list(credit.nodes)
    ranked = sorted(range(len(credit.nodes)), key=lambda place: _weight(credit.nodes[place]), reverse=True)
    return [credit.nodes[place] for place in sorted(ranked[:MAX_NODES])]


def _weight(node: NodeCredit) -> tuple[int, ...]:
    return (node.named, node.tried, node.failed_before + node.failed_after)


def _bars(node: NodeCredit, credit: Credit) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return the bars of a node: a text, and pieces (class, share of the whole width)."""
    if not (node.before or node.after or node.named):
        return [("no feedback came here", [])] if credit.runs_before or credit.runs_after else []
    bars = []
    runs = (
        ("before", node.failed_before, node.before, credit.runs_before),
        ("after", node.failed_after, node.after, credit.runs_after),
    )
    for when, failed, through, total in runs:
        if total:
            text = f"{count(failed)} of {count(through)} runs failed" if through else "no run led through it"
            text = f"{when}: {text}" if credit.runs_after else text
            bars.append((text, [("failed", failed / total), ("passed", (through - failed) / total)]))
    if credit.proposals and node.parameters:
        text = f"named in {count(node.named)} of {count(credit.proposals)} proposals"
        bars.append((text, [("named", node.named / credit.proposals)]))
    return bars


def _bar(y: float, pieces: list[tuple[str, float]]) -> Markup:
    width = _RIGHT - _LEFT
    top = y + 4
    parts = [tag("rect", x=_LEFT, y=top, width=width, height=_BAR, rx=3, class_="bar-back")]
    x = _LEFT
    for name, share in pieces:
        length = width * min(1.0, max(0.0, share))
        if length > 0:
            parts.append(tag("rect", x=x, y=top, width=length, height=_BAR, class_=f"bar-{name}"))
        x += length
    return tag("g", *parts)


__all__ = ["MAX_NODES", "credit_chart", "drawn"]

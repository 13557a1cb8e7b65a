"""Charts of a training as inline SVG: scores by round, figures over steps, and the line of the adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from markupsafe import Markup

from optograph.report.layout import Size, layered_layout
from optograph.report.svg import Scale, clip, count, curve, join, make_scale, path, score, tag, tick
from optograph.report.training import AdapterRow, Curve, RoundRow, TrainingView

_NAMES = {
    "loss": "Loss",
    "kl": "KL to the reference, nats a token",
    "logratio_chosen": "Log-ratio to the reference, better answers, nats",
    "logratio_rejected": "Log-ratio to the reference, worse answers, nats",
    "policy_loss": "Loss of the policy",
    "value_loss": "Loss of the critic",
    "rewards/margins": "Margin of the pairs",
    "rewards/accuracies": "Pairs in the right order",
    "grad_norm": "Norm of the gradient",
}
FIGURES = tuple(_NAMES)
"""Figures that are drawn, in this order."""

_MADE = {"given": "given", "sft": "fine-tuned", "fresh": "new", "trained": "trained", "extrapolated": "extrapolated"}


def figure_name(figure: str) -> str:
    """Return the readable name of a figure."""
    return _NAMES.get(figure, figure)


def round_chart(view: TrainingView, start: float | None) -> Markup | None:
    """Draw for each round the mean reward of its rollouts, and the dev score of what it trained with its interval.

    Args:
        view: The training.
        start: Dev score of the start.

    Returns:
        The chart, or None where no round has a figure yet.
    """
    rounds = [row for row in view.rounds if row.reward is not None or row.dev_score is not None]
    if not rounds:
        return None
    width, height = 1040, 300
    left, right, top, bottom = 54.0, width - 30.0, 18.0, height - 44.0
    figures = [v for row in rounds for v in (row.reward, row.dev_score, row.dev_low, row.dev_high) if v is not None]
    ys = make_scale([*figures, *([] if start is None else [start])], bottom, top, count=5)
    last = max(row.number for row in rounds)
    xs = replace(make_scale([0.0, float(last)], left + 24, right - 24), ticks=tuple(range(last + 1)))
    parts = [_grid(ys, left, right), _rounds_axis(xs, bottom, left, right)]
    best = [(0.0, start), *((float(row.number), row.best_score) for row in view.rounds)]
    known = [(xs(x), ys(y)) for x, y in best if y is not None]
    if len(known) > 1:
        steps = [known[0]]
        for x, y in known[1:]:
            steps += [(x, steps[-1][1]), (x, y)]
        parts.append(tag("path", d=path(steps), class_="incumbent-line"))
    if start is not None:
        parts.append(
            tag("circle", tag("title", f"start, dev {score(start)}"), cx=xs(0), cy=ys(start), r=6, class_="at-start")
        )
    parts += [_round(row, xs, ys) for row in rounds]
    label = "; ".join(
        f"round {row.number}: reward {score(row.reward)}, dev {score(row.dev_score)}, {row.verdict or 'in progress'}"
        for row in rounds
    )
    return tag("svg", *parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=label, class_="round-chart")


def _round(row: RoundRow, xs: Scale, ys: Scale) -> Markup:
    parts: list[Markup] = []
    x = xs(float(row.number))
    if row.reward is not None:
        text = f"round {row.number}: {count(row.rollouts)} rollouts earned {score(row.reward)} on average"
        y = ys(row.reward)
        parts.append(tag("rect", tag("title", text), x=x - 16, y=y - 4.5, width=9, height=9, class_="at-reward"))
    if row.dev_score is not None:
        whisker = ""
        if row.dev_low is not None and row.dev_high is not None:
            parts.append(tag("line", x1=x, x2=x, y1=ys(row.dev_low), y2=ys(row.dev_high), class_="whisker"))
            whisker = f" ({score(row.dev_low)} to {score(row.dev_high)})"
        text = f"round {row.number}: dev {score(row.dev_score)}{whisker}, {row.verdict or 'undecided'}"
        parts.append(tag("circle", tag("title", text), cx=x, cy=ys(row.dev_score), r=6, class_="point"))
    state = "accepted" if row.verdict == "accepted" else "rejected"
    return tag("g", *parts, class_=f"step {state}")


def curve_charts(view: TrainingView) -> list[tuple[str, Markup]]:
    """Draw each known figure over the steps of all trainings, one after the other.

    Returns:
        Pairs (readable name, chart).
    """
    found = []
    for figure in FIGURES:
        curves = [one for one in view.curves if one.figure == figure and one.points]
        if curves:
            found.append((figure_name(figure), _curves(curves, figure)))
    return found


def _curves(curves: Sequence[Curve], figure: str) -> Markup:
    width, height = 500, 190
    left, right, top, bottom = 58.0, width - 12.0, 12.0, height - 36.0
    starts: dict[int, float] = {}
    end = 0.0
    for number in sorted({one.round for one in curves}):
        starts[number] = end
        end += max(step for one in curves if one.round == number for step, _ in one.points)
    ys = make_scale([value for one in curves for _, value in one.points], bottom, top, count=4)
    xs = Scale(0.0, max(end, 1.0), left, right, ())
    parts = [_grid(ys, left, right), tag("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis")]
    names = sorted({one.adapter for one in curves})
    for number, begin in starts.items():
        if begin:
            parts.append(tag("line", x1=xs(begin), x2=xs(begin), y1=top, y2=bottom, class_="majority-line"))
        text = f"round {number}" if number else "before"
        parts.append(tag("text", text, x=xs(begin) + 4, y=bottom + 18, class_="tick"))
    for one in curves:
        points = [(xs(starts[one.round] + step), ys(value)) for step, value in one.points]
        drawn = path(points) if len(points) > 1 else path([points[0], (points[0][0] + 2, points[0][1])])
        title = tag("title", f"{one.adapter}, {'before the rounds' if not one.round else f'round {one.round}'}")
        parts.append(tag("path", title, d=drawn, class_=f"curve curve-{names.index(one.adapter) % 6}"))
    parts.append(tag("text", "steps", x=right, y=bottom + 32, class_="tick", text_anchor="end"))
    first, last = curves[0].points[0][1], curves[-1].points[-1][1]
    label = f"{figure_name(figure)}: {tick(round(first, 4))} at first, {tick(round(last, 4))} at the end"
    return tag("svg", *parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=label, class_="curve-chart")


def adapter_line(view: TrainingView) -> Markup | None:
    """Draw which adapter came from which, with what became of each; None where there is none."""
    if not view.adapters:
        return None
    known = {row.hash for row in view.adapters}
    base = "" in {parent for row in view.adapters for parent in row.parents}
    sizes = [Size(row.hash, 214, 46) for row in view.adapters] + ([Size("base", 110, 34)] if base else [])
    edges = [
        (parent or "base", row.hash) for row in view.adapters for parent in row.parents if parent in known or not parent
    ]
    layout = layered_layout(sizes, edges, direction="right", gap=12, layer_gap=42, margin=4)
    line = _ancestors(view.adapters)
    parts: list[Markup] = []
    for route in layout.routes:
        on_line = route.dst in line and (route.src in line or route.src == "base")
        parts.append(tag("path", d=curve(route.points, sideways=True), class_="edge on-line" if on_line else "edge"))
    if base:
        box = layout.boxes["base"]
        parts.append(tag("rect", x=box.x, y=box.y, width=box.width, height=box.height, rx=9, class_="box base"))
        parts.append(
            tag("text", "base model", x=box.center[0], y=box.center[1] + 4, class_="origin", text_anchor="middle")
        )
    for row in view.adapters:
        box = layout.boxes[row.hash]
        made = f"{_MADE.get(row.made, row.made)}, round {row.round}" if row.round else _MADE.get(row.made, row.made)
        text = f"{row.name} {row.hash[:16]}: {made}; {row.outcome or 'undecided'}{_unclear(row)}"
        brief = f"{made}: {row.outcome}" if row.outcome else made
        if row.not_told_apart:
            brief += f" ≈ {', '.join(row.not_told_apart)}"
        state = "final" if row.final else "accepted" if row.outcome in ("accepted", "start") else "rejected"
        parts.append(
            tag(
                "g",
                tag("title", text),
                tag("rect", x=box.x, y=box.y, width=box.width, height=box.height, rx=9, class_="box"),
                tag("text", clip(row.name, 10), x=box.x + 12, y=box.y + 18, class_="name"),
                tag("text", row.hash[:8], x=box.x + box.width - 12, y=box.y + 18, class_="value", text_anchor="end"),
                tag(
                    "text",
                    clip(brief, 34),
                    x=box.x + 12,
                    y=box.y + 35,
                    class_="origin",
                ),
                class_=f"candidate {state}",
            )
        )
    label = "; ".join(
        f"{row.hash[:8]} {row.made} in round {row.round}, {row.outcome}{_unclear(row)}" for row in view.adapters
    )
    box_of = f"0 0 {layout.width:g} {layout.height:g}"
    return tag("svg", *parts, viewBox=box_of, role="img", aria_label=label, class_="tree", width=layout.width)


def _unclear(row: AdapterRow) -> str:
    """Return in words what else could be served for an adapter unseen."""
    return f", by its probe not told from {' or '.join(row.not_told_apart)}" if row.not_told_apart else ""


def _ancestors(rows: Sequence[AdapterRow]) -> set[str]:
    """Return the adapters of the result and all that they came from."""
    known: Mapping[str, AdapterRow] = {row.hash: row for row in rows}
    found: set[str] = set()
    waiting = [row.hash for row in rows if row.final]
    while waiting:
        hash_ = waiting.pop()
        if hash_ in known and hash_ not in found:
            found.add(hash_)
            waiting.extend(known[hash_].parents)
    return found


def _grid(scale: Scale, left: float, right: float) -> Markup:
    parts: list[Markup] = []
    for value in scale.ticks:
        y = scale(value)
        parts.append(tag("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", tick(value), x=left - 10, y=y + 4, class_="tick", text_anchor="end"))
    return join(parts)


def _rounds_axis(scale: Scale, y: float, left: float, right: float) -> Markup:
    parts = [tag("line", x1=left, x2=right, y1=y, y2=y, class_="axis")]
    for value in scale.ticks:
        text = f"round {value:g}" if value else "start"
        parts.append(tag("text", text, x=scale(value), y=y + 22, class_="tick", text_anchor="middle"))
    return join(parts)

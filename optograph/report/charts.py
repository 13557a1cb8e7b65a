"""Charts as inline SVG: the sealed test's interval plot, the score over calls, and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from markupsafe import Markup

from optograph.report.model import RunReport, StepRow, TestResult
from optograph.report.svg import (
    DASH,
    Scale,
    clip,
    count,
    curve,
    duration,
    join,
    make_scale,
    path,
    score,
    signed,
    tag,
    tick,
)

_DECISIONS = ("accepted", "rejected", "seed")


def decision_class(decision: str) -> str:
    """Return the CSS class of a decision: its own name if known, else ``"other"``."""
    return decision if decision in _DECISIONS else "other"


def interval_plot(test: TestResult, metric: str) -> Markup:
    """Draw the sealed test: both scores on one axis, and the interval of their difference on another.

    Args:
        test: The result.
        metric: Name of the score.
    """
    width, height = 460, 218
    left, right = 1.0, width - 1.0
    majority = [] if test.majority is None else [test.majority]
    scores = make_scale([test.before, test.after, *majority], left, right, unit=True)
    gaps = make_scale([0.0, test.difference, test.low, test.high], left, right)
    y1, y2 = 58.0, 172.0
    before, after = scores(test.before), scores(test.after)
    parts = [_axis(scores, y1 + 24), _axis(gaps, y2 + 24)]
    parts.append(tag("text", f"{metric[:1].upper()}{metric[1:]} on the sealed test", x=0, y=16, class_="plot-title"))
    if test.majority is not None:
        x = scores(test.majority)
        parts.append(tag("line", x1=x, x2=x, y1=y1 - 14, y2=y1 + 24, class_="majority-line"))
    parts.append(tag("line", x1=before, x2=after, y1=y1, y2=y1, class_="gain-line"))
    parts.append(
        tag("circle", tag("title", f"before {score(test.before)}"), cx=before, cy=y1, r=7, class_="dot-before")
    )
    parts.append(tag("circle", tag("title", f"after {score(test.after)}"), cx=after, cy=y1, r=8, class_="dot-after"))
    if abs(before - after) > 70:
        for x, text, name in ((before, "before", "label-before"), (after, "after", "label-after")):
            parts.append(tag("text", text, x=_inside(x, left, right, 24), y=y1 - 17, class_=name, text_anchor="middle"))
    elif test.before != test.after:
        first, second = ("end", "start") if before < after else ("start", "end")
        shift = -11.0 if before < after else 11.0
        parts.append(tag("text", "before", x=before + shift, y=y1 - 17, class_="label-before", text_anchor=first))
        parts.append(tag("text", "after", x=after - shift, y=y1 - 17, class_="label-after", text_anchor=second))
    parts.append(tag("text", "Difference with 95 % interval", x=0, y=y2 - 32, class_="plot-title"))
    zero, low, high = gaps(0.0), gaps(test.low), gaps(test.high)
    parts.append(tag("line", x1=zero, x2=zero, y1=y2 - 20, y2=y2 + 24, class_="zero-line"))
    name = verdict(test)
    parts.append(
        tag("rect", x=min(low, high), y=y2 - 5, width=max(2.0, abs(high - low)), height=10, rx=5, class_=f"span {name}")
    )
    title = tag("title", f"difference {signed(test.difference)}, {signed(test.low)} to {signed(test.high)}")
    parts.append(tag("circle", title, cx=gaps(test.difference), cy=y2, r=6, class_=f"mid {name}"))
    label = (
        f"{metric} on the sealed test: before {score(test.before)}, after {score(test.after)}; "
        f"difference {signed(test.difference)}, 95 % interval {signed(test.low)} to {signed(test.high)}"
    )
    return tag("svg", *parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=label, class_="interval-plot")


def verdict(test: TestResult) -> str:
    """Return ``"gain"``, ``"loss"`` or ``"unclear"``: on which side of zero the whole interval lies."""
    if test.low > 0:
        return "gain"
    return "loss" if test.high < 0 else "unclear"


def score_chart(report: RunReport, anchors: Mapping[str, str]) -> Markup | None:
    """Draw dev scores with intervals over model calls, and the incumbent as a stepped line.

    Args:
        report: The run.
        anchors: Candidate identifier to the fragment (``"#c3"``) that a point links to.

    Returns:
        The chart, or None when no step has a score. The horizontal axis counts calls where they tell the steps
        apart, and steps otherwise.
    """
    steps = [row for row in report.steps if row.dev_score is not None]
    if not steps:
        return None
    width, height = 1040, 344
    left, right, top, bottom = 54.0, width - 92.0, 22.0, height - 46.0
    by_calls = len({row.calls_so_far for row in steps}) >= 0.8 * len(steps) and len(steps) > 1
    places = [float(row.calls_so_far if by_calls else row.step) for row in steps]
    xs = make_scale(places, left + 14, right - 14, count=7)
    xs = replace(xs, ticks=tuple(value for value in xs.ticks if value % 1 == 0))  # nobody makes half a call or step
    baseline = report.baseline
    values = [
        v for row in steps for v in (row.dev_score, row.dev_low, row.dev_high, row.incumbent_score) if v is not None
    ]
    if baseline is not None:
        values.append(baseline.score)
    ys = make_scale(values, bottom, top, count=5)
    parts = [_grid(ys, left, right), _bottom_axis(xs, bottom, left, right)]
    axis = "model calls" if by_calls else "step"
    parts.append(tag("text", axis, x=(left + right) / 2, y=height - 6, class_="axis-title", text_anchor="middle"))
    right_labels: list[tuple[float, str, str]] = []
    if baseline is not None:
        y = ys(baseline.score)
        parts.append(tag("line", x1=left, x2=right, y1=y, y2=y, class_="majority-line"))
        right_labels.append((y, clip(baseline.name, 14), "label-majority"))
    line = _incumbent_line(steps, places, xs, ys, right)
    if line:
        parts.append(tag("path", d=path(line), class_="incumbent-line"))
        right_labels.append((line[-1][1], score(_last_incumbent(steps)), "label-incumbent"))
    ranked = sorted(zip(steps, places, strict=True), key=lambda pair: pair[0].decision == "accepted")
    parts.extend(_point(row, xs(place), ys, anchors.get(row.candidate)) for row, place in ranked)
    parts.append(_spread(right_labels, right + 10))
    label = f"Dev score of {len(steps)} measured candidates over {axis}; the table below holds the same figures"
    return tag("svg", *parts, viewBox=f"0 0 {width} {height}", role="group", aria_label=label, class_="score-chart")


def _last_incumbent(steps: Sequence[StepRow]) -> float | None:
    known = [row.incumbent_score for row in steps if row.incumbent_score is not None]
    return known[-1] if known else None


def _incumbent_line(
    steps: Sequence[StepRow], places: Sequence[float], xs: Scale, ys: Scale, right: float
) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for row, place in zip(steps, places, strict=True):
        if row.incumbent_score is None:
            continue
        x, y = xs(place), ys(row.incumbent_score)
        if points:
            points.append((x, points[-1][1]))
        points.append((x, y))
    if points:
        points.append((right, points[-1][1]))
    return points


def _point(row: StepRow, x: float, ys: Scale, anchor: str | None) -> Markup:
    """Draw one step: whisker and dot, linked to its candidate."""
    value = row.dev_score if row.dev_score is not None else 0.0
    name = decision_class(row.decision)
    parts: list[Markup] = []
    span = ""
    if row.dev_low is not None and row.dev_high is not None:
        parts.append(tag("line", x1=x, x2=x, y1=ys(row.dev_low), y2=ys(row.dev_high), class_="whisker"))
        span = f", 95 % interval {score(row.dev_low)} to {score(row.dev_high)}"
    parts.append(tag("circle", cx=x, cy=ys(value), r=14, class_="hit"))
    parts.append(tag("circle", cx=x, cy=ys(value), r=6 if name in ("accepted", "seed") else 4.5, class_="point"))
    text = (
        f"Step {row.step}, {row.optimizer or 'start'}: {score(value)}{span}, n = {row.n}, "
        f"{row.decision or 'no decision'}, after {count(row.calls_so_far)} calls and {duration(row.seconds)}"
    )
    parts.insert(0, tag("title", text))
    if anchor is None:
        return tag("g", *parts, class_=f"step {name}", data_readout=text)
    return tag("a", *parts, href=anchor, class_=f"step {name}", aria_label=text, data_readout=text)


def _spread(labels: Sequence[tuple[float, str, str]], x: float) -> Markup:
    """Write labels at the right end, at least 15 pixels apart."""
    parts: list[Markup] = []
    floor = -1e9
    for y, text, name in sorted(labels):
        floor = max(y + 4, floor + 15)
        parts.append(tag("text", text, x=x, y=floor, class_=name))
    return join(parts)


def _axis(scale: Scale, y: float) -> Markup:
    parts = [tag("line", x1=scale.start, x2=scale.end, y1=y, y2=y, class_="axis")]
    for value in scale.ticks:
        x = scale(value)
        parts.append(tag("line", x1=x, x2=x, y1=y, y2=y + 4, class_="axis"))
        anchor = "start" if value == scale.low else "end" if value == scale.high else "middle"
        parts.append(tag("text", tick(value), x=x, y=y + 18, class_="tick", text_anchor=anchor))
    return join(parts)


def _grid(scale: Scale, left: float, right: float) -> Markup:
    parts: list[Markup] = []
    for value in scale.ticks:
        y = scale(value)
        parts.append(tag("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", tick(value), x=left - 10, y=y + 4, class_="tick", text_anchor="end"))
    return join(parts)


def _bottom_axis(scale: Scale, y: float, left: float, right: float) -> Markup:
    parts = [tag("line", x1=left, x2=right, y1=y, y2=y, class_="axis")]
    for value in scale.ticks:
        x = scale(value)
        parts.append(tag("line", x1=x, x2=x, y1=y, y2=y + 5, class_="axis"))
        parts.append(tag("text", tick(value), x=x, y=y + 20, class_="tick", text_anchor="middle"))
    return join(parts)


def _inside(x: float, left: float, right: float, room: float) -> float:
    return min(right - room, max(left + room, x))


def meter(value: float | None, scale_low: float, scale_high: float, name: str = "") -> Markup:
    """Draw a small bar for a score in a list; decorative, the figure stands beside it."""
    width = 72.0
    span = max(1e-12, scale_high - scale_low)
    share = 0.0 if value is None else min(1.0, max(0.0, (value - scale_low) / span))
    return tag(
        "svg",
        tag("rect", x=0, y=0, width=width, height=6, rx=3, class_="meter-back"),
        tag("rect", x=0, y=0, width=max(0.0, share * width), height=6, rx=3, class_=f"meter-fill {name}".strip()),
        viewBox="0 0 72 6",
        class_="meter",
        aria_hidden="true",
    )


def stacked_bar(shares: Sequence[tuple[str, float]]) -> Markup:
    """Draw parts of a whole as one bar.

    Args:
        shares: Pairs (label, amount ≥ 0), in the order of the legend; the n-th part has the class ``part-n``.
    """
    total = sum(amount for _, amount in shares)
    width, position = 1000.0, 0.0
    parts: list[Markup] = []
    for index, (label, amount) in enumerate(shares):
        length = width * amount / total if total > 0 else 0.0
        if length <= 0:
            continue
        title = tag("title", f"{label}: {amount / total:.0%}")
        parts.append(tag("rect", title, x=position, y=0, width=length, height=14, class_=f"part-{index % 6}"))
        position += length
    label = ", ".join(f"{name} {amount / total:.0%}" for name, amount in shares) if total > 0 else DASH
    return tag(
        "svg", *parts, viewBox="0 0 1000 14", preserveAspectRatio="none", role="img", aria_label=label, class_="stack"
    )


__all__ = ["curve", "decision_class", "interval_plot", "meter", "score_chart", "stacked_bar", "verdict"]

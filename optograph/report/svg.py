"""The small kit for drawing: escaped SVG elements, scales with round ticks, number formats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

MINUS = "\u2212"
DASH = "\u2013"
ELLIPSIS = "\u2026"
_HUGE = 1e100  # keeps differences finite


def tag(name: str, *children: Markup | str | None, **attributes: str | float | bool | None) -> Markup:
    """Return one SVG or HTML element; texts and attribute values are escaped.

    Args:
        name: Element name, a literal of this package.
        children: Elements (``Markup``) or texts; None is left out.
        attributes: Attributes; ``_`` stands for ``-`` and a trailing ``_`` is dropped (``class_``); None is left out.
    """
    parts = [Markup("<") + Markup(name)]  # noqa: S704 - a literal of this package
    for key, value in attributes.items():
        if value is None:
            continue
        text = number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
        parts.append(Markup(' {}="{}"').format(Markup(key.rstrip("_").replace("_", "-")), text))  # noqa: S704
    parts.append(Markup(">"))
    parts.extend(escape(child) for child in children if child is not None)
    parts.append(Markup("</{}>").format(Markup(name)))  # noqa: S704
    return Markup("").join(parts)


def join(parts: Iterable[Markup]) -> Markup:
    """Return elements side by side."""
    return Markup("").join(parts)


def number(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


def path(points: Sequence[tuple[float, float]]) -> str:
    """Return the path data of straight lines through the points."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def curve(points: Sequence[tuple[float, float]], *, sideways: bool = False) -> str:
    """Return the path data of a smooth line through the points that leaves and enters along the flow."""
    if not points:
        return ""
    parts = [f"M{number(points[0][0])} {number(points[0][1])}"]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if (y0 == y1) if sideways else (x0 == x1):
            parts.append(f"L{number(x1)} {number(y1)}")
        elif sideways:
            middle = number((x0 + x1) / 2)
            parts.append(f"C{middle} {number(y0)} {middle} {number(y1)} {number(x1)} {number(y1)}")
        else:
            middle = number((y0 + y1) / 2)
            parts.append(f"C{number(x0)} {middle} {number(x1)} {middle} {number(x1)} {number(y1)}")
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from values to pixels, with round ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """Return the pixel of a value, kept within the picture."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def make_scale(values: Iterable[float], start: float, end: float, *, count: int = 5, unit: bool = False) -> Scale:
    """Return a scale that holds all values between round ends.

    Args:
        values: What must fit; may be empty.
        start: Pixel of the low end.
        end: Pixel of the high end.
        count: Wished number of ticks.
        unit: Whether to show the whole of 0 to 1 when all values lie there.
    """
    known = [min(_HUGE, max(-_HUGE, value)) for value in values]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if unit and low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0
    if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
        room = max(0.5, 0.01 * abs(low))
        low, high = low - room, high + room
    step = _round_step((high - low) / max(1, count - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(index * step, 12) for index in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], start, end, ticks)


def _round_step(rough: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(rough))
    for factor in (1.0, 2.0, 2.5, 5.0):
        if rough <= factor * magnitude * (1 + 1e-9):
            return factor * magnitude
    return 10.0 * magnitude


def score(value: float | None) -> str:
    """Return a score with three decimals, fewer for large numbers; a dash for none."""
    if value is None:
        return DASH
    decimals = 3 if abs(value) < 100 else 1
    return f"{value:,.{decimals}f}".replace("-", MINUS)


def tick(value: float) -> str:
    """Return a short number for an axis."""
    if abs(value) >= 10000:
        return f"{value / 1000:,.6g}k".replace("-", MINUS)
    return f"{value:.6g}".replace("-", MINUS)


def signed(value: float) -> str:
    """Return a difference with its sign."""
    text = score(value)
    return text if value < 0 else f"+{text}"


def count(value: int) -> str:
    """Return a whole number with separated thousands."""
    return f"{value:,}"


def duration(seconds: float) -> str:
    """Return a time span in the two largest units that fit."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def money(value: float | None) -> str:
    """Return dollars; a dash where the price is unknown."""
    if value is None:
        return DASH
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.4f}"


def clip(text: str, length: int) -> str:
    """Return the text on one line, cut with a mark at ``length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + ELLIPSIS

"""Loops folded: which lines of a long program to show, and how often the rest repeats."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

LONGEST = 32
"""Longest loop body that is recognized, in lines."""

FEWEST = 4
"""Fewest turns that are folded."""


class Span(NamedTuple):
    """Lines to show, or turns of a loop that are left out.

    Attributes:
        start: First line.
        stop: Last line plus one.
        repeats: 0 for lines to show; else how many turns of a loop these left-out lines are.
    """

    start: int
    stop: int
    repeats: int = 0


class Line(NamedTuple):
    """What a line looks like.

    Attributes:
        key: All but what it refers to.
        refs: Numbers of the lines that it refers to.
    """

    key: Hashable
    refs: tuple[int, ...]


def fold(lines: Sequence[Line]) -> list[Span]:
    """Return what to show of a program: of each loop its first and its last turn.

    A loop is a block of up to 32 lines that follows on itself at least 4 times. Two lines are alike when their keys
    are equal and each reference is to the same line (made before the loop) or equally far back (made within it).
    """
    numbers: dict[Hashable, int] = {}
    keys = [numbers.setdefault(line.key, len(numbers)) for line in lines]
    spans: list[Span] = []
    shown = position = 0
    while position < len(lines):
        period, turns = _loop(keys, lines, position)
        if not turns:
            position += 1
            continue
        left_out = position + period * (turns - 1)
        spans.append(Span(shown, position + period))
        spans.append(Span(position + period, left_out, turns - 2))
        shown = left_out
        position = left_out + period
    if shown < len(lines):
        spans.append(Span(shown, len(lines)))
    return spans


def _loop(keys: list[int], lines: Sequence[Line], start: int) -> tuple[int, int]:
    """Return the length and the number of turns of the loop that starts at a line, or (0, 0)."""
    for period in range(1, min(LONGEST, (len(keys) - start) // FEWEST) + 1):
        if keys[start] != keys[start + period]:
            continue
        end = start + period
        while end < len(keys) and keys[end] == keys[end - period] and _alike(lines, end - period, end):
            end += 1
        turns = (end - start) // period
        if turns >= FEWEST:
            return period, turns
    return 0, 0


def _alike(lines: Sequence[Line], one: int, two: int) -> bool:
    pairs = zip(lines[one].refs, lines[two].refs, strict=True)
    return all(left == right or one - left == two - right for left, right in pairs)

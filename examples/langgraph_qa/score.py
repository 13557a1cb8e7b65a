"""Scores an answer for a small display: it must say the expected words, and fit."""

from __future__ import annotations

import re

MOST_WORDS = 10


def short_and_right(expected: str, output: str) -> tuple[float, str]:
    """Give 1 to an answer of at most ten words that holds the expected ones in a row, else 0 and what is wrong."""
    said, wanted = _words(output), _words(expected)
    right = any(said[at : at + len(wanted)] == wanted for at in range(len(said)))
    if not right:
        return 0.0, f"The answer {output!r} does not say {expected!r}."
    if len(said) > MOST_WORDS:
        return 0.0, f"The answer is right, but has {len(said)} words; at most {MOST_WORDS} can be shown."
    return 1.0, "Right and short."


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in ("a", "an", "the")]

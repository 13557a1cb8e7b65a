"""Keeping API keys out of everything that is written: a list of known values, and one function that blanks them."""

from __future__ import annotations

import json
import os
import re
import threading

MARK = "…"
"""What stands where a secret stood."""

_SHORTEST = 8
_KEY_NAME = re.compile(r"(API_?KEY|ACCESS_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_SHAPES = (
    # A key has a digit somewhere; "task-specific-instruction" is no key.
    re.compile(r"(?<![\w-])sk-(?=[\w-]*\d)[\w-]{20,}"),
    re.compile(r"(?<=\b[Bb]earer )[\w.~+/=-]{16,}"),
)


class _Known:
    """The secrets of this process; one list for all, as each writer must know each of them."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self.values: tuple[str, ...] = ()
        for name, value in os.environ.items():
            if _KEY_NAME.search(name):
                self.add(value)

    def add(self, value: str) -> None:
        """Take in a value and the forms that it has inside JSON text."""
        if len(value.strip()) < _SHORTEST:
            return
        forms = {value, value.strip(), json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
        with self._mutex:
            # The longest first, so that no rest of a longer one stays behind.
            self.values = tuple(sorted({*self.values, *forms}, key=lambda one: (-len(one), one)))


_known = _Known()


def register_secret(value: str) -> None:
    """Have a value blanked in everything that is written from now on; values under 8 characters are not taken in."""
    _known.add(value)


def scrub(text: str) -> str:
    """Return ``text`` without registered secrets and without what looks like an API key or a bearer token.

    Environment variables whose names end like those of keys (``…_API_KEY``, ``…_TOKEN`` …) are registered at import.
    """
    for value in _known.values:
        if value in text:
            text = text.replace(value, MARK)
    if "sk-" in text:
        text = _SHAPES[0].sub(MARK, text)
    if "earer " in text:
        text = _SHAPES[1].sub(MARK, text)
    return text

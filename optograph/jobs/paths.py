"""Paths that callers give, as text or as a path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optograph.errors import UserError


def path_of(given: Any, name: str) -> Path:
    """Return what a caller gave as a path.

    Args:
        given: A path, or its text.
        name: Name of the argument, for the message.

    Raises:
        UserError: It is neither, or the text is empty.
    """
    try:
        if given != "":
            return Path(given)
    except TypeError:
        pass  # the message below says what is wrong
    raise UserError(f"{name} must be a path or its text, such as 'runs/first', got {given!r}")

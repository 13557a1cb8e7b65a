"""How a value is shown in an error message: short, and never failing itself."""

from __future__ import annotations

from typing import Any

_LIMIT = 120


def shown(value: Any) -> str:
    """Return ``repr(value)`` cut to one short line; a broken ``repr`` gives the type's name."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a message about a bad value must not fail because of that value
        return f"<{type(value).__name__}>"
    text = text.replace("\n", " ")
    return text if len(text) <= _LIMIT else f"{text[:_LIMIT]}…[{len(text) - _LIMIT} chars cut]"

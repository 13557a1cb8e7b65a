"""Reading JSON out of what a model wrote: prose, fences and small slips are seen through, nothing is guessed."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from optograph.errors import ModelError

MAX_ANSWER_CHARS = 200_000

_THINK = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[a-zA-Z0-9_-]*[ \t]*\n(.*?)```", re.DOTALL)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")


def extract_json(text: str) -> Any:
    """Return the JSON value in a model's answer.

    Looks at the whole text, then at fenced blocks, then at balanced objects and arrays; an object goes before anything
    else. Think tags are left out, trailing commas and raw line breaks inside strings are accepted, and Python literals
    (single quotes, ``True``) are read as data. A truncated value is refused rather than completed.

    Args:
        text: The model's answer.

    Raises:
        ModelError: There is no complete JSON value in the text, or the text is over 200,000 characters.
    """
    if len(text) > MAX_ANSWER_CHARS:
        raise ModelError(f"the answer has {len(text)} characters; at most {MAX_ANSWER_CHARS} are read")
    if not text.strip():
        raise ModelError("the answer is empty")
    visible = without_thinking(text)
    others: list[Any] = []
    for piece in _pieces(visible):
        for reading in (_strict, _lenient, _python_literal):
            found, value = reading(piece)
            if not found:
                continue
            if isinstance(value, dict):
                return value
            others.append(value)
            break
    if others:
        return next((value for value in others if isinstance(value, list)), others[0])
    raise ModelError(f"no complete JSON value in the answer: {_excerpt(visible)}")


def without_thinking(text: str) -> str:
    """Return the answer without closed think tags; of an unclosed one, only what stands before it is kept."""
    visible = _THINK.sub("", text)
    opened = re.search(r"<(think|thinking)>", visible, re.IGNORECASE)
    if opened:
        visible = visible[: opened.start()]
    closed = re.search(r"</(think|thinking)>", visible, re.IGNORECASE)
    return visible[closed.end() :] if closed else visible


def _pieces(text: str) -> Iterator[str]:
    yield text.strip()
    for block in _FENCE.findall(text):
        yield block.strip()
    yield from _balanced(text)


def _balanced(text: str, most: int = 8) -> Iterator[str]:
    """Yield the balanced ``{…}`` and ``[…]`` spans of the text, outermost first, strings respected."""
    position, given = 0, 0
    while given < most:
        opened = re.compile(r"[{\[]").search(text, position)
        if opened is None:
            return
        end = _closing(text, opened.start())
        if end is None:
            position = opened.start() + 1
            given += 1
            continue
        yield text[opened.start() : end]
        position = end
        given += 1


def _closing(text: str, start: int) -> int | None:
    depth, quoted, position = 0, False, start
    while position < len(text):
        char = text[position]
        if quoted:
            if char == "\\":
                position += 1
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    return None


def _strict(piece: str) -> tuple[bool, Any]:
    try:
        return True, json.loads(piece)
    except (ValueError, RecursionError):
        return False, None


def _lenient(piece: str) -> tuple[bool, Any]:
    try:
        return True, json.loads(_TRAILING_COMMA.sub(r"\1", piece), strict=False)
    except (ValueError, RecursionError):
        return False, None


def _python_literal(piece: str) -> tuple[bool, Any]:
    if not piece.startswith(("{", "[")):
        return False, None
    try:
        value = ast.literal_eval(piece)
        json.dumps(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False, None
    return True, value


def _excerpt(text: str, limit: int = 120) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= limit else text[:limit] + "…")

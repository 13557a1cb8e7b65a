"""Plain data as JSON that keeps tuples, sets, bytes and keys that are not text; strict in what it takes back."""

from __future__ import annotations

import base64
import json
import math
from typing import Any, NoReturn

DEPTH = 100
"""Levels of nesting that data may have."""

_PLAIN = frozenset({str, int, bool, type(None)})
_MARKS: dict[type, str] = {tuple: "$tuple", set: "$set", frozenset: "$frozenset"}


class NotPlain(ValueError):
    """A value is no plain data, or a message is not what it should be."""


def _constant(name: str) -> NoReturn:
    raise NotPlain(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotPlain(f"the number {text[:40]} is too large")
    return number


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
_decode = json.JSONDecoder(parse_constant=_constant, parse_float=_finite).decode


def dumps(value: Any) -> bytes:
    """Return marked data (see `mark`) as JSON in UTF-8.

    Raises:
        NotPlain: It cannot be written: an integer of too many digits, or half a surrogate pair.
    """
    try:
        return _encode(value).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise NotPlain(f"cannot be sent: {error}") from None


def loads(payload: bytes) -> Any:
    """Return what a message holds, still marked.

    Raises:
        NotPlain: It is no JSON, holds a number that is none, half a surrogate pair, or is nested too deeply.
    """
    try:
        value = _decode(payload.decode())
        if b"\\u" in payload:
            _encode(value).encode()
    except NotPlain:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise NotPlain(f"no proper message: {error}") from None
    return value


def mark(value: Any, *, finite: bool = True, depth: int = 0) -> Any:
    """Return plain data as what JSON knows; what JSON does not know becomes an object with one ``$`` key.

    Text, numbers, None, lists, tuples, sets, bytes and dicts keep their type; instances of subclasses of numbers
    and text become the plain type.

    Args:
        value: The data.
        finite: Whether NaN and infinity are refused.
        depth: How deep it already is.

    Raises:
        NotPlain: Something in it is no plain data, or it is nested more than `DEPTH` levels deep.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        if math.isfinite(value):
            return value
        if finite:
            raise NotPlain(f"the number {value!r} is not finite")
        return {"$float": repr(value)}
    if depth >= DEPTH:
        raise NotPlain(f"the data is nested more than {DEPTH} levels deep, or contains itself")
    if kind is list:
        return [mark(item, finite=finite, depth=depth + 1) for item in value]
    if kind is dict:
        if all(type(key) is str and key[:1] != "$" for key in value):
            return {key: mark(item, finite=finite, depth=depth + 1) for key, item in value.items()}
        pairs = [mark(part, finite=finite, depth=depth + 1) for pair in value.items() for part in pair]
        return {"$dict": pairs}
    name = _MARKS.get(kind)
    if name is not None:
        items = value if kind is tuple else sorted(value, key=lambda item: (type(item).__name__, repr(item)))
        return {name: [mark(item, finite=finite, depth=depth + 1) for item in items]}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    return _plainer(value, finite)


def _plainer(value: Any, finite: bool) -> Any:
    """Return an instance of a subclass, or a NumPy scalar, as the plain value that it stands for."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return mark(float.__float__(value), finite=finite)
    kind = type(value)
    if kind.__module__ == "numpy" and getattr(value, "shape", None) == ():
        return mark(value.item(), finite=finite)
    raise NotPlain(f"{kind.__module__}.{kind.__qualname__} is no plain data")


def unmark(value: Any, *, finite: bool = True, depth: int = 0) -> Any:
    """Return what `mark` was given.

    Args:
        value: What a message held.
        finite: Whether NaN and infinity are refused.
        depth: How deep it already is.

    Raises:
        NotPlain: It holds marks that `mark` does not make, or is nested too deeply.
    """
    kind = type(value)
    if kind is not list and kind is not dict:
        return value
    if depth > 2 * DEPTH:
        raise NotPlain(f"the data is nested more than {DEPTH} levels deep")
    if kind is list:
        return [unmark(item, finite=finite, depth=depth + 1) for item in value]
    if len(value) == 1:
        ((name, content),) = value.items()
        if name[:1] == "$":
            return _marked(name, content, finite, depth)
    if any(key[:1] == "$" for key in value):
        raise NotPlain("a message with an unknown mark")
    return {key: unmark(item, finite=finite, depth=depth + 1) for key, item in value.items()}


def _marked(name: str, content: Any, finite: bool, depth: int) -> Any:
    try:
        if name == "$bytes":
            return base64.b64decode(content, validate=True)
        if name == "$float" and not finite:
            return float(content)
        if type(content) is not list:
            raise NotPlain(f"a message with a wrong mark {name[:20]!r}")
        items = [unmark(item, finite=finite, depth=depth + 1) for item in content]
        if name == "$dict":
            return dict(zip(items[::2], items[1::2], strict=True))
        if name in ("$tuple", "$set", "$frozenset"):
            return {"$tuple": tuple, "$set": set, "$frozenset": frozenset}[name](items)
    except NotPlain:
        raise
    except (TypeError, ValueError) as error:
        raise NotPlain(f"a message with a wrong mark: {error}") from None
    raise NotPlain(f"a message with an unknown mark {name[:20]!r}")

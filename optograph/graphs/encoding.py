"""Data as it goes into a trace: JSON where it can be, else type, hash and excerpt."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from typing import Any, NamedTuple

from pydantic import BaseModel

from optograph.errors import UserError
from optograph.graphs.shown import shown

EXCERPT = 200
"""Longest excerpt of opaque data, in characters."""

_INT64 = 2**63
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PLAIN = frozenset({str, int, float, bool, type(None)})


class Encoded(NamedTuple):
    """Data that is more than a JSON scalar.

    Attributes:
        type: Name of its Python type (``"error"`` for the record of a failure).
        json: The data as JSON data, where it has such a form.
        sha256: Hash of data that has none (the first 16 hexadecimal digits); an empty string otherwise.
        excerpt: What such data looks like, cut.
    """

    type: str
    json: Any = None
    sha256: str = ""
    excerpt: str = ""


def encode(data: Any) -> Any:
    """Return a JSON scalar unchanged, and anything else as a frozen `Encoded` copy."""
    kind = type(data)
    if kind in _PLAIN:
        if kind is str:
            return data if data.isascii() or _storable(data) else _opaque(data)
        if kind is int:
            return data if -_INT64 <= data < _INT64 else _opaque(data)
        return _opaque(data) if kind is float and not math.isfinite(data) else data
    name = kind.__name__
    try:
        return Encoded(name, _copied(_json_form(data)))
    except (TypeError, ValueError, RecursionError, UnicodeError):
        return _opaque(data)


def encoded_error(record: dict[str, Any]) -> Encoded:
    """Return the record of a failed op as encoded data of the type ``error``."""
    return Encoded("error", {key: item if type(item) is int else _clean(str(item)) for key, item in record.items()})


def data_to_json(data: Any) -> Any:
    """Return what `encode` gave as JSON data."""
    if type(data) is not Encoded:
        return data
    if data.sha256:
        return {"type": data.type, "sha256": data.sha256, "excerpt": data.excerpt}
    return {"type": data.type, "json": data.json}


def data_from_json(data: Any) -> Any:
    """Return what `data_to_json` was given.

    Raises:
        UserError: It is no such data.
    """
    if type(data) in _PLAIN:
        return data
    try:
        return Encoded(**data)
    except TypeError:
        raise UserError(f"not encoded data: {shown(data)}") from None


def type_name(data: Any) -> str:
    """Return the name of the Python type that encoded data had."""
    return str(data.type) if type(data) is Encoded else type(data).__name__


def _json_form(data: Any) -> Any:
    if isinstance(data, BaseModel):
        return data.model_dump(mode="json")
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
    if isinstance(data, set | frozenset):
        return sorted(data)
    return data


def _copied(data: Any) -> Any:
    text = json.dumps(data, allow_nan=False, default=_json_item)
    if "\\ud" in text:
        json.dumps(data, ensure_ascii=False, default=_json_item).encode()  # a lone surrogate raises
    return json.loads(text)


def _json_item(data: Any) -> Any:
    form = _json_form(data)
    if form is data:
        raise TypeError(f"no JSON form: {type(data).__name__}")
    return form


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _opaque(data: Any) -> Encoded:
    try:
        text = hex(data) if type(data) is int else repr(data)
    except Exception:  # noqa: BLE001 - data with a broken repr still belongs in the trace
        text = f"<{type(data).__name__}>"
    text = _clean(_ADDRESS.sub("", text))
    try:
        digest = hashlib.sha256(memoryview(data))  # arrays, bytes: the very data
    except (TypeError, ValueError, BufferError):
        digest = hashlib.sha256(text.encode())
    cut = f"…[{len(text) - EXCERPT} chars cut]" if len(text) > EXCERPT else ""
    return Encoded(type(data).__name__, sha256=digest.hexdigest()[:16], excerpt=text[:EXCERPT] + cut)

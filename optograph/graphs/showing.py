"""Values as text for a prompt: cut with a mark, and escaped so that no value can pass for the text around it."""

from __future__ import annotations

import json
import re
from typing import Any

from optograph.graphs.encoding import Encoded
from optograph.graphs.packing import Packed
from optograph.graphs.trace import Ref

SECTIONS = ("code", "documentation", "variables", "constraints", "inputs", "others", "outputs", "feedback")
"""The sections of a rendering, in order."""

_HEADER = rf"#+[^\S\n]*(?:{'|'.join((*SECTIONS, 'instruction'))})\b"
_ANY_HEADER = re.compile(rf"(?im)^([^\S\n]*)(\\*{_HEADER})")
_ESCAPED_HEADER = re.compile(rf"(?im)^([^\S\n]*)\\(\\*{_HEADER})")
_ANY_CLOSING = re.compile(r"<(\s*)(\\*/)")
_ESCAPED_CLOSING = re.compile(r"<(\s*)\\(\\*/)")
_CUT = re.compile(r"…\[\d+ (?:chars|lines|items|more runs) cut\]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_ITEMS = 12
_MARGIN = "| "
_BRACKETS = {"list": ("[", "]"), "tuple": ("(", ")"), "dict": ("{", "}")}


def escape(text: str) -> str:
    r"""Return text that opens no section and closes no tag.

    ``# Feedback`` at the start of a line becomes ``\# Feedback`` (so for every section), ``</`` becomes ``<\/``, and
    characters that could end a line unseen become escapes like ``\u2028``. All else stays as it is.
    """
    text = _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\r\n", "\n"))
    return _ANY_HEADER.sub(r"\1\\\2", _ANY_CLOSING.sub(r"<\1\\\2", text))


def unescape(text: str) -> str:
    """Return what `escape` was given, but for control characters: for a model's answer that copies escapes."""
    return _ESCAPED_HEADER.sub(r"\1\2", _ESCAPED_CLOSING.sub(r"<\1\2", text))


def one_line(text: str) -> str:
    """Return text escaped, on one line."""
    return escape(text).replace("\n", "\\n").replace("\t", " ")


def cut(text: str, limit: int | None) -> str:
    """Return text of at most about `limit` characters: its start, a mark with the number cut, and its end."""
    if limit is None or len(text) <= limit + 24:
        return text
    head = limit - limit // 4
    tail = limit // 4
    return f"{text[:head]}…[{len(text) - head - tail} chars cut]{text[len(text) - tail :]}"


def has_cut(text: str) -> bool:
    """Return whether a text bears a mark of something cut."""
    return _CUT.search(text) is not None


def assignment(kind: str, name: str, data: Any, limit: int | None) -> str:
    """Return ``(kind) name=value``; text of several lines follows as a block with a margin."""
    text = data if type(data) is str else None
    if text is None or "\n" not in text.strip("\n"):
        return f"({kind}) {name}={literal(data, limit)}"
    return f"({kind}) {name}=\n{block(text, limit)}"


def block(text: str, limit: int | None) -> str:
    """Return text of several lines, escaped, each line behind a margin that no line of a section has."""
    lines = escape(cut(text.rstrip("\n"), limit)).split("\n")
    return "\n".join(f"{_MARGIN}{line}".rstrip() for line in lines)


def literal(data: Any, limit: int | None) -> str:
    """Return encoded data on one line, as JSON where it has that form."""
    if type(data) is Encoded:
        if data.type == "error":
            return one_line(cut(_error(data.json), limit))
        if data.sha256:
            return one_line(f"<{data.type} {cut(data.excerpt, limit)}>")
        return one_line(cut(json.dumps(data.json, ensure_ascii=False), limit))
    if type(data) is str:
        return one_line(json.dumps(cut(data, limit), ensure_ascii=False))
    return json.dumps(data)


def operand(data: Any, names: dict[Ref, str], limit: int) -> str:
    """Return an argument as it stands in a code line: a name, a literal, or a container of these."""
    if type(data) is Ref:
        return names[data]
    if type(data) is not Packed:
        return literal(data, limit)
    parts: list[str] = []
    stack: list[Any] = [data]
    while stack:
        item = stack.pop()
        if type(item) is _Text:
            parts.append(item)
        elif type(item) is Packed:
            stack.extend(reversed(_spread(item, limit)))
        else:
            parts.append(names[item] if type(item) is Ref else literal(item, limit))
    return "".join(parts)


class _Text(str):
    """Text that is written as it is."""

    __slots__ = ()


def _spread(packed: Packed, limit: int) -> list[Any]:
    opening, closing = _BRACKETS[packed.kind]
    last = len(packed.items) - 1
    parts: list[Any] = [_Text(opening)]
    for index, item in enumerate(packed.items):
        if _ITEMS // 2 <= index < last - 1 and last >= _ITEMS:
            if index == _ITEMS // 2:
                parts.append(_Text(f"…[{last - 1 - index} items cut], "))
            continue
        if packed.keys is not None:
            parts.append(_Text(f"{literal(packed.keys[index], limit)}: "))
        parts.append(item)
        parts.append(_Text(", " if index < last else ""))
    return [*parts, _Text("," + closing if packed.kind == "tuple" and last == 0 else closing)]


def _error(record: dict[str, Any]) -> str:
    name, message = record.get("error", "Error"), record.get("message", "")
    where = f" in {record.get('op', '')}" + (f", line {record['lineno']}: {record['line']}" if "line" in record else "")
    return f"{name}: {message}{where}" if message else f"{name}{where}"

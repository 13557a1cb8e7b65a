"""What an answer must look like: a JSON schema, one of a few choices, or a regular expression."""

from __future__ import annotations

import enum
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from optograph.errors import UserError

_NAME = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is a JSON document that obeys a schema.

    Attributes:
        schema: A JSON schema (draft 2020-12) as plain JSON data; treat it as read-only.
        name: Short name that servers want beside the schema (letters, digits, ``_`` and ``-``).
    """

    schema: dict[str, Any]
    name: str = "answer"

    def __post_init__(self) -> None:
        try:
            json.dumps(self.schema, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(f"a JSON schema must be plain JSON data, got {self.schema!r}: {error}") from None

    def __hash__(self) -> int:
        return hash((self.name, json.dumps(self.schema, sort_keys=True)))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data that `schema_from_json` reads."""
        return {"type": "json_schema", "name": self.name, "schema": self.schema}


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer is exactly one of `options`.

    Attributes:
        options: Distinct, non-empty strings; at least one.
    """

    options: tuple[str, ...]

    def __post_init__(self) -> None:
        bad = not self.options or any(not isinstance(one, str) or not one for one in self.options)
        if bad or len(set(self.options)) != len(self.options):
            raise UserError(f"a choice needs distinct, non-empty strings, got {self.options!r}")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data that `schema_from_json` reads."""
        return {"type": "choice", "options": list(self.options)}


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches `pattern` (no flags: servers know none).

    Attributes:
        pattern: A regular expression in the dialect of Python's `re`, matched against the full answer.
    """

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(f"{self.pattern!r} is no regular expression: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data that `schema_from_json` reads."""
        return {"type": "regex", "pattern": self.pattern}


Schema = JsonSchema | Choice | Regex


def schema_of(source: Any) -> Schema:
    """Make a schema from what one naturally has at hand.

    Args:
        source: A pydantic class, a JSON schema as a dict, a list of strings, a ``Literal`` of strings, an `enum.Enum`
            class with string values, a compiled pattern, or a schema already.

    Raises:
        UserError: When `source` is none of these, or a pattern carries flags.
    """
    if isinstance(source, JsonSchema | Choice | Regex):
        return source
    if isinstance(source, type) and issubclass(source, BaseModel):
        return JsonSchema(source.model_json_schema(), _NAME.sub("_", source.__name__)[:64])
    if isinstance(source, type) and issubclass(source, enum.Enum):
        return Choice(tuple(member.value for member in source))
    if typing.get_origin(source) is typing.Literal:
        return Choice(tuple(typing.get_args(source)))
    if isinstance(source, Mapping):
        return JsonSchema(dict(source), _NAME.sub("_", str(source.get("title", "answer")))[:64])
    if isinstance(source, re.Pattern):
        if source.flags & ~re.UNICODE:
            raise UserError(f"a pattern for an answer carries no flags, got {source!r}; write them out in the pattern")
        return Regex(source.pattern)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return Choice(tuple(source))
    raise UserError(
        f"no schema can be made from {source!r}; give a pydantic class, a JSON schema (dict), a list of "
        "strings or a compiled pattern"
    )


def schema_from_json(data: Mapping[str, Any]) -> Schema:
    """Read what the ``to_json`` method of a schema wrote.

    Raises:
        UserError: When `data` is no such record.
    """
    match data:
        case {"type": "json_schema", "schema": dict(schema), "name": str(name)}:
            return JsonSchema(schema, name)
        case {"type": "choice", "options": list(options)}:
            return Choice(tuple(options))
        case {"type": "regex", "pattern": str(pattern)}:
            return Regex(pattern)
    raise UserError(f"{data!r} is no stored schema")

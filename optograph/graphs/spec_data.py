"""Specs of structured values (demonstrations, pydantic models, JSON), and the spec that fits given data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError

from optograph.errors import UserError
from optograph.graphs.shown import shown
from optograph.graphs.spec import BoolSpec, FloatSpec, IntSpec, Spec, TextSpec


def plain_json(value: Any, what: str) -> Any:
    """Return a deep copy of JSON data; anything else raises UserError."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{what} must be JSON data ({error}), got {shown(value)}") from None


@dataclass(frozen=True, slots=True)
class DemosSpec(Spec):
    """A list of demonstrations, each a dict from field names to JSON values.

    Args:
        max_items: Most demonstrations allowed.
        fields: The names that every demonstration must have, and no others; None leaves them free.
    """

    max_items: int = 32
    fields: Sequence[str] | None = None
    kind: ClassVar[str] = "demos"

    def __post_init__(self) -> None:
        if self.max_items < 0:
            raise UserError(f"max_items must not be negative, got {self.max_items!r}")
        if self.fields is not None:
            if isinstance(self.fields, str):
                raise UserError(f"fields must be a sequence of names, got {self.fields!r}: write ({self.fields!r},)")
            object.__setattr__(self, "fields", tuple(self.fields))

    def validate(self, value: Any) -> list[dict[str, Any]]:
        """Return the demonstrations, copied."""
        if not isinstance(value, list | tuple) or not all(isinstance(item, Mapping) for item in value):
            raise UserError(f"must be {self.describe()}, got {shown(value)}")
        if len(value) > self.max_items:
            raise UserError(f"must hold at most {self.max_items} demonstrations, got {len(value)}")
        demos: list[dict[str, Any]] = plain_json([dict(item) for item in value], "demonstrations")
        for demo in demos:
            if self.fields is not None and set(demo) != set(self.fields):
                raise UserError(f"a demonstration must have exactly the fields {self.fields!r}, got {shown(demo)}")
        return demos

    def json_schema(self) -> dict[str, Any]:
        """Return an array schema."""
        item: dict[str, Any] = {"type": "object"}
        if self.fields is not None:
            item |= {
                "properties": {name: {} for name in self.fields},
                "required": list(self.fields),
                "additionalProperties": False,
            }
        return {"type": "array", "items": item, "maxItems": self.max_items}

    def describe(self) -> str:
        """Return the size and the fields in words."""
        names = "" if self.fields is None else f" with the fields {', '.join(self.fields)}"
        return f"a list of at most {self.max_items} objects{names}"


@dataclass(frozen=True, slots=True)
class ModelSpec(Spec):
    """An instance of one pydantic model.

    Args:
        pydantic_cls: The model class; its own validators are the constraint.
    """

    pydantic_cls: type[BaseModel]
    kind: ClassVar[str] = "model"

    def __post_init__(self) -> None:
        if not (isinstance(self.pydantic_cls, type) and issubclass(self.pydantic_cls, BaseModel)):
            raise UserError(f"pydantic_cls must be a pydantic model class, got {shown(self.pydantic_cls)}")

    def validate(self, value: Any) -> BaseModel:
        """Return a fresh instance: from an instance, a mapping, or its JSON text."""
        cls = self.pydantic_cls
        try:
            if isinstance(value, str):
                return cls.model_validate_json(value)
            return cls.model_validate(value.model_dump() if isinstance(value, BaseModel) else value)
        except (ValidationError, RecursionError) as error:
            raise UserError(f"must be {self.describe()}, got {shown(value)}: {error}") from None

    def json_schema(self) -> dict[str, Any]:
        """Return the model's schema."""
        return self.pydantic_cls.model_json_schema()

    def describe(self) -> str:
        """Return the model's name and its fields."""
        names = ", ".join(self.pydantic_cls.model_fields)
        return f"a {self.pydantic_cls.__name__} object with the fields {names}"

    def to_json(self, value: Any) -> Any:
        """Return the model's JSON data."""
        return value.model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class JsonSpec(Spec):
    """Any JSON list or object.

    Args:
        root: ``"list"`` or ``"dict"``: the type of the whole value, which never changes.
        max_chars: Longest JSON text in characters.
    """

    root: str = "list"
    max_chars: int = 20000
    kind: ClassVar[str] = "json"
    _types: ClassVar[dict[str, type]] = {"list": list, "dict": dict}

    def __post_init__(self) -> None:
        if self.root not in self._types:
            raise UserError(f"root must be 'list' or 'dict', got {self.root!r}")

    def validate(self, value: Any) -> Any:
        """Return a deep copy of the list or dict."""
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise UserError(f"must be {self.describe()}, got {shown(value)}") from None
        if not isinstance(value, self._types[self.root]):
            raise UserError(f"must be {self.describe()}, got {shown(value)}")
        copy = plain_json(value, "value")
        if len(json.dumps(copy)) > self.max_chars:
            raise UserError(f"must have at most {self.max_chars} characters as JSON, got {shown(value)}")
        return copy

    def json_schema(self) -> dict[str, Any]:
        """Return an array or object schema."""
        return {"type": "array" if self.root == "list" else "object"}

    def describe(self) -> str:
        """Return the type in words."""
        return f"a JSON {'list' if self.root == 'list' else 'object'}"


def infer_spec(data: Any) -> Spec:
    """Return the widest spec of the type that `data` has.

    Raises:
        UserError: No spec fits (None, a function, an array...).
    """
    if isinstance(data, bool):
        return BoolSpec()
    if isinstance(data, int):
        return IntSpec()
    if isinstance(data, float):
        return FloatSpec()
    if isinstance(data, str):
        return TextSpec(max_chars=max(4000, 2 * len(data)), min_chars=min(1, len(data)))
    if isinstance(data, BaseModel):
        return ModelSpec(type(data))
    if isinstance(data, list) and all(isinstance(item, dict) for item in data):
        return DemosSpec(max_items=max(32, 2 * len(data)))
    if isinstance(data, list | dict):
        return JsonSpec("list" if isinstance(data, list) else "dict")
    raise UserError(
        f"no spec for a parameter of type {type(data).__name__}: {shown(data)}; "
        "hold text, code, a number, a choice, a list, a dict or a pydantic model, or pass spec=..."
    )

"""One decision of a model as one JSON object: what it may do, as text and as a schema, and reading what it wrote.

A call is an object of one field: `{"NAME": {ARGUMENTS}}`. That is the shortest form that a small model can be held to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from optograph.agents.answers import extract_json
from optograph.errors import ModelError
from optograph.serving import JsonSchema

_DEFS = "#/$defs/"
_NAMES = ("tool", "name", "function")
_ARGUMENTS = ("arguments", "args", "parameters", "input")
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a model may do.

    Attributes:
        name: Its name, unique in its menu.
        description: What it is for, in words that the model reads.
        schema: JSON schema of its arguments: an object, or a string for plain text.
    """

    name: str
    description: str
    schema: Mapping[str, Any]


def menu_schema(actions: Sequence[Action], name: str = "action") -> JsonSchema:
    """Return the schema of a call of one of the actions."""
    definitions: dict[str, Any] = {}
    calls = []
    for action in actions:
        arguments = _closed(_renamed(action.schema, action.name))
        definitions |= {f"{action.name}.{key}": one for key, one in arguments.pop("$defs", {}).items()}
        calls.append(
            {
                "type": "object",
                "properties": {action.name: arguments},
                "required": [action.name],
                "additionalProperties": False,
            }
        )
    schema: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return JsonSchema({**schema, "$defs": definitions} if definitions else schema, name)


def check_names(action: Action, arguments: Mapping[str, Any]) -> None:
    """Check that all fields that an action needs are there, and no others; their types are not looked at.

    Raises:
        ModelError: They are not; the message is fit for a repair prompt.
    """
    schema = action.schema
    lacking = [name for name in schema.get("required", ()) if name not in arguments]
    known = schema.get("properties", {})
    extra = [name for name in arguments if name not in known and not schema.get("additionalProperties")]
    if lacking or (known and extra):
        raise ModelError(f"the arguments of {action.name!r} lack {lacking!r} and have unknown {extra!r}")


def arguments_schema(action: Action) -> JsonSchema:
    """Return the schema of an action's arguments alone."""
    return JsonSchema(_closed(dict(action.schema)), action.name)


def menu_text(actions: Sequence[Action]) -> str:
    """Write the menu for a prompt: the form of each call, and what it is for."""
    lines = [f"- {_call_shape(action)}: {' '.join(action.description.split())}" for action in actions]
    return "Reply with one JSON object and nothing else. It is one of these:\n" + "\n".join(lines)


def write_call(name: str, arguments: Any) -> str:
    """Write a call as the model is to write it."""
    return json.dumps({name: to_jsonable_python(arguments, fallback=str)}, ensure_ascii=False)


def read_call(text: str, actions: Sequence[Action]) -> tuple[Action, Any]:
    """Read a call out of a model's answer; the usual forms with ``name`` and ``arguments`` are understood as well.

    Returns:
        The action, and its arguments: a dict, or a text where its schema is a string.

    Raises:
        ModelError: It is no call of one of the actions; the message is fit for a repair prompt.
    """
    data = extract_json(text)
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    known = {action.name: action for action in actions}
    name, arguments = _taken_apart(data, known)
    if name not in known:
        raise ModelError(f"there is no {name!r} here; use one of {', '.join(map(repr, known))}")
    if known[name].schema.get("type") == "string":
        if not isinstance(arguments, str):
            raise ModelError(f"{name!r} must be given a text, not {json.dumps(arguments)[:80]}")
        return known[name], arguments
    if isinstance(arguments, str):
        arguments = extract_json(arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ModelError(f"the arguments of {name!r} must be a JSON object, not {json.dumps(arguments)[:80]}")
    return known[name], arguments


def is_json(text: str) -> bool:
    """Tell whether a text is one JSON value and nothing else."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _taken_apart(data: Any, known: Mapping[str, Action]) -> tuple[str, Any]:
    if isinstance(data, dict):
        for key in _NAMES:
            if isinstance(data.get(key), str) and key not in known:
                return data[key], next((data[one] for one in _ARGUMENTS if one in data), {})
        if len(data) == 1:
            ((name, arguments),) = data.items()
            return str(name), arguments
        chosen = [name for name in known if name in data]
        if len(chosen) == 1:
            return chosen[0], data[chosen[0]]
    raise ModelError(f"the answer must be one JSON object with one field, one of {', '.join(map(repr, known))}")


def _closed(schema: Any) -> Any:
    """Forbid fields that a schema does not name, in every object of it: a small model would go on inventing some."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = {key: value if key in ("enum", "const", "default") else _closed(value) for key, value in schema.items()}
    if closed.get("type") == "object" and "properties" in closed and "additionalProperties" not in closed:
        closed["additionalProperties"] = False
    return closed


def _renamed(schema: Any, prefix: str) -> Any:
    """Let the references of a schema point to definitions that carry the action's name, so that none clash."""
    if isinstance(schema, list):
        return [_renamed(one, prefix) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    renamed = {
        key: value if key in ("enum", "const", "default") else _renamed(value, prefix) for key, value in schema.items()
    }
    reference = renamed.get("$ref")
    if isinstance(reference, str) and reference.startswith(_DEFS):
        renamed["$ref"] = f"{_DEFS}{prefix}.{reference.removeprefix(_DEFS)}"
    return renamed


def _call_shape(action: Action) -> str:
    return f'{{"{action.name}": {shape(action.schema)}}}'


def shape(schema: Mapping[str, Any]) -> str:
    """Write a JSON schema in short, as an example whose values are types: ``{"n": number, "unit": "g" | "kg"}``."""
    return _shape(schema, schema.get("$defs", {}), 0)


def _shape(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> str:
    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = reference.removeprefix(_DEFS)
        return _shape(definitions[name], definitions, depth + 1) if name in definitions and depth < _DEEPEST else name
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if "enum" in schema:
        return " | ".join(json.dumps(one, ensure_ascii=False) for one in schema["enum"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " | ".join(dict.fromkeys(_shape(one, definitions, depth + 1) for one in schema[key]))
    kind = schema.get("type")
    if kind == "object":
        return _object_shape(schema, definitions, depth)
    if kind == "array":
        return f"[{_shape(schema.get('items') or {}, definitions, depth + 1)}, …]"
    return " | ".join(kind) if isinstance(kind, list) else str(kind or "anything")


def _object_shape(schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int) -> str:
    if depth >= _DEEPEST:
        return "object"
    needed = schema.get("required", ())
    fields = []
    for name, one in schema.get("properties", {}).items():
        text = f'"{name}": {_shape(one, definitions, depth + 1)}'
        notes = [] if name in needed else ["optional"]
        if one.get("description"):
            notes.append(" ".join(str(one["description"]).split()))
        fields.append(text + (f" ({', '.join(notes)})" if notes else ""))
    return "{" + ", ".join(fields) + "}"

"""How each kind of server is told what an answer must look like."""

from __future__ import annotations

import json
from typing import Any

from optograph.serving import wire
from optograph.serving.schemas import Choice, JsonSchema, Regex, Schema

_PACKED = "answer"


def constraint_fields(schema: Schema, flavour: str) -> dict[str, Any] | None:
    """Return the fields of a request's body that hold its answer to a schema, or None where the server knows none.

    Args:
        schema: What the answer must look like.
        flavour: ``"openai"``, ``"vllm"`` or ``"llamacpp"``.
    """
    match schema, flavour:
        case JsonSchema(), _:
            schema = _pack_json(schema) if is_packed(schema, flavour) else schema
            strict = _allows_strict(schema.schema) if flavour == "openai" else None
            return {"response_format": wire.json_schema_format(schema, strict=strict or None)}
        case Choice(options=options), "vllm":
            return {"structured_outputs": {"choice": list(options)}}
        case Regex(pattern=pattern), "vllm":
            return {"structured_outputs": {"regex": pattern}}
        case Choice(options=options), "llamacpp":
            return {"grammar": wire.choice_grammar(options)}
        case Choice(options=options), _:
            return {"response_format": wire.json_schema_format(_pack(options), strict=True)}
    return None


def is_packed(schema: Schema | None, flavour: str) -> bool:
    """Tell whether an answer comes inside a JSON object of one field, since OpenAI wants an object at the root."""
    if flavour != "openai":
        return False
    return isinstance(schema, Choice) or (isinstance(schema, JsonSchema) and schema.schema.get("type") != "object")


def _pack_json(schema: JsonSchema) -> JsonSchema:
    inner = dict(schema.schema)
    definitions: dict[str, Any] = {key: inner.pop(key) for key in ("$defs", "definitions") if key in inner}
    return JsonSchema({**_packing(inner), **definitions}, schema.name)


def _pack(options: tuple[str, ...]) -> JsonSchema:
    return JsonSchema(_packing({"type": "string", "enum": list(options)}), _PACKED)


def _packing(inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {_PACKED: inner}, "required": [_PACKED], "additionalProperties": False}


def unpack(text: str, schema: Schema) -> str:
    """Take the answer out of its JSON object; a text that holds none (cut off, say) stays as it is."""
    try:
        data = json.loads(text)
    except ValueError:
        return text
    if not isinstance(data, dict) or set(data) != {_PACKED}:
        return text
    packed = data[_PACKED]
    if isinstance(schema, JsonSchema):
        return json.dumps(packed, ensure_ascii=False)
    return packed if isinstance(packed, str) else text


def _allows_strict(schema: Any) -> bool:
    """Tell whether OpenAI's strict mode takes a schema: every object closed, every property required."""
    if isinstance(schema, list):
        return all(_allows_strict(one) for one in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties):
            return False
    return all(
        _allows_strict(one) for key, one in schema.items() if key not in ("default", "enum", "const", "examples")
    )

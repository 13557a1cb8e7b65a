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


def _pack(options: tuple[str, ...]) -> JsonSchema:
    return JsonSchema(
        {
            "type": "object",
            "properties": {_PACKED: {"type": "string", "enum": list(options)}},
            "required": [_PACKED],
            "additionalProperties": False,
        },
        _PACKED,
    )


def unpack(text: str) -> str:
    """Take the choice out of its JSON object; a text that holds none (cut off, say) stays as it is."""
    try:
        data = json.loads(text)
    except ValueError:
        return text
    packed = data.get(_PACKED) if isinstance(data, dict) else None
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

"""Reading an optimizer model's answer: every parameter gets a typed outcome, and nothing is guessed or passed over."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from optograph.agents import extract_json
from optograph.errors import ModelError, UserError
from optograph.graphs import CodeSpec, Spec, TextSpec

OutcomeKind = Literal["updated", "unchanged", "invalid", "terminated"]
TERMINATE = "TERMINATE"
_RESERVED = ("reasoning", "blame", "answer", "suggestion")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class ParameterOutcome:
    """What an answer means for one parameter.

    Attributes:
        kind: ``"updated"`` (with a valid new value), ``"unchanged"``, ``"invalid"`` (with the reason) or
            ``"terminated"`` (the model sees nothing left to improve).
        value: The new value, validated by the parameter's spec; None unless updated.
        reason: Why, in words; fit for a repair prompt where the outcome is invalid.
    """

    kind: OutcomeKind
    value: Any = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read.

    Attributes:
        outcomes: One outcome a parameter.
        reasoning: The model's reasoning, as it gave it.
        blame: Names of parameters at fault, as far as the model named known ones.
        ignored: Names in the suggestion that are no parameters.
    """

    outcomes: Mapping[str, ParameterOutcome]
    reasoning: str = ""
    blame: tuple[str, ...] = ()
    ignored: tuple[str, ...] = field(default=())

    @property
    def updates(self) -> dict[str, Any]:
        """The valid new values, by parameter."""
        return {name: one.value for name, one in self.outcomes.items() if one.kind == "updated"}

    @property
    def problems(self) -> dict[str, str]:
        """Why values are invalid, by parameter."""
        return {name: one.reason for name, one in self.outcomes.items() if one.kind == "invalid"}


class _Known(TypedDict):
    reasoning: str
    blame: tuple[str, ...]


def answer_schema(specs: Mapping[str, Spec]) -> dict[str, Any]:
    """Return the JSON schema of an answer: reasoning, blame, the decision, and new values of any of the parameters."""
    return {
        "type": "object",
        "properties": {
            "reasoning": {"type": "string", "maxLength": 1500},
            "blame": {
                "type": "array",
                "items": {"type": "string", "enum": list(specs)},
                "maxItems": len(specs),
            },
            "answer": {"type": "string", "enum": ["CHANGE", TERMINATE]},
            "suggestion": {
                "type": "object",
                "properties": {name: spec.json_schema() for name, spec in specs.items()},
                "additionalProperties": False,
            },
        },
        "required": ["reasoning", "answer", "suggestion"],
        "additionalProperties": False,
    }


def read_answer(text: str, specs: Mapping[str, Spec], current: Mapping[str, Any]) -> Answer:
    """Read a model's answer into typed outcomes.

    Args:
        text: What the model wrote, in whatever shape.
        specs: What each parameter may hold.
        current: The values now, for telling an update from a repetition.

    Returns:
        An answer with an outcome for each parameter in ``specs``; it never raises for what a model wrote.
    """
    if text.strip().strip(".\"'`") == TERMINATE:
        return _all(specs, ParameterOutcome("terminated", reason="The model sees nothing to improve."))
    try:
        data = extract_json(text)
    except ModelError as error:
        return _all(specs, ParameterOutcome("invalid", reason=str(error)))
    if not isinstance(data, dict):
        found = f"the answer is {_kind(data)}, not an object with a 'suggestion'"
        return _all(specs, ParameterOutcome("invalid", reason=found))
    reasoning = data.get("reasoning")
    blame = data.get("blame")
    suggestion = _suggestion(data, specs)
    said = reasoning if isinstance(reasoning, str) else ""
    named = tuple(one for one in blame if isinstance(one, str) and one in specs) if isinstance(blame, list) else ()
    known: _Known = {"reasoning": said, "blame": named}
    if data.get("answer") == TERMINATE or suggestion == TERMINATE:
        return _all(specs, ParameterOutcome("terminated", reason="The model sees nothing to improve."), **known)
    if isinstance(suggestion, str):
        suggestion = _literal(suggestion)
    if not isinstance(suggestion, dict):
        what = "is missing" if suggestion is _MISSING else f"is {_kind(suggestion)}, not an object"
        return _all(specs, ParameterOutcome("invalid", reason=f"'suggestion' {what}"), **known)
    ignored = tuple(str(name) for name in suggestion if name not in specs)
    if ignored and len(ignored) == len(suggestion):
        reason = f"'suggestion' names {list(ignored)!r}, which are no variables; the variables are {list(specs)!r}"
        return _all(specs, ParameterOutcome("invalid", reason=reason), ignored=ignored, **known)
    outcomes = {name: _outcome(suggestion.get(name, _MISSING), spec, current[name]) for name, spec in specs.items()}
    return Answer(outcomes, ignored=ignored, **known)


def _suggestion(data: dict[str, Any], specs: Mapping[str, Spec]) -> Any:
    if "suggestion" in data:
        return data["suggestion"]
    named = {name: value for name, value in data.items() if name in specs and name not in _RESERVED}
    return named or _MISSING


def _outcome(value: Any, spec: Spec, current: Any) -> ParameterOutcome:
    if value is _MISSING or value is None:
        return ParameterOutcome("unchanged", reason="The answer does not name it.")
    try:
        valid = coerce(value, spec)
    except UserError as error:
        return ParameterOutcome("invalid", reason=str(error))
    if spec.to_json(valid) == spec.to_json(current) and type(valid) is type(current):
        return ParameterOutcome("unchanged", reason="The new value equals the old one.")
    return ParameterOutcome("updated", valid)


def coerce(value: Any, spec: Spec) -> Any:
    """Return a JSON value as the spec's type; text that spells a value of another type is read as that value.

    Raises:
        UserError: The value does not fit; text is never stored where a number, a flag or a list belongs.
    """
    try:
        return spec.from_json(value)
    except UserError:
        if not isinstance(value, str) or isinstance(spec, TextSpec | CodeSpec):
            raise
        parsed = _literal(value)
        if isinstance(parsed, str):
            raise
        return spec.from_json(parsed)


def _literal(text: str) -> Any:
    plain = text.strip()
    for read in (json.loads, ast.literal_eval):
        try:
            return read(plain)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return {"true": True, "false": False}.get(plain.lower(), text)


def _all(specs: Mapping[str, Spec], outcome: ParameterOutcome, **known: Any) -> Answer:
    return Answer(dict.fromkeys(specs, outcome), **known)


def _kind(value: Any) -> str:
    return {str: "text", list: "a list", bool: "a flag", type(None): "null"}.get(type(value), "a number")

"""Turning a step's instruction, demonstrations and inputs into messages, and back from text into its output."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from optograph.agents.answers import extract_json, without_thinking
from optograph.errors import ModelError, UserError
from optograph.serving import Message

AnswerForm = Literal["json", "choice", "score", "text"]


def answer_options(output: type[BaseModel]) -> tuple[str, ...] | None:
    """Return the options where ``output`` has exactly one field and it is a ``Literal`` of strings, else None."""
    fields = list(output.model_fields.values())
    if len(fields) != 1 or typing.get_origin(fields[0].annotation) is not Literal:
        return None
    options = typing.get_args(fields[0].annotation)
    return options if all(isinstance(option, str) for option in options) else None


def default_form(output: type[BaseModel]) -> AnswerForm:
    """Return how an output is best asked for: a choice of labels, free text, or JSON."""
    if answer_options(output) is not None:
        return "choice"
    fields = list(output.model_fields.values())
    return "text" if len(fields) == 1 and fields[0].annotation is str else "json"


def check_form(form: AnswerForm, output: type[BaseModel]) -> None:
    """Raise ``UserError`` where an output type cannot be asked for in this form."""
    if form in ("choice", "score") and answer_options(output) is None:
        raise UserError(
            f"answer={form!r} needs an output with one field of type Literal['a', 'b', …]; {output.__name__} has "
            f"{_annotations(output)!r}: use answer='json'"
        )
    if form == "text" and (len(output.model_fields) != 1 or "str" not in next(iter(_annotations(output).values()))):
        raise UserError(
            f"answer='text' needs an output with one str field; {output.__name__} has {_annotations(output)!r}: "
            "use answer='json'"
        )


def render_messages(
    *,
    instruction: str,
    demos: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, Any],
    output: type[BaseModel],
    form: AnswerForm,
    show_schema: bool,
) -> tuple[Message, ...]:
    """Write the chat for one question: the instruction, one turn pair a demonstration, then the inputs.

    Args:
        instruction: What to do.
        demos: Solved examples; each holds the input fields and the output fields.
        inputs: The question's fields; one field alone is written without its name.
        output: The output type.
        form: How the answer is to be written.
        show_schema: Whether the instruction must spell out the JSON schema because the server cannot enforce it.
    """
    system = instruction.strip()
    if form == "json" and show_schema:
        schema = json.dumps(output.model_json_schema(), ensure_ascii=False)
        system = f"{system}\n\nAnswer with one JSON object that obeys this JSON schema:\n{schema}"
    messages = [Message("system", system)] if system else []
    for demo in demos:
        messages.append(Message("user", render_inputs({name: demo[name] for name in inputs if name in demo})))
        messages.append(Message("assistant", render_answer(demo, output, form)))
    messages.append(Message("user", render_inputs(inputs)))
    return tuple(messages)


def render_inputs(inputs: Mapping[str, Any]) -> str:
    """Write input fields as text: one field as it is, several as ``Name: value`` lines."""
    texts = {name: value if isinstance(value, str) else _dump(value) for name, value in inputs.items()}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "\n".join(f"{name.replace('_', ' ').capitalize()}: {text}" for name, text in texts.items())


def render_answer(demo: Mapping[str, Any], output: type[BaseModel], form: AnswerForm) -> str:
    """Write a demonstration's answer in the form in which the model is to answer."""
    fields = {name: demo[name] for name in output.model_fields if name in demo}
    if form == "json":
        return _dump(fields)
    return str(next(iter(fields.values()), ""))


def read_answer(text: str, output: type[BaseModel], form: AnswerForm) -> BaseModel:
    """Read a model's text into the output type.

    Raises:
        ModelError: The text does not hold a valid output; the message says what is wrong, fit for a repair prompt.
    """
    name = next(iter(output.model_fields))
    try:
        if form == "text":
            return output.model_validate({name: without_thinking(text).strip()})
        if form in ("choice", "score"):
            return output.model_validate({name: _option(text, answer_options(output) or ())})
        data = extract_json(text)
        if not isinstance(data, dict):
            data = {name: data} if len(output.model_fields) == 1 else data
        return output.model_validate(data)
    except ValidationError as error:
        raise ModelError(f"the answer does not fit {output.__name__}: {problems_of(error, 'answer')}") from error


def problems_of(error: ValidationError, whole: str) -> str:
    """Write what pydantic found in one line; `whole` stands for the place where the problem has none."""
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or whole}: {one['msg']}" for one in error.errors())


def checked_inputs(owner: str, model: type[BaseModel], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return input fields as the input type holds them.

    Raises:
        ValueError: They do not fit. No ``UserError``: they may come from another step's answer, and fail one example
            only.
    """
    try:
        valid = model.model_validate(dict(inputs))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "input"
        raise ValueError(
            f"{owner} got {sorted(inputs)!r}, which does not fit {model.__name__}: {where}: {first['msg']}"
        ) from error
    return {name: getattr(valid, name) for name in model.model_fields}


def _option(text: str, options: Sequence[str]) -> str:
    given = without_thinking(text).strip().strip(".\"'`*").lower()
    for option in options:
        if given == option.lower():
            return option
    named = [option for option in options if option.lower() in given.split()]
    if len(named) == 1:
        return named[0]
    raise ModelError(f"the answer {given[:80]!r} is none of {list(options)!r}")


def _annotations(output: type[BaseModel]) -> dict[str, str]:
    def name(annotation: Any) -> str:
        plain = isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias)
        return annotation.__name__ if plain else str(annotation)

    return {key: name(field.annotation) for key, field in output.model_fields.items()}


def _dump(value: Any) -> str:
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, default=str)

"""Tools: typed Python functions that an agent's model may call."""

from __future__ import annotations

import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic_core import to_jsonable_python

from optograph.agents.calling import Action
from optograph.agents.prompting import problems_of
from optograph.agents.threads import ExitCalled, in_thread
from optograph.errors import ModelError, UserError
from optograph.graphs import OpInfo, ParameterContainer, TracedFunction, Value, op

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SECTION = re.compile(r"^\s*(Args|Arguments|Parameters|Returns|Raises|Yields|Example|Examples|Note|Notes):\s*$", re.M)
_SHOWN_DEFAULTS = (str, bool, int, float, type(None))


class Tool(ParameterContainer):
    """A function that a model may call.

    The arguments' types come from the annotations and are checked by pydantic before the function is called; what it
    is for comes from the docstring, up to its ``Args:``. Each agent holds the description as a parameter of its own,
    which can be learned. A sync function is called in a thread, so that it may block; an awaitable that it gives is
    awaited.

    Args:
        function: A function, a bound method or an `op`; sync or async. Every argument needs an annotation and a name.
        name: What the model calls it; the function's name where None.
        description: What it is for; the docstring where None.

    Raises:
        UserError: The name is unfit, there is no description, an argument has no type that JSON can hold, or the
            function is a generator.
    """

    def __init__(
        self, function: Callable[..., Any], *, name: str | None = None, description: str | None = None
    ) -> None:
        if not callable(function) or isinstance(function, type):
            raise UserError(f"a tool is a function, got {function!r}")
        self.name: str = name or str(getattr(function, "__name__", ""))
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"a tool's name has letters, digits and '_' only, at most 64, got {self.name!r}: give Tool(…, name=…)"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UserError(
                f"tool {self.name!r} is a generator, and a model is shown one result: return a list instead"
            )
        text = inspect.getdoc(function) or "" if description is None else description
        if description is None:
            text = " ".join(_SECTION.split(text, maxsplit=1)[0].split())
        if not text.strip():
            raise UserError(
                f"tool {self.name!r} needs a description, since a model chooses tools by it: "
                "give the function a docstring"
            )
        self.description = text
        self.function = function
        self.owner = getattr(function, "__self__", None)  # so that a method's own parameters are found
        self.arguments = _arguments_of(function, self.name)
        self.is_async = inspect.iscoroutinefunction(function)

    def __repr__(self) -> str:
        return f"Tool({self.name!r})"

    @functools.cached_property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        return self.arguments.model_json_schema()

    def action(self, description: str) -> Action:
        """Return the tool as a line of a menu."""
        return Action(self.name, description, self.schema)

    def traced(self, name: str) -> TracedFunction:
        """Return the function as an op of this name (or as the op that it is)."""
        if isinstance(getattr(self.function, "info", None), OpInfo):
            return typing.cast("TracedFunction", self.function)
        function = self.function if self.is_async else _in_thread(self.function, name)
        return op(name=name, description=self.description)(function)

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments as the function takes them; what is left out keeps its default.

        Raises:
            ModelError: They do not fit; the message is fit for a repair prompt.
        """
        try:
            valid = self.arguments.model_validate(dict(arguments))
        except ValidationError as error:
            raise ModelError(f"the arguments of {self.name!r} do not fit: {problems_of(error, 'arguments')}") from error
        fields = type(valid).model_fields
        return {str(fields[name].alias): getattr(valid, name) for name in fields if name in valid.model_fields_set}


async def use(traced: TracedFunction, arguments: Mapping[str, Any]) -> Value:
    """Call a tool's op; a sync one in a thread of its own.

    Raises:
        OpError: The function raised.
        RuntimeError: The function called ``exit``.
        UserError: The tool is a sync `op` around an async function.
    """
    name = traced.info.name
    try:
        if inspect.iscoroutinefunction(traced):
            result = await traced(**arguments)
        else:
            result = await in_thread(lambda: traced(**arguments), name)
            result = await result if inspect.isawaitable(result) else result
    except SystemExit as stop:  # would end the loop that all models share
        raise ExitCalled(f"{name} called exit({stop.code!r})", stop) from None
    if inspect.iscoroutine(result.data):
        result.data.close()  # nobody will await it, and Python would say so
        raise UserError(f"tool {name!r} gives a coroutine: put @op next to its async function, below all decorators")
    return typing.cast("Value", result)


def _in_thread(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a sync function as an async one that calls it in a thread, and awaits what it gives where that is needed.

    An async function below a sync decorator looks sync, and so does one that merely calls an async one.
    """

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = await in_thread(lambda: function(*args, **kwargs), name)
        except ExitCalled as error:
            raise error.stop from None  # as in the function's own thread
        return await result if inspect.isawaitable(result) else result

    return call


def result_text(result: Any, limit: int) -> str:
    """Write a tool's result for the model, cut to a number of characters."""
    if not isinstance(result, str):
        result = json.dumps(to_jsonable_python(result, fallback=str), ensure_ascii=False)
    return result if len(result) <= limit else f"{result[:limit]}… ({len(result) - limit} characters left out)"


def _arguments_of(function: Callable[..., Any], name: str) -> type[BaseModel]:
    """Make the pydantic model of a function's arguments, each field with the argument's name as its alias.

    The fields' own names are numbers, since an argument may have a name that pydantic keeps for itself (``copy``).
    """
    try:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(inspect.unwrap(_plain(function)), include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise UserError(f"the arguments of tool {name!r} cannot be read ({error}): annotate them") from None
    fields: dict[str, Any] = {}
    for number, (argument, one) in enumerate(signature.parameters.items()):
        if one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            raise UserError(f"tool {name!r} takes {str(one)!r}: a tool's arguments are given by name, one by one")
        if argument not in hints:
            raise UserError(f"argument {argument!r} of tool {name!r} has no type: annotate it")
        fields[f"a{number}"] = (hints[argument], _field(argument, one.default, required=one.default is one.empty))
    try:
        model: type[BaseModel] = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        model.model_json_schema()
    except (PydanticUserError, TypeError) as error:
        raise UserError(f"an argument of tool {name!r} has a type that JSON cannot hold: {error}") from None
    return model


def _field(alias: str, default: Any, *, required: bool) -> Any:
    if required:
        return Field(alias=alias)
    if isinstance(default, _SHOWN_DEFAULTS):
        return Field(default, alias=alias)
    return Field(default_factory=lambda: default, alias=alias)


def _plain(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function

"""@op: turn a function into an operator whose calls are recorded."""

from __future__ import annotations

import contextlib
import functools
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Protocol, cast, overload

from optograph.errors import UserError
from optograph.graphs.code import Target, TrainableCode, code_of, source_of
from optograph.graphs.failure import PASS_THROUGH
from optograph.graphs.opinfo import OpInfo
from optograph.graphs.packing import SCALARS, Traceable, unwrap, unwrap_all
from optograph.graphs.parameter import Parameter
from optograph.graphs.shown import shown
from optograph.graphs.state import Frame, current, enter, leave
from optograph.graphs.value import Extra, Value, absorb, close, fail, make

_new = object.__new__
_SIMPLE = SCALARS | {Value}


class TracedFunction(Protocol):
    """A function made an operator by `op`.

    Attributes:
        info: The op's description.
        parameter: The code parameter of a trainable op, else None.
    """

    info: OpInfo
    parameter: Parameter | None
    __name__: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function on the plain data of its arguments; return a `Value` (or an awaitable of one)."""


class _Call(NamedTuple):
    """The arguments of one call: as nodes, and as plain data to call the function with."""

    nodes: tuple[Any, ...]
    keys: tuple[str, ...]
    plain: tuple[Any, ...]
    named: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known of an op before any call."""

    function: Callable[..., Any]
    info: OpInfo
    author: Target
    code: TrainableCode | None
    method: bool
    defaults: dict[str, Traceable]
    signature: inspect.Signature | None

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
        """Take a call's arguments apart."""
        if self.defaults:
            kwargs = self._with_defaults(args, kwargs)
        first = 1 if self.method else 0
        nodes, plain = unwrap_all((*args[first:], *kwargs.values()))
        keys = tuple(kwargs)
        count = len(nodes) - len(keys)
        named = dict(zip(keys, plain[count:], strict=True))
        return _Call(nodes, keys, (*args[:first], *plain[:count]), named)

    def _with_defaults(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        given: Any = ()
        if self.signature is not None:
            with contextlib.suppress(TypeError):  # a wrong call fails where the function is called
                given = self.signature.bind_partial(*args, **kwargs).arguments
        return {**{name: value for name, value in self.defaults.items() if name not in given}, **kwargs}

    def target(self, frame: Frame) -> Target:
        """Return what to run: the author's function, or what the code parameter says now."""
        if self.code is None:
            return self.author
        leaf = self.code.parameter._node()
        if frame.reads is not None:
            frame.reads[leaf] = None
        return self.code.target(leaf._data, frame.scope)

    def finish(self, call: _Call, frame: Frame, outer: Frame, data: Any) -> Value:
        """Return the value of a call that succeeded."""
        if type(data) not in SCALARS:
            data = absorb(data, frame)
        return make(self.info, call.nodes, data, None if frame is outer else close(frame, call.keys))

    def failed(self, call: _Call, frame: Frame, outer: Frame, error: BaseException, ran: Target | None) -> NoReturn:
        """Raise the `OpError` of a call that failed; the author's own SystemExit goes its way."""
        if ran is self.author and isinstance(error, SystemExit):
            raise error
        extra = None if frame is outer else close(frame, call.keys)
        where = self.author if ran is None else ran
        fail(self.info, call.nodes, error, extra=extra, code=where.code, source=where.source)


@overload
def op(function: Callable[..., Any], /) -> TracedFunction: ...
@overload
def op(
    function: None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    trainable: bool = False,
    allow_unsandboxed: bool = False,
    source: str | None = None,
) -> Callable[[Callable[..., Any]], TracedFunction]: ...
def op(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    trainable: bool = False,
    allow_unsandboxed: bool = False,
    source: str | None = None,
) -> TracedFunction | Callable[[Callable[..., Any]], TracedFunction]:
    """Turn a function, method or coroutine function into an operator.

    The function receives plain data: values among its arguments, also inside lists, tuples and dicts, are
    unwrapped and become parents of the result, with every value and parameter that is read while it runs. What it
    returns becomes a `Value`; values in it are unwrapped and are parents too. It should not change its arguments.

    Example:
        >>> prompt = Parameter("Be brief.", name="prompt")
        >>> @op
        ... def ask(question):
        ...     return f"{prompt.data} {question}"
        >>> answer = ask("Why?")
        >>> answer.data, [parent.name for parent in answer.parents]
        ('Be brief. Why?', ['prompt'])

    Args:
        function: The function; leave it out to give options.
        name: Name shown in the graph; the function's own where None.
        description: What it does; the docstring where None.
        trainable: Make the source a code parameter (`NAME.code`) with the signature pinned. Changed code runs in the
            sandbox (`optograph.sandbox`): arguments and result must be plain data.
        allow_unsandboxed: Run changed code in this process, not in the sandbox; see `allow_unsandboxed`.
        source: The source, where Python cannot retrieve it.

    Raises:
        UserError: `function` is no function, or a generator; a trainable one has no source.
        OpError: From a call, when the function raises; `OpError.value` leads back into the graph.
    """

    def decorate(target: Callable[..., Any]) -> TracedFunction:
        plan = _plan(target, name, description, source, trainable, allow_unsandboxed)
        wrapper = _asynchronous(plan) if inspect.iscoroutinefunction(target) else _synchronous(plan)
        with contextlib.suppress(AttributeError):  # some callables lack a name or a docstring
            functools.update_wrapper(wrapper, target)
        traced = cast("TracedFunction", wrapper)
        traced.info = plan.info
        traced.parameter = None if plan.code is None else plan.code.parameter
        return traced

    return decorate if function is None else decorate(function)


def _plan(
    function: Callable[..., Any],
    name: str | None,
    description: str | None,
    source: str | None,
    trainable: bool,
    allowed: bool,
) -> _Plan:
    if isinstance(function, classmethod | staticmethod):
        raise UserError("put @op below @classmethod or @staticmethod, next to the function")
    if not callable(function):
        raise UserError(f"@op takes a function, got {shown(function)}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UserError(f"@op cannot take the generator {function.__name__!r}: return a list instead")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        signature = None
    parameters = [] if signature is None else list(signature.parameters.values())
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    method = bool(positional) and positional[0] in ("self", "cls")
    text = textwrap.dedent(source) if source is not None else source_of(function)
    qualified = getattr(function, "__qualname__", type(function).__name__).rpartition("<locals>.")[2]
    info = OpInfo(
        name=name or qualified.replace("<lambda>", "lambda_"),
        description=inspect.getdoc(function) or "" if description is None else description,
        argnames=tuple(positional[1:] if method else positional),
        vararg=next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), ""),
        source=text,
    )
    return _Plan(
        function,
        info,
        Target(function, code_of(function), text),
        TrainableCode(function, info.name, text, allowed=allowed) if trainable else None,
        method,
        {p.name: p.default for p in parameters if isinstance(p.default, Traceable)},
        signature,
    )


def _synchronous(plan: _Plan) -> Callable[..., Any]:
    def general(*args: Any, **kwargs: Any) -> Value:
        call = plan.bind(args, kwargs)
        outer = current()
        frame = Frame(outer.scope, {}) if outer.scope.recording else outer
        token = enter(frame)
        ran = None
        try:
            try:
                ran = plan.target(frame)
                data = ran.run(*call.plain, **call.named)
            finally:
                leave(token)
        except PASS_THROUGH:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever is raised becomes an OpError
            plan.failed(call, frame, outer, error, ran)
        return plan.finish(call, frame, outer, data)

    if plan.method or plan.defaults or plan.code is not None:
        return general
    return _fast(plan, general)


def _fast(plan: _Plan, general: Callable[..., Value]) -> Callable[..., Any]:
    """Return the common case written out: no method, no keywords, arguments that are values or scalars.

    Nothing is factored out on purpose, and the function is as long as that takes: one Python call more would cost a
    tenth of the whole.
    """
    function, info, code, source = plan.function, plan.info, plan.author.code, plan.author.source

    def call(*args: Any, **kwargs: Any) -> Value:
        plain: Any
        if len(args) == 2 and not kwargs:
            left, right = args
            if type(left) is Value:
                left = left._data
            elif type(left) not in SCALARS:
                return general(*args)
            if type(right) is Value:
                right = right._data
            elif type(right) not in SCALARS:
                return general(*args)
            plain = (left, right)
        elif kwargs or not _SIMPLE.issuperset(map(type, args)):
            return general(*args, **kwargs)
        else:
            plain = [arg._data if type(arg) is Value else arg for arg in args]
        scope = current().scope
        if not scope.recording:
            try:
                data = function(*plain)
            except PASS_THROUGH:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is raised becomes an OpError; exits go their way
                fail(info, (), error, code=code, source=source)
            value = _new(Value)
            value._data = data if type(data) in SCALARS else unwrap(data)[0]
            value._op = info
            value._args = ()
            value._extra = None
            return value
        frame = _new(Frame)
        frame.scope = scope
        frame.info = None
        reads: dict[Value, None] = {}
        frame.reads = reads
        token = enter(frame)
        try:
            try:
                data = function(*plain)
            finally:
                leave(token)
        except PASS_THROUGH:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is raised becomes an OpError; exits go their way
            fail(info, args, error, extra=close(frame), code=code, source=source)
        value = _new(Value)
        value._data = data if type(data) in SCALARS else absorb(data, frame)
        value._op = info
        value._args = args
        frame.reads = None
        value._extra = Extra((), tuple(reads), None, frame.info) if reads or frame.info is not None else None
        if scope.tapes:
            scope.hear(value)
        return value

    return call


def _asynchronous(plan: _Plan) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Value:
        bound = plan.bind(args, kwargs)
        outer = current()
        frame = Frame(outer.scope, {}) if outer.scope.recording else outer
        token = enter(frame)
        ran = None
        try:
            try:
                ran = plan.target(frame)
                data = await ran.run(*bound.plain, **bound.named)
            finally:
                with contextlib.suppress(ValueError):  # closed from another context: nothing to put back there
                    leave(token)
        except PASS_THROUGH:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever is raised becomes an OpError
            plan.failed(bound, frame, outer, error, ran)
        return plan.finish(bound, frame, outer, data)

    return call

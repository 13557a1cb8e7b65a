"""@op: what becomes a parent, how failures come out, sync and async, methods."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from optograph.errors import BudgetExceeded, ServingError, UserError
from optograph.graphs import (
    OpError,
    Parameter,
    Value,
    annotate,
    applying,
    no_tracing,
    op,
    tracing,
)


def names(value: Value) -> list[str]:
    return [parent.name for parent in value.parents]


X, Y = Value(1, name="x"), Value(2, name="y")
PROMPT = Parameter("Be brief.", name="prompt")


@op
def total(first: Any, second: Any = 10, *rest: Any, key: Any = 0, **more: Any) -> Any:
    """Add everything up."""
    return first + second + sum(rest) + key + sum(more.values())


@pytest.mark.parametrize(
    ("args", "kwargs", "data", "parents"),
    [
        ((X,), {}, 11, ["x"]),
        ((X, Y), {}, 3, ["x", "y"]),
        ((X, X), {}, 2, ["x"]),
        ((1, 2, X, Y), {}, 6, ["x", "y"]),
        ((1,), {"second": X}, 2, ["x"]),
        ((1,), {"key": X, "other": Y}, 14, ["x", "y"]),
        ((1, 2), {}, 3, []),
    ],
)
def test_every_kind_of_argument(args: tuple[Any, ...], kwargs: dict[str, Any], data: int, parents: list[str]) -> None:
    got = total(*args, **kwargs)
    assert got.data == data
    assert names(got) == parents
    assert got.op.name == "total"
    assert got.op.description == "Add everything up."
    assert "return first + second" in got.op.source
    with no_tracing():
        silent = total(*args, **kwargs)
    assert (silent.data, silent.parents) == (data, ())


def test_containers_are_unwrapped_deeply() -> None:
    @op
    def look(x: Any) -> str:
        return repr(x)

    inner = {"a": (X, [Y, 3]), "b": [1, 2]}
    got = look(inner)
    assert got.data == "{'a': (1, [2, 3]), 'b': [1, 2]}"
    assert names(got) == ["x", "y"]
    inner.clear()
    assert names(got) == ["x", "y"]
    plain = [1, [2]]
    assert op(lambda x: x is plain)(plain).data is True
    deep: Any = X
    for _ in range(20_000):
        deep = [deep]
    assert names(op(lambda x: 0)(deep)) == ["x"]
    looped: list[Any] = [X]
    looped.append(looped)
    with pytest.raises(UserError, match="contains itself"):
        look(looped)


def test_reads_inside_are_parents() -> None:
    hidden = Value(5, name="hidden")

    @op
    def ask(question: str) -> str:
        if hidden > 3:  # a read by bool
            return f"{PROMPT} {question} {PROMPT.data}"
        return ""

    got = ask(Value("Why?", name="question"))
    assert got.data == "Be brief. Why? Be brief."
    assert names(got) == ["question", "gt", "prompt"]
    assert got.parents[1].parents[0] is hidden


def test_returned_values_are_parents() -> None:
    @op
    def inner(x: Any) -> Any:
        return x + 1

    @op
    def outer(x: Any) -> Any:
        return {"a": [inner(x)], "p": PROMPT}

    got = outer(1)
    assert got.data == {"a": [2], "p": "Be brief."}
    assert names(got) == ["inner", "prompt"]
    with no_tracing():
        assert outer(1).data == got.data


def test_values_as_defaults() -> None:
    @op
    def ask(question: str, prompt: Any = PROMPT) -> str:
        return f"{prompt}{question}"

    assert names(ask("q")) == ["prompt"]
    assert ask("q").data == "Be brief.q"
    assert names(ask("q", "other ")) == []
    assert names(ask("q", prompt=X)) == ["x"]


class Agent:
    def __init__(self) -> None:
        self.word = Parameter("hi", name="word")

    @op
    def say(self, name: str) -> str:
        return f"{self.word.data} {name}"

    @op
    async def later(self, name: str) -> str:
        await asyncio.sleep(0)
        return f"{self.word.data} {name}"

    @classmethod
    @op
    def make(cls, name: str) -> str:
        return f"{cls.__name__} {name}"

    @staticmethod
    @op
    def free(name: str) -> str:
        return name


def test_methods() -> None:
    agent = Agent()
    name = Value("Ann", name="name")
    got = agent.say(name)
    assert got.data == "hi Ann"
    assert names(got) == ["name", "word"]
    assert got.op.name == "Agent.say"
    assert got.op.argnames == ("name",)
    assert agent.say(name=name).data == "hi Ann"
    assert Agent.make(name).data == "Agent Ann"
    assert Agent.free(name).data == "Ann"
    assert names(asyncio.run(agent.later(name))) == ["name", "word"]


def test_async_ops_do_not_mix() -> None:
    parameters = [Parameter(i, name=f"p{i}") for i in range(50)]

    @op
    async def step(i: int) -> int:
        before = parameters[i].data
        await asyncio.sleep(0.001 * (i % 3))
        return int(before + parameters[i].data)

    @op
    async def all_steps() -> list[Any]:
        return list(await asyncio.gather(*(step(i) for i in range(50))))

    got = asyncio.run(all_steps())
    assert got.data == [2 * i for i in range(50)]
    for i, parent in enumerate(got.parents):
        assert names(parent) == [f"p{i}"]
    assert inspect.iscoroutinefunction(step)


def test_threads_started_by_asyncio_are_part_of_the_op() -> None:
    @op
    async def step() -> Any:
        return await asyncio.to_thread(lambda: PROMPT.data)

    assert names(asyncio.run(step())) == ["prompt"]


def test_a_closed_coroutine_does_no_harm() -> None:
    @op
    async def wait() -> None:
        await asyncio.sleep(10)

    async def main() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert names(total(X)) == ["x"]

    asyncio.run(main())


def test_annotate() -> None:
    @op
    def step(x: Any) -> Any:
        annotate(model="m", calls=[1])
        with applying({}), no_tracing():
            annotate(calls=[2])
        return x

    assert step(1).info == {"model": "m", "calls": [1, 2]}
    assert total(1).info is None
    annotate(nobody="listens")


def test_functions_without_source() -> None:
    space: dict[str, Any] = {}
    exec("def f(x):\n    return x + 1", space)
    got = op(space["f"])(X)
    assert (got.data, got.op.source, names(got)) == (2, "", ["x"])
    assert op(max)(X, Y).data == 2
    with pytest.raises(OpError, match="TypeError"):
        op(max)(3)
    with pytest.raises(UserError, match="no source to be had"):
        op(trainable=True)(space["f"])
    trained = op(trainable=True, source="def f(x):\n    return x + 1")(space["f"])
    assert trained(X).data == 2
    assert names(trained(X)) == ["x", "f.code"]


def test_what_op_refuses() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(UserError, match="return a list"):
        op(numbers)
    with pytest.raises(UserError, match="takes a function"):
        op(3)  # type: ignore[call-overload]
    with pytest.raises(UserError, match="below @classmethod"):
        op(staticmethod(numbers))


def failing(error: BaseException) -> Any:
    @op
    def work(x: Any) -> Any:
        y = x
        if y:
            raise error  # the line
        return y

    return work


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("k"), "work failed: KeyError: 'k' (line 5: raise error  # the line  # <--- KeyError: 'k')"),
        (KeyError(), "work failed: KeyError (line 5: raise error  # the line  # <--- KeyError)"),
        (AssertionError(), "work failed: AssertionError (line 5: raise error  # the line  # <--- AssertionError)"),
    ],
)
def test_errors_name_their_line(error: Exception, message: str) -> None:
    with pytest.raises(OpError) as caught:
        failing(error)(X)
    assert str(caught.value) == message
    assert caught.value.original is error
    assert caught.value.__cause__ is error
    failed = caught.value.value
    assert failed.parents == (X,) or list(failed.parents) == [X]
    assert failed.data["lineno"] == 5
    with no_tracing(), pytest.raises(OpError, match="work failed"):
        failing(error)(X)


def test_the_line_is_that_of_the_decorated_function() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            return function(*args)

        return call

    @op
    @logged
    def work(x: Any) -> Any:
        """Fail."""
        return x / 0

    with pytest.raises(OpError) as caught:
        work(X)
    assert caught.value.value.data["line"].startswith("return x / 0  # <---")


def test_a_wrong_call_is_a_failure_too() -> None:
    with pytest.raises(OpError, match="unexpected keyword") as caught:
        failing(KeyError())(X, wrong=Y)
    assert names(caught.value.value) == ["x", "y"]
    assert "line" not in caught.value.value.data


def test_nested_failures_keep_the_first_message() -> None:
    inner = failing(KeyError("k"))

    @op
    def outer(x: Any, y: Any) -> Any:
        return inner(x) + y

    with pytest.raises(OpError) as caught:
        outer(X, Y)
    assert "work failed: KeyError: 'k'" in str(caught.value)
    assert isinstance(caught.value.original, KeyError)
    assert names(caught.value.value) == ["x", "y", "work"]

    @op
    def forgiving(x: Any) -> Any:
        try:
            return inner(x)
        except OpError:
            return 0

    got = forgiving(X)
    assert got.data == 0
    assert names(got) == ["x", "work"]


@pytest.mark.parametrize(
    "error", [ServingError("down"), BudgetExceeded("spent"), UserError("fix"), KeyboardInterrupt()]
)
def test_some_errors_pass_through(error: BaseException) -> None:
    work = failing(error)
    with pytest.raises(type(error)) as caught:
        work(X)
    assert caught.value is error
    assert names(total(X)) == ["x"]


def test_an_exit_ends_the_program_however_the_op_is_called() -> None:
    work = failing(SystemExit(3))
    ways: list[tuple[list[Any], dict[str, Any]]] = [([X], {}), ([], {"x": X}), ([[X]], {})]
    for args, kwargs in ways:
        with pytest.raises(SystemExit):
            work(*args, **kwargs)
        with no_tracing(), pytest.raises(SystemExit):
            work(*args, **kwargs)
    assert names(total(X)) == ["x"]


def test_failures_are_on_the_tape() -> None:
    with tracing() as tape, pytest.raises(OpError):
        failing(KeyError())(X)
    assert [value.data["error"] for value in tape] == ["KeyError"]

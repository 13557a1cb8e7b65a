"""@op: what becomes a parent, how failures come out, sync and async, methods and trainable code."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from optograph.errors import BudgetExceeded, ServingError, UserError
from optograph.graphs import (
    OpError,
    Parameter,
    Value,
    allow_unsandboxed,
    annotate,
    applying,
    no_tracing,
    op,
    sandboxed_in,
    tracing,
)
from optograph.graphs.sandboxed import _kept
from optograph.sandbox import Limits, Sandbox, SandboxError


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


def test_failures_are_on_the_tape() -> None:
    with tracing() as tape, pytest.raises(OpError):
        failing(KeyError())(X)
    assert [value.data["error"] for value in tape] == ["KeyError"]


FACTOR = 3
USED = (json, math, Mapping)  # by changed code only


@op(trainable=True)
def scale(x: int, k: int = 2) -> int:
    """Scale a number."""
    return x * k


CHANGED = "def scale(x, k=2):\n    y = x * FACTOR\n    return y + k"


def test_trainable_code() -> None:
    parameter = scale.parameter
    assert parameter is not None
    assert parameter.name == "scale.code"
    assert parameter.spec.kind == "code"
    assert parameter.base.startswith("def scale(x: int, k: int = 2) -> int:\n")
    assert names(scale(X)) == ["x", "scale.code"]
    assert scale(X).data == 2
    with pytest.raises(UserError, match="must keep the signature"):
        parameter.set("def scale(x): return x")
    with applying({"scale.code": CHANGED}):
        assert scale(X).data == 5
        with allow_unsandboxed():
            got = scale(X)
            assert got.data == 5
            assert got.parents[1].data == CHANGED + "\n"
            with no_tracing():
                assert scale(X).data == 5
    assert scale(X).data == 2


def changed(body: str) -> Any:
    @op(trainable=True, allow_unsandboxed=True)
    def scale(x: int) -> int:
        return x * FACTOR

    assert scale(2).data == 6
    assert scale.parameter is not None
    scale.parameter.set(f"def scale(x):\n    {body}\n")
    return scale


def test_changed_code_fails_as_an_op() -> None:
    with pytest.raises(OpError) as caught:
        changed("y = x\n    assert y == 2")(X)
    assert caught.value.value.data["line"] == "assert y == 2  # <--- AssertionError"
    assert caught.value.value.data["lineno"] == 3
    with pytest.raises(OpError, match="SystemExit"):
        changed("raise SystemExit(1)")(X)
    with pytest.raises(OpError, match="SystemExit"):
        changed("pass\nimport sys\nEND = sys.exit(3)")(X)
    with pytest.raises(KeyboardInterrupt):
        changed("raise KeyboardInterrupt")(X)
    assert changed("return scale(x - 1) if x > 1 else 10")(3).data == 10


def test_changed_code_is_compiled_once_and_cannot_rebind_the_module() -> None:
    work = changed("global FACTOR, COUNT\n    COUNT = FACTOR = 9\n    return FACTOR")
    assert work(1).data == 9
    assert FACTOR == 3
    first = work.parameter.base
    work.parameter.set("def scale(x):\n    return COUNT")
    with pytest.raises(OpError, match="NameError"):
        work(1)
    work.parameter.set(first)
    assert work(1).data == 9


def test_trainable_async_and_methods() -> None:
    class Bot:
        @op(trainable=True, allow_unsandboxed=True)
        async def act(self, x: int) -> int:
            """Act."""
            return x + 1

    bot = Bot()
    assert asyncio.run(bot.act(X)).data == 2
    parameter = bot.act.parameter
    assert parameter is not None
    assert parameter.name == "Bot.act.code"
    assert parameter.description == "Act."
    with applying({"Bot.act.code": "async def act(self, x):\n    return x + 100"}):
        got = asyncio.run(bot.act(X))
    assert got.data == 101
    assert names(got) == ["x", "Bot.act.code"]


LIMIT = 100
WORDS = re.compile("[a-z]+")
LOCK = threading.Lock()


def clipped(x: int) -> int:
    """Return a number, at most the limit."""
    return min(x, LIMIT) + OFFSETS["a"]


OFFSETS = {"a": 1}


@dataclass
class Pair:
    """Two numbers."""

    left: int
    right: int = 2


@op
def halved(x: int) -> int:
    """Return half a number."""
    return x // 2


@op(trainable=True)
def rate(x: Any, factor: int = 1) -> Any:
    """Rate something."""
    return x


@op(trainable=True)
async def rate_later(x: Any) -> Any:
    """Rate something."""
    return x


def rated(body: str, *args: Any) -> Any:
    with applying({"rate.code": f"def rate(x, factor=1):\n    {body}\n"}):
        return rate(*args).data


@pytest.mark.parametrize(
    ("body", "argument", "result"),
    [
        ("return clipped(x) * factor", 500, 101),
        ("return Pair(x).right", 1, 2),
        ("return halved(x) + math.floor(1.5)", 9, 5),
        ("return WORDS.findall(x)", "a1b", ["a", "b"]),
        ("return json.loads(x), os.path.basename('a/b')", "{}", ({}, "b")),
        ("return {k: (v,) for k, v in x.items()}", {1: {2}}, {1: ({2},)}),
        ("import statistics\n    return statistics.mean(x)", [1, 2], 1.5),
        ("return rate(x - 1) if x else 'end'", 3, "end"),
        ("return isinstance(x, Mapping)", {}, True),
    ],
)
def test_what_changed_code_finds_in_the_sandbox(body: str, argument: Any, result: Any) -> None:
    assert rated(body, argument) == result


def test_changed_code_cannot_reach_out_of_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-canary")
    assert rated("return os.environ.get('SECRET_KEY'), os.getpid()", 1)[0] is None
    assert rated("return os.getpid()", 1) != os.getpid()
    with pytest.raises(OpError, match="PermissionError"):
        rated("return open('/etc/passwd').read()", 1)
    with allow_unsandboxed():
        assert rated("return os.environ.get('SECRET_KEY')", 1) == "sk-canary"


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("y = x\n    assert y == 2", 3, "rate failed: AssertionError (line 3: assert y == 2  # <--- AssertionError)"),
        (
            "return clipped(1 / x)",
            2,
            "rate failed: ZeroDivisionError: division by zero (line 2: return clipped(1 / x)  "
            "# <--- ZeroDivisionError: division by zero)",
        ),
        ("raise SystemExit(1)", 2, "rate failed: SystemExit: 1 (line 2: raise SystemExit(1)  # <--- SystemExit: 1)"),
        ("import os\n    os._exit(0)", None, "rate failed: SandboxError: ended with exit status 0, without a result"),
        ("return len", None, "rate failed: NotPlain: builtins.builtin_function_or_method is no plain data"),
        ("with LOCK: pass", 2, "name 'LOCK' is not defined in the sandbox: it is a lock, which cannot be sent there"),
        ("return rate_later", 2, "in the sandbox: it is a trainable op, which runs outside of it"),
    ],
)
def test_errors_in_the_sandbox_are_an_ops(body: str, line: int | None, message: str) -> None:
    with applying({"rate.code": f"def rate(x, factor=1):\n    {body}\n"}), pytest.raises(OpError) as caught:
        rate(Value(0, name="x"))
    assert message in str(caught.value)
    assert caught.value.value.data.get("lineno") == line
    assert names(caught.value.value) == ["x", "rate.code"]
    assert isinstance(caught.value.original, SandboxError)


def test_a_sandbox_of_ones_own() -> None:
    with Sandbox(limits=Limits(seconds=0.5)) as sandbox, sandboxed_in(sandbox):
        assert rated("return x + 1", 1) == 2
        with pytest.raises(OpError, match=r"took longer than 0\.5 s"):
            rated("while True: pass", 1)


def test_arguments_that_cannot_be_sent() -> None:
    with pytest.raises(UserError, match=r"rate\.code.*Pair is no plain data"):
        rated("return 1", Pair(1))
    assert rate(Pair(1)).data == Pair(1)  # the author's own code takes anything


def test_changed_coroutines_and_threads() -> None:
    code = "import asyncio\nasync def rate_later(x):\n    await asyncio.sleep(0)\n    return x + FACTOR\n"

    async def many() -> list[Any]:
        with applying({"rate_later.code": code}):
            return [value.data for value in await asyncio.gather(*(rate_later(i) for i in range(20)))]

    assert asyncio.run(many()) == [i + 3 for i in range(20)]


def test_many_versions_keep_few_processes() -> None:
    for number in range(40):
        assert rated(f"return x + {number}", 1) == 1 + number
    assert len(_kept._groups) <= 32


def test_without_a_sandbox_changed_code_is_refused() -> None:
    error = SandboxError("no sandbox here: no Landlock", kind="unavailable")
    with mock.patch("optograph.graphs.sandboxed._sandbox", side_effect=error):
        with pytest.raises(UserError, match="allow_unsandboxed"):
            rated("return x + 0.5", 1)
        with allow_unsandboxed():
            assert rated("return x + 0.5", 1) == 1.5

"""Trainable code: the author's own, changed code in this process where that is allowed, and in the sandbox."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from optograph.errors import UserError
from optograph.graphs import OpError, Value, allow_unsandboxed, applying, no_tracing, op, sandboxed_in
from optograph.graphs.sandboxed import _kept
from optograph.sandbox import Limits, Sandbox, SandboxError

X = Value(1, name="x")


def names(value: Value) -> list[str]:
    return [parent.name for parent in value.parents]


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

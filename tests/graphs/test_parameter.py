"""Parameters: set by spec, applied by scope, guarded during a run, collected by containers."""

from __future__ import annotations

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from pydantic import BaseModel

from optograph.errors import UserError
from optograph.graphs import (
    Candidate,
    ChoiceSpec,
    FloatSpec,
    Parameter,
    ParameterContainer,
    TextSpec,
    Value,
    applying,
    op,
    run_scope,
)


class Style(BaseModel):
    tone: str


@op
def read(parameter: Any) -> Any:
    return parameter


def test_set_is_checked_and_history_stays() -> None:
    k = Parameter(0.5, name="k", spec=FloatSpec(low=0, high=1))
    before = read(k)
    k.set("0.75")
    after = read(k)
    assert (before.data, after.data) == (0.5, 0.75)
    assert (before.parents[0].data, after.parents[0].data) == (0.5, 0.75)
    with pytest.raises(UserError, match=r"parameter 'k': must be a number between 0 and 1, got 2"):
        k.set(2)
    assert k.data == 0.75
    k.set(Value(0.1))
    assert k.base == 0.1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"data": "x", "name": ""}, "needs a name"),
        ({"data": "x", "name": "a\nb"}, "needs a name"),
        ({"data": "x", "name": "a", "spec": str}, "must be a Spec"),
        ({"data": None, "name": "a"}, "no spec for a parameter of type NoneType"),
        ({"data": 3, "name": "a", "spec": TextSpec()}, "parameter 'a': text must be a str"),
    ],
)
def test_wrong_parameters(args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Parameter(args.pop("data"), **args)


def test_candidates_are_applied_by_scope() -> None:
    a, b = Parameter("a0", name="a"), Parameter("b0", name="b")
    with applying(Candidate({"a": "a1"})) as outer:
        assert (a.data, b.data, a.base) == ("a1", "b0", "a0")
        assert outer.values["a"] == "a1"
        with applying({"b": "b2"}):
            assert (a.data, b.data) == ("a1", "b2")
        assert (a.data, b.data) == ("a1", "b0")
        one, two = read(a), read(a)
        assert one.parents[0] is two.parents[0]
        a.set("a9")
        assert a.data == "a1"
    assert a.data == "a9"
    with pytest.raises(UserError, match="takes a Candidate"), applying("x"):  # type: ignore[arg-type]
        pass


def test_a_candidate_is_validated_when_read() -> None:
    label = Parameter("yes", name="label", spec=ChoiceSpec(["yes", "no"]))
    style = Parameter(Style(tone="dry"), name="style")
    with applying({"label": "maybe"}), pytest.raises(UserError, match="parameter 'label': must be one of"):
        _ = label.data
    with applying({"style": {"tone": "warm"}}):
        assert style.data == Style(tone="warm")


def test_tasks_have_their_own_candidates() -> None:
    k = Parameter(0, name="k")

    async def work(i: int) -> list[int]:
        with applying({"k": i}):
            first = k.data
            await asyncio.sleep(0)
            return [first, k.data, await asyncio.to_thread(lambda: k.data)]

    async def main() -> list[list[int]]:
        return await asyncio.gather(*(work(i) for i in range(20)))

    assert asyncio.run(main()) == [[i] * 3 for i in range(20)]
    assert k.data == 0


def test_a_run_guards_its_parameters() -> None:
    k, free = Parameter(1, name="k"), Parameter(2, name="free")
    with run_scope([k]), ThreadPoolExecutor(1) as pool:
        for look in (lambda: k.data, lambda: k + 1, lambda: read(k), lambda: f"{k}"):
            with pytest.raises(UserError, match="'k' was read outside any candidate"):
                look()
        assert (k.base, free.data) == (1, 2)
        with applying({"k": 5}):
            assert k.data == 5
            with pytest.raises(UserError, match="outside any candidate"):
                pool.submit(lambda: k.data).result()
            assert pool.submit(copy_context().run, lambda: k.data).result() == 5
        with applying({}):
            assert k.data == 1
        k.set(3)
        with run_scope([k]):
            pass
        with pytest.raises(UserError):
            _ = k.data
    assert k.data == 3
    with pytest.raises(UserError, match="takes parameters"), run_scope([3]):  # type: ignore[list-item]
        pass


def test_a_deep_copy_is_another_parameter() -> None:
    k = Parameter(Style(tone="dry"), name="k", description="d", trainable=False)
    other = copy.deepcopy([k, k])
    assert other[0] is other[1]
    assert other[0] is not k
    assert (other[0].name, other[0].description, other[0].trainable) == ("k", "d", False)
    other[0].set({"tone": "warm"})
    assert k.base == Style(tone="dry")


class Inner(ParameterContainer):
    def __init__(self, name: str) -> None:
        self.word = Parameter("hi", name=f"{name}.word")
        self.mates: list[Any] = [self]

    @op(trainable=True)
    def act(self, x: int) -> int:
        return x


@op(trainable=True)
def helper(x: int) -> int:
    return x


class Outer(ParameterContainer):
    def __init__(self) -> None:
        self.k = Parameter(1, name="k")
        self.same = self.k
        self.steps = {"a": Inner("a"), "b": (Inner("b"), 3)}
        self.tool = helper
        self.style = Parameter(Style(tone="dry"), name="style")

    @staticmethod
    @op(trainable=True)
    def free(x: int) -> int:
        return x


def test_containers_find_everything_once() -> None:
    outer = Outer()
    assert set(outer.named_parameters()) == {
        "k", "a.word", "b.word", "Inner.act.code", "helper.code", "style", "Outer.free.code",
    }  # fmt: skip
    assert len(outer.parameters()) == 7
    assert outer.parameters()[0] is outer.k


def test_state_goes_out_and_in() -> None:
    one, two = Outer(), Outer()
    one.k.set(7)
    one.style.set({"tone": "warm"})
    state = one.state_dict()
    assert state["style"] == {"tone": "warm"}
    two.load_state_dict(state)
    assert two.state_dict() == state
    for bad in (state | {"k": "x"}, state | {"other": 1}, {"k": 1}):
        with pytest.raises(UserError):
            two.load_state_dict(bad)
        assert two.state_dict() == state


def test_names_must_differ() -> None:
    class Twins(ParameterContainer):
        def __init__(self) -> None:
            self.a, self.b = Parameter(1, name="k"), Parameter(2, name="k")

    with pytest.raises(UserError, match="two parameters are named 'k'"):
        Twins().parameters()

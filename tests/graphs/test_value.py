"""Values: Python's operators are ops, and nothing in a graph is global, recursive or changed in place."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from optograph.errors import UserError
from optograph.graphs import OpError, Parameter, Value, attribute, broadcast, no_tracing, op, tracing


@op
def double(x: Any) -> Any:
    return x * 2


BINARY: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("add", lambda x, y: x + y),
    ("subtract", lambda x, y: x - y),
    ("multiply", lambda x, y: x * y),
    ("divide", lambda x, y: x / y),
    ("floordiv", lambda x, y: x // y),
    ("mod", lambda x, y: x % y),
    ("divmod", lambda x, y: divmod(x, y)),
    ("power", lambda x, y: x**y),
    ("lshift", lambda x, y: x << y),
    ("rshift", lambda x, y: x >> y),
    ("bit_and", lambda x, y: x & y),
    ("bit_or", lambda x, y: x | y),
    ("bit_xor", lambda x, y: x ^ y),
    ("lt", lambda x, y: x < y),
    ("le", lambda x, y: x <= y),
    ("gt", lambda x, y: x > y),
    ("ge", lambda x, y: x >= y),
    ("eq", lambda x, y: x == y),
    ("ne", lambda x, y: x != y),
]
SWAPPED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


@pytest.mark.parametrize(("name", "function"), BINARY)
def test_binary_operators(name: str, function: Callable[[Any, Any], Any]) -> None:
    one, two = Value(7, name="one"), Parameter(2, name="two")
    for left, right, parents in ((one, two, ["one", "two"]), (one, 2, ["one"]), (7, two, ["two"])):
        got = function(left, right)
        assert isinstance(got, Value)
        assert got.data == function(7, 2)
        assert type(got.data) is type(function(7, 2))
        assert got.op is not None
        assert got.op.name == (SWAPPED.get(name, name) if left == 7 and isinstance(left, int) else name)
        assert [parent.name for parent in got.parents] == parents


@pytest.mark.parametrize(
    ("function", "data", "expected"),
    [
        (lambda x: -x, 3, -3),
        (lambda x: +x, 3, 3),
        (lambda x: ~x, 3, -4),
        (abs, -3, 3),
        (round, 2.6, 3),
        (lambda x: round(x, 1), 2.66, 2.7),
        (math.floor, 2.6, 2),
        (math.ceil, 2.6, 3),
        (math.trunc, 2.6, 2),
        (lambda x: x[1], [3, 4], 4),
        (lambda x: x[0:2], [3, 4, 5], [3, 4]),
        (lambda x: x["a"], {"a": 1}, 1),
        (lambda x: x.real, 3, 3),
        (lambda x: x.upper(), "abc", "ABC"),
        (lambda x: x.replace("a", "b"), "abc", "bbc"),
        (lambda x: x.split(), "a b", ["a", "b"]),
        (lambda x: x.format(n=3), "{n}", "3"),
        (lambda x: x.get("b", 7), {"a": 1}, 7),
        (lambda x: x(3), lambda n: n + 1, 4),
        (lambda x: "say " + x, "hi", "say hi"),
        (lambda x: attribute(x, "real"), 3, 3),
    ],
)
def test_other_operators(function: Callable[[Any], Any], data: Any, expected: Any) -> None:
    for source in (Value(data, name="x"), Value(data, name="x")):
        got = function(source)
        assert isinstance(got, Value)
        assert got.data == expected
        assert got.parents == (source,) or list(got.parents) == [source]


def test_a_method_call_is_one_op_of_its_object() -> None:
    text = Value(",", name="comma")
    words = [Value("a", name="a"), "b"]
    got = text.join(words)
    assert got.data == "a,b"
    assert got.name == "join"
    assert [parent.name for parent in got.parents] == ["comma", "a"]


def test_what_must_be_plain() -> None:
    value = Value(3)
    assert (len(Value([1, 2])), bool(value), bool(Value(0)), 2 in Value([2])) == (2, True, False, True)
    assert (int(value), float(value), complex(value), [10, 20, 30, 40][value]) == (3, 3.0, 3 + 0j, 40)
    assert (str(value), f"{value:03d}", repr(value)) == ("3", "003", "Value(input, 3)")
    assert hash(value) == hash(value)
    assert {value: 1}[value] == 1
    assert Value(2) in Value([2])
    assert (value == 3).data is True
    assert (value != 3).data is False


def test_iteration_gives_values() -> None:
    source = Value([3, 4], name="xs")
    first, second = source
    assert (first.data, second.data) == (3, 4)
    assert first.parents[0] is source
    assert [item.data for item in Value({"a": 1})] == ["a"]
    assert {item.data for item in Value({1, 2})} == {1, 2}
    assert "".join(str(item) for item in Value("ab")) == "ab"
    with pytest.raises(OpError, match="not iterable"):
        list(Value(3))


def test_values_are_never_changed_in_place() -> None:
    value: Any = Value([1])
    with pytest.raises(UserError, match="never changed in place"):
        value.append(2)
    with pytest.raises(TypeError):
        value[0] = 2
    with pytest.raises(AttributeError):
        value.data = 3
    with pytest.raises(AttributeError):
        value.other = 3
    old = value
    value += [2]
    assert (old.data, value.data) == ([1], [1, 2])
    assert value.parents[0] is old


def test_attributes_that_are_missing() -> None:
    value = Value(3)
    assert not hasattr(value, "shape")
    assert getattr(value, "_private", 7) == 7
    with pytest.raises(OpError) as caught:
        _ = value.shape
    assert caught.value.value.parents[0] is value


def test_copies_and_pickles() -> None:
    value = Value(1)
    for _ in range(5000):
        value = value + 1
    assert copy.deepcopy(value) is value
    assert copy.copy(value) is value
    with pytest.raises(UserError, match="trace_to_json"):
        pickle.dumps(value)


def test_values_do_not_nest() -> None:
    with pytest.raises(UserError, match="must be plain"):
        Value([Value(1)])


def test_an_operator_that_fails_leads_back() -> None:
    one, zero = Value(1), Value(0)
    with pytest.raises(OpError, match="divide failed: ZeroDivisionError") as caught:
        _ = one / zero
    assert caught.value.value.parents == (one, zero) or [*caught.value.value.parents] == [one, zero]
    assert caught.value.value.data["error"] == "ZeroDivisionError"
    assert isinstance(caught.value.original, ZeroDivisionError)


def test_nothing_global_holds_the_graph() -> None:
    value = Value(1)
    middle = value + 1
    watch = weakref.ref(middle)
    last = middle + 1
    del middle
    assert watch() is not None
    del last
    gc.collect()
    assert watch() is None


def test_long_histories_are_dropped_without_recursion() -> None:
    value = Value(0)
    for _ in range(300_000):
        value = value + 1
    assert value.data == 300_000
    del value
    other: Any = Value(0)
    for _ in range(100_000):
        other = double([other])[0]
    del other


def test_tapes_hold_dead_branches() -> None:
    with tracing() as outer:
        x = Value(1) + 1
        with tracing() as inner:
            _ = x * 2
        with no_tracing():
            silent = x * 3
            assert silent.data == 6
            assert silent.parents == ()
            with tracing() as deep:
                assert len((x * 4).parents) == 1
    assert [value.data for value in outer] == [2, 4, 8]
    assert [value.data for value in inner] == [4]
    assert [value.data for value in deep] == [8]
    assert len(outer) == 3


def test_broadcast() -> None:
    @op
    def scale(x: Any, k: Any) -> Any:
        return x * k

    k = Value(3, name="k")
    got = broadcast(scale, [Value(1), 2], k)
    assert [value.data for value in got] == [3, 6]
    assert got[1].parents[0] is k
    named = broadcast(scale, {"a": Value(1), "b": 2}, k={"a": 5, "b": k})
    assert {key: value.data for key, value in named.items()} == {"a": 5, "b": 6}
    assert [value.data for value in broadcast(scale, list(Value([1, 2])), 2)] == [2, 4]
    for wrong in (([1], [1, 2]), ([1], {"a": 1}), (1, 2)):
        with pytest.raises(UserError, match=r"broadcast\(\) needs"):
            broadcast(scale, *wrong)

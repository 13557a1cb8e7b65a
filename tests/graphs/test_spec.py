"""Specs: every value keeps its type and its bounds, whatever is offered."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from optograph.errors import UserError
from optograph.graphs import (
    BoolSpec,
    ChoiceSpec,
    CodeSpec,
    DemosSpec,
    FloatSpec,
    IntSpec,
    JsonSpec,
    ModelSpec,
    Spec,
    TextSpec,
    infer_spec,
)


class Style(BaseModel):
    tone: str
    length: int = Field(ge=1, le=9)


class Level(IntEnum):
    LOW = 1


SPECS: list[tuple[Spec, type, list[tuple[Any, Any]], list[Any]]] = [
    (
        TextSpec(regex="[a-z ]+", max_chars=8),
        str,
        [("a b", "a b")],
        ["", "ABC", "a" * 9, 3, None, b"a", "\ud800"],
    ),
    (
        BoolSpec(),
        bool,
        [(True, True), ("False", False), (" true ", True)],
        [0, 1, "no", None, "", 0.0, [], "truefalse"],
    ),
    (
        IntSpec(low=0, high=10),
        int,
        [(3, 3), ("7", 7), (4.0, 4), (Level.LOW, 1), (" 5 ", 5)],
        [-1, 11, 3.5, True, "3.5", "abc", None, [3], math.nan, math.inf, "9" * 5000, 10**400, 1e300],
    ),
    (
        FloatSpec(low=-1, high=1),
        float,
        [(0.5, 0.5), (1, 1.0), ("-1e-3", -0.001), (True + 0, 1.0)],
        [2, "NaN", math.inf, -math.inf, True, None, "abc", [0.5], 10**400, "1e999", 1j],
    ),
    (
        ChoiceSpec(["Yes", "No", 3]),
        object,
        [("Yes", "Yes"), ("yes", "Yes"), (" NO ", "No"), (3, 3), ("3", 3)],
        ["maybe", True, 3.0, None, ["Yes"], ""],
    ),
    (
        DemosSpec(max_items=2, fields=["x", "y"]),
        list,
        [
            ([{"x": 1, "y": "a"}], [{"x": 1, "y": "a"}]),
            ([], []),
            (({"x": [1], "y": None},), [{"x": [1], "y": None}]),
        ],
        [
            [{"x": 1}],
            [{"x": 1, "y": 2, "z": 3}],
            [{"x": 1, "y": 2}] * 3,
            "x",
            {"x": 1},
            [1],
            [{"x": math.nan, "y": 1}],
        ],
    ),
    (
        ModelSpec(Style),
        Style,
        [
            (Style(tone="dry", length=2), Style(tone="dry", length=2)),
            ({"tone": "a", "length": 1}, Style(tone="a", length=1)),
            ('{"tone": "a", "length": 9}', Style(tone="a", length=9)),
        ],
        [{"tone": "a"}, {"tone": "a", "length": 0}, "tone", None, 3, []],
    ),
    (
        JsonSpec("list"),
        list,
        [([3, 4], [3, 4]), ("[3, 4]", [3, 4])],
        [{"a": 1}, "x", None, 3, [math.inf], "[" * 9999],
    ),
    (JsonSpec("dict"), dict, [({"a": [1]}, {"a": [1]})], [[1], "[1]", None]),
]


@pytest.mark.parametrize(("spec", "kind", "good", "bad"), SPECS, ids=lambda item: getattr(item, "kind", ""))
def test_values_are_canonical_or_refused(spec: Spec, kind: type, good: list[tuple[Any, Any]], bad: list[Any]) -> None:
    for offered, expected in good:
        value = spec.validate(offered)
        assert value == expected
        assert type(value) is type(expected)
        again = spec.from_json(spec.to_json(value))
        assert again == value
        assert type(again) is type(value)
    for offered in bad:
        with pytest.raises(UserError):
            spec.validate(offered)
    assert isinstance(spec.json_schema(), dict)
    assert "\n" not in spec.describe()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(anything)
def test_no_value_changes_a_type_or_leaves_its_bounds(value: Any) -> None:
    for spec, kind, _, _ in SPECS:
        try:
            got = spec.validate(value)
        except UserError:
            continue
        assert isinstance(got, kind)
        assert spec.validate(got) == got
        if isinstance(spec, IntSpec):
            assert type(got) is int
            assert 0 <= got <= 10
        if isinstance(spec, FloatSpec):
            assert -1 <= got <= 1
        if isinstance(spec, ChoiceSpec):
            assert any(got is choice for choice in spec.choices)


def test_demonstrations_are_copied() -> None:
    demos = [{"x": [1]}]
    got = DemosSpec().validate(demos)
    demos[0]["x"].append(2)
    assert got == [{"x": [1]}]


CODE = CodeSpec("def add(x: int, y=2, *rest, key=None, **more) -> int:", "add")


@pytest.mark.parametrize(
    "source",
    [
        "def add(x, y=2, *rest, key=None, **more):\n    return x + y",
        "    def add(x: float, y: int = 2, *rest, key=None, **more) -> str:\n        return x\n",
        "import math\nLIMIT = 3\ndef help(): pass\ndef add(x, y=2, *rest, key=None, **more): return 3",
    ],
)
def test_code_keeps_its_signature(source: str) -> None:
    got = CODE.validate(source)
    assert got.endswith("\n")
    assert CODE.validate(got) == got


@pytest.mark.parametrize(
    "source",
    [
        "def add(x, y=3, *rest, key=None, **more): pass",
        "def add(y=2, x=2, *rest, key=None, **more): pass",
        "def add(x, y=2): pass",
        "async def add(x, y=2, *rest, key=None, **more): pass",
        "def other(x, y=2, *rest, key=None, **more): pass",
        "@cache\ndef add(x, y=2, *rest, key=None, **more): pass",
        "def add(x, y=2, *rest, key=None, **more): pass\nadd(1)",
        "def add(x, y=2, *rest, key=None, **more): pass\ndef add(x, y=2, *rest, key=None, **more): pass",
        "def add(x, y=2, *rest, key=None, **more) pass",
        "def add(x, y=2, *rest, key=None, **more): pass\nwhile True: pass",
        "add = 3",
        "",
        "\0",
        "(" * 5000,
        "-" * 15000 + "1",
        "x" * 30000,
        3,
        None,
    ],
)
def test_other_code_is_refused(source: Any) -> None:
    with pytest.raises(UserError):
        CODE.validate(source)


def test_code_spec_takes_a_bare_signature() -> None:
    assert CodeSpec("(x)", "f").signature == "def f(x)"
    with pytest.raises(UserError, match="header of 'f'"):
        CodeSpec("def g(x)", "f")
    with pytest.raises(UserError, match="identifier"):
        CodeSpec("(x)", "a b")


@pytest.mark.parametrize(
    "make",
    [
        lambda: TextSpec(min_chars=5, max_chars=4),
        lambda: TextSpec(regex="("),
        lambda: IntSpec(low=2, high=1),
        lambda: FloatSpec(low=math.nan),
        lambda: ChoiceSpec([]),
        lambda: ChoiceSpec("abc"),
        lambda: ChoiceSpec(["a", "a"]),
        lambda: ChoiceSpec([[1]]),
        lambda: DemosSpec(max_items=-1),
        lambda: DemosSpec(fields="x"),
        lambda: ModelSpec(int),  # type: ignore[arg-type]
        lambda: JsonSpec("str"),
    ],
)
def test_a_wrong_spec_is_refused(make: Any) -> None:
    with pytest.raises(UserError):
        make()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("x", "text"),
        ("", "text"),
        ("x" * 9000, "text"),
        (True, "bool"),
        (3, "int"),
        (0.5, "float"),
        ([{"a": 1}], "demos"),
        ([], "demos"),
        ([1], "json"),
        ({"a": 1}, "json"),
        (Style(tone="a", length=1), "model"),
    ],
)
def test_the_spec_is_inferred(data: Any, kind: str) -> None:
    spec = infer_spec(data)
    assert spec.kind == kind
    assert spec.validate(data) == data


@pytest.mark.parametrize("data", [None, object(), b"x", {1}])
def test_no_spec_fits(data: Any) -> None:
    with pytest.raises(UserError, match="pass spec="):
        infer_spec(data)

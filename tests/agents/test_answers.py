"""Finding JSON in what a model wrote."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optograph.agents import extract_json
from optograph.errors import ModelError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('text {"a": "}"} text', {"a": "}"}),
        ('```json\n{"a": 1,}\n```', {"a": 1}),
        ("<think>{}</think>[1, 2]", [1, 2]),
        ("{'a': None}", {"a": None}),
        ('{broken {"a": 1}', {"a": 1}),
        ("42", 42),
        ('as said in [1], do this: {"a": 1}', {"a": 1}),
        ("```\n[1]\n```", [1]),
    ],
)
def test_values_are_found(text: str, value: Any) -> None:
    assert extract_json(text) == value


@pytest.mark.parametrize("text", ["", "   ", "no json", '{"a": ', "<think>{}", "{'a': open('x')}", "x" * 200_001])
def test_what_is_not_there_is_not_made_up(text: str) -> None:
    with pytest.raises(ModelError):
        extract_json(text)


@given(st.text(max_size=300))
def test_any_text_gives_a_value_or_a_model_error(text: str) -> None:
    try:
        extract_json(text)
    except ModelError as error:
        assert str(error)

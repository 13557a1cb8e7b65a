"""Feedback and Candidate: frozen records with checked fields and a JSON form."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from pydantic import BaseModel

from optograph.errors import UserError
from optograph.graphs import Candidate, Feedback


class Style(BaseModel):
    tone: str


def test_totals() -> None:
    assert Feedback(1).total == 1.0
    assert Feedback({"a": 1.0, "b": 0.0}).total == 0.5
    assert Feedback({"a": 1.0, "b": 0.0}, aggregate="min").total == 0.0
    assert Feedback({"a": 1.0, "b": 0.25}, aggregate="b").total == 0.25
    with pytest.raises(UserError, match="no score"):
        _ = Feedback(None, "wrong unit").total


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, "1", {"a": math.nan}, {}, [1], 10**400])
def test_scores_are_finite(score: Any) -> None:
    with pytest.raises(UserError):
        Feedback(score)


@pytest.mark.parametrize(
    "fields",
    [{"span": (3, 1)}, {"span": 3}, {"aggregate": "median"}, {"text": 3}, {"failure_type": 3}],
)
def test_other_fields_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Feedback(0.5, **fields)


def test_feedback_survives_json() -> None:
    feedback = Feedback({"a": 0.5, "b": 1}, "no", "parse", (0, 3), {"x": "late"}, "max")
    assert Feedback.from_json(json.loads(json.dumps(feedback.to_json()))) == feedback
    with pytest.raises(UserError, match="not a feedback record"):
        Feedback.from_json({"scores": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        feedback.text = "yes"  # type: ignore[misc]


def test_the_id_is_the_content() -> None:
    one = Candidate({"a": 1, "b": "x"}, origin="seed")
    same = Candidate({"b": "x", "a": 1}, parents=("f",), origin="other")
    assert one.id == same.id
    assert one == same
    assert len({one, same}) == 1
    assert one.id != Candidate({"a": 1.0, "b": "x"}).id
    assert Candidate({"s": Style(tone="dry")}).id == Candidate({"s": {"tone": "dry"}}).id


def test_children_know_their_parent() -> None:
    one = Candidate({"a": 1, "b.c": "x"})
    child = one.with_values({"b.c": "y"}, a=2, origin="mutation")
    assert dict(child.values) == {"a": 2, "b.c": "y"}
    assert child.parents == (one.id,)
    assert child.origin == "mutation"
    assert dict(one.values) == {"a": 1, "b.c": "x"}


def test_values_cannot_be_changed_from_outside() -> None:
    demos = [{"x": 1}]
    one = Candidate({"demos": demos})
    demos.append({"x": 2})
    assert one.values["demos"] == [{"x": 1}]
    with pytest.raises(TypeError):
        one.values["demos"] = []  # type: ignore[index]


def test_candidate_survives_json() -> None:
    one = Candidate({"a": [1], "s": Style(tone="dry"), "ü": "\u2028"}, ("p",), "seed")
    data = json.loads(json.dumps(one.to_json()))
    again = Candidate.from_json(data)
    assert again == one
    assert again.parents == ("p",)
    assert again.origin == "seed"
    with pytest.raises(UserError, match="does not have the values"):
        Candidate.from_json(data | {"values": {"a": [2]}})
    with pytest.raises(UserError, match="not a candidate record"):
        Candidate.from_json({})


@pytest.mark.parametrize("values", [{"a": object()}, {"a": math.nan}, {1: 2}, {"": 1}])
def test_only_json_and_models(values: Any) -> None:
    with pytest.raises(UserError):
        Candidate(values)

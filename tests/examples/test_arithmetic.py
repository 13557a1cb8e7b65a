"""The arithmetic example: its data are what its script makes, and its calculator calculates and nothing else."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from optograph.graphs import OpError
from optograph.serving import ScriptedLM

FOLDER = Path(__file__).parents[2] / "examples" / "arithmetic"


@pytest.fixture(scope="module")
def app() -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / "app.py"))


@pytest.fixture(scope="module")
def maker() -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / "make_data.py"))


def file(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / "data" / f"{split}.jsonl").read_text().splitlines()]


def question(row: dict[str, Any]) -> str:
    return str(row["question"] if "question" in row else row["messages"][1]["content"])


def test_data_are_what_the_script_makes(maker: dict[str, Any]) -> None:
    for split, rows in maker["splits"]().items():
        assert file(split) == [maker["written"](split, number + 1, row) for number, row in enumerate(rows)]


def test_splits_have_all_kinds_and_no_question_twice(maker: dict[str, Any]) -> None:
    asked = [question(row) for split in maker["SPLITS"] for row in file(split)]
    assert len(asked) == 770
    assert len(set(asked)) == len(asked)
    assert all(count % len(maker["KINDS"]) == 0 for count in maker["SPLITS"].values())


def test_a_demonstrated_calculation_is_right(app: dict[str, Any], maker: dict[str, Any]) -> None:
    for row in maker["splits"]()["demonstrations"]:
        workflow = app["build"](ScriptedLM([row["solution"]]))
        value = workflow(question=row["question"]).data
        assert app["score"](row["answer"], value)[0] == 1.0
        assert app["score"](row["answer"] + 1, value)[0] == 0.0


@pytest.mark.parametrize(("expression", "value"), [("2 * (3 + 4)", 14), (" 7 / 2 - 1.5", 2), ("8", 8)])
def test_the_calculator(app: dict[str, Any], expression: str, value: float) -> None:
    assert app["calculate"](expression).data == value


@pytest.mark.parametrize(
    "expression", ["2 +", "1 / 0", "2 ** 9", "True + 1", "abs(2)", "-3", "x", "__import__('os')", "(" * 300 + "1"]
)
def test_what_the_calculator_does_not_know_is_an_error(app: dict[str, Any], expression: str) -> None:
    with pytest.raises(OpError, match="calculator"):
        app["calculate"](expression)


def test_the_model_is_asked_as_the_demonstrations_are_written(app: dict[str, Any]) -> None:
    (first, *_) = file("demonstrations")
    lm = ScriptedLM(["1"])
    app["build"](lm)(question=question(first))
    (request,) = lm.requests
    assert [{"role": one.role, "content": one.content} for one in request.messages] == first["messages"]

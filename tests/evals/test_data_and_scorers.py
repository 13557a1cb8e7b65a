"""Data sets from files, and the scorers that judge answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optograph.errors import UserError
from optograph.evals import (
    Example,
    Scorer,
    Task,
    choice,
    exact,
    from_callable,
    last_number,
    load_examples,
    majority_baseline,
    numeric,
    regex,
    scorer_by_name,
)
from optograph.evals.task import SealedSplit
from optograph.graphs import Feedback

ROWS = [{"id": f"r{number}", "text": f"t{number}", "label": "ab"[number % 2]} for number in range(5)]


def write(path: Path, suffix: str) -> Path:
    file = path / f"rows{suffix}"
    if suffix == ".jsonl":
        file.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    elif suffix == ".json":
        file.write_text(json.dumps({"examples": ROWS}))
    else:
        file.write_text("id,text,label\n" + "\n".join(",".join(row.values()) for row in ROWS))
    return file


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_files_give_examples(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path, suffix)
    key = "examples" if suffix == ".json" else None
    rows = load_examples(file, inputs=["text"], expected="label", rows_key=key, start=1, limit=3)
    assert [row.id for row in rows] == ["r1", "r2", "r3"]
    assert (rows[0].input, rows[0].expected) == ({"text": "t1"}, "b")


def test_a_byte_order_mark_and_an_id_of_zero_are_harmless(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("\ufeffid,text\n0,a\n", encoding="utf-8")
    (row,) = load_examples(file, inputs=["text"], expected=None)
    assert (row.id, row.input) == ("0", {"text": "a"})
    (tmp_path / "rows.json").write_text("[]")
    with pytest.raises(UserError, match="has no key 'rows'"):
        load_examples(tmp_path / "rows.json", inputs=["text"], expected=None, rows_key="rows")


def test_rows_without_an_id_are_named_by_their_content(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n{"text": "b"}\n')
    first = load_examples(file, inputs=["text"], expected=None)
    assert first == load_examples(file, inputs=["text"], expected=None)
    assert len({row.id for row in first}) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.jsonl", '{"text": 1}\n{bad', "line 2"),
        ("rows.jsonl", "[1]", "not an object"),
        ("rows.jsonl", '{"text": "a"}', "lacks \\['label'\\]"),
        ("rows.jsonl", "", "holds no rows"),
        ("rows.json", "{}", "does not hold a list"),
        ("rows.json", "{", "no valid .json"),
        ("rows.jsonl", '{"text": NaN, "label": 1}', "holds NaN"),
        ("rows.csv", "text,label\na,b,c", "more cells"),
        ("rows.parquet", "", "use a .jsonl"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        load_examples(file, inputs=["text"], expected="label")


def test_a_missing_file_and_a_bad_hub_name_are_clear() -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_examples("nowhere.jsonl", inputs=["text"], expected=None)
    with pytest.raises(UserError, match="hf:NAME:SPLIT"):
        load_examples("hf:name", inputs=["text"], expected=None)


SCORES: list[tuple[Scorer, Any, Any, float]] = [
    (exact(), "Yes ", "yes", 1.0),
    (exact(ignore_case=False), "Yes", "yes", 0.0),
    (exact(), 3, 3, 1.0),
    (choice(), '"Positive".', "positive", 1.0),
    (choice(["a", "b"]), "c", "a", 0.0),
    (numeric(), "There are 1,234 of them.", "1234", 1.0),
    (numeric(tolerance=0.01), "99.5", 100, 1.0),
    (numeric(), "none", 3, 0.0),
    (numeric(), True, 1, 0.0),
    (regex(r"\bcat\b"), "a cat", None, 1.0),
    (regex(), "a dog", r"cat", 0.0),
    (from_callable(lambda expected, output: (0.5, "half")), "x", "y", 0.5),
    (from_callable(lambda expected, output: expected == output), "x", "x", 1.0),
    (from_callable(lambda expected, output: Feedback(score=0.25)), "x", "x", 0.25),
]


@pytest.mark.parametrize(("scorer", "output", "expected", "score"), SCORES)
def test_scorers(scorer: Scorer, output: Any, expected: Any, score: float) -> None:
    feedback = scorer(Example("e", {}, expected), output)
    assert feedback.total == score
    if score == 0.0:
        assert feedback.failure_type
        assert feedback.text


def test_scorers_by_name() -> None:
    assert scorer_by_name("numeric", tolerance=0.5)(Example("e", {}, 1), "1.4").total == 1.0
    with pytest.raises(UserError, match="unknown scorer 'nope'"):
        scorer_by_name("nope")
    with pytest.raises(UserError, match="does not take"):
        scorer_by_name("exact", tolerance=1)
    with pytest.raises(UserError, match="no regular expression"):
        regex("(")


@pytest.mark.parametrize(("text", "number"), [("a 1 b -2.5e1", -25.0), (".5", 0.5), ("", None), ("1e999", None)])
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


def test_the_test_split_is_sealed() -> None:
    rows = [Example(str(number), {"n": number}, "a") for number in range(4)]
    task = Task(train=rows[:1], dev=rows[1:2], test=SealedSplit(rows[2:]), scorer=exact())
    with pytest.raises(UserError, match="no example '2' in split 'test'"):
        task.example("test", "2")
    assert len(task.test) == 2
    assert task.test.unseal("final") == tuple(rows[2:])
    assert task.test.openings == ["final"]


def test_splits_must_be_filled_unique_and_disjoint() -> None:
    def rows(*names: str) -> list[Example]:
        return [Example(name, {"text": name}, 1) for name in names]

    def make(train: list[Example], dev: list[Example], test: list[Example]) -> Task:
        return Task(train=train, dev=dev, test=SealedSplit(test), scorer=exact())

    make(rows("a"), rows("b"), rows("c"))
    with pytest.raises(UserError, match=r"'train' split are not unique: \['a'\]"):
        make(rows("a", "a"), rows("b"), rows("c"))
    with pytest.raises(UserError, match=r"'test' split are not unique: \['c'\]"):
        make(rows("a"), rows("b"), rows("c", "c"))
    with pytest.raises(UserError, match="'dev' split is empty"):
        make(rows("a"), [], rows("c"))
    with pytest.raises(UserError, match="in both the 'train' and the 'test' split"):
        make(rows("a"), rows("b"), rows("c", "a"))


def test_majority_baseline() -> None:
    rows = [Example(str(number), {}, answer) for number, answer in enumerate("aaabb")]
    assert majority_baseline(rows) == 0.6
    assert majority_baseline([Example(str(number), {}, number) for number in range(20)]) is None

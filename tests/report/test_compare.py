"""Two runs side by side: what differs is said, and no more than the examples allow."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from optograph.report import (
    CandidateRow,
    Comparison,
    ExampleRow,
    ModelRow,
    ParameterRow,
    RunReport,
    TestResult,
    UsageRow,
    compare_runs,
    compare_values,
    print_comparison,
)


def examples(scores: list[float | None], **more: Any) -> list[ExampleRow]:
    rows = [ExampleRow(id=f"e{place}", input=f"text {place}", after_score=one) for place, one in enumerate(scores)]
    return [row.model_copy(update=more) for row in rows]


def run(name: str, scores: list[float | None], values: dict[str, Any], **more: Any) -> RunReport:
    known = [one for one in scores if one is not None]
    mean = sum(known) / len(known) if known else 0.0
    data: dict[str, Any] = {
        "title": "t",
        "run": name,
        "examples": examples(scores),
        "candidates": [CandidateRow(id=name, values=values, dev_score=0.5, accepted=True, final=True)],
        "test": TestResult(before=0, after=mean, difference=mean, low=0, high=1, n=len(scores)),
        "usage": [UsageRow(role="task", calls=10, prompt_tokens=100, completion_tokens=5, seconds=1.5, usd=0.25)],
    }
    return RunReport(**(data | more))


def printed(comparison: Comparison, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_comparison(comparison, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_equals_itself(report: RunReport) -> None:
    same = compare_runs(report, report)
    assert (same.settings, same.examples, same.changed) == ([], [], [])
    assert same.same_result
    assert same.scores[0].difference == same.scores[0].low == same.scores[0].high == 0
    assert same.scores[0].n == 120
    assert "neither is shown to be better" in printed(same)
    assert Comparison.model_validate_json(same.model_dump_json()) == same


def test_scores_are_paired_by_example() -> None:
    a = run("a", [0, 0, 1, 0, 0, 0, 0, 1, None, 0], {"p": "x"})
    b = run("b", [1, 1, 1, 1, 1, 1, 0, 1, 1, None], {"p": "y"})
    found = compare_runs(a, b)
    score = found.scores[0]
    assert (score.split, score.n) == ("test", 8)
    assert score.difference == pytest.approx(5 / 8)
    assert score.low is not None
    assert score.low > 0
    assert score.verdict == "gain"
    assert compare_runs(b, a).scores[0].verdict == "loss"
    assert [row.id for row in found.examples] == ["e0", "e1", "e3", "e4", "e5"]
    assert not found.same_result
    assert "Examples: 5 better in B, 0 better in A" in printed(found)


def test_the_order_of_examples_does_not_matter() -> None:
    a, b = run("a", [0, 1, 0], {}), run("b", [1, 1, 0], {})
    turned = b.model_copy(update={"examples": b.examples[::-1]})
    assert compare_runs(a, b).scores == compare_runs(a, turned).scores


@pytest.mark.parametrize(
    ("other", "note"),
    [
        (examples([1, 1]), "the runs tested different examples (2 in common)"),
        (examples([1, 1, 1], input="another"), "examples with the same id differ in their input or answer"),
        (examples([1, 1, 1], expected="another"), "examples with the same id differ in their input or answer"),
        (examples([None, None, None]), "no example has a score in both runs"),
    ],
)
def test_what_cannot_be_paired_is_not(other: list[ExampleRow], note: str) -> None:
    found = compare_runs(run("a", [0, 1, 0], {}), run("b", [0, 1, 0], {}, examples=other))
    assert found.scores[0].difference is None
    assert found.scores[0].n == 0
    assert found.scores[0].note == note
    assert found.scores[0].a == pytest.approx(1 / 3)
    assert found.examples == []
    assert note in " ".join(printed(found).split())


def test_a_run_on_its_way_is_compared_on_dev() -> None:
    a = run("a", [0, 1, 0, 1], {}, test=None, examples_split="dev", state="running")
    b = run("b", [1, 1, 1, 1], {}, test=None, examples_split="dev", state="running")
    (score,) = compare_runs(a, b).scores
    assert (score.split, score.n, score.difference) == ("dev", 4, 0.5)
    assert score.note == "candidates are chosen on these examples"
    test, dev = compare_runs(a, run("c", [1, 1, 1, 1], {})).scores
    assert test.note == "a has not read its sealed test yet"
    assert test.difference is None
    assert "only one of the runs holds these examples" in dev.note


def test_runs_without_results_are_compared() -> None:
    found = compare_runs(RunReport(title="one"), RunReport(title="two"))
    assert (found.a, found.b, found.scores, found.cost) == ("one", "two", [], [])
    assert "Settings: the same" in printed(found)


def test_settings_models_and_data_that_differ_are_listed() -> None:
    a = run("a", [1], {}, seed=0, settings={"budget.calls": 10, "optimizer.seed": 0, "task.scorer": "exact"})
    b = run("b", [1], {}, seed=1, settings={"optimizer.seed": 1, "task.scorer": "exact"})
    b = b.model_copy(update={"models": [ModelRow(role="task", name="local/x", identity="sha256:1")]})
    rows = {row.key: (row.a, row.b) for row in compare_runs(a, b).settings}
    assert rows == {
        "seed": (0, 1),
        "budget.calls": (10, None),
        "model.task": (None, "local/x"),
        "model.task.identity": (None, "sha256:1"),
    }
    assert "budget.calls" in printed(compare_runs(a, b))


def test_values_are_compared_as_a_reader_would() -> None:
    rows = compare_values(
        {"a": 1, "b": [1], "c": "x", "d": {"k": 1, "l": 2}}, {"a": True, "b": [1], "e": 2, "d": {"l": 2, "k": 1}}
    )
    assert {row.name: row.state for row in rows} == {
        "a": "changed",
        "b": "same",
        "c": "only_a",
        "d": "same",
        "e": "only_b",
    }


def test_texts_and_code_are_shown_word_by_word_and_line_by_line() -> None:
    parameters = [ParameterRow(name="p"), ParameterRow(name="f", kind="code"), ParameterRow(name="same")]
    code = "def f(x):\n    y = x + 1\n    return y\n"
    old = {"p": "Answer with one clear word.", "f": code, "same": 1}
    new = {"p": "Answer with two clear words.", "f": code.replace("return y", "return y * 2"), "same": 1}
    text = printed(compare_runs(run("a", [1], old, parameters=parameters), run("b", [1], new)))
    assert "Answer with [-one-]{+two+} clear" in text
    assert "-     return y\n" in text
    assert "+     return y * 2\n" in text
    assert "The same in both: same" in text


def test_cost_is_summed_by_role_and_unknown_prices_stay_unknown() -> None:
    a = run("a", [1], {})
    extra = UsageRow(role="optimizer", calls=2, prompt_tokens=50)
    b = a.model_copy(update={"usage": [*a.usage, extra]})
    rows = {row.role: row for row in compare_runs(a, b).cost}
    assert list(rows) == ["task", "optimizer", "total"]
    assert rows["total"].calls == (10, 12)
    assert rows["total"].tokens == (105, 155)
    assert rows["total"].usd == (0.25, None)
    assert rows["optimizer"].calls == (0, 2)


def test_no_markup_or_escape_reaches_the_terminal() -> None:
    bad = "[red]x[/red]\x1b[2J"
    a = run(bad, [1], {bad: bad}, settings={bad: bad})
    text = printed(compare_runs(a, run("b", [0], {bad: "y"})), 200)
    assert "\x1b" not in text
    assert text.count("[red]x[/red]") >= 3

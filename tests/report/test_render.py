"""The page shows what the report holds, and stands without the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from optograph.errors import StorageError, UserError
from optograph.report import (
    CandidateRow,
    ExampleRow,
    LimitRow,
    RunReport,
    StepRow,
    TestResult,
    TraceEdge,
    TraceNode,
    TraceView,
    UsageRow,
    render_report,
    write_report,
)
from optograph.report.record import plain
from optograph.report.views import MAX_EXAMPLES, example_status, headline, what_changed


def test_every_section_is_there(report: RunReport) -> None:
    html = render_report(report)
    for name in ("result", "changes", "progress", "candidates", "trace", "examples", "cost", "setup"):
        assert f'<section id="{name}"' in html
        assert f'<a href="#{name}">' in html
    assert html.count('<article class="node-detail"') == 12
    assert html.count("data-status=") == 120
    assert html.count('<details class="candidate-row') == 19
    assert len(re.findall('class="step [a-z]+"', html)) == 19
    assert "+0.367" in html
    assert "majority class 0.508" in html


def test_an_empty_report_is_a_page() -> None:
    html = render_report(RunReport(title="Nothing yet"))
    assert "Nothing was measured yet." in html
    assert "<table" not in html
    assert set(re.findall('<section id="([a-z]+)"', html)) == {"result", "setup"}


def test_targets_of_links_exist(report: RunReport) -> None:
    html = render_report(report)
    ids = set(re.findall(r' id="([^"]+)"', html))
    assert len(re.findall(r' id="([^"]+)"', html)) == len(ids)
    assert {link[1:] for link in re.findall(r'href="([^"]+)"', html)} <= ids
    assert set(re.findall(r'aria-controls="([^"]+)"', html)) <= ids
    assert set(re.findall(r'aria-labelledby="([^"]+)"', html)) <= ids


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": []},
        {"candidates": []},
        {"examples": []},
        {"trace": None},
        {"trace": TraceView(feedback="said", score=1.0)},
        {"test": None},
        {"baseline": None},
        {"usage": [], "failures": {}},
        {"usage": [UsageRow(role="task")]},
        {"parameters": []},
        {"test": TestResult(before=0.5, after=0.5, difference=0, low=0, high=0, n=0)},
        {"test": TestResult(before=-1e300, after=1e300, difference=1e300, low=-1e300, high=1e300, n=3)},
        {"steps": [StepRow(step=0)]},
        {"steps": [StepRow(step=0, dev_score=0.5, incumbent_score=0.5)]},
        {"steps": [StepRow(step=index, dev_score=-3.0 * index, decision="odd") for index in range(3)]},
        {"candidates": [CandidateRow(id="only", final=True, values={"n": 3, "t": None, "l": [1, "x"], "d": {"a": 1}})]},
        {"candidates": [CandidateRow(id="a", parents=["b"]), CandidateRow(id="b", parents=["a"])]},
        {"candidates": [CandidateRow(id="a"), CandidateRow(id="a", parents=["a", "gone"])]},
        {"examples": [ExampleRow(id="1", input=["a", 2], before_score=0.2, after_score=0.5)]},
    ],
)
def test_parts_may_be_missing_or_odd(report: RunReport, changes: dict[str, Any]) -> None:
    data = {name: getattr(report, name) for name in RunReport.model_fields}
    html = render_report(RunReport.model_validate(data | changes))
    assert html.startswith("<!doctype html>")
    assert "nan" not in re.findall(r'(?:x|y|cx|cy|d|width)="([^"]*)"', html)


def test_a_report_survives_json(report: RunReport) -> None:
    again = RunReport.model_validate_json(report.model_dump_json())
    assert again == report
    assert render_report(again) == render_report(report)


def test_what_changed_compares_the_start_with_the_result(report: RunReport) -> None:
    parts = what_changed(report)
    assert parts is not None
    changed, same = parts
    assert [change.name for change in changed] == ["sentiment.instruction", "sentiment.demos", "clean"]
    assert [change.name for change in same] == ["margin"]
    html = render_report(report)
    assert "<del>Classify the customer review.</del>" in html
    assert '<div class="line removed">' in html
    assert html.count('<span class="mark added">new</span>') >= 3


def test_true_is_not_one() -> None:
    rows = [
        CandidateRow(id="a", values={"flag": 1}),
        CandidateRow(id="b", parents=["a"], values={"flag": True}, final=True),
    ]
    parts = what_changed(RunReport(title="t", candidates=rows))
    assert parts is not None
    assert [(change.old, change.new) for change in parts[0]] == [("1", "true")]


def test_long_values_are_folded() -> None:
    text = "word " * 500
    rows = [
        CandidateRow(id="a", values={"p": text}),
        CandidateRow(id="b", parents=["a"], values={"p": text + "end"}, final=True),
    ]
    row = ExampleRow(id="1", input=text, before_score=0, after_score=1)
    html = render_report(RunReport(title="t", candidates=rows, examples=[row]))
    assert '<details class="long">' in html
    assert "unchanged characters</summary>" in html


def test_rejected_siblings_are_drawn_as_one_and_dropped_ones_are_folded() -> None:
    rows = [CandidateRow(id="start", dev_score=0.5, accepted=True)]
    rows += [CandidateRow(id=f"child{index:03d}", parents=["start"], dev_score=None) for index in range(50)]
    html = render_report(RunReport(title="t", candidates=rows))
    assert "50 not accepted" in html
    assert "50 more were dropped before the dev split" in html
    assert html.count('<details class="candidate-row') == 51


def test_a_large_trace_draws_the_feedback_path_first() -> None:
    nodes = [TraceNode(id=str(index), label=f"op {index}", on_feedback_path=index >= 380) for index in range(400)]
    edges = [TraceEdge(src=str(index), dst=str(index + 1)) for index in range(399)]
    html = render_report(RunReport(title="t", trace=TraceView(nodes=nodes, edges=edges, feedback="no")))
    assert "120 of 400 nodes are drawn" in html
    assert html.count("data-node=") == 120
    assert 'data-node="n399"' in html
    assert html.count('<article class="node-detail"') == 400


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (0.0, 1.0, "fixed"),
        (1.0, 0.0, "broken"),
        (1.0, 1.0, "right"),
        (0.0, 0.0, "wrong"),
        (0.2, 0.6, "improved"),
        (0.6, 0.2, "worse"),
        (None, 1.0, "missing"),
        (1.0, None, "missing"),
    ],
)
def test_statuses(before: float | None, after: float | None, status: str) -> None:
    assert example_status(ExampleRow(id="x", before_score=before, after_score=after), 1.0) == status


def test_many_examples_are_cut_in_the_page_only() -> None:
    rows = [ExampleRow(id=f"e{index}", before_score=0, after_score=0) for index in range(MAX_EXAMPLES + 1)]
    rows.append(ExampleRow(id="last", before_score=0, after_score=1))
    html = render_report(RunReport(title="t", examples=rows))
    assert html.count("data-status=") == MAX_EXAMPLES
    assert '<span class="id">last</span>' in html
    assert f'"e{MAX_EXAMPLES}"' in html


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.1, 0.3, "a gain of 0.200"), (-0.3, -0.1, "a loss of 0.200"), (-0.1, 0.4, "no change is shown")],
)
def test_the_headline_claims_no_more_than_the_interval(low: float, high: float, words: str) -> None:
    middle = (low + high) / 2
    test = TestResult(before=0.5, after=0.5 + middle, difference=middle, low=low, high=high, n=40)
    assert words in headline(RunReport(title="t", test=test))


def test_numbers_must_be_finite_and_fields_known() -> None:
    with pytest.raises(ValidationError):
        StepRow(step=0, dev_score=float("nan"))
    with pytest.raises(ValidationError):
        RunReport.model_validate({"title": "t", "steps": [{"step": 0, "dev_score": float("inf")}]})
    with pytest.raises(ValidationError):
        RunReport.model_validate({"title": "t", "tittle": "u"})


def test_values_become_plain_clean_data() -> None:
    row = CandidateRow(
        id="a\x1b[31m", values={"x": (1, float("nan")), "y": {"k\x00": b"\xff"}, "z": {2, 1}, "o": object}
    )
    assert row.id == "a\ufffd[31m"
    assert row.values["x"] == [1, "nan"]
    assert row.values["y"] == {"k\ufffd": "b'\\xff'"}
    assert row.values["z"] == [1, 2]
    assert isinstance(row.values["o"], str)
    assert plain("a\r\nb\rc\td") == "a\nb\nc\td"


def test_writing_is_whole_or_not_at_all(report: RunReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "report.html"
    assert write_report(report, target) == target
    assert target.read_text(encoding="utf-8") == render_report(report)
    assert write_report(RunReport(title="second"), str(target)) == target
    assert "second" in target.read_text(encoding="utf-8")
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StorageError, match="No space left"):
        write_report(report, target)
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    assert "second" in target.read_text(encoding="utf-8")


def test_bad_targets_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; name a file in it, such as .*report\.html"):
        write_report(RunReport(title="t"), tmp_path)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write the report"):
        write_report(RunReport(title="t"), tmp_path / "file" / "report.html")


def test_the_example_in_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    (code,) = re.findall("```python\n(.*?)```", text, re.S)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert [f"# > {line}" for line in capsys.readouterr().out.splitlines()] == re.findall("# > .*", code)
    assert scope["page"].startswith("<!doctype html>")


def test_reports_of_the_first_version_can_be_read() -> None:
    report = RunReport.model_validate({"title": "t", "failures": {"timeout": 2}, "schema_version": 1})
    assert [(row.kind, row.after) for row in report.failures] == [("timeout", 2)]
    assert report.schema_version == 2


def test_an_unfinished_run_says_so() -> None:
    rows = [CandidateRow(id="a", dev_score=0.4), CandidateRow(id="b", parents=["a"], dev_score=0.6, final=True)]
    report = RunReport(
        title="t",
        candidates=rows,
        state="running",
        status="still running",
        limits=[LimitRow(what="calls", used=12, limit=40)],
    )
    html = render_report(report)
    assert 'class="status running"' in html
    assert "Best so far, dev" in html
    assert "sealed test, which is read once at the end" in headline(report)
    assert '<th scope="row">model calls</th><td class="num strong">12</td><td class="num">40</td>' in html


def test_failures_are_told_apart_by_when_they_happened(report: RunReport) -> None:
    html = render_report(report)
    words = 'truncated<small class="block">an answer was cut off at its length limit</small>'
    assert words in html
    row = html[html.index(words) :][:300]
    assert re.findall('<td class="num[a-z ]*">([0-9,]+)</td>', row)[:3] == ["5", "1", "0"]
    assert '<option value="wrong-label">wrong-label (28)</option>' in html
    assert "Started again 2 times; no finished call was made twice." in html

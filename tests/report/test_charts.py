"""Scales, formats and drawings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from optograph.report import RunReport, StepRow, TestResult
from optograph.report import svg as kit
from optograph.report.charts import interval_plot, meter, score_chart, stacked_bar, verdict

FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FLOATS, max_size=6))
@settings(deadline=None)
def test_scales_hold_all_values_with_few_round_ticks(values: list[float]) -> None:
    scale = kit.make_scale(values, 0, 100)
    assert scale.low < scale.high
    assert 2 <= len(scale.ticks) <= 9
    assert all(0 <= scale(value) <= 100 for value in values)
    assert list(scale.ticks) == sorted(scale.ticks)


def test_unit_scales_show_the_whole_unit() -> None:
    assert kit.make_scale([0.4, 0.6], 0, 1, unit=True).ticks == (0, 0.25, 0.5, 0.75, 1)
    assert kit.make_scale([0.4, 7], 0, 1, unit=True).high > 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4567, "0.457"), (-1.5, "\u22121.500"), (None, "\u2013"), (12345.678, "12,345.7"), (0, "0.000")],
)
def test_scores(value: float | None, text: str) -> None:
    assert kit.score(value) == text


def test_formats() -> None:
    assert kit.signed(0.25) == "+0.250"
    assert kit.signed(-0.25) == "\u22120.250"
    assert [kit.duration(s) for s in (0.04, 9.96, 59.6, 96, 3700)] == [
        "0.0 s",
        "10.0 s",
        "1 min 0 s",
        "1 min 36 s",
        "1 h 1 min",
    ]
    assert [kit.money(v) for v in (None, 0.0, 0.01213, 12.5)] == ["\u2013", "$0.00", "$0.0121", "$12.50"]
    assert kit.clip("one\n two   three", 9) == "one two\u2026"
    assert kit.tick(20000) == "20k"
    assert kit.number(3.14159) == "3.14"


def test_elements_escape_texts_and_attributes() -> None:
    made = kit.tag("text", "<b>&", kit.tag("title", "x"), class_="a", data_x='"<', hidden=None, x=1.5)
    assert made == Markup('<text class="a" data-x="&#34;&lt;" x="1.5">&lt;b&gt;&amp;<title>x</title></text>')


def test_verdicts() -> None:
    def result(low: float, high: float) -> TestResult:
        return TestResult(before=0, after=0, difference=0, low=low, high=high, n=1)

    assert [verdict(result(0.1, 0.2)), verdict(result(-0.2, -0.1)), verdict(result(0, 0.2))] == [
        "gain",
        "loss",
        "unclear",
    ]


def test_the_interval_plot_says_its_figures() -> None:
    test = TestResult(before=0.4, after=0.75, difference=0.35, low=0.2, high=0.5, n=120, majority=0.5)
    picture = str(interval_plot(test, "accuracy"))
    assert "before 0.400, after 0.750; difference +0.350, 95 % interval +0.200 to +0.500" in picture
    assert 'role="img"' in picture
    assert "majority-line" in picture


def test_the_chart_counts_calls_where_they_differ() -> None:
    steps = [
        StepRow(step=i, dev_score=0.1 * i, candidate=f"c{i}", calls_so_far=90 * i, incumbent_score=0.1 * i)
        for i in range(5)
    ]
    picture = str(score_chart(RunReport(title="t", steps=steps), {"c1": "#c1"}))
    assert ">model calls<" in picture
    assert 'href="#c1"' in picture
    assert picture.count("data-readout=") == 5
    same = [row.model_copy(update={"calls_so_far": 7}) for row in steps]
    assert ">step<" in str(score_chart(RunReport(title="t", steps=same), {}))
    assert score_chart(RunReport(title="t", steps=[StepRow(step=0)]), {}) is None


def test_labels_at_the_right_do_not_overlap(report: RunReport) -> None:
    steps = [row.model_copy(update={"incumbent_score": 0.51}) for row in report.steps]
    picture = str(score_chart(report.model_copy(update={"steps": steps}), {}))
    heights = [float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)" class="label-', picture)]
    assert len(heights) == 2
    assert abs(heights[0] - heights[1]) >= 15


def test_bars_keep_their_bounds() -> None:
    assert 'width="72" height="6" rx="3" class="meter-fill final"' in str(meter(9.0, 0, 1, "final"))
    assert 'class="meter-fill"' in str(meter(None, 0, 0))
    widths = [
        float(w)
        for w in re.findall(
            r'<rect x="[\d.]+" y="0" width="([\d.]+)"', str(stacked_bar([("a", 1), ("b", 3), ("c", 0)]))
        )
    ]
    assert widths == [250, 750]
    assert "<rect" not in str(stacked_bar([]))

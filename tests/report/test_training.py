"""The section about training: rounds, curves and the line of the adapters, also of a run that goes on."""

from __future__ import annotations

import re

from optograph.report import RunReport, StepRow, render_report
from optograph.report.training import AdapterRow, Curve, RoundRow, TrainingView
from optograph.report.training_charts import adapter_line, curve_charts, round_chart

A, B, C = "a" * 64, "b" * 64, "c" * 64

ROUNDS = [
    RoundRow(
        number=1,
        rollouts=40,
        reward=0.4,
        prefix_hit_rate=0.634,
        rows=40,
        pairs=12,
        dev_score=0.6,
        dev_low=0.5,
        dev_high=0.7,
        best_score=0.6,
        verdict="accepted",
        reason="0.500 → 0.600",
        difference=3e-6,
        realised=0.91,
        kl=0.02,
        not_told_apart=["base"],
    ),
    RoundRow(number=2, rollouts=40, missing=1, reward=0.55, verdict="rejected", rolled_back=True, dev_score=0.4),
    RoundRow(number=3, rollouts=40),
]

VIEW = TrainingView(
    method="momentum_dpo",
    planned=4,
    rounds=ROUNDS,
    curves=[
        Curve(round=0, adapter="policy", figure="loss", points=[(1.0, 2.0), (2.0, 1.0)]),
        Curve(round=1, adapter="policy", figure="loss", points=[(1.0, 0.7), (4.0, 0.3)]),
        Curve(round=1, adapter="policy", figure="kl", points=[(1.0, 0.0)]),
        Curve(round=1, adapter="policy", figure="logratio_chosen", points=[(1.0, 0.0), (4.0, -2.0)]),
        Curve(round=1, adapter="policy", figure="something", points=[(1.0, 0.0)]),
    ],
    adapters=[
        AdapterRow(hash=A, name="policy", made="sft", round=0, parents=[""], outcome="start"),
        AdapterRow(
            hash=B,
            name="policy",
            made="trained",
            round=1,
            parents=[A],
            outcome="accepted",
            final=True,
            not_told_apart=["base"],
        ),
        AdapterRow(hash=C, name="<policy>", made="extrapolated", round=2, parents=[B, A], outcome="sampled"),
    ],
)


def page(view: TrainingView | None) -> str:
    steps = [StepRow(step=0, dev_score=0.5, decision="seed", candidate="x")]
    return render_report(RunReport(title="t", training=view, steps=steps))


def test_the_page_shows_rounds_curves_and_adapters() -> None:
    text = page(VIEW)
    assert 'href="#training"' in text
    section = text[text.index('<section id="training"') :]
    assert section.count("of the prompts from the cache") == 1 and "63 % of the prompts from the cache" in section
    assert "3 of 4 rounds of momentum_dpo" in section
    for words in (
        "rolled back",
        "3e-06 nats",
        "91 %",
        "in progress",
        "1 missing",
        "0.500 to 0.700",
        "not told from base",
    ):
        assert words in section
    assert "&lt;policy&gt;" in section
    assert "<policy>" not in text.replace("\\u003cpolicy\\u003e", "")


def test_runs_that_train_nothing_have_no_such_section() -> None:
    assert 'id="training"' not in page(None)


def test_a_training_that_has_just_begun() -> None:
    assert 'id="training"' in page(TrainingView(method="oreo", planned=2, rounds=[RoundRow(number=1)]))
    empty = TrainingView(method="oreo")
    assert round_chart(empty, None) is None
    assert adapter_line(empty) is None
    assert curve_charts(empty) == []


def test_charts_say_their_figures_to_readers_of_screens() -> None:
    chart = round_chart(VIEW, 0.5)
    assert chart is not None
    assert "round 1: reward 0.400, dev 0.600, accepted" in chart
    charts = dict(curve_charts(VIEW))
    chosen = "Log-ratio to the reference, better answers, nats"
    assert set(charts) == {"Loss", "KL to the reference, nats a token", chosen}
    assert "0 at first, \N{MINUS SIGN}2 at the end" in charts[chosen]
    assert "2 at first, 0.3 at the end" in charts["Loss"]
    assert len(re.findall("<path", charts["Loss"])) == 2
    line = adapter_line(VIEW)
    assert line is not None
    assert line.count('class="edge on-line"') == 2
    assert line.count('class="edge"') == 2
    assert "base model" in line
    assert "trained, round 1: accepted ≈ base" in line
    assert "bbbbbbbb trained in round 1, accepted, by its probe not told from base" in line

"""A realistic made-up report that the tests of the report share."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from optograph.report import (
    Baseline,
    CandidateRow,
    Credit,
    ExampleRow,
    FailureRow,
    LimitRow,
    ModelRow,
    NodeCredit,
    ParameterRow,
    RunFacts,
    RunReport,
    Splits,
    StepRow,
    TestResult,
    TraceEdge,
    TraceNode,
    TraceView,
    UsageRow,
)

START = "Classify the customer review."
SECOND = "Classify the customer review as positive or negative."
BEST = (
    "Read the customer review and decide whether the writer was satisfied in the end. "
    "Answer positive or negative. Judge the outcome, not the tone of single words."
)
DEMOS = [
    {"review": "The kettle arrived dented, but they sent a new one the same day.", "label": "positive"},
    {"review": "Beautiful box. The lamp inside never lit once.", "label": "negative"},
    {"review": "I expected little for the price and was wrong: it still runs after two winters.", "label": "positive"},
    {"review": "Three calls, three promises, no refund.", "label": "negative"},
]
CODE = '''def clean(review: str) -> str:
    """Shorten a review to what matters."""
    text = review.strip()
    return text[:200]
'''
CODE_2 = '''def clean(review: str) -> str:
    """Shorten a review to what matters."""
    text = " ".join(review.split())
    if len(text) > 400:
        text = text[:200] + " ... " + text[-200:]
    return text
'''
REVIEWS = [
    "The zip broke on the second day and the shop blamed me for it.",
    "Came late, but the chair is the most comfortable one I have owned.",
    "Not bad at all, though the manual is a joke.",
    "I wanted to love it. I sent it back.",
    "My daughter takes it everywhere, and so far it has survived her.",
    "The first one leaked; the replacement leaks too.",
    "Worth every cent, even if the colour is nothing like the picture.",
    "Customer service answered within the hour and solved it.",
]


def _interval(score: float, n: int) -> tuple[float, float]:
    half = 1.96 * math.sqrt(max(1e-9, score * (1 - score)) / n)
    return round(max(0.0, score - half), 4), round(min(1.0, score + half), 4)


def _values(instruction: str, demos: list[dict[str, str]], code: str, margin: float) -> dict[str, Any]:
    return {"sentiment.instruction": instruction, "sentiment.demos": demos, "clean": code, "margin": margin}


def _candidates() -> list[CandidateRow]:
    rng = random.Random(7)
    rows = [
        CandidateRow(
            id="a41f09c27be1", origin="seed", values=_values(START, [], CODE, 0.0), dev_score=0.467, accepted=True
        )
    ]
    plan = [
        ("7be210d94c55", 0, "optoprime", (SECOND, [], CODE, 0.0), 0.533, True),
        ("0c93aa17e602", 1, "optoprime", ("Say if it is good.", [], CODE, 0.0), 0.489, False),
        ("e5d20b7719aa", 1, "optoprime", (SECOND, [], CODE_2, 0.0), 0.544, False),
        ("55a0c1f3d8b7", 1, "few-shot", (SECOND, DEMOS[:2], CODE, 0.0), 0.656, True),
        ("91cc7e20ab34", 4, "few-shot", (SECOND, DEMOS[1:], CODE, 0.0), 0.644, False),
        ("d2387fe1c960", 4, "optoprime", (BEST, DEMOS[:2], CODE, 0.0), 0.711, True),
        ("3fe8810b72d5", 6, "optoprime", (BEST.upper(), DEMOS[:2], CODE, 0.0), 0.622, False),
        ("b7714cd09ef2", 6, "few-shot", (BEST, DEMOS[1:], CODE_2, 0.0), 0.778, True),
        ("48d9e6b3a01c", 8, "optoprime", (BEST, DEMOS[1:], CODE_2, 0.35), 0.789, False),
    ]
    for name, parent, origin, parts, score, accepted in plan:
        values = _values(*parts)
        rows.append(
            CandidateRow(
                id=name,
                parents=[rows[parent].id],
                origin=origin,
                values=values,
                dev_score=score,
                accepted=accepted,
                final=name == "b7714cd09ef2",
            )
        )
    for index in range(9):
        demos = rng.sample(DEMOS, 2)
        rows.append(
            CandidateRow(
                id=f"{rng.getrandbits(48):012x}",
                parents=["7be210d94c55"],
                origin="few-shot",
                values=_values(SECOND, demos, CODE, 0.0),
                dev_score=round(0.48 + 0.015 * index, 3),
            )
        )
    return rows


def _steps(candidates: list[CandidateRow]) -> list[StepRow]:
    order = [candidates[0], *candidates[1:4], *candidates[10:], *candidates[4:10]]
    best, calls, steps = 0.467, 0, []
    for index, row in enumerate(order):
        score = row.dev_score or 0.0
        calls += 96 if row.origin != "few-shot" else 92
        before, best = best, max(best, score) if row.accepted else best
        low, high = _interval(score, 90)
        decision = "seed" if index == 0 else "accepted" if row.accepted else "rejected"
        reason = {
            "seed": "The starting values.",
            "accepted": f"Paired on 90 dev examples, it beats the incumbent (p = 0.0{index % 4 + 1}).",
            "rejected": "The gain over the incumbent is within noise: its paired interval holds 0.",
        }[decision]
        steps.append(
            StepRow(
                step=index,
                optimizer=row.origin if index else "",
                candidate=row.id,
                parent=row.parents[0] if row.parents else None,
                dev_score=score,
                dev_low=low,
                dev_high=high,
                n=90,
                incumbent_score=best,
                decision=decision,
                reason=reason,
                calls_so_far=calls,
                seconds=calls * 0.046,
                gain=score - before if index else None,
                gain_low=score - before - 0.07 if index else None,
                gain_high=score - before + 0.08 if index else None,
            )
        )
    return steps


def _trace() -> TraceView:
    path = {"p1", "prompt", "llm", "label", "out", "p2", "clean", "p3"}
    nodes = [
        ("in", "review", "input", REVIEWS[1]),
        ("p3", "clean", "parameter", CODE_2),
        ("clean", "clean(review)", "op", REVIEWS[1]),
        ("p1", "sentiment.instruction", "parameter", SECOND),
        ("p2", "sentiment.demos", "parameter", '[{"review": "Beautiful box. The lamp …", "label": "negative"}, …]'),
        ("schema", "labels", "input", '["positive", "negative"]'),
        ("prompt", "build_prompt", "op", "system: " + SECOND + "\nuser: Review: " + REVIEWS[1] + "\nSentiment:"),
        ("llm", "local/smollm2-135m", "model-call", "negative\n\nprompt tokens 148, answer tokens 1, 21 ms"),
        ("prior", "batch_prior", "op", '{"positive": -0.92, "negative": -0.51}'),
        ("margin", "margin", "parameter", "0.0"),
        ("label", "calibrated_label", "op", '"negative"'),
        ("out", "answer", "output", '"negative"'),
    ]
    edges = [
        ("in", "clean", "review"),
        ("p3", "clean", ""),
        ("clean", "prompt", "text"),
        ("p1", "prompt", "instruction"),
        ("p2", "prompt", "demos"),
        ("schema", "llm", "options"),
        ("prompt", "llm", "messages"),
        ("llm", "label", "logprobs"),
        ("prior", "label", "prior"),
        ("margin", "label", "margin"),
        ("label", "out", ""),
        ("schema", "label", ""),
    ]
    return TraceView(
        nodes=[TraceNode(id=i, label=n, kind=k, detail=d, on_feedback_path=i in path) for i, n, k, d in nodes],  # type: ignore[arg-type]
        edges=[TraceEdge(src=a, dst=b, label=name) for a, b, name in edges],
        example="dev-017",
        feedback="Expected 'positive', got 'negative'. The review ends in praise; what counts is the end.",
        score=0.0,
    )


def _credit() -> Credit:
    judged = {"failed_before": 31, "passed_before": 33, "failed_after": 5, "passed_after": 19}
    step = ["sentiment.instruction", "sentiment.demos"]
    return Credit(
        nodes=[
            NodeCredit(
                node="clean", parameters=["clean"], **judged, named=2, tried=2, accepted=1, gain=0.067, shared=1
            ),
            NodeCredit(
                node="sentiment", parameters=step, **judged, named=5, unusable=1, tried=16, accepted=4, gain=0.311
            ),
            NodeCredit(node="calibrated_label", parameters=["margin"], **judged, tried=1),
        ],
        runs_before=64,
        runs_after=24,
        proposals=6,
    )


def _examples() -> list[ExampleRow]:
    rng = random.Random(3)
    rows = []
    for index in range(120):
        text = REVIEWS[index % len(REVIEWS)]
        right = "positive" if index % 2 else "negative"
        wrong = "negative" if index % 2 else "positive"
        before, after = rng.random() < 0.47, rng.random() < 0.8
        rows.append(
            ExampleRow(
                id=f"test-{index:03d}",
                input=text if index % 5 else {"review": text + " " + "It came in two boxes. " * 14, "stars": index % 6},
                expected=right,
                before=right if before else wrong,
                after=right if after else wrong,
                before_score=float(before),
                after_score=float(after),
                failure_type=None if after else "wrong-label",
                feedback="" if after else f"Expected '{right}', got '{wrong}'.",
            )
        )
    return rows


def _parameters() -> list[ParameterRow]:
    return [
        ParameterRow(
            name="sentiment.instruction",
            kind="text",
            description="What the model is told to do.",
            constraint="1 to 600 characters",
        ),
        ParameterRow(
            name="sentiment.demos",
            kind="demos",
            description="Solved examples shown before the review.",
            constraint="at most 8 items",
        ),
        ParameterRow(
            name="clean",
            kind="code",
            description="Prepares the review.",
            constraint="def clean(review: str) -> str",
        ),
        ParameterRow(
            name="margin",
            kind="float",
            description="Lead that 'positive' needs over 'negative'.",
            constraint="\u22121 to 1",
        ),
    ]


def _usage() -> list[UsageRow]:
    return [
        UsageRow(
            role="task",
            model="local/smollm2-135m",
            calls=1962,
            prompt_tokens=311840,
            completion_tokens=1962,
            seconds=74.2,
            usd=0.0,
            failed=3,
        ),
        UsageRow(
            role="optimizer",
            model="vllm/Qwen2.5-7B-Instruct",
            calls=11,
            prompt_tokens=21480,
            completion_tokens=2907,
            seconds=31.8,
            usd=0.0121,
        ),
    ]


def make_report() -> RunReport:
    """Return the report of a run that went well."""
    candidates, examples = _candidates(), _examples()
    before = sum(row.before_score or 0 for row in examples) / len(examples)
    after = sum(row.after_score or 0 for row in examples) / len(examples)
    return RunReport(
        title="Customer reviews: satisfied or not?",
        run="reviews-20261124-1630",
        task="Tell whether a customer was satisfied from a review, with a model of 135 million parameters.",
        seed=0,
        created="2026-11-24T16:30:12Z",
        workflow="examples/reviews/app.py:build",
        models=[
            ModelRow(
                role="task",
                name="local/smollm2-135m",
                identity="sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
            ModelRow(role="optimizer", name="vllm/Qwen2.5-7B-Instruct", identity="Qwen/Qwen2.5-7B-Instruct@a09a35"),
        ],
        splits=Splits(train=60, dev=90, test=120),
        metric_name="accuracy",
        baseline=Baseline(score=0.508),
        steps=_steps(candidates),
        candidates=candidates,
        parameters=_parameters(),
        trace=_trace(),
        credit=_credit(),
        examples=examples,
        test=TestResult(
            before=before,
            after=after,
            difference=after - before,
            low=after - before - 0.108,
            high=after - before + 0.104,
            n=120,
            majority=0.508,
        ),
        usage=_usage(),
        failures=[
            FailureRow(kind="wrong-label", search=611, before=72, after=28),
            FailureRow(kind="unparsed", search=12),
            FailureRow(kind="truncated", search=5, before=1),
            FailureRow(kind="timeout", search=2),
            FailureRow(kind="missing", search=1),
        ],
        limits=[
            LimitRow(what="calls", used=1973, limit=4000),
            LimitRow(what="usd", used=0.0121, limit=0.5),
            LimitRow(what="minutes", used=1.61, limit=5),
            LimitRow(what="calls", used=11, limit=40, role="optimizer"),
        ],
        facts=RunFacts(lives=3, damaged_rows=2),
        settings={
            "name": "reviews",
            "workflow.target": "app.py:build",
            "optimizer.name": "optoprime",
            "optimizer.seed": 0,
            "task.inputs": ["text"],
            "budget.calls": 4000,
        },
        duration_s=96.4,
    )


@pytest.fixture
def report() -> RunReport:
    """A realistic report."""
    return make_report()


def poisoned(data: Any, payload: Callable[[], str]) -> Any:
    """Put the next payload into every free text, and into every key that users name."""
    if isinstance(data, list):
        return [poisoned(item, payload) for item in data]
    if isinstance(data, str):
        return data + payload()
    if not isinstance(data, dict):
        return data
    result: dict[str, Any] = {}
    for key, value in data.items():
        if (key == "kind" and "detail" in data) or key in ("state", "examples_split"):
            result[key] = value  # closed lists
        elif key == "what":
            result[key] = value + payload()
        elif key in ("values", "input", "settings") and isinstance(value, dict):
            result[key] = {name + payload(): poisoned(item, payload) for name, item in value.items()}
        else:
            result[key] = poisoned(value, payload)
    return result


@pytest.fixture(scope="session")
def poisoned_report() -> Callable[[Callable[[], str]], RunReport]:
    """Makes a short form of the realistic report with the next payload in each of its texts."""

    def made(payload: Callable[[], str]) -> RunReport:
        data = make_report().model_dump()
        for name, number in (("examples", 8), ("candidates", 6), ("steps", 6)):
            data[name] = data[name][:number]
        return RunReport.model_validate(poisoned(data, payload))

    return made


@pytest.fixture(scope="session")
def whole_report() -> RunReport:
    """The realistic report, for fixtures that live longer than a test."""
    return make_report()

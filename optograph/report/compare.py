"""Two runs side by side: settings, values, scores with their paired difference, and cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from optograph.evals import paired_bootstrap
from optograph.report.model import ExampleRow, RunReport, UsageRow
from optograph.report.record import Row
from optograph.report.sums import known_sum

_ABSENT = "(absent)"


class SettingDiff(Row):
    """A setting that differs; None where a run does not have it."""

    key: str
    a: Any = None
    b: Any = None


class ParameterDiff(Row):
    """The values of one parameter in both results.

    Attributes:
        name: Parameter name.
        kind: Its kind, such as ``"text"`` or ``"code"``.
        state: ``"same"``, ``"changed"``, or in which of the two it is alone.
        a: Value in the first; None where it is not there.
        b: Value in the second; None where it is not there.
    """

    name: str
    kind: str = ""
    state: Literal["same", "changed", "only_a", "only_b"]
    a: Any = None
    b: Any = None


class ScoreDiff(Row):
    """The scores of both results on one split.

    Attributes:
        split: ``"test"`` or ``"dev"``.
        a: Mean score of the first result, or None.
        b: Mean score of the second result, or None.
        n: Examples that both have run; 0 where they cannot be paired.
        difference: ``b - a``, paired by example; None where they cannot be paired.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        note: Why there is no difference, or how far it can be trusted.
    """

    split: Literal["test", "dev"]
    a: float | None = None
    b: float | None = None
    n: int = Field(default=0, ge=0)
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def verdict(self) -> Literal["gain", "loss", "unclear"]:
        """On which side of zero the whole interval lies."""
        if self.low is not None and self.low > 0:
            return "gain"
        return "loss" if self.high is not None and self.high < 0 else "unclear"


class ExampleDiff(Row):
    """An example that the two results do not answer equally well."""

    id: str
    a: float
    b: float


class CostDiff(Row):
    """What one role spent in each run; ``usd`` is None where a price is unknown."""

    role: str
    calls: tuple[int, int]
    tokens: tuple[int, int]
    seconds: tuple[float, float]
    usd: tuple[float | None, float | None]


class Comparison(Row):
    """How two runs differ.

    Attributes:
        a: Name of the first run.
        b: Name of the second run.
        settings: Settings that differ.
        parameters: Values of all parameters in both results.
        scores: Scores on the sealed test, where both have read it, and on dev.
        examples: Examples with unequal scores, those with the largest change first.
        cost: Cost by role, and ``"total"`` last.
    """

    a: str
    b: str
    settings: list[SettingDiff] = Field(default_factory=list)
    parameters: list[ParameterDiff] = Field(default_factory=list)
    scores: list[ScoreDiff] = Field(default_factory=list)
    examples: list[ExampleDiff] = Field(default_factory=list)
    cost: list[CostDiff] = Field(default_factory=list)

    @property
    def changed(self) -> list[ParameterDiff]:
        """The parameters whose values differ."""
        return [row for row in self.parameters if row.state != "same"]

    @property
    def same_result(self) -> bool:
        """Whether both results hold the same values and score the same on each example."""
        return not self.changed and not self.examples and all(row.a == row.b for row in self.scores)


def compare_runs(a: RunReport, b: RunReport) -> Comparison:
    """Compare the results of two runs.

    Scores are compared by a paired bootstrap (95 % interval) where both runs have run the same examples: equal ids and
    equal inputs. Elsewhere only the two means are given.

    Args:
        a: The first run.
        b: The second run; differences are ``b - a``.
    """
    final_a, final_b = a.final, b.final
    kinds = {row.name: row.kind for report in (a, b) for row in report.parameters}
    parameters = compare_values(final_a.values if final_a else {}, final_b.values if final_b else {}, kinds)
    return Comparison(
        a=a.run or a.title,
        b=b.run or b.title,
        settings=_settings(a, b),
        parameters=parameters,
        scores=[row for row in (_test_scores(a, b), _dev_scores(a, b)) if row is not None],
        examples=_examples(a, b),
        cost=_cost(a, b),
    )


def compare_values(
    a: Mapping[str, Any], b: Mapping[str, Any], kinds: Mapping[str, str] | None = None
) -> list[ParameterDiff]:
    """Compare the parameter values of two candidates.

    Args:
        a: Values of the first by parameter name, as JSON data.
        b: Values of the second.
        kinds: Kinds of the parameters, where they are known.
    """
    rows = []
    for name in [*a, *(name for name in b if name not in a)]:
        state: Literal["same", "changed", "only_a", "only_b"]
        if name not in b:
            state = "only_a"
        elif name not in a:
            state = "only_b"
        else:
            state = "same" if _as_json(a[name]) == _as_json(b[name]) else "changed"
        rows.append(
            ParameterDiff(name=name, kind=(kinds or {}).get(name, ""), state=state, a=a.get(name), b=b.get(name))
        )
    return rows


def _as_json(value: Any) -> str:
    """Return a value in a form in which 1 and True, which are equal in Python, differ as they do for a reader."""
    return json.dumps(value, sort_keys=True, default=str)


def _settings(a: RunReport, b: RunReport) -> list[SettingDiff]:
    left, right = _all_settings(a), _all_settings(b)
    keys = [*left, *(key for key in right if key not in left)]
    return [
        SettingDiff(key=key, a=left.get(key), b=right.get(key))
        for key in keys
        if left.get(key, _ABSENT) != right.get(key, _ABSENT)
    ]


def _all_settings(report: RunReport) -> dict[str, Any]:
    """Return what a run was set up with, the job's settings last."""
    found: dict[str, Any] = {
        "workflow": report.workflow,
        "seed": report.seed,
        "metric": report.metric_name,
        **{f"examples.{name}": number for name, number in report.splits.model_dump().items()},
        **{f"model.{row.role}": row.name for row in report.models},
        **{f"model.{row.role}.identity": row.identity for row in report.models},
    }
    hidden = {"optimizer.seed", "workflow.target"}  # said above
    return found | {key: value for key, value in report.settings.items() if key not in hidden}


# Scores -----------------------------------------------------------------------------------------------------------


def _test_scores(a: RunReport, b: RunReport) -> ScoreDiff | None:
    if a.test is None and b.test is None:
        return None
    means = (a.test.after if a.test else None, b.test.after if b.test else None)
    if a.test is None or b.test is None:
        name = (a if a.test is None else b).run or "one of the runs"
        return ScoreDiff(split="test", a=means[0], b=means[1], note=f"{name} has not read its sealed test yet")
    return _paired("test", a, b, means, "")


def _dev_scores(a: RunReport, b: RunReport) -> ScoreDiff | None:
    means = (a.final.dev_score if a.final else None, b.final.dev_score if b.final else None)
    if means == (None, None):
        return None
    note = "candidates are chosen on these examples"
    if "dev" in (a.examples_split, b.examples_split):
        return _paired("dev", a, b, means, note)
    return ScoreDiff(split="dev", a=means[0], b=means[1], note=note)


def _paired(
    split: Literal["test", "dev"], a: RunReport, b: RunReport, means: tuple[float | None, float | None], note: str
) -> ScoreDiff:
    problem = _why_unpaired(split, a, b)
    pairs = [] if problem else _pairs(a, b)
    if not pairs:
        words = [note, problem or "no example has a score in both runs"]
        return ScoreDiff(split=split, a=means[0], b=means[1], note="; ".join(filter(None, words)))
    interval = paired_bootstrap([one for _, one, _ in pairs], [two for _, _, two in pairs])
    return ScoreDiff(
        split=split,
        a=means[0],
        b=means[1],
        n=interval.n,
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        note=note,
    )


def _why_unpaired(split: str, a: RunReport, b: RunReport) -> str:
    """Return why the examples of two runs cannot be paired; empty where they can."""
    if a.examples_split != split or b.examples_split != split:
        return "only one of the runs holds these examples"
    left, right = _by_id(a), _by_id(b)
    if set(left) != set(right):
        return f"the runs tested different examples ({len(set(left) & set(right))} in common)"
    if any(left[name].input != right[name].input or left[name].expected != right[name].expected for name in left):
        return "examples with the same id differ in their input or answer"
    return "" if left else "the runs hold no examples"


def _by_id(report: RunReport) -> dict[str, ExampleRow]:
    return {row.id: row for row in report.examples}


def _pairs(a: RunReport, b: RunReport) -> list[tuple[str, float, float]]:
    """Return (id, score in a, score in b) of the examples that have a score in both."""
    other = _by_id(b)
    return [
        (row.id, row.after_score, match.after_score)
        for row in a.examples
        if (match := other.get(row.id)) is not None and row.after_score is not None and match.after_score is not None
    ]


def _examples(a: RunReport, b: RunReport) -> list[ExampleDiff]:
    if a.examples_split != b.examples_split or _why_unpaired(a.examples_split, a, b):
        return []
    rows = [ExampleDiff(id=name, a=one, b=two) for name, one, two in _pairs(a, b) if abs(one - two) > 1e-9]
    return sorted(rows, key=lambda row: (-abs(row.b - row.a), row.b > row.a))


# Cost -------------------------------------------------------------------------------------------------------------


def _cost(a: RunReport, b: RunReport) -> list[CostDiff]:
    roles = dict.fromkeys(row.role for row in (*a.usage, *b.usage))
    rows = [
        _cost_row(role, [row for row in a.usage if row.role == role], [row for row in b.usage if row.role == role])
        for role in roles
    ]
    return [*rows, _cost_row("total", a.usage, b.usage)] if rows else []


def _cost_row(role: str, a: list[UsageRow], b: list[UsageRow]) -> CostDiff:
    return CostDiff(
        role=role,
        calls=(sum(row.calls for row in a), sum(row.calls for row in b)),
        tokens=(_tokens(a), _tokens(b)),
        seconds=(sum(row.seconds for row in a), sum(row.seconds for row in b)),
        usd=(_price(a), _price(b)),
    )


def _tokens(rows: list[UsageRow]) -> int:
    return sum(row.prompt_tokens + row.completion_tokens for row in rows)


def _price(rows: list[UsageRow]) -> float | None:
    return known_sum(row.usd for row in rows) if rows else 0.0

"""Intervals: checked against numpy's own resampling, and against what must hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optograph.errors import UserError
from optograph.evals import bootstrap_mean, paired_bootstrap


def test_it_agrees_with_an_outside_bootstrap() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0.3, 1.0, 120)
    means = rng.choice(values, size=(20_000, 120)).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    interval = bootstrap_mean([float(value) for value in values])
    assert interval.mean == pytest.approx(float(values.mean()))
    assert interval.low == pytest.approx(low, abs=0.02)
    assert interval.high == pytest.approx(high, abs=0.02)


def test_coverage_is_about_what_it_says() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for seed in range(100):
        scores = [float(one) for one in rng.binomial(1, 0.6, 80)]
        interval = bootstrap_mean(scores, seed=seed)
        inside += interval.low <= 0.6 <= interval.high
    assert 86 <= inside <= 100


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_the_mean_lies_in_the_interval(values: list[float]) -> None:
    interval = bootstrap_mean(values)
    assert interval.low - 1e-9 <= interval.mean <= interval.high + 1e-9
    assert interval == bootstrap_mean(values)


def test_pairs_with_a_missing_score_are_left_out() -> None:
    interval = paired_bootstrap([0.0, None, 1.0, 0.0], [1.0, 1.0, 1.0, None])
    assert (interval.mean, interval.n) == (0.5, 2)


def test_equal_scores_favour_nobody() -> None:
    interval = paired_bootstrap([1.0, 0.0], [1.0, 0.0])
    assert (interval.mean, interval.low, interval.high, interval.positive) == (0.0, 0.0, 0.0, 0.5)


@pytest.mark.parametrize(("before", "after"), [([1.0], []), ([None], [1.0]), ([], [])])
def test_what_cannot_be_compared_is_refused(before: list[float | None], after: list[float | None]) -> None:
    with pytest.raises(UserError):
        paired_bootstrap(before, after)

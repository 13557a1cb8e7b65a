"""Intervals for scores: percentile bootstrap of a mean and of a paired difference."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from optograph.errors import UserError

RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        mean: The estimate.
        low: Lower end.
        high: Upper end.
        n: Number of examples behind it.
        positive: Share of resamples with a mean above 0, in [0, 1]; ties at 0 count half.
    """

    mean: float
    low: float
    high: float
    n: int
    positive: float


def bootstrap_mean(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean of ``values`` with its percentile bootstrap interval (Efron 1979).

    Args:
        values: At least one finite number.
        level: Coverage, in (0, 1).
        seed: Seed of the resampling; equal input gives an equal interval.

    Raises:
        UserError: There are no values, or the level is out of range.
    """
    if not values or not 0 < level < 1:
        raise UserError(f"a bootstrap needs values and a level between 0 and 1, not {len(values)} values, {level!r}")
    size = len(values)
    rng = random.Random(seed)  # noqa: S311 - statistics, not secrets
    means = sorted(sum(rng.choices(values, k=size)) / size for _ in range(RESAMPLES))
    tail = (1 - level) / 2
    low = means[int(tail * (RESAMPLES - 1))]
    high = means[round((1 - tail) * (RESAMPLES - 1))]
    positive = sum(1.0 if mean > 0 else 0.5 if mean == 0 else 0.0 for mean in means) / RESAMPLES
    return Interval(sum(values) / size, low, high, size, positive)


def paired_bootstrap(
    before: Sequence[float | None], after: Sequence[float | None], *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return the mean of ``after - before`` over examples that both have, with its interval.

    Args:
        before: Scores in example order; None where missing.
        after: Scores of the same examples in the same order.
        level: Coverage, in (0, 1).
        seed: Seed of the resampling.

    Raises:
        UserError: The lengths differ or no example has both scores.
    """
    if len(before) != len(after):
        raise UserError(f"paired scores must have equal lengths, not {len(before)} and {len(after)}")
    pairs = zip(before, after, strict=True)
    return bootstrap_mean([b - a for a, b in pairs if a is not None and b is not None], level=level, seed=seed)

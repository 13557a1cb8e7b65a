"""A sum with an unknown part is unknown."""

from __future__ import annotations

import pytest

from optograph.report.sums import known_sum


@pytest.mark.parametrize(
    ("values", "expected"), [([0.5, 0.25], 0.75), ([0.0], 0.0), ([0.5, None], None), ([None], None), ([], None)]
)
def test_a_sum_is_known_where_all_of_it_is(values: list[float | None], expected: float | None) -> None:
    assert known_sum(iter(values)) == expected

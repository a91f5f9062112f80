"""Percentiles of durations."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks.durations import POINTS, spread


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_a_spread_is_ordered_and_ends_at_the_maximum(seconds: list[float]) -> None:
    found = spread(seconds)
    assert min(seconds) <= found.p50 <= found.p95 <= found.p99 <= found.max == max(seconds)
    np.testing.assert_allclose(found, np.percentile(seconds, (50, 95, 99, 100)), atol=1e-12)


def test_a_spread_is_told_in_milliseconds() -> None:
    told = spread(np.linspace(0, 0.1, 101)).milliseconds()
    assert told == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0} and tuple(told) == POINTS

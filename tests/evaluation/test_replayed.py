"""Sent and arrived, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perception.evaluation.replayed import Passage, growth, highest_rate, ratios

MS = 1_000_000


def events(*pairs: tuple[int, float]) -> np.ndarray:
    """(stamp, milliseconds)."""
    return np.array([(stamp, round(time * MS)) for stamp, time in pairs], np.int64).reshape(-1, 2)


def test_a_drop_shifts_no_pair() -> None:
    passage = Passage(events((1, 0), (2, 10), (3, 20), (4, 30)), events((1, 5), (3, 32), (4, 37)))
    np.testing.assert_allclose(passage.latencies, [0.005, np.nan, 0.012, 0.007])
    assert (passage.lost, passage.loss, passage.unknown) == (1, 0.25, 0)
    summary = passage.summary()
    assert summary["sent"] == 4 and summary["arrived"] == 3
    assert summary["input_hz"] == 100.0 and summary["output_hz"] == 62.5
    assert summary["latency_ms"]["p50"] == 7.0 and summary["latency_ms"]["max"] == 12.0
    assert summary["jitter_ms"] == 11.0  # gaps of 27 and 5 ms


def test_a_result_that_comes_twice_counts_once_and_a_strange_one_is_told() -> None:
    passage = Passage(events((1, 0), (2, 10)), events((1, 4), (1, 9), (7, 11)))
    assert passage.latencies[0] == 0.004 and passage.lost == 1 and passage.unknown == 1


def test_nothing_came() -> None:
    summary = Passage(events((1, 0), (2, 10)), events()).summary()
    assert summary["loss"] == 1.0 and summary["latency_ms"] is None and summary["output_hz"] == 0.0


def test_growth_looks_at_the_second_half_and_past_peaks() -> None:
    seconds = np.arange(101.0)
    values = np.where(seconds < 50, 7 * seconds, 400 + 0.1 * seconds)
    values[80] = 900
    assert growth(seconds, values) == pytest.approx(5.0)
    assert growth(seconds[:2], values[:2]) == 0.0 and growth(seconds[:0], values[:0]) == 0.0


def test_series_begin_with_the_first_image() -> None:
    passage = Passage(events((1, 5000), (2, 5010)), events((1, 5004)))
    series = passage.series({"node": np.array([[4.5, 0.1, 200.0], [5.5, 0.2, 201.0]])})
    np.testing.assert_allclose(series["sent_s"], [0, 0.01])
    np.testing.assert_allclose(series["latency_s"], [0.004, np.nan])
    np.testing.assert_allclose(series["memory_mib/node"], [[-0.5, 200], [0.5, 201]])


def run(asked: str, latency: float | None, cores: float) -> dict[str, Any]:
    latencies = None if latency is None else {"p50": latency, "p99": 2 * latency}
    processes = {name: {"cores": cores / 2, "memory_mib": 50.0} for name in "ab"}
    return {"asked": asked, "latency_ms": latencies, "output_hz": 0.0, "jitter_ms": None, "processes": processes}


def test_ratios_are_of_medians_at_the_same_pace() -> None:
    first = {"runs": [run("15 Hz", 4, 1), run("30 Hz", 9, 1), run("15 Hz", 6, 3), run("15 Hz", 50, 2)]}
    second = {"runs": [run("15 Hz", 3, 1), run("30 Hz", None, 1), run("15 Hz", 3, 1), run("15 Hz", 3, 1)]}
    found = ratios([first, second])
    assert found["15 Hz: latency p50"] == found["15 Hz: latency p99"] == found["15 Hz: cores"] == 0.5
    assert found["15 Hz: memory"] == 1.0
    assert found["30 Hz: latency p50"] is None, "not known"
    assert found["15 Hz: output Hz"] is None and found["15 Hz: jitter"] is None, "0, and not known"


@pytest.mark.parametrize("capacity", [7.0, 30.0, 41.5, 99.0])
def test_the_highest_rate_is_found_from_below_and_above(capacity: float) -> None:
    tried: list[float] = []

    def loss(rate: float) -> float:
        tried.append(rate)
        return max(0.0, 1 - capacity / rate)

    found = highest_rate(loss, 40.0, 0.0)
    assert found is not None and 0.986 * capacity <= found <= capacity
    some = highest_rate(loss, 40.0, 0.1)
    assert some is not None and 0.98 * capacity / 0.9 <= some <= capacity / 0.9
    assert len(tried) < 30


def test_no_rate_is_good_enough() -> None:
    assert highest_rate(lambda rate: 0.5, 40.0, 0.01) is None

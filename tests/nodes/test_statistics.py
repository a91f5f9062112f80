"""Counts and durations."""

from __future__ import annotations

import threading
import time

import numpy as np

from perception.nodes.statistics import WINDOW, Statistics
from perception.tasks.durations import Spread


def test_counts_and_the_last_error() -> None:
    statistics = Statistics()
    for event in ("received", "received", "published"):
        statistics.count(event)
    statistics.fail("failed", "no such encoding")
    assert statistics.counts == {"received": 2, "published": 1, "failed": 1}
    assert statistics.counts["dropped"] == 0 and statistics.last_error == "no such encoding"
    statistics.counts["received"] = 99
    assert statistics.counts["received"] == 2, "a copy is handed out"


def test_reset_forgets_everything() -> None:
    statistics = Statistics()
    statistics.count("published")
    statistics.fail("failed", "why")
    statistics.time({"infer": 1.0})
    statistics.reset()
    assert not statistics.counts and not statistics.last_error and not statistics.spreads()


def test_stages_keep_the_newest_window() -> None:
    statistics = Statistics()
    for index in range(WINDOW + 100):
        statistics.time({"infer": float(index), "publish": 1.0})
    spreads = statistics.spreads()
    kept = np.arange(100, WINDOW + 100)
    assert spreads["infer"] == Spread(*np.percentile(kept, (50, 95, 99, 100)))
    assert spreads["publish"] == Spread(1.0, 1.0, 1.0, 1.0)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    statistics = Statistics()
    assert statistics.rate() == 0.0
    begin = time.monotonic()
    for _ in range(21):
        statistics.count("published")
        statistics.count("received")
        time.sleep(0.005)
    took = time.monotonic() - begin
    assert 20 / took <= statistics.rate() <= 20 / 0.1
    time.sleep(0.05)
    assert statistics.rate(seconds=0.04) == 0.0


def test_nothing_is_lost_between_threads() -> None:
    statistics = Statistics()

    def work() -> None:
        for _ in range(2000):
            statistics.count("received")
            statistics.time({"infer": 1.0})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        statistics.spreads()
    assert statistics.counts["received"] == 8000


def test_a_frame_that_an_input_could_not_use_was_received() -> None:
    """Else the counts would not add up; a calibration is no frame."""
    statistics = Statistics()
    statistics.refuse("failed", "cut short")
    statistics.refuse("bad_calibration", "no focal length")
    assert dict(statistics.counts) == {"received": 1, "failed": 1, "bad_calibration": 1}
    assert statistics.take_failures() == 2 and statistics.last_error == "no focal length"

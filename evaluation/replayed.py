"""What a replay through a pipeline shows: what was sent and what arrived, by stamp, and what follows from that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from perception.tasks.durations import spread

SLOPES = 300
"""Values between which slopes are taken, at most: there are half as many pairs as that squared."""


@dataclass(frozen=True)
class Passage:
    """Images that were sent and results that came, matched by the header's stamp: a drop never shifts a pair.

    Args:
        sent, arrived: int64 (n, 2), stamp and time of one steady clock, nanoseconds; in order of time.
    """

    sent: np.ndarray
    arrived: np.ndarray

    @cached_property
    def latencies(self) -> np.ndarray:
        """Seconds from the sending of an image to the arrival of its result, for those that came, in order of sending;
        and NaN for those that did not."""
        first: dict[int, int] = {}
        for stamp, time in self.arrived.tolist():
            first.setdefault(stamp, time)
        return np.array(
            [(first[stamp] - time) / 1e9 if stamp in first else np.nan for stamp, time in self.sent.tolist()]
        )

    @property
    def lost(self) -> int:
        """Images whose result did not come."""
        return int(np.isnan(self.latencies).sum())

    @property
    def loss(self) -> float:
        """The share of those."""
        return self.lost / max(len(self.sent), 1)

    @property
    def unknown(self) -> int:
        """Results with a stamp that no image had: a pipeline that stamps results itself."""
        return len(set(self.arrived[:, 0].tolist()) - set(self.sent[:, 0].tolist()))

    def summary(self) -> dict[str, Any]:
        """Counts, rates in Hz, and in milliseconds the percentiles of the latency and the jitter of results: the
        standard deviation of the time between two."""
        latencies = self.latencies[np.isfinite(self.latencies)]
        gaps = np.diff(self.arrived[:, 1]) / 1e9
        return {
            "sent": len(self.sent),
            "arrived": len(self.sent) - self.lost,
            "lost": self.lost,
            "loss": round(self.loss, 5),
            "unknown_stamps": self.unknown,
            "input_hz": _rate(self.sent),
            "output_hz": _rate(self.arrived),
            "jitter_ms": round(float(1e3 * gaps.std()), 3) if len(gaps) else None,
            "latency_ms": spread(latencies).milliseconds() if len(latencies) else None,
        }

    def series(self, processes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is plotted over the seconds since the first image was sent.

        Args:
            processes: by name, as `perception.nodes.sampler.Sampler.stop` gives them, on the clock of `sent`.

        Returns:
            "sent_s" and "latency_s", float64 (n,), NaN where no result came; for each process "memory_mib/NAME",
            float64 (m, 2), seconds and MiB.
        """
        start = self.sent[0, 1] if len(self.sent) else 0
        series = {"sent_s": (self.sent[:, 1] - start) / 1e9, "latency_s": self.latencies}
        for name, rows in processes.items():
            series[f"memory_mib/{name}"] = np.stack([rows[:, 0] - start / 1e9, rows[:, 2]], 1)
        return series


def _rate(events: np.ndarray) -> float:
    """Events a second between the first and the last."""
    span = (events[-1, 1] - events[0, 1]) / 1e9 if len(events) > 1 else 0.0
    return round(float((len(events) - 1) / span), 2) if span > 0 else 0.0


def growth(seconds: np.ndarray, values: np.ndarray) -> float:
    """Change of a value over the second half of a run, in its unit; 0 where there are too few values.

    By the line whose slope is the median of all slopes (Theil and Sen), which single peaks do not turn.
    """
    half = seconds >= (seconds[0] + seconds[-1]) / 2 if len(seconds) else np.zeros(0, bool)
    t, v = seconds[half], values[half]
    every = -(-len(t) // SLOPES)
    t, v = t[::every] if every else t, v[::every] if every else v
    if len(t) < 3:
        return 0.0
    i, j = np.triu_indices(len(t), 1)
    return float(np.median((v[j] - v[i]) / (t[j] - t[i])) * (t[-1] - t[0]))


def highest_rate(loss: Callable[[float], float], begin: float, allowed: float, steps: int = 4) -> float | None:
    """The highest input rate that was tried and lost no more than `allowed`; None if none down to an eighth of `begin`,
    and at most 64 times that.

    From `begin` on it goes up, or down, by a quarter until the answer changes, and halves the interval (as a ratio)
    `steps` times: to 1.4 % of the rate with 4.

    Args:
        loss: tries a rate; the share of images whose result did not come.
    """
    fine = loss(begin) <= allowed
    factor = 1.25 if fine else 0.8
    last, rate = begin, begin * factor
    while (loss(rate) <= allowed) == fine:
        if not begin / 8 < rate < 64 * begin:
            return rate if fine else None
        last, rate = rate, rate * factor
    good, bad = (last, rate) if fine else (rate, last)
    for _ in range(steps):
        rate = math.sqrt(good * bad)
        good, bad = (rate, bad) if loss(rate) <= allowed else (good, rate)
    return good


def ratios(subjects: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The second subject over the first, for each way in which images came: of medians over the rounds.

    Args:
        subjects: two, as in the report. What is 0 or not known has the ratio None.
    """
    figures: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
        "latency p50": lambda run: (run["latency_ms"] or {}).get("p50"),
        "latency p99": lambda run: (run["latency_ms"] or {}).get("p99"),
        "output Hz": lambda run: run["output_hz"],
        "jitter": lambda run: run["jitter_ms"],
        "cores": lambda run: total(run, "cores"),
        "memory": lambda run: total(run, "memory_mib"),
    }
    found: dict[str, float | None] = {}
    for asked in dict.fromkeys(run["asked"] for run in subjects[0]["runs"]):
        for name, read in figures.items():
            rows = [[read(run) for run in entry["runs"] if run["asked"] == asked] for entry in subjects]
            first, second = (float(np.median(np.array(row, np.float64))) for row in rows)  # None becomes NaN
            found[f"{asked}: {name}"] = round(second / first, 3) if first > 0 and math.isfinite(second) else None
    return found


def total(run: Mapping[str, Any], figure: str) -> float:
    """Sum of a figure over a run's processes."""
    return float(sum(process[figure] for process in run["processes"].values()))

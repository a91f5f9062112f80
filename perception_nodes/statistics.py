"""What a node counts and times about its frames."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping

import numpy as np

from perception.tasks.durations import Spread, spread

WINDOW = 2000
"""Durations kept of each stage."""


class Window:
    """The last WINDOW durations of a stage. In an array, because every second the node's own thread sorts them."""

    def __init__(self) -> None:
        self._seconds = np.zeros(WINDOW)
        self._count = 0

    def append(self, seconds: float) -> None:
        self._seconds[self._count % WINDOW] = seconds
        self._count += 1

    def values(self) -> np.ndarray:
        """A copy, in no order."""
        return self._seconds[: self._count].copy()


class Statistics:
    """Counts since the node was activated, and its last durations; methods may be called from any thread.

    Every frame is counted once as `received` and once as `published`, `dropped` (a newer frame came), `failed` (it
    could not be used) or `skipped` (nobody listens): received is their sum once all are done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._counts: Counter[str] = Counter()
            self._stages: dict[str, Window] = {}
            self._published: deque[float] = deque(maxlen=WINDOW)
            self._last_error = ""
            self._new_failures = 0

    def count(self, event: str) -> None:
        """One more of `event`."""
        with self._lock:
            self._counts[event] += 1
            if event == "published":
                self._published.append(time.monotonic())

    def fail(self, event: str, reason: str) -> None:
        """One more of `event`, which is "failed" for a frame, and why."""
        with self._lock:
            self._counts[event] += 1
            self._last_error = reason
            self._new_failures += 1

    def refuse(self, event: str, reason: str) -> None:
        """An input could not use what came: "failed" for a frame, which was received all the same, or another event."""
        if event == "failed":
            self.count("received")
        self.fail(event, reason)

    def time(self, stages: Mapping[str, float]) -> None:
        """Durations in seconds of one frame's stages."""
        with self._lock:
            for stage, seconds in stages.items():
                if stage not in self._stages:
                    self._stages[stage] = Window()
                self._stages[stage].append(seconds)

    @property
    def counts(self) -> Counter[str]:
        """A copy of the counts so far."""
        with self._lock:
            return self._counts.copy()

    def take_failures(self) -> int:
        """How often `fail` was called since this was asked last, or since `reset`."""
        with self._lock:
            failures, self._new_failures = self._new_failures, 0
        return failures

    @property
    def last_error(self) -> str:
        """Why the last frame or calibration was not usable; empty if all were."""
        return self._last_error

    def rate(self, seconds: float = 5.0) -> float:
        """Frames published per second over the last `seconds`."""
        with self._lock:
            recent = [stamp for stamp in self._published if stamp > time.monotonic() - seconds]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / (recent[-1] - recent[0])

    def spreads(self) -> dict[str, Spread]:
        """Percentiles of each stage over the last frames."""
        with self._lock:
            windows = {stage: window.values() for stage, window in self._stages.items()}
        return {stage: spread(window) for stage, window in windows.items()}

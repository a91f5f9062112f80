"""Fair timing of several engines on a machine that does other things too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from perception.engines.runtimes import Frame, Session

ROUNDS = 40
RUNS = 3
"""Timed runs of one session in a round, after one that warms its caches and lets the threads of the others rest."""


class Times(NamedTuple):
    """Milliseconds of one run."""

    p50: float
    p95: float


def time_sessions(
    sessions: Mapping[str, Session],
    frames: Sequence[Frame],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Times]:
    """Time the sessions in turn, round by round, so that a busy second slows all of them and favours none."""
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(rounds):
        frame = frames[turn % len(frames)]
        for name, session in sessions.items():
            session.run(frame)
            for _ in range(RUNS):
                start = clock()
                session.run(frame)
                seconds[name].append(clock() - start)
    return {name: Times(*(1e3 * np.percentile(values, (50, 95)))) for name, values in seconds.items()}

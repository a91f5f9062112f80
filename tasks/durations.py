"""How durations are told wherever they are measured: as percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """Percentiles of a duration in seconds."""

    p50: float
    p95: float
    p99: float
    max: float

    def milliseconds(self) -> dict[str, float]:
        """By name, in milliseconds, to a microsecond."""
        return {name: round(1e3 * seconds, 3) for name, seconds in self._asdict().items()}


POINTS = Spread._fields
"""What is said of a duration."""
PERCENTILES = (50, 95, 99, 100)


def spread(seconds: Sequence[float] | np.ndarray) -> Spread:
    """Percentiles of durations, interpolated as NumPy does it, in a quarter of its time; there must be one at least."""
    ordered = np.sort(np.asarray(seconds, np.float64))
    places = (len(ordered) - 1) * np.array(PERCENTILES) / 100
    below = places.astype(int)
    above = np.minimum(below + 1, len(ordered) - 1)
    return Spread(*(ordered[below] + (places - below) * (ordered[above] - ordered[below])).tolist())

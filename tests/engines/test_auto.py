"""The choice between candidates that are slow, wrong, broken or good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from tiny import CONFIG, FakeSession, random_frames

from perception.engines import auto
from perception.engines.acceptance import Acceptance
from perception.engines.errors import EngineError

FRAMES = random_frames(16)
REFERENCE = [{"depth": np.full((1, 1, 32, 32), 2.0, np.float32)}] * 16
STANDARD = Acceptance(CONFIG, FRAMES, REFERENCE)


class Clock:
    """Stands still until a session runs."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Injected:
    """A candidate that takes `seconds` and answers `depth`, or raises."""

    clock: Clock
    target: str
    seconds: float
    depth: float = 2.0
    precision: str = "fp32"
    note: str = ""
    broken: bool = False

    def start(self) -> FakeSession:
        if self.broken:
            raise EngineError("operator Foo is not supported")
        self.session = FakeSession(self.depth, CONFIG, self._tick)
        return self.session

    def _tick(self) -> None:
        self.clock.now += self.seconds


def _measure(*candidates: Injected) -> list[auto.Row]:
    clock = candidates[0].clock
    return auto.measure(candidates, STANDARD, lambda line: None, rounds=3, clock=clock)


def test_the_fastest_right_one_is_chosen() -> None:
    clock = Clock()
    slow, fast, wrong = (
        Injected(clock, "slow", 0.03),
        Injected(clock, "fast", 0.02),
        Injected(clock, "wrong", 0.001, 2.2),
    )
    rows = _measure(slow, fast, wrong, Injected(clock, "broken", 0.0, broken=True))
    assert auto.fastest(rows).candidate is fast
    assert [row.times.p50 if row.times else None for row in rows] == [pytest.approx(30), pytest.approx(20), None, None]
    assert "disagrees with the float32 definition by 0.1000, accepted is 0.002" in rows[2].problem
    assert rows[3].problem == "operator Foo is not supported"
    assert all(candidate.session.closed for candidate in (slow, fast, wrong))


def test_bounds_follow_the_precision() -> None:
    clock = Clock()
    rows = _measure(Injected(clock, "a", 0.01, 2.06), Injected(clock, "b", 0.02, 2.06, precision="int8"))
    assert auto.fastest(rows).name == "b int8"


def test_nothing_is_chosen_where_nothing_is_right() -> None:
    rows = _measure(Injected(Clock(), "wrong", 0.001, 3.0), Injected(Clock(), "nan", 0.001, float("nan")))
    with pytest.raises(EngineError, match=r"wrong fp32 misses parity.*nan fp32 misses parity"):
        auto.fastest(rows)


def test_the_table_shows_every_candidate_and_the_ratio() -> None:
    clock = Clock()
    rows = _measure(
        Injected(clock, "plain", 0.04), Injected(clock, "fast", 0.02, note="a note"), Injected(clock, "bad", 1, 9.0)
    )
    head, plain, fast, bad = auto.table(rows, rows[0].times).splitlines()
    assert plain.split()[:5] == ["plain", "fp32", "40.00", "40.00", "1.00"]
    assert fast.split()[:5] == ["fast", "fp32", "20.00", "20.00", "2.00"]
    assert fast.endswith("a note")
    assert "misses parity" in bad


def test_a_verdict_needs_enough_frames() -> None:
    standard = Acceptance(CONFIG, FRAMES[:3], REFERENCE[:3])
    with pytest.raises(EngineError, match="on 3 frames; at least 16"):
        auto.measure([Injected(Clock(), "a", 1)], standard, lambda line: None)

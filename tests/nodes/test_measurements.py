"""What the scenarios of `perception measure` make of what they see; the runs themselves are for people."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import FakeEngine

from perception.cli.measure import SCENARIOS
from perception.evaluation.bags import Bag
from perception.evaluation.replayed import Passage
from perception.nodes import benchmark, habits, rig
from perception.nodes.bag_bench import Trial
from perception.nodes.overload import Overload
from perception.tasks import enhancement
from perception.tasks.config import ModelConfig, Output
from perception.tasks.resources import share


def values(**counts: int) -> dict[str, str]:
    events = dict.fromkeys(("received", "published", "dropped", "failed", "skipped", "bad_calibration"), 0) | counts
    stages = {"infer": 8.0, "age": 20.0}
    points = {f"{stage}_{point}_ms": str(value) for stage, value in stages.items() for point in ("p50", "p95", "p99")}
    return {key: str(count) for key, count in events.items()} | points | {f"{stage}_max_ms": "9" for stage in stages}


def test_the_bound_of_the_age_and_frames_without_an_end() -> None:
    overload = Overload(str(share("clip")), Path())
    found = overload._figures(100.0, values(received=100, published=60, dropped=39))
    assert found["bound_p99_ms"] == 1.25 * 8 + 10 + 5
    assert found["unaccounted"] == 1
    assert overload._figures(1000.0, values())["bound_p99_ms"] == 16.0
    assert not overload._figures(1000.0, values())["within"]
    assert overload._figures(100.0, values())["within"]
    assert overload._figures(100.0, values(), bursts=True)["bound_p99_ms"] == 2 * 1.25 * 8 + 5, "the first goes before"


def test_habits_are_left_off_one_after_the_other(tmp_path: Path) -> None:
    found = habits.Habits(str(share("clip")), tmp_path, model="m")._subjects()
    off = [[word for word in subject.commands["node"] if word.endswith(":=false")] for subject in found]
    assert off[0] == [] and off[-1] == []
    assert off[1:-1] == [[f"{habit}:=false" for habit in habits.HABITS[:count]] for count in range(1, 5)]
    assert [subject.commands["node"][2] for subject in found][-1] == "perception.nodes.depth_node"


def test_habits_are_compared_on_the_sources_frames(tmp_path: Path) -> None:
    with Bag(habits.Habits(str(share("clip")), tmp_path)._bag()) as bag:
        assert bag.counts[habits.IMAGES] == bag.counts[habits.INFO] == 120
        assert bag.duration == pytest.approx(119 / 30 * 1e9, rel=1e-3)


def test_habits_are_compared_by_medians() -> None:
    nothing = Passage(np.zeros((0, 2), np.int64), np.zeros((0, 2), np.int64))

    def trial(p50: float, cores: float) -> Trial:
        figures = {"latency_ms": {"p50": p50, "p99": 2 * p50}, "output_hz": 20.0, "processes": {"a": {"cores": cores}}}
        return Trial(nothing, figures, {})

    found = habits._medians([trial(1, 0.2), trial(9, 0.6), trial(2, 0.4)])
    assert found == {"age_p50_ms": 2, "age_p99_ms": 4, "output_hz": 20, "cpu_ms_per_result": 20}


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_every_scenario_exists(scenario: str) -> None:
    module = __import__(f"perception.nodes.{SCENARIOS[scenario]}", fromlist=["x"])
    assert callable(getattr(getattr(module, SCENARIOS[scenario].title()), scenario))


def test_the_arithmetic_of_a_frame_is_timed_without_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark.engines, "load", lambda *_: contextlib.nullcontext(FakeEngine(np.sum)))
    found = benchmark.Benchmark(str(share("clip")), Path())._arithmetic(count=3)
    assert found.keys() == {"at_30_hz", "in_a_row"}
    assert all(0 < spread["p50"] <= spread["max"] < 1000 for spread in found.values())


def test_a_node_that_lets_bright_images_pass_is_measured_brightening(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the arithmetic beside it is that of images that are brightened, details and all."""
    size = (32, 64)
    config = ModelConfig("m", "enhancement", size, (Output("enhanced", (1, 3, *size), "intensity"),))
    engine = FakeEngine(np.sum)
    monkeypatch.setattr(engine, "config", config)
    monkeypatch.setattr(engine, "run", lambda _: {"enhanced": np.full((1, 3, *size), 0.5, np.float32)})
    monkeypatch.setattr(rig.engines, "load", lambda *_: contextlib.nullcontext(engine))
    seen: list[Any] = []
    parse = enhancement.parse

    def parsed(*given: Any, image: np.ndarray, tensor: np.ndarray) -> enhancement.Enhancement:
        assert tensor.shape == (1, *size, 3), "what the node hands on, too"
        seen.append(image)
        return parse(*given, image, tensor=tensor)

    monkeypatch.setattr(enhancement, "parse", parsed)
    bench = benchmark.Benchmark(str(share("clip")), Path())
    bench._arithmetic(count=2)
    assert [image.size for image in seen] == [(480, 640)] * 4
    session = mock.Mock()
    bench._start_node(session, 1)
    ((executable, parameters), _) = session.start.call_args
    assert executable == "enhancement_node" and parameters["dark_below"] == parameters["bright_above"] == 1.0


def test_a_machine_that_is_held_up_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third window a copy takes eight times as long. All times are sums of powers of two, and exact."""
    clock, window, step = [0.0], 1 / 16, 1 / 1024
    held_up = [True]

    def copy(*_: object) -> None:
        slow = held_up[0] and int(clock[0] / window) % 3 == 2
        clock[0] += 8 * step if slow else step

    monkeypatch.setattr(rig.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(rig.np, "copyto", copy)
    assert rig.slow_share(30 * window, window) == pytest.approx(1 / 3)
    held_up[0] = False
    assert rig.slow_share(30 * window, window) == 0

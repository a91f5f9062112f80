"""The baseline of comparisons: whatever its habits, its depth is that of our node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import FakeEngine, Graph, overrides
from robot import CAMERA, Robot, exchange, metres

from perception.nodes import usual_depth
from perception.nodes.depth_node import DepthNode

HABITS = ("queue", "copies", "in_callback", "bytes_data")


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    fake = FakeEngine(lambda image: image[..., 0] / 10 + image[..., 2] / 100)  # red and blue must not change places
    monkeypatch.setattr(usual_depth.engines, "load", lambda *_: fake)
    yield fake


def depth_of(graph: Graph, node: Any, pixels: np.ndarray) -> np.ndarray:
    robot = graph.add(Robot("depth", name=f"robot_of_{node.get_name()}"))
    return metres(exchange(graph, robot, pixels)["depth"]).copy()


@pytest.mark.parametrize("without", ["", *HABITS])
def test_depth_is_the_same_whatever_the_habits(usual: FakeEngine, without: str) -> None:
    pixels = np.random.default_rng(0).integers(20, 60, (CAMERA.height, CAMERA.width, 3), np.uint8)
    results = []
    for ours in (True, False):
        graph = Graph()
        try:
            if ours:
                node = graph.add(DepthNode(namespace="/robot"))
                assert node.autostart()
            else:
                given = overrides(**({without: False} if without else {}))
                node = graph.add(usual_depth.UsualDepthNode(namespace="/robot", parameter_overrides=given))
            results.append(depth_of(graph, node, pixels))
        finally:
            graph.close()
    np.testing.assert_array_equal(*results)
    assert results[0].std() > 0.1

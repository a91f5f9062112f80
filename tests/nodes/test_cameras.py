"""Several cameras in one node: topics, fairness, one engine, and what is said of each."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from conftest import FakeEngine, Graph, overrides, wait_until
from robot import SMALL, Robot, exchange, grey, metres

from perception.nodes import model_node
from perception.nodes.depth_node import DepthNode


def start(graph: Graph, cameras: str, **values: object) -> DepthNode:
    node = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(cameras=cameras, **values)))
    assert node.autostart()
    return node


def robot_of(graph: Graph, camera: str) -> Robot:
    return graph.add(Robot("depth", "depth/camera_info", namespace=f"/robot/{camera}", name=f"robot_{camera}"))


def test_each_camera_has_its_topics_and_its_lens(graph: Graph, engine: FakeEngine) -> None:
    node = start(graph, "front left")
    front, left = robot_of(graph, "front"), robot_of(graph, "left")
    wide = dataclasses.replace(SMALL, fx=SMALL.fx / 2, fy=SMALL.fy / 2)
    far = exchange(graph, front, grey(30), 1, camera=SMALL)
    near = exchange(graph, left, grey(50), 2, camera=wide)
    assert np.median(metres(far["depth"])) == pytest.approx(3.0)
    assert np.median(metres(near["depth"])) == pytest.approx(2.5), "half the focal length, half the metres"
    assert np.allclose(near["depth/camera_info"].k, wide.matrix.ravel())
    again = exchange(graph, front, grey(40), 3, camera=SMALL)
    assert np.median(metres(again["depth"])) == pytest.approx(4.0), "the other camera's lens does not stay"
    topics = {publisher.topic_name for publisher in node.publishers}
    assert {"/robot/front/depth", "/robot/left/depth"} <= topics and "/robot/depth" not in topics


def test_one_engine_serves_all(graph: Graph, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    monkeypatch.setattr(model_node.engines, "load", lambda *_: loaded.append(1) or engine)
    node = start(graph, "front left rear")
    assert loaded == [1]
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert engine.closed and not [publisher for publisher in node.publishers if "/depth" in publisher.topic_name]


def test_a_flood_from_one_camera_leaves_the_others_their_turn(graph: Graph, engine: FakeEngine) -> None:
    engine.seconds = 0.02
    node = start(graph, "front left")
    front, left = robot_of(graph, "front"), robot_of(graph, "left")
    wait_until(lambda: front.connected() and left.connected(), what="matching")
    numbers = iter(range(1, 100_000))
    front.create_timer(0.004, lambda: front.send(next(numbers), grey(30), SMALL))
    left.create_timer(0.05, lambda: left.send(next(numbers), grey(50), SMALL))
    wait_until(lambda: len(left.got["depth"]) >= 3, what="depth of the slow camera")
    left.got["depth"].clear()
    begin = time.monotonic()
    wait_until(lambda: len(left.got["depth"]) >= 30, 10, "30 maps of the slow camera")
    assert time.monotonic() - begin < 2.5, "20 a second come, while the other camera could take the engine all the time"
    values = node.describe()
    assert int(values["published_front"]) > 10 and int(values["published_left"]) >= 30
    node.trigger_deactivate()
    counts = node.statistics.counts
    assert counts["received"] == sum(counts[name] for name in ("published", "dropped", "failed", "skipped"))


def test_a_silent_camera_is_named(graph: Graph, engine: FakeEngine) -> None:
    node = start(graph, "front left", input_timeout=0.2)
    front = robot_of(graph, "front")
    wait_until(front.connected, what="matching")
    front.create_timer(0.03, lambda: front.send(1, grey(30), SMALL))
    wait_until(lambda: front.got["depth"], what="depth")
    (problem,) = wait_until(lambda: [text for text in node.watch() if "/robot/left/image" in text], what="a warning")
    assert "remap `left/image` to its topic" in problem and len(node.watch()) == 1


@pytest.mark.parametrize(
    ("cameras", "says"), [("front 2nd", "camera '2nd' is no ROS name"), ("a b a", "cameras 'a b a' names one twice")]
)
def test_names_that_cannot_be_are_refused(graph: Graph, engine: FakeEngine, cameras: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DepthNode(namespace="/robot", parameter_overrides=overrides(cameras=cameras))

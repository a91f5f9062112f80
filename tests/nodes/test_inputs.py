"""Inputs: why nothing comes, and what is known of a frame's way here."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import rclpy
from conftest import FakeEngine, Graph, overrides, wait_until
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from robot import SMALL, Robot, exchange, grey, metres
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage

from perception.nodes import inputs
from perception.nodes.depth_node import DepthNode

BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def start(graph: Graph, **values: Any) -> DepthNode:
    node = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(input_timeout=0.2, **values)))
    assert node.autostart()
    return node


def reason(robot: Robot, *words: str) -> str:
    """The diagnostics' warning, once it holds all the words; it must be in the log too."""

    def complete() -> bool:
        status = robot.statuses[-1] if robot.statuses else None
        return bool(status and status.level == DiagnosticStatus.WARN and all(word in status.message for word in words))

    wait_until(complete, what=f"a warning with {words}")
    return str(robot.statuses[-1].message)


def test_a_calibration_is_read_once_and_again_when_it_changes(
    graph: Graph, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes with every image; the stamp alone makes no new one, and another lens changes the metres."""
    read: list[Any] = []
    real = inputs.calibration_from_message
    monkeypatch.setattr(inputs, "calibration_from_message", lambda message: read.append(message) or real(message))
    start(graph)
    robot = graph.add(Robot("depth"))
    first = exchange(graph, robot, grey(30), 1, camera=SMALL)["depth"]
    for number in range(2, 6):
        exchange(graph, robot, grey(30), number, camera=SMALL)
    assert len(read) == 1
    wider = dataclasses.replace(SMALL, fx=SMALL.fx / 2, fy=SMALL.fy / 2)
    robot.calibrate(wider)
    wait_until(lambda: len(read) == 2, what="the other lens")
    second = exchange(graph, robot, grey(30), 6, camera=wider)["depth"]
    assert np.median(metres(second)) == pytest.approx(np.median(metres(first)) / 2, rel=1e-4)
    assert len(read) == 2


def test_silence_names_a_topic_that_nobody_publishes(graph: Graph, engine: FakeEngine) -> None:
    start(graph)
    robot = graph.add(Robot())
    robot.vanish()
    reason(robot, "no image on /robot/image", "nobody publishes it", "start the camera", "remap `image`")


def test_silence_names_a_publisher_that_matches(graph: Graph, engine: FakeEngine) -> None:
    start(graph)
    robot = graph.add(Robot())
    reason(robot, "/robot/robot publishes it with matching QoS but is silent")
    wait_until(lambda: any("matching QoS but is silent" in text for text in robot.warnings()), what="the log")


def test_silence_names_both_qualities_of_service(graph: Graph, engine: FakeEngine) -> None:
    start(graph, **{"qos_overrides./robot/image.subscription.reliability": "reliable"})
    robot = graph.add(Robot())
    robot.vanish()
    publisher = robot.create_publisher(ImageMessage, "image", BEST_EFFORT)
    text = reason(robot, "/robot/robot's QoS best_effort, volatile does not match reliable, volatile")
    assert "matching QoS" not in text and publisher.get_subscription_count() == 0
    wait_until(lambda: any("does not match reliable" in text for text in robot.warnings()), what="the log")


def test_silence_names_a_wrong_type(graph: Graph, engine: FakeEngine) -> None:
    start(graph)
    robot = graph.add(Robot())
    robot.vanish()
    # In the context of its own of another process; one context has one type for a topic.
    context = rclpy.Context()
    rclpy.init(context=context)
    camera = Node("camera", namespace="/front", context=context)
    camera.create_publisher(CompressedImage, "/robot/image", 1)
    words = ("/front/camera publishes sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image is expected")
    reason(robot, *words, "image_transport")
    camera.destroy_node()
    rclpy.shutdown(context=context)


def test_the_timeout_is_live_and_images_end_the_warning(graph: Graph, engine: FakeEngine) -> None:
    start(graph)
    robot = graph.add(Robot("depth"))
    reason(robot, "no image on /robot/image")
    assert robot.set("/robot/depth_node", input_timeout=60.0)[0].successful
    wait_until(lambda: robot.statuses[-1].level == DiagnosticStatus.OK, what="the all-clear")
    exchange(graph, robot, grey(30), camera=SMALL)


def test_compressed_images_come_from_their_own_topic(graph: Graph, engine: FakeEngine) -> None:
    node = start(graph, image_transport="compressed")
    assert {"/robot/image/compressed", "/robot/camera_info"} <= {entity.topic_name for entity in node.subscriptions}
    assert "/robot/image" not in {entity.topic_name for entity in node.subscriptions}


def test_remapping_reaches_the_input(graph: Graph, engine: FakeEngine) -> None:
    arguments = ["--ros-args", "-r", "image:=/front/rgb", "-r", "camera_info:=/front/info"]
    node = graph.add(DepthNode(namespace="/robot", cli_args=arguments))
    assert node.autostart()
    assert {"/front/rgb", "/front/info"} <= {entity.topic_name for entity in node.subscriptions}


def test_every_duration_on_the_way_is_told(graph: Graph, engine: FakeEngine) -> None:
    node = start(graph)
    robot = graph.add(Robot("depth"))
    assert (metres(exchange(graph, robot, grey(30), camera=SMALL)["depth"]) == 3.0).all()
    wait_until(lambda: "latency" in node.statistics.spreads(), what="the durations")
    stages = node.statistics.spreads()
    on_the_way = {"transport", "receive", "wait", "decode", "preprocess", "infer", "publish"}
    assert stages.keys() == on_the_way | {"latency", "overhead", "callback_overhead", "age"}
    assert all(0 <= spread.p50 < 10 for spread in stages.values())


@pytest.mark.parametrize("seconds", [-3600, 0])
def test_a_clock_that_is_set_back_tells_no_negative_duration(
    graph: Graph, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    real = inputs.time.time_ns
    monkeypatch.setattr(inputs.time, "time_ns", lambda: real() + seconds * 1_000_000_000)
    node = start(graph)
    robot = graph.add(Robot("depth"))
    assert (metres(exchange(graph, robot, grey(30), camera=SMALL)["depth"]) == 3.0).all()
    wait_until(lambda: "latency" in node.statistics.spreads(), what="the durations")
    stages = node.statistics.spreads()
    assert all((stage in stages) == (seconds == 0) for stage in ("transport", "receive", "age"))
    assert all(0 <= spread.p50 < 10 for spread in stages.values())


def test_names_are_remapped_once(graph: Graph, engine: FakeEngine) -> None:
    """A second node chained behind the first takes `depth` as its image, while its own `depth` is renamed."""
    node = graph.add(
        DepthNode(
            namespace="/robot",
            cli_args=["--ros-args", "-r", "image:=depth", "-r", "depth:=chained"],
            use_global_arguments=False,
        )
    )
    assert node.autostart()
    topics = {info.topic_name for info in node.subscriptions}
    assert "/robot/depth" in topics and "/robot/chained" not in topics

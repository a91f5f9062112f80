"""Frames between nodes of one process: no message, no copy, and the same results as over the middleware."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
from conftest import FakeEngine, Graph, overrides, wait_until
from rclpy.node import Node
from robot import CAMERA, SMALL, Robot, grey, metres
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from perception.evaluation.rgbd_folder import RGBDWriter
from perception.nodes.depth_node import DepthNode
from perception.nodes.exchange import Exchange, Inlet, exchange_of
from perception.nodes.image_source_node import ImageSourceNode
from perception.nodes.inputs import Frame, ImageInput
from perception.nodes.outputs import CalibrationOutput, ImageOutput
from perception.tasks.image import Image

IMAGE = "/robot/image"


def test_an_inlet_hears_of_publishers_and_gets_what_they_send() -> None:
    exchange, got, there = Exchange(), [], []
    inlet = Inlet("/a", lambda *result: got.append(result), there.append)
    exchange.join(inlet)
    exchange.offer("/a")
    exchange.offer("/a")  # a second one changes nothing
    exchange.offer("/b")
    exchange.send("/a", 1, 2)
    exchange.send("/b", 3)
    exchange.withdraw("/a")
    assert there == [False, True] and exchange.wanted("/a") and not exchange.wanted("/b")
    exchange.withdraw("/a")
    exchange.leave(inlet)
    exchange.send("/a", 4)
    assert got == [(1, 2)] and there == [False, True, False] and not exchange.wanted("/a")
    exchange.offer("/a")
    exchange.join(inlet)
    assert there == [False, True, False, True]


class Pair:
    """A node with outputs and one with an input, in this process."""

    def __init__(self, graph: Graph) -> None:
        self.writer = graph.add(rclpy.create_node("writer", namespace="/robot"))
        self.reader = graph.add(rclpy.create_node("reader", namespace="/robot"))
        self.frames: list[Frame] = []
        self.inputs: list[ImageInput] = []
        self.made: list[Any] = []

    def listen(self) -> ImageInput:
        self.inputs.append(ImageInput(self.reader, "raw", self.frames.append, pytest.fail))
        return self.inputs[-1]

    def outputs(self) -> tuple[ImageOutput, CalibrationOutput]:
        pair = ImageOutput(self.writer, "image"), CalibrationOutput(self.writer, "camera_info")
        self.made += pair
        return pair

    def withdraw(self) -> None:
        while self.made:
            self.made.pop().close()

    def subscribed(self) -> set[str]:
        return {entity.topic_name for entity in self.reader.subscriptions} & {IMAGE, "/robot/camera_info"}


@pytest.fixture
def pair(graph: Graph) -> Iterator[Pair]:
    pair = Pair(graph)
    yield pair
    pair.withdraw()
    for entrance in pair.inputs:
        entrance.close()


def test_what_arrives_is_what_was_published(pair: Pair) -> None:
    pair.listen()
    assert pair.subscribed() == {IMAGE, "/robot/camera_info"}
    image, info = pair.outputs()
    assert pair.subscribed() == set() and image.wanted and info.wanted
    header = Header(frame_id="eye")
    info.publish(CAMERA, header)
    pixels = image.pixels((32, 64), "rgb8")
    pixels[:] = 7
    image.publish(Image(pixels, "rgb8"), header)
    (frame,) = pair.frames
    assert frame.header is header and frame.calibration and frame.calibration.camera == CAMERA
    assert not frame.calibration_due and frame.stages["transport"] == 0
    assert np.shares_memory(frame.image.data, pixels) and frame.image.encoding == "rgb8"
    with pytest.raises(ValueError, match="read-only"):
        frame.image.data[0] = 0


def test_a_frame_that_is_kept_does_not_change(pair: Pair) -> None:
    pair.listen()
    image, _ = pair.outputs()
    for level in range(5):
        pixels = image.pixels((32, 64), "mono8")
        pixels[:] = level
        image.publish(Image(pixels, "mono8"), Header())
    assert [int(frame.image.data.max()) for frame in pair.frames] == [0, 1, 2, 3, 4]
    assert [int(frame.image.data.min()) for frame in pair.frames] == [0, 1, 2, 3, 4]


def test_a_frame_whose_memory_is_a_message_is_not_handed_on(pair: Pair) -> None:
    """A node that joins between `pixels` and `publish` would see the next frame in this one's memory."""
    output, _ = pair.outputs()
    pixels = output.pixels((32, 64), "mono8")
    pair.listen()
    output.publish(Image(pixels, "mono8"), Header())
    assert pair.frames == []
    output.publish(Image(output.pixels((32, 64), "mono8"), "mono8"), Header())
    assert len(pair.frames) == 1


def test_others_get_messages_while_someone_outside_listens(graph: Graph, pair: Pair) -> None:
    pair.listen()
    image, _ = pair.outputs()
    robot = graph.add(Robot())
    got: list[ImageMessage] = []
    subscription = robot.create_subscription(ImageMessage, "image", got.append, 10)
    wait_until(lambda: image._wanted_outside, what="the robot")
    for level in (3, 5):
        pixels = image.pixels((32, 64), "mono8")
        pixels[:] = level
        image.publish(Image(pixels, "mono8"), Header(frame_id=str(level)))
    wait_until(lambda: len(got) == 2, what="messages")
    assert [(m.header.frame_id, set(m.data)) for m in got] == [("3", {3}), ("5", {5})]
    assert [int(frame.image.data.max()) for frame in pair.frames] == [3, 5]
    robot.destroy_subscription(subscription)
    wait_until(lambda: not image._wanted_outside, what="the robot to leave")
    assert image.wanted


def test_inputs_change_over_when_publishers_come_and_go(graph: Graph, pair: Pair) -> None:
    entrance = pair.listen()
    robot = graph.add(Robot())
    for _ in range(2):
        wait_until(robot.connected, what="the subscriptions")
        pair.frames.clear()
        robot.send(1, grey(30))
        wait_until(lambda: pair.frames, what="a frame over the middleware")
        outputs = pair.outputs()
        assert pair.subscribed() == set()
        pair.frames.clear()
        outputs[0].publish(Image(grey(9), "rgb8"), Header())
        assert [int(frame.image.data.max()) for frame in pair.frames] == [9]
        pair.withdraw()
        assert pair.subscribed() == {IMAGE, "/robot/camera_info"}
    entrance.close()
    assert pair.subscribed() == set() and not exchange_of(pair.reader).wanted(IMAGE)


def test_silence_of_a_node_of_this_process_is_named(pair: Pair) -> None:
    entrance = pair.listen()
    pair.outputs()
    assert "a node of this process publishes it but is silent" in entrance.silence(-1)


@pytest.fixture
def elsewhere() -> Iterator[Any]:
    """Another context, which is to this one what another process is."""
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


def test_contexts_do_not_hear_each_other(pair: Pair, elsewhere: Any) -> None:
    stranger = Node("stranger", namespace="/robot", context=elsewhere)
    output = ImageOutput(stranger, "image")
    pair.listen()
    assert pair.subscribed() == {IMAGE, "/robot/camera_info"}
    output.close()
    stranger.destroy_node()


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """Ten frames of noise."""
    writer = RGBDWriter(tmp_path / "clip", SMALL, 20.0, "none", "test")
    noise = np.random.default_rng(0)
    for _ in range(10):
        writer.write_frame(noise.integers(30, 70, (SMALL.height, SMALL.width, 3), np.uint8), None)
    return str(tmp_path / "clip")


def test_images_without_a_calibration_are_served(graph: Graph, engine: FakeEngine, tmp_path: Path) -> None:
    """Nobody waits for the calibration of a source that has none."""
    cv2.imwrite(str(tmp_path / "0.png"), grey(40))
    got: list[ImageMessage] = []
    listener = graph.add(rclpy.create_node("listener", namespace="/robot"))
    listener.create_subscription(ImageMessage, "depth", got.append, 10)
    source, depth = graph.add(make_source(str(tmp_path))), graph.add(DepthNode(namespace="/robot"))
    assert source.autostart() and depth.autostart()
    wait_until(lambda: got, what="depth")
    assert not source.count_publishers("/robot/camera_info")


def depths(graph: Graph, source: ImageSourceNode) -> dict[int, np.ndarray]:
    """Every depth map of the clip, by stamp, as somebody outside gets them."""
    robot = graph.add(Robot("depth", name="listener"))
    depth = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides()))
    assert depth.autostart()
    wait_until(lambda: depth.streams[0].results.depth.wanted, what="the listener")
    assert source.autostart()
    wait_until(lambda: len(robot.got["depth"]) == 10, 20, "ten depth maps")
    subscribed = {entity.topic_name for entity in depth.subscriptions}
    assert (IMAGE in subscribed) == (source.context is not depth.context), "messages only from another context"
    depth.trigger_deactivate()
    counts = depth.statistics.counts
    assert counts["received"] == counts["published"] + counts["dropped"] + counts["skipped"] + counts["failed"]
    return {stamp: metres(message).copy() for stamp, message in robot.got["depth"].items()}


def make_source(clip: str, **options: Any) -> ImageSourceNode:
    values = overrides(source=clip, stamps="source", loop=True, rate=20.0)
    return ImageSourceNode(namespace="/robot", parameter_overrides=values, **options)


def test_depth_is_the_same_to_the_bit_in_one_process(engine: FakeEngine, clip: str, elsewhere: Any) -> None:
    results = []
    for together in (True, False):
        graph = Graph()
        try:
            source = graph.add(make_source(clip)) if together else make_source(clip, context=elsewhere)
            results.append(depths(graph, source))
        finally:
            if not together:
                source.close()
                source.destroy_node()
            graph.close()
    assert results[0].keys() == results[1].keys()
    for stamp, map_ in results[0].items():
        np.testing.assert_array_equal(map_, results[1][stamp])
        assert map_.std() > 0

"""Bad input on real topics of a running node: said once, counted once, and the next good frame is served."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import FakeEngine, Graph, overrides, wait_until
from robot import SMALL, Robot, exchange, grey, metres
from sensor_msgs.msg import CameraInfo, CompressedImage
from sensor_msgs.msg import Image as ImageMessage

from perception.nodes.convert import calibration_to_message, image_to_compressed, image_to_message
from perception.nodes.depth_node import DepthNode
from perception.tasks.geometry import Camera
from perception.tasks.image import Image

SETTLE = 0.1
"""Seconds in which a frame that would come twice, or a second line in the log, would come."""


def raw(robot: Robot, **changes: Any) -> ImageMessage:
    message = image_to_message(Image(grey(30), "rgb8"), robot.header(99))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def truncated(robot: Robot) -> ImageMessage:
    message = raw(robot)
    message.data = message.data[:-1000]
    return message


def depth_image(robot: Robot) -> ImageMessage:
    return image_to_message(Image(np.full((32, 64), 1000, np.uint16), "16UC1"), robot.header(99))


def compressed(robot: Robot, change: Callable[[bytes], bytes], kind: str = "jpeg") -> CompressedImage:
    noise = np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8)
    message = image_to_compressed(Image(noise, "rgb8"), robot.header(99), kind)
    message.data = list(change(bytes(message.data)))
    return message


RAW = {
    "unknown encoding": (lambda robot: raw(robot, encoding="cmyk8"), ["'cmyk8'", "accepted: rgb8", "32FC1"]),
    "no encoding": (lambda robot: raw(robot, encoding=""), ["''", "accepted: rgb8"]),
    "truncated": (truncated, ["64x32", "truncated", f"{64 * 32 * 3 - 1000} bytes came", f"{64 * 32 * 3} are needed"]),
    "no data": (lambda robot: raw(robot, data=b""), ["truncated", "0 bytes came"]),
    "step too small": (lambda robot: raw(robot, step=100), ["step 100", "192 bytes"]),
    "step too large": (lambda robot: raw(robot, step=300), ["step 300", "truncated"]),
    "empty": (lambda robot: raw(robot, width=0, height=0, step=0, data=b""), ["0x0", "must be positive"]),
    "huge": (lambda robot: raw(robot, width=2**31, height=2**31), ["2147483648x2147483648", "larger than"]),
    "depth image": (depth_image, ["'16UC1'", "accepted: rgb8"]),
}
COMPRESSED = {
    "cut short": (lambda robot: compressed(robot, lambda data: data[: len(data) // 2]), ["jpeg", "truncated"]),
    "no picture": (lambda robot: compressed(robot, lambda data: b"hello"), ["68 65 6c 6c", "accepted: jpeg and png"]),
    "nothing": (lambda robot: compressed(robot, lambda data: b""), ["0 bytes", "nothing", "accepted: jpeg and png"]),
    "corrupt": (
        lambda robot: compressed(robot, lambda data: data[:4] + b"\xff\xda\xff\xd9"),
        ["jpeg", "decoded"],
    ),
    "corrupt png": (lambda robot: compressed(robot, lambda data: data[:30], "png"), ["png", "decoded"]),
}
CASES = [("raw", *case) for case in RAW.items()] + [("compressed", *case) for case in COMPRESSED.items()]


def good(robot: Robot, number: int, level: int, transport: str) -> None:
    image = Image(grey(level), "rgb8")
    if transport == "raw":
        robot.image.publish(image_to_message(image, robot.header(number)))
    else:
        robot.image.publish(image_to_compressed(image, robot.header(number), "png"))


@pytest.mark.parametrize(("transport", "name", "case"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_a_bad_frame_is_said_counted_and_survived(
    graph: Graph, engine: FakeEngine, transport: str, name: str, case: tuple[Callable[[Robot], Any], list[str]]
) -> None:
    make, words = case
    node = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(image_transport=transport)))
    assert node.autostart()
    robot = graph.add(Robot("depth", transport=transport))
    wait_until(robot.connected, what="matching")
    robot.calibrate(SMALL)

    def served(number: int, level: int) -> bool:
        good(robot, number, level, transport)
        return number in robot.got["depth"]

    wait_until(lambda: served(1, 20), what="the first depth")
    before = node.statistics.counts
    for count in (1, 2, 3):  # said once, counted each time
        robot.image.publish(make(robot))
        wait_until(lambda count=count: node.statistics.counts["failed"] == count, what="the count")
    wait_until(lambda: robot.errors(), what="the log")
    time.sleep(SETTLE)
    assert len(robot.errors()) == 1
    assert all(word in robot.errors()[0] for word in words), robot.errors()
    assert all(word in node.statistics.last_error for word in words)
    wait_until(lambda: served(2, 40), what="the next good frame")
    assert (metres(robot.got["depth"][2]) == 4.0).all() and 99 not in robot.got["depth"]
    after = node.statistics.counts
    assert after["failed"] == 3 and after["published"] > before["published"]


BAD_CALIBRATIONS = {
    "zero focal length": ({"k": np.array([0, 0, 32, 0, 0, 16, 0, 0, 1.0])}, ["64x32", "0.0"]),
    "NaN focal length": ({"k": np.array([math.nan, 0, 32, 0, math.nan, 16, 0, 0, 1])}, ["64x32", "nan"]),
    "unknown distortion": ({"distortion_model": "mercator", "d": [0.1]}, ["'mercator'", "plumb_bob"]),
    "no size": ({"width": 0, "height": 0}, ["0x0"]),
}


@pytest.mark.parametrize("name", BAD_CALIBRATIONS)
def test_a_bad_calibration_is_said_and_counted_once_and_depth_goes_on(
    graph: Graph, depth_node: DepthNode, name: str
) -> None:
    changes, words = BAD_CALIBRATIONS[name]
    robot = graph.add(Robot("depth", "depth/points", "depth/camera_info"))
    wait_until(robot.connected, what="matching")
    bad: CameraInfo = calibration_to_message(SMALL, robot.header(0))
    for field, value in changes.items():
        setattr(bad, field, value)

    def served(number: int) -> bool:
        bad.header.stamp.nanosec = number  # a camera repeats its calibration with every frame
        robot.info.publish(bad)
        robot.send(number, grey(30), camera=None)
        return number in robot.got["depth"]

    for number in (1, 2, 3):
        wait_until(lambda number=number: served(number), what="depth without a calibration")
    counts = depth_node.statistics.counts
    assert counts["bad_calibration"] == 1 and counts["failed"] == 0
    wait_until(lambda: robot.errors(), what="the log")
    assert len(robot.errors()) == 1 and all(word in robot.errors()[0] for word in [*words, "/robot/camera_info"])
    wait_until(lambda: robot.warnings(), what="the warning")
    time.sleep(SETTLE)
    assert sum("no usable calibration on /robot/camera_info" in text for text in robot.warnings()) == 1
    assert not robot.got["depth/points"] and not robot.got["depth/camera_info"]
    answer = exchange(graph, robot, grey(30), 4, camera=SMALL)  # the right one comes, and with it the points
    points = np.frombuffer(answer["depth/points"].data, np.float32).reshape(32, 64, 3)
    assert np.allclose(points[16, 32], (0.5 * 3 / SMALL.fx, 0.5 * 3 / SMALL.fy, 3.0), atol=1e-5)


def test_a_calibration_of_another_resolution_is_refused_with_both_sizes(graph: Graph, depth_node: DepthNode) -> None:
    robot = graph.add(Robot("depth"))
    exchange(graph, robot, grey(30), 1, camera=SMALL)
    robot.calibrate(Camera(128, 96, 100.0, 100.0, 64.0, 48.0))
    time.sleep(SETTLE)
    robot.send(2, grey(30), camera=None)
    wait_until(lambda: depth_node.statistics.counts["failed"], what="the count")
    wait_until(lambda: robot.errors(), what="the log")
    assert depth_node.statistics.counts["failed"] == 1 and 2 not in robot.got["depth"]
    assert len(robot.errors()) == 1 and all(size in robot.errors()[0] for size in ("128x96", "64x32"))
    assert (metres(exchange(graph, robot, grey(50), 3, camera=SMALL)["depth"]) == 5.0).all()


def test_what_the_engine_raises_is_said_and_survived(graph: Graph, depth_node: DepthNode, engine: FakeEngine) -> None:
    robot = graph.add(Robot("depth"))
    exchange(graph, robot, grey(30), 1, camera=SMALL)
    time.sleep(0.3)  # copies of frame 1 that are still under way must not meet the failing engine
    depth = engine.depth

    def fails(image: np.ndarray) -> np.ndarray:
        raise KeyError("a bug in a runtime")

    engine.depth = fails
    robot.send(2, grey(30), SMALL)
    wait_until(lambda: depth_node.statistics.counts["failed"], what="the count")
    engine.depth = depth
    wait_until(lambda: robot.errors(), what="the log")
    assert "KeyError: 'a bug in a runtime'" in robot.errors()[0]
    assert (metres(exchange(graph, robot, grey(50), 3, camera=SMALL)["depth"]) == 5.0).all()
    assert depth_node.statistics.counts["failed"] == 1 and 2 not in robot.got["depth"]


def test_numbers_that_are_none_become_those_of_rep_117(graph: Graph, depth_node: DepthNode, engine: FakeEngine) -> None:
    robot = graph.add(Robot("depth", "depth/points", "depth/overlay"))
    assert robot.set("/robot/depth_node", min_depth=0.5, max_depth=8.0)[0].successful
    made = np.full((32, 64), 2.0)
    made[:, 0:10], made[:, 10:20], made[:, 20:30] = np.nan, np.inf, -np.inf
    made[:, 30:40], made[:, 40:50], made[:, 50:55] = 0.1, 100.0, -1.0
    engine.depth = lambda _: made
    answer = exchange(graph, robot, grey(30), camera=SMALL)
    depth = metres(answer["depth"])
    assert np.isnan(depth[:, 0:10]).all() and np.isnan(depth[:, 20:30]).all() and np.isnan(depth[:, 50:55]).all()
    assert (depth[:, 10:20] == np.inf).all() and (depth[:, 40:50] == np.inf).all()
    assert (depth[:, 30:40] == -np.inf).all() and (depth[:, 55:] == 2.0).all()
    points = np.frombuffer(answer["depth/points"].data, np.float32).reshape(32, 64, 3)
    assert np.array_equal(np.isfinite(points[..., 2]), np.isfinite(depth))


def test_a_camera_that_vanishes_is_missed_once_and_served_when_it_returns(graph: Graph, engine: FakeEngine) -> None:
    node = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(input_timeout=0.2)))
    assert node.autostart()
    robot = graph.add(Robot("depth"))
    exchange(graph, robot, grey(20), 1, camera=SMALL)

    def missed() -> list[str]:
        return [text for text in robot.warnings() if "no image on /robot/image" in text]

    already = len(missed())  # the first frame may have come late
    for number in (2, 3):
        robot.vanish()
        wait_until(lambda number=number: len(missed()) == already + number - 1, what="the warning")
        assert "nobody publishes it" in missed()[-1]
        ticks = len(robot.statuses)
        wait_until(lambda ticks=ticks: len(robot.statuses) > ticks + 1, what="two more reports")
        assert len(missed()) == already + number - 1, "it is said once"
        robot.appear()
        assert (metres(exchange(graph, robot, grey(10 * number), number, camera=SMALL)["depth"]) == number).all()

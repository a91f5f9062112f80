"""What every node with a model does: lazy outputs, calibrations that are awaited, rectifying, headers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from conftest import FakeEngine, Graph, overrides, wait_until
from robot import CAMERA, SMALL, Robot, exchange, grey, metres

from perception.nodes import depth_node as depth_module
from perception.nodes.convert import image_from_message, image_to_message
from perception.nodes.depth_node import DepthNode
from perception.tasks.calibration import Calibration
from perception.tasks.image import Image

BARREL = Calibration(CAMERA, "plumb_bob", (-0.35, 0.12, 0.001, -0.002, 0.0))


def edge_scene(calibration: Calibration) -> np.ndarray:
    """What a distorting camera sees of a straight, tilted line between dark (left) and bright."""
    camera = calibration.camera
    k1, k2, p1, p2, k3 = calibration.distortion
    x_d, y_d = np.meshgrid(
        (np.arange(camera.width) - camera.cx) / camera.fx, (np.arange(camera.height) - camera.cy) / camera.fy
    )
    x, y = x_d.copy(), y_d.copy()
    for _ in range(30):  # invert the plumb bob model by fixed-point iteration (Brown 1966)
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        x, y = (
            (x_d - 2 * p1 * x * y - p2 * (r2 + 2 * x * x)) / radial,
            (y_d - p1 * (r2 + 2 * y * y) - 2 * p2 * x * y) / radial,
        )
    bright = x > 0.25 + 0.2 * y
    return np.repeat(np.where(bright, 200, 20).astype(np.uint8)[..., None], 3, axis=2)


def bend(picture: np.ndarray) -> float:
    """How far the edge between dark and bright is from a straight line, in pixels, away from the picture's rim."""
    rows = np.arange(40, picture.shape[0] - 40, 8)
    edge = np.array([np.flatnonzero(picture[row, 200:600, 0] > 110)[0] + 200 for row in rows])
    return float(np.abs(edge - np.polyval(np.polyfit(rows, edge, 1), rows)).max())


def test_nothing_is_computed_without_a_subscriber(graph: Graph, depth_node: DepthNode, engine: FakeEngine) -> None:
    robot = graph.add(Robot())
    wait_until(robot.connected, what="matching")
    runs = engine.runs

    def skipped() -> bool:
        robot.send(1, grey(30), SMALL)
        return depth_node.statistics.counts["skipped"] >= 5

    wait_until(skipped, what="frames that nobody wants")
    counts = depth_node.statistics.counts
    assert engine.runs == runs and not counts["published"] and not counts["failed"]
    reader = graph.add(Robot("depth", name="reader"))
    assert (metres(exchange(graph, reader, grey(40), 2, camera=SMALL)["depth"]) == 4.0).all()
    graph.executor.remove_node(reader)
    graph.nodes.remove(reader)
    reader.destroy_node()
    wait_until(lambda: not robot.count_subscribers("/robot/depth"), what="the reader to go")
    skipped_before, runs = depth_node.statistics.counts["skipped"], engine.runs
    wait_until(lambda: robot.send(3, grey(30), SMALL) and depth_node.statistics.counts["skipped"] > skipped_before + 3)
    assert engine.runs <= runs + 1  # one may have been under way


@pytest.mark.parametrize("topic", ["depth/points", "depth/overlay"])
def test_points_and_overlay_are_made_only_for_those_who_listen(
    graph: Graph, depth_node: DepthNode, monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    made: list[str] = []
    overlay, cloud = depth_module.task.overlay, DepthNode._cloud
    monkeypatch.setattr(depth_module.task, "overlay", lambda *a: made.append("depth/overlay") or overlay(*a))
    monkeypatch.setattr(DepthNode, "_cloud", lambda *a: made.append("depth/points") or cloud(*a))
    exchange(graph, graph.add(Robot("depth")), grey(30), 1, camera=SMALL)
    assert not made
    reader = graph.add(Robot(topic, name="reader"))
    message = exchange(graph, reader, grey(30), 2, camera=SMALL)[topic]
    assert set(made) == {topic}
    assert (message.width, message.height) == (SMALL.width, SMALL.height)
    if topic == "depth/overlay":
        picture = image_from_message(message)
        expected = overlay(grey(30), depth_module.task.Depth(np.full((32, 64), 3.0, np.float32), None), 0.5)
        assert picture.encoding == "bgr8" and np.array_equal(picture.data, expected)


def test_every_output_has_the_images_header(graph: Graph, depth_node: DepthNode) -> None:
    robot = graph.add(Robot(*Robot.TOPICS))
    answer = exchange(graph, robot, grey(30), 123456789, camera=SMALL)
    assert len(answer) == 4
    for message in answer.values():
        assert message.header == robot.header(123456789)


def test_the_first_frames_wait_for_a_calibration_that_somebody_publishes(
    graph: Graph, depth_node: DepthNode, engine: FakeEngine
) -> None:
    """Metres behind an unknown lens are wrong; behind a publisher of calibrations it will not stay unknown."""
    robot = graph.add(Robot("depth"))
    wait_until(robot.connected, what="matching")
    runs, statistics = engine.runs, depth_node.statistics
    for number in range(1, 6):  # one by one: a frame on its way when the calibration comes would be served
        robot.send(1, grey(30), camera=None)
        wait_until(lambda count=number: statistics.counts["skipped"] == count, what="a frame without a calibration")
    assert engine.runs == runs and not robot.got["depth"] and not robot.warnings()
    exchange(graph, robot, grey(30), 2, camera=SMALL)
    assert 1 not in robot.got["depth"]


def test_without_any_calibration_there_is_depth_and_one_warning(graph: Graph, depth_node: DepthNode) -> None:
    robot = graph.add(Robot("depth", "depth/points", "depth/camera_info"))
    wait_until(robot.connected, what="matching")
    robot.destroy_publisher(robot.info)
    wait_until(lambda: not depth_node.count_publishers("/robot/camera_info"), what="the calibration to go")
    for number in (1, 2, 3):

        def served(number: int = number) -> bool:
            robot.image.publish(image_to_message(Image(grey(30), "rgb8"), robot.header(number)))
            return number in robot.got["depth"]

        wait_until(served, what="depth")
        assert (metres(robot.got["depth"][number]) == 3.0).all()
    wait_until(lambda: robot.warnings(), what="the warning")
    time.sleep(0.1)
    assert "no usable calibration on /robot/camera_info" in robot.warnings()[0]
    assert len(robot.warnings()) == 1 and not robot.got["depth/points"] and not robot.got["depth/camera_info"]


def test_a_model_that_does_not_follow_the_lens_neither_waits_nor_warns(
    graph: Graph, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody publishes a calibration: none comes, then a wrong one, and neither concerns the node."""
    monkeypatch.setattr(DepthNode, "spatial", False)
    monkeypatch.setattr(Robot, "uses_lens", False)
    engine.config = engine.config.replace(focal=None)
    node = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(input_timeout=0.1)))
    assert node.autostart()
    robot = graph.add(Robot("depth"))
    assert (metres(exchange(graph, robot, grey(30), 1, camera=None)["depth"]) == 3.0).all()
    assert robot.count_publishers("/robot/camera_info") and not robot.count_subscribers("/robot/camera_info")
    assert (metres(exchange(graph, robot, grey(40), 2, camera=CAMERA)["depth"]) == 4.0).all(), "of another size"
    robot.create_timer(0.02, lambda: robot.send(3, grey(30), None))
    time.sleep(0.3)
    counts = node.statistics.counts
    assert not robot.warnings() and not node.watch() and not counts["skipped"] and not counts["bad_calibration"]


def test_without_a_calibration_a_model_that_does_not_follow_the_lens_is_only_not_rectified(
    graph: Graph, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DepthNode, "spatial", False)
    engine.config = engine.config.replace(focal=None)
    node = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(rectify=True)))
    assert node.autostart()
    robot = graph.add(Robot("depth"))
    wait_until(robot.connected, what="matching")
    robot.send(1, grey(30), camera=None)
    wait_until(lambda: node.statistics.counts["skipped"] == 1, what="a frame that waits for the calibration")
    robot.destroy_publisher(robot.info)
    wait_until(lambda: not node.count_publishers("/robot/camera_info"), what="the calibration to go")
    robot.send(2, grey(30), camera=None)
    wait_until(lambda: robot.warnings(), what="the warning")
    (warning,) = robot.warnings()
    assert warning == "no usable calibration on /robot/camera_info: images are not rectified"


@pytest.mark.parametrize("rectify", [False, True])
def test_a_straight_line_is_straight_once_rectified(graph: Graph, engine: FakeEngine, rectify: bool) -> None:
    node = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(rectify=rectify, overlay_opacity=0.0)))
    assert node.autostart()
    robot = graph.add(Robot("depth/overlay", "depth/camera_info", "depth/points"))
    scene = edge_scene(BARREL)
    assert bend(scene) > 3
    answer: dict[str, Any] = {}
    for number in (1, 2):
        answer = exchange(graph, robot, scene, number, camera=BARREL)
    picture = image_from_message(answer["depth/overlay"]).data
    info = answer["depth/camera_info"]
    assert picture.shape == (480, 640, 3) and (info.width, info.height) == (640, 480)
    time.sleep(0.1)
    advice = [text for text in robot.warnings() if "set rectify:=true" in text]
    if rectify:
        assert bend(picture) < 1.5 and not advice
        assert not any(info.d) and np.allclose(info.k, BARREL.rectifier().camera.matrix.ravel())
    else:
        assert np.array_equal(picture, scene) and len(advice) == 1
        assert np.allclose(info.d, BARREL.distortion) and np.allclose(info.k, CAMERA.matrix.ravel())


def test_counts_add_up_under_overload(graph: Graph, depth_node: DepthNode, engine: FakeEngine) -> None:
    engine.seconds = 0.03
    robot = graph.add(Robot("depth"))
    exchange(graph, robot, grey(30), 1, camera=SMALL)
    for number in range(2, 60):
        robot.send(number, grey(30), SMALL)
        time.sleep(0.005)

    def settled() -> bool:
        counts = depth_node.statistics.counts
        ways = ("published", "dropped", "failed", "skipped")
        return counts["received"] == sum(counts[way] for way in ways)

    wait_until(settled, what="the last frame")
    counts = depth_node.statistics.counts
    assert counts["dropped"] > 0 and counts["published"] > 2 and not counts["failed"]
    stamps = list(robot.got["depth"])
    assert stamps == sorted(stamps), "results come in the order of their frames"


def test_doubles_from_an_engine_are_refused_and_survived(
    graph: Graph, depth_node: DepthNode, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = graph.add(Robot("depth"))
    exchange(graph, robot, grey(30), 1, camera=SMALL)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "run", lambda image: {"depth": np.full((1, 1, 32, 64), 3.0)})
        robot.send(2, grey(30), SMALL)
        wait_until(lambda: depth_node.statistics.counts["failed"], what="the count")
    assert "float64" in depth_node.statistics.last_error and "float32" in depth_node.statistics.last_error
    assert (metres(exchange(graph, robot, grey(50), 3, camera=SMALL)["depth"]) == 5.0).all()


def test_a_model_without_weights_is_warned_of(graph: Graph, engine: FakeEngine) -> None:
    robot = graph.add(Robot())
    engine.trained = False
    node = graph.add(DepthNode(namespace="/robot"))
    assert node.autostart()
    wait_until(lambda: robot.warnings(), what="the warning")
    assert "model 'fake' has no trained weights: what it says means nothing" in robot.warnings()[0]

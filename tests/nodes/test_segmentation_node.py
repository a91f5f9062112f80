"""The segmentation node on real topics with an engine of known answers: content, names, parameters, Nav2's contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import FakeEngine, Graph, overrides, wait_until
from detecting import scene
from robot import CAMERA, exchange
from segmenting import LABELS, SegmentationRobot, build_brightest, bytes_of
from vision_msgs.msg import LabelInfo

from perception.nodes.convert import image_from_message, image_to_message
from perception.nodes.depth_node import DepthNode
from perception.nodes.pipeline import load_pipeline
from perception.nodes.segmentation_node import SegmentationNode
from perception.nodes.vision import LATCHED
from perception.tasks.colors import palette
from perception.tasks.image import Image
from perception.tasks.labels import UNLABELED

NAME = "/robot/segmentation_node"
FLOOR, WALL, CHAIR = range(3)
EVERYWHERE = (0, 0, 640, 480)
SEAT = (100, 60, 300, 300)
"""On the grid of the network's pixels, which are 10 wide and 15 high: no edge is rounded."""
ROOM = (EVERYWHERE, WALL, 100), (SEAT, CHAIR, 200)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("brightest")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PERCEPTION_ENGINES", str(folder / "engines"))
        yield build_brightest(folder)


def start(graph: Graph, model: str, **values: Any) -> SegmentationNode:
    given = overrides(model=model, **values)
    node = graph.add(SegmentationNode(namespace="/robot", parameter_overrides=given))
    assert node.autostart()
    return node


def room(seat: int, around: int) -> np.ndarray:
    """What belongs to the scene ROOM, of its size."""
    values = np.full((480, 640), around, np.uint8)
    x1, y1, x2, y2 = SEAT
    values[y1:y2, x1:x2] = seat
    return values


def picture() -> np.ndarray:
    x1, y1, x2, y2 = SEAT
    pixels = scene(*ROOM)
    pixels[y1:y2, x1:x2, WALL] = 0
    return pixels


def test_mask_and_confidence_have_the_images_size_and_header(graph: Graph, model: str) -> None:
    start(graph, model)
    robot = graph.add(SegmentationRobot("mask", "confidence"))
    answer = exchange(graph, robot, picture(), 123456789)
    for message in answer.values():
        assert message.header == robot.header(123456789) and (message.height, message.width) == (480, 640)
    assert np.array_equal(bytes_of(answer["mask"]), room(CHAIR, WALL))
    assert np.array_equal(bytes_of(answer["confidence"]), room(200, 100))
    assert not robot.warnings() and not robot.errors()


def test_names_are_latched(graph: Graph, model: str) -> None:
    start(graph, model)
    robot = graph.add(SegmentationRobot())
    wait_until(lambda: robot.labels, what="the names, for one who comes later")
    assert [(entry.class_id, entry.class_name) for entry in robot.labels[0].class_map] == list(enumerate(LABELS))


def test_two_tables_on_one_topic_are_warned_of(graph: Graph, model: str) -> None:
    """As of detection in the same namespace, whichever comes first."""
    start(graph, model)
    robot = graph.add(SegmentationRobot("mask"))
    exchange(graph, robot, picture(), 1)
    assert not robot.warnings()
    robot.create_publisher(LabelInfo, "labels", LATCHED)
    for stamp in (2, 3):
        exchange(graph, robot, picture(), stamp)
        wait_until(lambda: robot.warnings(), what="the warning")
    (said,) = robot.warnings()
    assert "another node publishes /robot/labels too" in said and "labels:=mask/labels" in said


def test_a_bad_image_is_said_and_survived(graph: Graph, model: str) -> None:
    node = start(graph, model)
    robot = graph.add(SegmentationRobot("mask"))
    exchange(graph, robot, picture(), 1)
    bad = image_to_message(Image(picture(), "rgb8"), robot.header(2))
    bad.encoding = "cmyk8"
    robot.image.publish(bad)
    wait_until(lambda: node.statistics.counts["failed"] == 1, what="the count")
    wait_until(lambda: any("'cmyk8'" in text for text in robot.errors()), what="the log")
    assert np.array_equal(bytes_of(exchange(graph, robot, picture(), 3)["mask"]), room(CHAIR, WALL))
    assert 2 not in robot.got["mask"]


def test_classes_colors_and_opacity_change_what_comes_next(graph: Graph, model: str) -> None:
    start(graph, model)
    robot = graph.add(SegmentationRobot("mask", "confidence", "mask/overlay"))
    before = exchange(graph, robot, picture(), 1)
    image = picture()[..., ::-1]
    drawn = image_from_message(before["mask/overlay"])
    assert drawn.encoding == "bgr8"
    expected = image / 2 + palette(3)[bytes_of(before["mask"])] / 2
    assert np.abs(drawn.data - expected).max() <= 1
    (result,) = robot.set(NAME, together=True, classes="floor, chair", colors="chair=#ff8000", overlay_opacity=1.0)
    assert result.successful, result.reason
    answer = exchange(graph, robot, picture(), 2)
    assert np.array_equal(bytes_of(answer["mask"]), room(CHAIR, UNLABELED))
    assert np.array_equal(bytes_of(answer["confidence"]), room(200, 100))
    drawn = image_from_message(answer["mask/overlay"])
    assert np.array_equal(drawn.data, np.where((room(1, 0) == 1)[..., None], [0x00, 0x80, 0xFF], image))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"classes": "floor, chairs"}, ("class 'chairs' is unknown here", "like it are 'chair'")),
        ({"colors": "chairs=#ff8000"}, ("class 'chairs' is unknown here",)),
        ({"colors": "chair=orange"}, ("'chair=orange' gives no class a colour; write name=#rrggbb",)),
        ({"overlay_opacity": 1.5}, ("overlay_opacity",)),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(graph: Graph, model: str, values: dict, words: tuple) -> None:
    node = start(graph, model)
    robot = graph.add(SegmentationRobot())
    before = node.parameters
    (result,) = robot.set(NAME, together=True, **values)
    assert not result.successful and all(word in result.reason for word in words), result.reason
    assert node.parameters == before


def test_a_model_of_another_task_is_refused(graph: Graph, engine: FakeEngine) -> None:
    node = graph.add(SegmentationNode(namespace="/robot"))
    robot = graph.add(SegmentationRobot())
    assert not node.autostart()
    words = "model 'fake' is for the task 'depth'; this node needs 'segmentation'"
    wait_until(lambda: any(words in text for text in robot.errors()), what="the reason")


def test_with_depth_it_is_what_navigation_takes(
    graph: Graph, model: str, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one image: mask and confidence (mono8), and an organised cloud, pixel for pixel, all with its header; names
    for whoever comes later. As the pipeline of both nodes is described."""
    pipeline = load_pipeline("depth_segmentation_pipeline")
    descriptions = {node.executable: node for node in pipeline.nodes(pipeline.read({"model": model}))}
    assert descriptions.keys() == {"segmentation_node", "depth_node"}
    given = overrides(**descriptions["depth_node"].parameters)
    assert graph.add(DepthNode(namespace="/robot", parameter_overrides=given)).autostart()  # with the fake engine
    monkeypatch.undo()  # the other node loads a real engine
    given = overrides(**descriptions["segmentation_node"].parameters)
    assert graph.add(SegmentationNode(namespace="/robot", parameter_overrides=given)).autostart()
    robot = graph.add(SegmentationRobot("mask", "confidence", "depth/points"))
    robot.uses_lens = True
    answer = exchange(graph, robot, picture(), 5, camera=CAMERA)
    assert {message.header.stamp.nanosec for message in answer.values()} == {5}
    assert all(message.header == robot.header(5) for message in answer.values())
    assert {(message.height, message.width) for message in answer.values()} == {(480, 640)}
    cloud = answer["depth/points"]
    assert cloud.height > 1 and [field.name for field in cloud.fields[:3]] == ["x", "y", "z"]
    points = np.ndarray((480, 640, 3), np.float32, bytes(cloud.data), 0, (cloud.row_step, cloud.point_step, 4))
    mask = bytes_of(answer["mask"])
    chair, wall = points[mask == CHAIR], points[mask == WALL]
    assert np.median(chair[:, 2]) == pytest.approx(200 / 3 / 10, rel=0.01)  # the fake engine: brightness / 10
    assert np.median(wall[:, 2]) == pytest.approx(100 / 3 / 10, rel=0.01)
    rows, columns = np.nonzero(mask == CHAIR)
    x = (columns - CAMERA.cx) / CAMERA.fx * chair[:, 2]
    y = (rows - CAMERA.cy) / CAMERA.fy * chair[:, 2]
    assert np.allclose(chair[:, 0], x, atol=1e-4) and np.allclose(chair[:, 1], y, atol=1e-4)
    wait_until(lambda: robot.labels, what="the names")
    publishers = robot.get_publishers_info_by_topic("/robot/labels")
    assert [info.qos_profile.durability.name for info in publishers] == ["TRANSIENT_LOCAL"]
    assert [info.qos_profile.reliability.name for info in publishers] == ["RELIABLE"]


def test_what_nobody_reads_is_not_drawn(graph: Graph, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from perception.nodes import segmentation_node as module

    def draw(*_: object) -> None:
        raise AssertionError("drawn for nobody")

    monkeypatch.setattr(module.task, "overlay", draw)
    node = start(graph, model)
    robot = graph.add(SegmentationRobot("mask"))
    exchange(graph, robot, picture(), 1)
    counts = node.statistics.counts
    wait_until(lambda: counts["published"] + counts["failed"], what="the frame's end")
    assert counts["failed"] == 0

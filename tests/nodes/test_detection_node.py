"""The detection node on real topics with an engine of known answers: content, names, parameters, tracking."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from conftest import Graph, overrides, wait_until
from detecting import CONFIG, LABELS, SHARE, DetectionRobot, build_described, build_extents, scene, told
from robot import CAMERA, Robot, exchange
from std_msgs.msg import Header

from perception.evaluation.rgbd_folder import RGBDWriter
from perception.nodes import detection_node as module
from perception.nodes import model_node
from perception.nodes.convert import image_from_message, image_to_message
from perception.nodes.detection_node import DetectionNode
from perception.nodes.exchange import Inlet, exchange_of
from perception.nodes.image_source_node import ImageSourceNode
from perception.nodes.vision import labels_to_message
from perception.tasks.calibration import Calibration
from perception.tasks.detection import Detections
from perception.tasks.image import Image
from perception.tasks.labels import coco_slots

NAME = "/robot/detection_node"
RED, GREEN, BLUE = range(3)
BARREL = Calibration(CAMERA, "plumb_bob", (-0.35, 0.12, 0.001, -0.002, 0.0))
LEFT, RIGHT = (100, 60, 300, 300), (400, 150, 600, 450)
"""Boxes on the grid of the network's pixels, which are 10 wide and 15 high: no edge is rounded."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("extents")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PERCEPTION_ENGINES", str(folder / "engines"))
        yield build_extents(folder)


def start(graph: Graph, model: str, **values: Any) -> DetectionNode:
    given = overrides(model=model, **values)
    node = graph.add(DetectionNode(namespace="/robot", parameter_overrides=given))
    assert node.autostart()
    return node


def ask(graph: Graph, robot: Robot, number: int, *objects: Any) -> list[Any]:
    """What is told of a scene. It is sent anew only when it must have been lost: objects are followed from it on."""
    wait_until(robot.connected, what="matching publishers and subscribers")
    for messages in robot.got.values():
        messages.pop(number, None)

    def answered() -> bool:
        robot.send(number, scene(*objects))
        end = time.monotonic() + 1.0
        while time.monotonic() < end and not all(number in messages for messages in robot.got.values()):
            time.sleep(0.003)
        return time.monotonic() < end

    wait_until(answered, 20, "an answer on every topic")
    return told(robot.got["detections"][number])


def test_boxes_names_scores_and_headers_are_those_of_the_image(graph: Graph, model: str) -> None:
    start(graph, model)
    robot = graph.add(DetectionRobot("detections"))
    message = exchange(graph, robot, scene((LEFT, RED, 204), (RIGHT, BLUE, 255)), 123456789)["detections"]
    assert message.header == robot.header(123456789)
    assert told(message) == [("blue", 1.0, RIGHT, ""), ("red thing", 0.8, LEFT, "")]
    assert not robot.warnings() and not robot.errors()


def test_a_detector_that_was_made_elsewhere_is_one_description_away(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells of the source are 160 wide and 240 high: the first row's second, and the last row's third."""
    monkeypatch.setenv("PERCEPTION_ENGINES", str(tmp_path / "engines"))
    start(graph, build_described(tmp_path))
    robot = graph.add(DetectionRobot("detections"))
    found = ask(graph, robot, 1, ((160, 0, 320, 240), RED, 255), ((320, 240, 480, 480), GREEN, 255))
    boxes = {name: box for name, score, box, _ in found if score > 0.99}
    assert boxes == {"red": pytest.approx((200, 60, 360, 180)), "green": pytest.approx((360, 300, 520, 420))}
    wait_until(lambda: robot.labels, what="the names")
    assert [entry.class_name for entry in robot.labels[0].class_map] == ["red", "green"] and len(found) == 2


def test_an_image_without_objects_has_an_answer(graph: Graph, model: str) -> None:
    start(graph, model)
    robot = graph.add(DetectionRobot("detections"))
    message = exchange(graph, robot, scene(), 7)["detections"]
    assert message.header == robot.header(7) and not message.detections


def test_a_bad_image_is_said_and_survived(graph: Graph, model: str) -> None:
    node = start(graph, model)
    robot = graph.add(DetectionRobot("detections"))
    ask(graph, robot, 1)
    bad = image_to_message(Image(scene(), "rgb8"), robot.header(2))
    bad.encoding = "cmyk8"
    robot.image.publish(bad)
    wait_until(lambda: node.statistics.counts["failed"] == 1, what="the count")
    wait_until(lambda: any("'cmyk8'" in text for text in robot.errors()), what="the log")
    assert ask(graph, robot, 3, (LEFT, RED, 255)) == [("red thing", 1.0, LEFT, "")]
    assert 2 not in robot.got["detections"]


def test_boxes_that_are_no_numbers_are_left_out(graph: Graph, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = start(graph, model)
    robot = graph.add(DetectionRobot("detections"))
    assert node.engine
    run = node.engine.run

    def broken(image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = {name: array.copy() for name, array in run(image).items()}
        outputs["boxes"][0, RED] = np.nan
        return outputs

    monkeypatch.setattr(node.engine, "run", broken)
    found = ask(graph, robot, 1, (LEFT, RED, 255), (RIGHT, BLUE, 255))
    assert [name for name, *_ in found] == ["blue", "red thing"], "of red, the box of its left remains"


def test_names_are_latched_and_told_anew_with_another_threshold(graph: Graph, model: str) -> None:
    node = start(graph, model)
    robot = graph.add(DetectionRobot())
    wait_until(lambda: robot.labels, what="the names, for one who comes later")
    (info,) = robot.labels
    assert [(entry.class_id, entry.class_name) for entry in info.class_map] == list(enumerate(LABELS[:3]))
    assert info.threshold == pytest.approx(0.5)
    assert robot.set(NAME, max_detections=7)[0].successful and robot.set(NAME, score_threshold=0.6)[0].successful
    wait_until(lambda: len(robot.labels) > 1, what="the new threshold")
    assert robot.labels[1].threshold == pytest.approx(0.6) and robot.labels[1].class_map == info.class_map
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert not [publisher for publisher in node.publishers if publisher.topic_name == "/robot/labels"]


def test_classes_that_nothing_belongs_to_are_not_told() -> None:
    info = labels_to_message(coco_slots(), 0.5, Header())
    names = {entry.class_id: entry.class_name for entry in info.class_map}
    assert len(names) == 80 and names[0] == "person" and names[89] == "toothbrush" and "" not in names.values()


def test_parameters_change_what_comes_next(graph: Graph, model: str) -> None:
    start(graph, model)
    robot = graph.add(DetectionRobot("detections"))
    objects = (LEFT, RED, 204), (RIGHT, BLUE, 255)
    red, blue = ("red thing", 0.8, LEFT, ""), ("blue", 1.0, RIGHT, "")
    x1, y1, x2, y2 = LEFT
    part = ("red thing", 0.72, (x1, y1, round(x1 + SHARE * (x2 - x1)), y2), "")
    cases: list[tuple[dict[str, Any], list[Any]]] = [
        ({"score_threshold": 0.9}, [blue]),
        ({"score_threshold": 0.3, "classes": "green, red thing"}, [red]),
        ({"nms_threshold": 0.8}, [red, part]),
        ({"classes": "", "max_detections": 2}, [blue, ("blue", 0.9, (400, 150, 550, 450), "")]),
        ({"nms_threshold": 0.6, "max_detections": 1}, [blue]),
    ]
    assert ask(graph, robot, 1, *objects) == [blue, red]
    for number, (values, expected) in enumerate(cases, 2):
        (result,) = robot.set(NAME, together=True, **values)
        assert result.successful, result.reason
        assert ask(graph, robot, number, *objects) == expected, values


def test_an_unknown_class_is_refused_and_nothing_changes(graph: Graph, model: str) -> None:
    node = start(graph, model)
    robot = graph.add(DetectionRobot("detections"))
    before = node.parameters
    (result,) = robot.set(NAME, together=True, score_threshold=0.9, classes="green, red thin")
    assert not result.successful
    words = ("classes = 'green, red thin'", "class 'red thin' is unknown here", "like it are 'red thing'")
    assert all(word in result.reason for word in (*words, "nothing is changed")), result.reason
    assert node.parameters == before
    assert ask(graph, robot, 1, (LEFT, RED, 204)) == [("red thing", 0.8, LEFT, "")]


def test_classes_are_checked_when_the_model_is_known(graph: Graph, model: str) -> None:
    given = overrides(model=model, autostart=False)
    node = graph.add(DetectionNode(namespace="/robot", parameter_overrides=given))
    robot = graph.add(DetectionRobot())
    assert robot.set(NAME, classes="purple")[0].successful
    node.trigger_configure()
    assert node.engine is None
    wait_until(lambda: any("class 'purple' is unknown" in text for text in robot.errors()), what="the reason")
    assert robot.set(NAME, classes="blue")[0].successful
    node.trigger_configure()
    assert node.engine is not None


def test_an_engine_that_leaves_doubles_out_itself_gives_the_same_and_is_asked_for_no_more(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERCEPTION_ENGINES", str(tmp_path / "engines"))
    node = start(graph, build_extents(tmp_path, suppression="graph"))
    robot = graph.add(DetectionRobot("detections"))
    found = ask(graph, robot, 1, (LEFT, RED, 204), (RIGHT, BLUE, 255))
    assert found == [("blue", 1.0, RIGHT, ""), ("red thing", 0.8, LEFT, "")]
    before = node.parameters
    cases: list[dict[str, Any]] = [
        {"score_threshold": 0.04},
        {"nms_threshold": 0.7},
        {"nms_threshold": 0.5},
        {"max_detections": 101},
        {"tracking": True, "tracking_score": 0.02},
    ]
    for values in cases:
        (result,) = robot.set(NAME, together=True, **values)
        assert not result.successful and "build it with --suppression numpy" in result.reason
        if "nms_threshold" in values:
            assert "overlaps by more than 0.6; set nms_threshold to that" in result.reason
    assert node.parameters == before
    assert robot.set(NAME, together=True, score_threshold=0.9, nms_threshold=0.6, max_detections=100)[0].successful
    assert ask(graph, robot, 2, (LEFT, RED, 204), (RIGHT, BLUE, 255)) == [("blue", 1.0, RIGHT, "")]


def test_places_that_are_all_in_use_are_said_once_where_classes_are_chosen(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred greens, which the engine keeps before any blue thing."""
    monkeypatch.setenv("PERCEPTION_ENGINES", str(tmp_path / "engines"))
    node = start(graph, build_extents(tmp_path, suppression="graph"))
    robot = graph.add(DetectionRobot("detections"))
    x = np.arange(100) % 10 * 6
    y = np.arange(100) // 10 * 3
    crowd = {
        "found_boxes": np.stack([x, y, x + 5, y + 2], 1)[None].astype(np.float32),
        "found_scores": np.full((1, 100), 0.6, np.float32),
        "found_labels": np.full((1, 100), GREEN, np.float32),
    }
    monkeypatch.setattr(node.engine, "run", lambda _: crowd)
    assert len(ask(graph, robot, 1)) == 100
    assert robot.set(NAME, together=True, classes="blue", score_threshold=0.7)[0].successful
    assert ask(graph, robot, 2) == [] and not robot.warnings(), "what was dropped scores less than is asked for"
    assert robot.set(NAME, score_threshold=0.5)[0].successful
    for number in (3, 4):
        assert ask(graph, robot, number) == []
    wait_until(lambda: robot.warnings(), what="the warning")
    (warning,) = robot.warnings()
    assert "classes = 'blue' may be missing" in warning and "the best 100 boxes of all classes" in warning
    assert warning.endswith("build it with --suppression numpy")


def test_a_model_without_a_decoder_is_refused_on_configure(
    graph: Graph, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = model_node.engines.load(model)
    engine.config = CONFIG.replace(decoder=None)
    monkeypatch.setattr(model_node.engines, "load", lambda *_: engine)
    node = graph.add(DetectionNode(namespace="/robot"))
    robot = graph.add(DetectionRobot())
    assert not node.autostart()
    wait_until(lambda: any("its config needs a decoder" in text for text in robot.errors()), what="the reason")


def test_nothing_is_computed_for_the_names_nor_the_overlay_for_nobody(
    graph: Graph, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    overlay = module.task.overlay
    monkeypatch.setattr(module.task, "overlay", lambda *a: drawn.append(1) or overlay(*a))
    node = start(graph, model)
    robot = graph.add(DetectionRobot())
    wait_until(lambda: robot.labels and robot.connected(), what="the names")
    robot.send(1, scene())
    wait_until(lambda: node.statistics.counts["skipped"] == 1, what="a frame that nobody wants")
    reader = graph.add(DetectionRobot("detections", name="reader"))
    ask(graph, reader, 2, (LEFT, RED, 255))
    assert not drawn
    viewer = graph.add(DetectionRobot("detections/overlay", name="viewer"))
    pixels = scene((LEFT, RED, 255))
    message = exchange(graph, viewer, pixels, 3)["detections/overlay"]
    found = Detections(np.array([LEFT], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    assert message.header == viewer.header(3)
    picture = image_from_message(message)
    assert picture.encoding == "bgr8" and np.array_equal(picture.data, overlay(pixels[..., ::-1], found, LABELS))


def test_boxes_belong_to_the_rectified_image(graph: Graph, model: str) -> None:
    node = start(graph, model, rectify=True)
    robot = graph.add(DetectionRobot("detections", "detections/overlay"))
    robot.uses_lens = True
    pixels = scene((LEFT, RED, 255), (RIGHT, BLUE, 255))
    message = exchange(graph, robot, pixels, 1, camera=BARREL)["detections"]
    rectified = BARREL.rectifier()(pixels)
    found = {name: box for name, _, box, _ in told(message)}
    for name, label, original in (("red thing", RED, LEFT), ("blue", BLUE, RIGHT)):
        ys, xs = np.nonzero(rectified[..., label] > 100)
        expected = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        assert np.abs(np.subtract(found[name], expected)).max() <= 15, "a pixel of the network"
        assert np.abs(np.subtract(original, expected)).max() > 15
    assert not robot.warnings() and not node.statistics.counts["failed"]


def test_objects_keep_their_ids(graph: Graph, model: str) -> None:
    """Red moves, fades below the threshold and comes back; a dim blue never gets an id; then stamps jump back."""
    start(graph, model, tracking=True, score_threshold=0.5)
    robot = graph.add(DetectionRobot("detections", "detections/overlay"))

    def at(step: int, level: int) -> Any:
        return (100 + 10 * step, 60, 300 + 10 * step, 300), RED, level

    levels = [255, 255, 255, 102, 51, 255]
    answers = []
    for step, level in enumerate(levels):
        objects = at(step, level), (RIGHT, GREEN, 255), ((0, 450, 100, 480), BLUE, 51)
        answers.append(ask(graph, robot, (step + 1) * 40_000_000, *objects))
    assert [[name for name, *_ in answer] for answer in answers] == [["red thing", "green"]] * 3 + [
        ["green", "red thing"]
    ] * 2 + [["red thing", "green"]]
    ids = [{name: number for name, _, _, number in answer} for answer in answers]
    assert ids[0] == {"red thing": "", "green": ""} and len(set(ids[1].values())) == 2
    assert all(each == ids[1] for each in ids[1:])
    assert next(box for name, _, box, _ in answers[4] if name == "red thing") == (140, 60, 340, 300)
    again = [{name: number for name, _, _, number in ask(graph, robot, number, at(0, 255))} for number in (10, 20)]
    assert again == [{"red thing": ""}, {"red thing": "3"}]


def test_tracking_is_off_unless_asked_for_and_can_be_switched(graph: Graph, model: str) -> None:
    """Off for an image, and between two; objects are new afterwards."""
    start(graph, model)
    robot = graph.add(DetectionRobot("detections"))
    switched, ids = {3: [True], 6: [False], 7: [True], 9: [False, True]}, []
    for number in range(1, 11):
        for tracking in switched.get(number, []):
            assert robot.set(NAME, tracking=tracking)[0].successful
        ids += [found[3] for found in ask(graph, robot, number * 40_000_000, (LEFT, RED, 255))]
    assert ids == ["", "", "", "1", "1", "", "", "2", "", "3"]


def test_images_without_stamps_cannot_be_followed_and_it_is_said_once(
    graph: Graph, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(graph, model, tracking=True)
    robot = graph.add(DetectionRobot("detections"))
    monkeypatch.setattr(robot, "header", lambda number: Header(frame_id="camera_optical"))
    for _ in range(3):
        assert ask(graph, robot, 0, (LEFT, RED, 255)) == [("red thing", 1.0, LEFT, "")]
    wait_until(lambda: robot.warnings(), what="the warning")
    assert robot.warnings() == ["no object gets an id: the images have no stamps; set them in the driver"]


def test_cameras_have_their_own_topics_and_objects(graph: Graph, model: str) -> None:
    node = start(graph, model, cameras="front rear", tracking=True)
    front, rear = (
        graph.add(DetectionRobot("detections", namespace=f"/robot/{name}", name=f"robot_{name}"))
        for name in ("front", "rear")
    )
    for number in (1, 2):
        seen = ask(graph, front, number, (LEFT, RED, 255))
    assert seen == [("red thing", 1.0, LEFT, "1")]
    assert ask(graph, rear, 3, (LEFT, RED, 255)) == [("red thing", 1.0, LEFT, "")], "another camera's object"
    assert ask(graph, rear, 4, (LEFT, RED, 255)) == [("red thing", 1.0, LEFT, "1")]
    assert ask(graph, front, 1, (LEFT, RED, 255)) == [("red thing", 1.0, LEFT, "")], "stamps jumped back"
    assert ask(graph, rear, 5, (LEFT, RED, 255)) == [("red thing", 1.0, LEFT, "1")], "of the other camera"
    wait_until(lambda: front.labels and rear.labels, what="the names")
    assert {"/robot/front/labels", "/robot/rear/labels"} <= {entity.topic_name for entity in node.publishers}


def test_nodes_of_the_process_get_arrays(graph: Graph, model: str) -> None:
    node = start(graph, model)
    got: list[Any] = []
    inlet = Inlet("/robot/detections", lambda *result: got.append(result), lambda there: None)
    exchange_of(node).join(inlet)
    robot = graph.add(DetectionRobot())
    wait_until(robot.connected, what="matching")
    robot.send(5, scene((LEFT, RED, 255)))
    wait_until(lambda: got, what="detections")
    exchange_of(node).leave(inlet)
    found, labels, header = got[0]
    assert isinstance(found, Detections) and labels == LABELS and header == robot.header(5)
    assert found.boxes.tolist() == [list(LEFT)] and found.labels.tolist() == [RED]


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """Ten frames of a red and a blue object that move towards each other."""
    writer = RGBDWriter(tmp_path / "clip", CAMERA, 20.0, "none", "test")
    for step in range(10):
        writer.write_frame(
            scene(
                ((100 + 10 * step, 60, 300 + 10 * step, 300), RED, 255), ((400 - 10 * step, 150, 600, 450), BLUE, 200)
            ),
            None,
        )
    return str(tmp_path / "clip")


def detections_of(graph: Graph, model: str, clip: str, **options: Any) -> dict[int, list[Any]]:
    """What is told of every frame of the clip, by stamp, from a source in this process or another context."""
    values = overrides(source=clip, stamps="source", rate=20.0, loop=True)
    source = ImageSourceNode(namespace="/robot", parameter_overrides=values, **options)
    if not options:
        graph.add(source)
    robot = graph.add(DetectionRobot("detections", name="listener"))
    node = start(graph, model)
    wait_until(lambda: node.streams[0].results.detections.wanted, what="the listener")
    try:
        assert source.autostart()
        wait_until(lambda: len(robot.got["detections"]) == 10, 20, "ten answers")
        return {stamp: told(message) for stamp, message in robot.got["detections"].items()}
    finally:
        node.trigger_deactivate()
        if options:
            source.close()
            source.destroy_node()


def test_detections_are_the_same_in_one_process_as_in_several(model: str, clip: str) -> None:
    elsewhere = rclpy.Context()
    rclpy.init(context=elsewhere)
    results = []
    for options in ({}, {"context": elsewhere}):
        graph = Graph()
        try:
            results.append(detections_of(graph, model, clip, **options))
        finally:
            graph.close()
    rclpy.shutdown(context=elsewhere)
    assert results[0] == results[1] and all(len(found) == 2 for found in results[0].values())

"""The view synthesis node on real topics with engines of the test: content, refusals, frames, what runs how often."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import FakeEngine, Graph, overrides, wait_until
from geometry_msgs.msg import PoseStamped, Quaternion, Transform, TransformStamped, Vector3
from lifecycle_msgs.msg import Transition
from robot import SMALL, Robot, metres
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage

from perception.nodes import model_node
from perception.nodes.convert import image_from_message
from perception.nodes.view_synthesis_node import ViewSynthesisNode
from perception.tasks.config import Input, ModelConfig, Output, Part
from perception.tasks.poses import orbit_pose, pose_of, translated
from perception.tasks.view_synthesis import lens_numbers
from perception.tasks.warping import warp

NAME = "/robot/view_synthesis_node"
FAR = 2.0
"""Metres to the wall that the fake engine sees."""
PICTURE = np.random.default_rng(0).integers(0, 255, (8, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
NOT_TURNED = (0.0, 0.0, 0.0, 1.0)


def wall(metres_away: float = FAR) -> Any:
    engine: Any = FakeEngine(lambda image: np.full(image.shape[:2], metres_away, np.float32))
    return engine


def from_there(pose: np.ndarray) -> Any:
    """What has to come."""
    return warp(PICTURE, np.full((32, 64), FAR, np.float32), SMALL, SMALL, pose)


class Asker(Robot):
    """Asks for views and keeps those that come, all of them, by topic."""

    TOPICS = {"view": ImageMessage, "view/camera_info": CameraInfo, "view/depth": ImageMessage}

    def __init__(self, *topics: str, prefix: str = "", **options: Any) -> None:
        super().__init__(*(topics or self.TOPICS), **options)
        self.poses = self.create_publisher(PoseStamped, f"{prefix}target_pose", 20)

    def _keep(self, topic: str, message: Any) -> None:
        self.got[topic][len(self.got[topic])] = message

    def connected(self) -> bool:
        return super().connected() and bool(self.poses.get_subscription_count())

    def show(self, node: ViewSynthesisNode, number: int, **options: Any) -> None:
        """Send an image until the node has it, with its calibration."""
        wait_until(self.connected, what="matching publishers and subscribers")

        def seen() -> bool:
            self.send(number, PICTURE, **({"camera": SMALL} | options))
            time.sleep(0.02)
            newest = node.streams[0].results.newest
            known = newest and (newest.calibration or options.get("camera", SMALL) is None)
            return bool(known and newest.header.stamp.nanosec == number)

        wait_until(seen, what="the node to have an image")

    def ask(
        self, place: tuple[float, ...] = (0.0, 0.0, 0.0), turn: tuple[float, ...] = NOT_TURNED, frame: str = ""
    ) -> None:
        message = PoseStamped()
        message.header.frame_id = frame
        message.pose.position.x, message.pose.position.y, message.pose.position.z = place
        message.pose.orientation = Quaternion(**dict(zip("xyzw", turn, strict=True)))
        self.poses.publish(message)

    def views(self, count: int) -> list[ImageMessage]:
        """The first of them, once there are so many of everything."""
        wait_until(lambda: all(len(kept) >= count for kept in self.got.values()), what=f"{count} views")
        return [self.got["view"][number] for number in range(count)]

    def refusal(self, node: ViewSynthesisNode, count: int = 1) -> str:
        """What the log and the diagnostics say, once so many requests have failed."""
        wait_until(lambda: node.statistics.counts["failed"] >= count, what=f"{count} failures")
        wait_until(self.errors, what="a line in the log")
        wait_until(lambda: any("not usable in the last second" in s.message for s in self.statuses), what="diagnostics")
        return self.errors()[-1]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = wall()
    monkeypatch.setattr(model_node.engines, "load_whole", lambda *_: SimpleNamespace(parts=(fake,)))
    return fake


def start(graph: Graph, **values: Any) -> ViewSynthesisNode:
    node = graph.add(ViewSynthesisNode(namespace="/robot", parameter_overrides=overrides(**values)))
    assert node.autostart()
    return node


def test_a_view_is_what_warping_makes_of_the_newest_image(graph: Graph, engine: Any) -> None:
    node = start(graph)
    asker = graph.add(Asker())
    asker.show(node, 5)
    asker.ask((0.1, 0.0, 0.05), frame="camera_optical")
    (message,) = asker.views(1)
    expected = from_there(translated((0.1, 0, 0.05)))
    assert message.encoding == "rgb8" and np.array_equal(image_from_message(message).data, expected.image)
    assert np.array_equal(metres(asker.got["view/depth"][0]), expected.depth, equal_nan=True)
    assert np.isnan(expected.depth).any() and np.isfinite(expected.depth).any()
    info = asker.got["view/camera_info"][0]
    assert np.allclose(info.k, SMALL.matrix.ravel()) and (info.height, info.width) == (32, 64) and not any(info.d)
    for got in (message, info, asker.got["view/depth"][0]):
        assert got.header.stamp == asker.header(5).stamp and got.header.frame_id == "view_optical"
    assert not asker.errors() and not asker.warnings()
    values = wait_until(lambda: asker.values().get("published") == "1" and asker.values(), what="diagnostics")
    assert values["method"] == "warping" and values["refused"] == "0" and float(values["age_p50_ms"]) > 0


def test_from_where_the_camera_is_the_view_is_the_image(graph: Graph, engine: Any) -> None:
    node = start(graph)
    asker = graph.add(Asker())
    asker.show(node, 1)
    asker.ask()
    assert np.array_equal(image_from_message(asker.views(1)[0]).data, PICTURE)


def test_an_image_is_looked_at_once_and_only_if_somebody_asks(graph: Graph, engine: Any) -> None:
    node = start(graph)
    asker = graph.add(Asker())
    runs = engine.runs
    for number in (1, 2, 3):
        asker.show(node, number)
    assert engine.runs == runs, "nobody has asked"
    for count, x in enumerate((0.02, 0.04, 0.06), 1):
        asker.ask((x, 0.0, 0.0))
        expected = from_there(translated((x, 0, 0))).image
        assert np.array_equal(image_from_message(asker.views(count)[-1]).data, expected)
    assert engine.runs == runs + 1
    asker.show(node, 4)
    asker.ask()
    asker.views(4)
    assert engine.runs == runs + 2


def test_poses_that_come_together_are_answered_one_by_one(graph: Graph, engine: Any) -> None:
    node = start(graph)
    asker = graph.add(Asker("view", "view/camera_info"))
    asker.show(node, 1)
    for number in range(8):
        asker.ask((0.05 * number, 0.0, 0.0))
    # More of them than this subscriber, which keeps the newest only, may see.
    wait_until(lambda: node.statistics.counts["published"] == 8, what="eight views")
    assert node.statistics.counts["dropped"] == 0
    expected = from_there(translated((0.35, 0.0, 0.0))).image

    def came() -> bool:
        views = [image_from_message(view).data for view in asker.got["view"].values()]
        return bool(views) and np.abs(views[-1].astype(int) - expected).max() <= 1

    wait_until(came, what="the last view")


def test_nobody_listens(graph: Graph, engine: Any) -> None:
    node = start(graph)
    asker = graph.add(Asker("view"))
    asker.show(node, 1)
    runs = engine.runs
    for subscription in list(asker.subscriptions):
        if subscription.topic_name.endswith("/view"):
            asker.destroy_subscription(subscription)
    wait_until(lambda: not node.streams[0].results.view.wanted, what="the listener to go")
    asker.ask()
    wait_until(lambda: node.statistics.counts["skipped"], what="the request to be skipped")
    assert engine.runs == runs and not node.statistics.counts["failed"]


REFUSED = {
    "NaN quaternion": ({"turn": (0.0, math.nan, 0.0, 1.0)}, ["quaternion (0, nan, 0, 1)", "finite"]),
    "no quaternion": ({"turn": (0.0, 0.0, 0.0, 0.0)}, ["its length is 0", "(0, 0, 0, 1)"]),
    "endless position": ({"place": (math.inf, 0.0, 0.0)}, ["position (inf, 0, 0)", "finite"]),
    "too far away": ({"place": (0.0, 0.0, 1.5)}, ["1.50 m and 0 degrees", "at most 1 m and 30 degrees"]),
    "turned too much": ({"turn": (0.0, 1.0, 0.0, 1.0)}, ["0.00 m and 90 degrees", "would be invented"]),
    "another frame": ({"frame": "map"}, ["frame 'map'", "'camera_optical'", "tf2_ros is not installed"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pose_that_is_refused_is_told_and_the_next_is_served(
    graph: Graph, engine: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    asked, words = REFUSED[name]
    node = start(graph)
    asker = graph.add(Asker("view"))
    asker.show(node, 1)
    runs = engine.runs
    asker.ask(**asked)  # type: ignore[arg-type]
    said = asker.refusal(node)
    assert all(word in said for word in words), said
    asker.ask((0.1, 0.0, 0.0))
    (message,) = asker.views(1)
    assert np.array_equal(image_from_message(message).data, from_there(translated((0.1, 0, 0))).image)
    counts = node.statistics.counts
    assert counts["refused"] == counts["failed"] == 1 and counts["published"] == 1 and counts["received"] == 2
    assert engine.runs == runs + 1


def test_a_quaternion_of_another_length_is_the_same_turn(graph: Graph, engine: Any) -> None:
    node = start(graph)
    asker = graph.add(Asker("view"))
    asker.show(node, 1)
    asker.ask(turn=(0.0, 0.2, 0.0, 4.0))
    expected = from_there(pose_of((0, 0, 0), (0, 0.05, 0, 1)))
    assert np.array_equal(image_from_message(asker.views(1)[0]).data, expected.image)


def test_limits_change_while_the_node_runs(graph: Graph, engine: Any) -> None:
    node = start(graph, max_distance=0.05)
    asker = graph.add(Asker("view"))
    asker.show(node, 1)
    asker.ask((0.2, 0.0, 0.0))
    assert "at most 0.05 m" in asker.refusal(node)
    assert asker.set(NAME, max_distance=0.5)[0].successful
    asker.ask((0.2, 0.0, 0.0))
    asker.views(1)
    assert not asker.set(NAME, max_angle=200.0)[0].successful


def test_without_a_calibration_there_is_no_view(graph: Graph, engine: Any) -> None:
    node = start(graph)
    asker = graph.add(Asker("view"))
    asker.show(node, 1, camera=None)
    asker.ask()
    said = asker.refusal(node)
    assert "no view can be made without the camera's focal length" in said and "/robot/camera_info" in said
    assert not asker.got["view"]
    asker.show(node, 2)
    asker.ask()
    asker.views(1)


def test_a_calibration_of_another_size_is_refused(graph: Graph, engine: Any) -> None:
    node = start(graph)
    asker = graph.add(Asker("view"))
    asker.show(node, 1, camera=SMALL.resized(128, 64))
    asker.ask()
    assert "calibrated for 128x64 does not fit an image of 64x32" in asker.refusal(node)


def test_there_is_no_image_yet_or_none_any_more(graph: Graph, engine: Any) -> None:
    node = start(graph, input_timeout=0.3)
    asker = graph.add(Asker("view"))
    wait_until(asker.connected, what="matching publishers and subscribers")
    asker.ask()
    assert "no image on /robot/image: none has come yet" in asker.refusal(node)
    asker.show(node, 1)
    time.sleep(0.4)
    asker.ask()
    wait_until(lambda: node.statistics.counts["failed"] >= 2, what="the second failure")
    assert "the last came" in node.statistics.last_error and not asker.got["view"]


class FakeBuffer:
    """Knows where the camera stands in "map" from a stamp on, and notes what it is asked."""

    asked: list[tuple[str, str, int]] = []

    def lookup_transform(self, target: str, source: str, when: Any, timeout: Any) -> TransformStamped:
        self.asked.append((target, source, when.nanoseconds))
        if when.nanoseconds % 1_000_000_000 > 50:
            time.sleep(timeout.nanoseconds / 1e9)
            raise KeyError("Lookup would require extrapolation into the future")
        assert (target, source) == ("camera_optical", "map")
        transform = Transform(translation=Vector3(x=-1.0), rotation=Quaternion(y=1.0, w=1.0))
        return TransformStamped(transform=transform)


def test_poses_of_other_frames_are_carried_over_at_the_stamp_of_the_image(
    graph: Graph, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    listener = SimpleNamespace(unregister=lambda: closed.append(True))
    FakeBuffer.asked = []
    fake = SimpleNamespace(
        Buffer=FakeBuffer, TransformListener=lambda buffer, node: listener, TransformException=KeyError
    )
    monkeypatch.setitem(sys.modules, "tf2_ros", fake)
    node = start(graph, transform_timeout=0.01)
    asker = graph.add(Asker("view"))
    asker.show(node, 50)
    asker.ask((0.1, 0.2, 1.05), turn=(0.0, -1.0, 0.0, 1.0), frame="map")
    there = pose_of((-1, 0, 0), (0, 1, 0, 1)) @ pose_of((0.1, 0.2, 1.05), (0, -1, 0, 1))
    assert there[:3, 3] == pytest.approx([0.05, 0.2, -0.1]) and there[:3, :3] == pytest.approx(np.eye(3))
    got = image_from_message(asker.views(1)[0]).data
    assert np.abs(got.astype(int) - from_there(there).image).max() <= 1
    assert FakeBuffer.asked == [("camera_optical", "map", 12_000_000_050)]
    asker.show(node, 60)
    asker.ask(frame="map")
    said = asker.refusal(node)
    assert "no transform from frame 'map' to 'camera_optical' at 12.000 s within 0.01 s" in said
    assert "extrapolation into the future" in said and "publish it on /tf" in said
    asker.ask()
    asker.views(2)
    assert asker.change_state(NAME, Transition.TRANSITION_DEACTIVATE) and closed == [True]


def test_an_orbit_needs_no_pose(graph: Graph, engine: Any) -> None:
    node = start(graph, orbit=True, orbit_period=0.4, orbit_angle=5.0, orbit_distance=1.5)
    asker = graph.add(Asker("view"))
    asker.show(node, 1)
    asker.views(1)
    asker.got["view"].clear()
    moments = {1: 0.0, 100_000_001: 0.25, 300_000_001: 0.75}  # the stamps' seconds are 12, thirty times around
    for number, turn in moments.items():
        asker.show(node, number)
        expected = from_there(orbit_pose(turn, 5, 1.5)).image

        def came(number: int = number, expected: np.ndarray = expected) -> bool:
            views = [view for view in asker.got["view"].values() if view.header.stamp.nanosec == number]
            return any(np.abs(image_from_message(view).data.astype(int) - expected).max() <= 2 for view in views)

        wait_until(came, what=f"the view of {number}")
    assert not asker.errors()
    assert asker.set(NAME, orbit_angle=40.0)[0].successful
    asker.show(node, 7)
    assert "40 degrees from the camera" in asker.refusal(node)


def test_an_orbit_waits_for_the_calibration(graph: Graph, engine: Any) -> None:
    node = start(graph, orbit=True)
    asker = graph.add(Asker("view"))
    wait_until(asker.connected, what="matching publishers and subscribers")
    asker.send(1, PICTURE, camera=None)
    wait_until(lambda: node.statistics.counts["skipped"] == 1, what="the image that has none")
    asker.show(node, 2)
    asker.views(1)
    assert not asker.errors() and not node.statistics.counts["failed"]


def test_cameras_have_views_of_their_own(graph: Graph, engine: Any) -> None:
    node = start(graph, cameras="left right")
    asker = graph.add(Asker("view", namespace="/robot/right"))
    wait_until(asker.connected, what="matching publishers and subscribers")

    def seen() -> Any:
        asker.send(3, PICTURE, SMALL)
        time.sleep(0.02)
        newest = node.streams[1].results.newest
        return newest and newest.calibration

    wait_until(seen, what="the node to have an image")
    asker.ask()
    (message,) = asker.views(1)
    assert message.header.frame_id == "right/view_optical" and node.streams[1].published == 1


def test_deactivated_it_forgets_the_image_and_cleaned_up_its_engine(graph: Graph, engine: Any) -> None:
    node = start(graph)
    asker = graph.add(Asker("view"))
    asker.show(node, 1)
    asker.ask()
    asker.views(1)
    assert asker.change_state(NAME, Transition.TRANSITION_DEACTIVATE)
    assert node.streams[0].results.newest is None and node.streams[0].results.last is None
    wait_until(lambda: not asker.poses.get_subscription_count(), what="the node to unsubscribe")
    assert asker.change_state(NAME, Transition.TRANSITION_ACTIVATE)
    asker.show(node, 2)
    asker.ask()
    asker.views(2)
    assert asker.change_state(NAME, Transition.TRANSITION_DEACTIVATE)
    assert asker.change_state(NAME, Transition.TRANSITION_CLEANUP) and engine.closed


class FakePart:
    """A part of a network; notes what it is given."""

    def __init__(self, config: ModelConfig, say: Any) -> None:
        self.config, self._say = config, say
        self.info = {"model": f"fake {config.part}", "target": "fake", "precision": "fp32", "key": "0", "device": "x"}
        self.trained, self.closed = True, False
        self.given: list[Mapping[str, np.ndarray]] = []

    def run(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert [*given] == [tensor.name for tensor in self.config.inputs]
        assert [array.shape for array in given.values()] == [tensor.shape for tensor in self.config.inputs]
        self.given.append({name: array.copy() for name, array in given.items()})
        return dict(self._say(given))

    def close(self) -> None:
        self.closed = True


def parts(*more: Input) -> list[FakePart]:
    """A field that is the image's mean, and views whose red is that, whose green the x of the pose."""
    image, view = (1, 3, 32, 64), Output("view", (1, 3, 32, 64), "intensity")
    config = ModelConfig(
        "fake", "view_synthesis", (32, 64), (Output("planes", (1, 1), ""), view, Output("depth", (1, 1, 32, 64), "m")),
        more_inputs=(
            Input("camera", (1, 5), "share"), *more, Input("pose", (1, 4, 4), "m"), Input("target", (1, 4), "share")
        ),
        parts=(
            Part("field", ("image", "camera", *(tensor.name for tensor in more)), ("planes",)),
            Part("view", ("planes", "pose", "target"), ("view", "depth")),
        ),
    )  # fmt: skip

    def render(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        pixels = np.zeros(image, np.float32)
        pixels[0, 0], pixels[0, 1] = given["planes"][0, 0] / 255, given["pose"][0, 0, 3]
        return {"view": pixels, "depth": np.full((1, 1, 32, 64), 3.0, np.float32)}

    field = FakePart(config.of_part("field"), lambda given: {"planes": given["image"].mean(axis=(1, 2))[:, :1] * 1})
    return [field, FakePart(config.of_part("view"), render)]


def built(monkeypatch: pytest.MonkeyPatch, parts: list[FakePart], depth: Any = None) -> None:
    """What there is to load."""
    monkeypatch.setattr(model_node.engines, "load_whole", lambda *_: SimpleNamespace(parts=tuple(parts)))
    monkeypatch.setattr(model_node.engines, "load", lambda *_: depth)


def test_a_network_makes_a_field_once_and_renders_it_for_every_pose(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    field, renderer = parts()
    built(monkeypatch, [field, renderer])
    node = start(graph, model="nvist_compact")
    tried = len(field.given), len(renderer.given)
    asker = graph.add(Asker())
    asker.show(node, 1)
    for count, x in enumerate((0.2, 0.4), 1):
        asker.ask((x, 0.0, 0.0))
        pixels = image_from_message(asker.views(count)[-1]).data
        assert abs(int(pixels[0, 0, 0]) - PICTURE[..., 0].mean()) <= 1 and pixels[0, 0, 1] == round(255 * x)
        depth, beyond = metres(asker.got["view/depth"][count - 1]), round(SMALL.fx * x / 3)
        assert (depth[:, : 64 - beyond] == 3).all() and np.isnan(depth[:, 64 - beyond :]).all(), "which no image shows"
    assert (len(field.given), len(renderer.given)) == (tried[0] + 1, tried[1] + 2)
    assert np.array_equal(field.given[-1]["camera"], lens_numbers(SMALL, 0.0)), "nobody knows how far the scene is"
    assert np.array_equal(renderer.given[-1]["target"], lens_numbers(SMALL))
    wait_until(lambda: asker.values().get("method") == "model", what="the diagnostics")
    node.close()
    assert field.closed and renderer.closed


def test_a_model_for_depth_tells_a_network_what_it_asks_for(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    field, renderer = parts(Input("seen_depth", (1, 1, 32, 64), "m"))
    depth = wall()
    built(monkeypatch, [field, renderer], depth)
    node = start(graph, model="nvist_compact", depth_model="some")
    asker = graph.add(Asker("view", "view/depth"))
    asker.show(node, 1)
    asker.ask()
    asker.views(1)
    assert np.allclose(field.given[-1]["camera"], lens_numbers(SMALL, FAR))
    assert (field.given[-1]["seen_depth"] == FAR).all()
    assert np.isnan(metres(asker.got["view/depth"][0])).all(), "what is rendered at 3 m lies behind the wall"
    node.close()
    assert depth.closed


@pytest.mark.parametrize(
    ("engines", "said"),
    [
        (parts(Input("seen_depth", (1, 1, 32, 64), "m")), "needs the image's depth; name a depth_model"),
        (parts(Input("instances", (1, 1, 32, 64), "")), "which objects are where"),
        (parts()[:1], "not one that makes a field and renders it"),
    ],
)
def test_a_network_that_cannot_be_served_is_refused(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, engines: list[FakePart], said: str
) -> None:
    built(monkeypatch, engines)
    node = graph.add(ViewSynthesisNode(namespace="/robot", parameter_overrides=overrides(model="nvist_compact")))
    asker = graph.add(Asker())
    assert not node.autostart()
    wait_until(lambda: any(said in line for line in asker.errors()), what="the reason")
    assert engines[0].closed

"""The player: the bag's bytes, on time, with a clock; and an account of what was sent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Graph, overrides, wait_until
from rclpy.serialization import deserialize_message
from robot import SMALL, Robot
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage

from perception.evaluation import bags
from perception.evaluation.bags import Bag, BagWriter
from perception.nodes import bag_player as module
from perception.nodes.bag_player import BagPlayerNode, message_type
from perception.nodes.outputs import RESULTS
from perception.tasks.image import Image

SECOND = 1_000_000_000
COUNT, HZ = 6, 25


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Images with calibration, recorded 10 ms after their stamps from second 40 on."""
    path = tmp_path / "recording"
    with BagWriter(path) as writer:
        for index in range(COUNT):
            stamp = 40 * SECOND + index * SECOND // HZ
            head = bags.header(stamp, "eye")
            pixels = np.full((SMALL.height, SMALL.width, 3), index, np.uint8)
            writer.write("/eye/camera_info", bags.info_message(SMALL, head), stamp + SECOND // 100)
            writer.write("/eye/image", bags.image_message(Image(pixels, "rgb8"), head), stamp + SECOND // 100)
    return path


class Witness:
    """Keeps what is played."""

    def __init__(self, graph: Graph) -> None:
        self.robot = graph.add(Robot())
        self.images: list[ImageMessage] = []
        self.infos: list[CameraInfo] = []
        self.clocks: list[int] = []
        self.robot.create_subscription(ImageMessage, "/eye/image", self.images.append, RESULTS)
        self.robot.create_subscription(CameraInfo, "/eye/camera_info", self.infos.append, RESULTS)
        self.robot.create_subscription(Clock, "/clock", self._on_clock, 100)

    def _on_clock(self, message: Clock) -> None:
        self.clocks.append(message.clock.sec * SECOND + message.clock.nanosec)

    def stamps(self) -> list[int]:
        return [m.header.stamp.sec * SECOND + m.header.stamp.nanosec for m in self.images]


def player(graph: Graph, witness: Witness, recording: Path, **values: Any) -> BagPlayerNode:
    """Configured, and connected with the witness."""
    given = {"bag": str(recording), "images": "/eye/image", "topics": "/eye/camera_info", "autostart": False} | values
    node = graph.add(BagPlayerNode(parameter_overrides=overrides(**given)))
    node.trigger_configure()
    topics = ("/eye/image", "/eye/camera_info", "/clock")
    wait_until(lambda: all(node.count_subscribers(topic) for topic in topics), what="the witness")
    wait_until(lambda: all(witness.robot.count_publishers(topic) for topic in topics), what="the player")
    return node


def play(node: BagPlayerNode, count: int, witness: Witness) -> None:
    node.trigger_activate()
    wait_until(lambda: len(witness.images) >= count, what=f"{count} images")
    if not node.parameters.least:
        wait_until(node.watch, what="the end of the bag")
    node.trigger_deactivate()


def test_nothing_is_sent_before_all_are_connected(
    graph: Graph, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But a subscriber that never is, as one with other QoS, holds it up for a while only."""
    witness = Witness(graph)
    node = player(graph, witness, recording)
    monkeypatch.setattr(node, "count_subscribers", lambda topic: 2)
    node.trigger_activate()
    time.sleep(0.3)
    assert not witness.images
    monkeypatch.setattr(node, "count_subscribers", lambda topic: 1)
    wait_until(lambda: len(witness.images) >= COUNT, what="the images")
    node.trigger_deactivate()
    monkeypatch.setattr(node, "count_subscribers", lambda topic: 2)
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.1)
    play(node, 2 * COUNT, witness)


def test_the_first_image_waits_for_a_subscriber_that_is_not_known_yet(
    graph: Graph, recording: Path, tmp_path: Path
) -> None:
    """As in a new process, which has not heard of those that are there when it begins."""
    sent = tmp_path / "sent.npy"
    given = {"bag": str(recording), "images": "/eye/image", "topics": "/eye/camera_info", "autostart": False}
    node = graph.add(BagPlayerNode(parameter_overrides=overrides(**given, sent=str(sent))))
    node.trigger_configure()
    node.trigger_activate()
    time.sleep(0.5)
    joined = time.monotonic_ns()
    witness = Witness(graph)
    wait_until(node.watch, what="the end of the bag")
    wait_until(lambda: witness.stamps()[-1:] == [40 * SECOND + (COUNT - 1) * SECOND // HZ], what="the last image")
    node.trigger_deactivate()
    times = np.load(sent)[:, 1]
    assert len(times) == COUNT and times.min() > joined


def test_bytes_stamps_clock_and_times_are_the_recordings(graph: Graph, recording: Path, tmp_path: Path) -> None:
    witness, sent = Witness(graph), tmp_path / "sent.npy"
    node = player(graph, witness, recording, sent=str(sent))
    play(node, COUNT, witness)
    with Bag(recording) as bag:
        expected = [deserialize_message(bytes(raw.data), ImageMessage) for raw in bag.raw(["/eye/image"])]
        times = [raw.time for raw in bag.raw(["/eye/image"])]
    assert witness.images == expected  # and not serialised anew: what fills up to a boundary may be anything
    assert len(witness.infos) == COUNT
    noted = np.load(sent)
    assert noted[:, 0].tolist() == witness.stamps()
    gaps = np.diff(noted[:, 1]) / 1e9
    assert abs(np.median(gaps) - 1 / HZ) < 0.01
    assert set(times) <= set(witness.clocks) and witness.clocks == sorted(witness.clocks)
    assert len(witness.clocks) > 2 * COUNT  # it ticks between messages too
    assert node.watch() == [f"bag {recording} has ended after {COUNT} images"]


def test_a_calibration_that_was_recorded_late_comes_before_the_first_image(graph: Graph, tmp_path: Path) -> None:
    """As image_transport sends the two; a node that waits for a calibration would lack the first image."""
    path = tmp_path / "late"
    image = Image(np.zeros((SMALL.height, SMALL.width, 3), np.uint8), "rgb8")
    with BagWriter(path) as writer:
        writer.write("/early/camera_info", bags.info_message(SMALL, bags.header(40 * SECOND, "eye")), 39 * SECOND)
        for index in range(2):
            time = 40 * SECOND + index * SECOND // HZ
            head = bags.header(time, "eye")
            writer.write("/eye/image", bags.image_message(image, head), time)
            writer.write("/eye/camera_info", bags.info_message(SMALL, head), time + 1_000_000)
    witness = Witness(graph)
    node = player(graph, witness, path, topics="/eye/camera_info /early/camera_info", least=60.0)
    messages = [raw for raw, _ in zip(node._messages(), range(8), strict=False)]
    one_run = ["/early/camera_info", "/eye/image", "/eye/camera_info", "/eye/image", "/eye/camera_info"]
    assert [raw.topic for raw in messages] == [one_run[0], "/eye/camera_info", *one_run[1:], *one_run[:2]]
    assert messages[1].time == messages[2].time == 40 * SECOND and messages[1].data == messages[3].data
    play(node, 2, witness)
    wait_until(lambda: len(witness.infos) >= 3, what="the calibrations")
    assert witness.infos[0] == witness.infos[1]


def test_another_rate(graph: Graph, recording: Path, tmp_path: Path) -> None:
    witness, sent = Witness(graph), tmp_path / "sent.npy"
    play(player(graph, witness, recording, rate=100.0, sent=str(sent)), COUNT, witness)
    gaps = np.diff(np.load(sent)[:, 1]) / 1e9
    assert abs(np.median(gaps) - 0.01) < 0.004


def test_time_runs_forward_at_a_slower_rate_too(graph: Graph, recording: Path) -> None:
    witness = Witness(graph)
    play(player(graph, witness, recording, rate=8.0), COUNT, witness)
    assert witness.clocks == sorted(witness.clocks) and len(witness.clocks) > 4 * COUNT
    assert np.diff(witness.clocks).max() < SECOND // HZ, "it runs on between images"


def test_time_goes_on_when_it_starts_again(graph: Graph, recording: Path) -> None:
    witness = Witness(graph)
    play(player(graph, witness, recording, rate=100.0, least=60.0), 3 * COUNT, witness)
    steps = np.diff(witness.stamps()[: 3 * COUNT])
    assert np.abs(steps - SECOND // HZ).max() <= COUNT
    infos = [m.header.stamp.sec * SECOND + m.header.stamp.nanosec for m in witness.infos]
    assert infos[: 3 * COUNT] == witness.stamps()[: 3 * COUNT]
    assert witness.clocks == sorted(witness.clocks)


def test_a_bag_that_is_over_too_early_starts_again_and_is_played_to_its_end(
    graph: Graph, recording: Path, tmp_path: Path
) -> None:
    witness, sent = Witness(graph), tmp_path / "sent.npy"
    node = player(graph, witness, recording, rate=100.0, least=0.5, sent=str(sent))
    node.trigger_activate()
    (said,) = wait_until(node.watch, what="the end")
    node.trigger_deactivate()
    count = len(np.load(sent))
    assert count > COUNT and count % COUNT == 0 and f"has ended after {count} images" in said


def test_the_next_image_waits_for_the_answer(graph: Graph, recording: Path, tmp_path: Path) -> None:
    witness, sent = Witness(graph), tmp_path / "sent.npy"
    answers = witness.robot.create_publisher(ImageMessage, "/answer", 1)
    wait_until(lambda: witness.robot.count_publishers("/answer"), what="discovery")
    node = player(graph, witness, recording, answers="/answer", sent=str(sent))
    wait_until(lambda: dict(node.get_topic_names_and_types()).get("/answer"), what="discovery")
    node.trigger_activate()
    wait_until(lambda: node.count_subscribers("/answer"), what="the player to listen")
    for count in range(1, COUNT + 1):
        wait_until(lambda count=count: len(witness.images) == count, what=f"image {count}")
        if count == 2:
            wait_until(lambda: len(witness.images) == 3, 5, "the next image without an answer")
        else:
            answers.publish(ImageMessage(header=witness.images[-1].header))
    node.trigger_deactivate()
    gaps = np.diff(np.load(sent)[:, 1]) / 1e9
    assert 1.9 < gaps[1] < 3.0 and gaps[2:].max() < 1.0


def test_what_cannot_be_played_is_said(graph: Graph, recording: Path) -> None:
    robot = graph.add(Robot())
    node = graph.add(BagPlayerNode(parameter_overrides=overrides(bag=str(recording), images="/nose/image")))
    assert not node.autostart()
    wait_until(lambda: any("has no topic '/nose/image'; it has /eye/" in text for text in robot.errors()), what="why")
    with pytest.raises(ValueError, match="strange_msgs/msg/Thing are not known here: install the package strange_msgs"):
        message_type("strange_msgs/msg/Thing")

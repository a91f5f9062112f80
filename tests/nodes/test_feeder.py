"""What a benchmark feeds a node with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Graph, overrides, wait_until
from robot import Robot
from sensor_msgs.msg import CompressedImage

from perception.nodes.convert import calibration_from_message, image_from_message
from perception.nodes.feeder import IMAGES, Feeder
from perception.nodes.sources import open_source
from perception.tasks.resources import share

CLIP = str(share("clip"))


class Fed:
    """What arrives from a feeder: images, their times and calibrations."""

    def __init__(self, robot: Robot) -> None:
        self.images: list[Any] = []
        self.times: list[float] = []
        self.infos: list[Any] = []
        robot.create_subscription(robot.TOPICS["depth"], "image", self._on_image, 100)
        robot.create_subscription(CompressedImage, "image/compressed", self._on_image, 100)
        robot.create_subscription(robot.TOPICS["depth/camera_info"], "camera_info", self.infos.append, 100)

    def _on_image(self, message: Any) -> None:
        self.times.append(time.monotonic())
        self.images.append(message)


@pytest.fixture
def feed(graph: Graph) -> Iterator[Callable[..., Fed]]:
    """Starts a feeder with parameters once all are connected, and ends it."""
    stopped, ends = threading.Event(), []

    def start(topic: str = "image", **parameters: Any) -> Fed:
        feeder = Feeder(namespace="/robot", parameter_overrides=overrides(source=CLIP, **parameters))
        thread = threading.Thread(target=feeder.run, args=[stopped], daemon=True)
        ends.extend([thread.join, feeder.destroy_node])
        fed = Fed(graph.add(Robot()))
        wait_until(lambda: feeder.count_subscribers(topic) and feeder.count_subscribers("camera_info"), what="matching")
        thread.start()
        return fed

    yield start
    stopped.set()
    for end in ends:
        end()


def test_it_feeds_the_folders_images_at_the_rate(feed: Callable[..., Fed]) -> None:
    frames = [frame for frame, _ in zip(open_source(CLIP), range(IMAGES), strict=False)]
    known = {frame.image.data.tobytes() for frame in frames}
    assert len(known) == IMAGES
    fed = feed(rate=40.0)
    wait_until(lambda: len(fed.images) >= 20 and len(fed.infos) >= 20, what="twenty images")
    assert fed.times[19] - fed.times[0] > 17 / 40, "not faster than asked for"
    came = [image_from_message(message).data.tobytes() for message in list(fed.images)]
    assert set(came) <= known and len(set(came)) >= 10, "not one and the same"
    expected = frames[0].calibration
    assert expected and calibration_from_message(fed.infos[0]).camera == expected.camera
    assert {message.header.frame_id for message in list(fed.images)} == {"camera_optical"}


def test_bursts_keep_the_rate(feed: Callable[..., Fed]) -> None:
    fed = feed(rate=50.0, burst=10)
    wait_until(lambda: len(fed.times) >= 40, what="four bursts")
    assert fed.times[39] - fed.times[0] > 3 * 10 / 50 - 0.1, "not faster than asked for"
    gaps = [after - before for before, after in zip(fed.times[:39], fed.times[1:40], strict=True)]
    assert sum(gap > 0.1 for gap in gaps) <= 4, "ten at once"


def test_larger_images_come_compressed_with_the_same_lens(feed: Callable[..., Fed]) -> None:
    frame = next(iter(open_source(CLIP)))
    fed = feed("image/compressed", hd=True)
    wait_until(lambda: fed.images and fed.infos, what="an image")
    image, camera = image_from_message(fed.images[0]), calibration_from_message(fed.infos[0]).camera
    assert image.size == (720, 1280) and (camera.width, camera.height) == (1280, 720)
    assert frame.calibration
    small = frame.calibration.camera
    # Half a pixel is the difference of pixel centres: the ray of a pixel in the middle is the same in both.
    assert camera.fx == 2 * small.fx
    u, v = 2 * 400 + 0.5, 2 * (300 - 60) + 0.5
    assert (u - camera.cx) / camera.fx == pytest.approx((400 - small.cx) / small.fx)
    assert (v - camera.cy) / camera.fy == pytest.approx((300 - small.cy) / small.fy)

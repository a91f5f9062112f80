"""What a benchmark feeds a node with."""

from __future__ import annotations

import threading
import time

import pytest
from conftest import Graph, overrides, wait_until
from robot import Robot
from sensor_msgs.msg import CompressedImage

from perception.nodes.convert import calibration_from_message, image_from_message
from perception.nodes.feeder import IMAGES, Feeder
from perception.nodes.sources import open_source
from perception.tasks.resources import share


def test_it_feeds_the_folders_images_at_the_rate(graph: Graph) -> None:
    feeder = Feeder(namespace="/robot", parameter_overrides=overrides(source=str(share("clip")), rate=40.0))
    frames = [frame for frame, _ in zip(open_source(str(share("clip"))), range(IMAGES), strict=False)]
    assert len({frame.image.data.tobytes() for frame in frames}) == IMAGES
    robot = graph.add(Robot())
    images, infos = [], []
    robot.create_subscription(robot.TOPICS["depth"], "image", images.append, 100)
    robot.create_subscription(robot.TOPICS["depth/camera_info"], "camera_info", infos.append, 100)
    wait_until(lambda: feeder.count_subscribers("image") and feeder.count_subscribers("camera_info"), what="matching")
    stopped = threading.Event()
    thread = threading.Thread(target=feeder.run, args=[stopped], daemon=True)
    begin = time.monotonic()
    thread.start()
    try:
        wait_until(lambda: len(images) >= 20 and len(infos) >= 20, what="twenty images")
    finally:
        stopped.set()
        thread.join()
        feeder.destroy_node()
    assert time.monotonic() - begin > 18 / 40, "not faster than asked for"
    known = {frame.image.data.tobytes() for frame in frames}
    assert all(image_from_message(message).data.tobytes() in known for message in images)
    assert len({image_from_message(message).data.tobytes() for message in images}) >= 10, "not one and the same"
    expected = frames[0].calibration
    assert expected and calibration_from_message(infos[0]).camera == expected.camera
    assert {message.header.frame_id for message in images} == {"camera_optical"}


def test_bursts_keep_the_rate(graph: Graph) -> None:
    parameters = overrides(source=str(share("clip")), rate=50.0, burst=10)
    feeder = Feeder(namespace="/robot", parameter_overrides=parameters)
    robot = graph.add(Robot())
    times: list[float] = []
    robot.create_subscription(robot.TOPICS["depth"], "image", lambda message: times.append(time.monotonic()), 100)
    wait_until(lambda: feeder.count_subscribers("image"), what="matching")
    stopped = threading.Event()
    thread = threading.Thread(target=feeder.run, args=[stopped], daemon=True)
    thread.start()
    try:
        wait_until(lambda: len(times) >= 40, what="four bursts")
    finally:
        stopped.set()
        thread.join()
        feeder.destroy_node()
    assert times[39] - times[0] > 3 * 10 / 50 - 0.1, "not faster than asked for"
    gaps = [after - before for before, after in zip(times[:39], times[1:40], strict=True)]
    assert sum(gap > 0.05 for gap in gaps) <= 4, "ten at once"


def test_larger_images_come_compressed_with_the_same_lens(graph: Graph) -> None:
    feeder = Feeder(namespace="/robot", parameter_overrides=overrides(source=str(share("clip")), hd=True))
    frame = next(iter(open_source(str(share("clip")))))
    robot = graph.add(Robot())
    images, infos = [], []
    robot.create_subscription(CompressedImage, "image/compressed", images.append, 100)
    robot.create_subscription(robot.TOPICS["depth/camera_info"], "camera_info", infos.append, 100)
    wait_until(lambda: feeder.count_subscribers("image/compressed") and feeder.count_subscribers("camera_info"))
    stopped = threading.Event()
    thread = threading.Thread(target=feeder.run, args=[stopped], daemon=True)
    thread.start()
    try:
        wait_until(lambda: images and infos, what="an image")
    finally:
        stopped.set()
        thread.join()
        feeder.destroy_node()
    image, camera = image_from_message(images[0]), calibration_from_message(infos[0]).camera
    assert image.size == (720, 1280) and (camera.width, camera.height) == (1280, 720)
    assert frame.calibration
    small = frame.calibration.camera
    # Half a pixel is the difference of pixel centres: the ray of a pixel in the middle is the same in both.
    assert camera.fx == 2 * small.fx
    u, v = 2 * 400 + 0.5, 2 * (300 - 60) + 0.5
    assert (u - camera.cx) / camera.fx == pytest.approx((400 - small.cx) / small.fx)
    assert (v - camera.cy) / camera.fy == pytest.approx((300 - small.cy) / small.fy)

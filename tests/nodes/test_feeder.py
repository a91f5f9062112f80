"""What a benchmark feeds a node with."""

from __future__ import annotations

import threading
import time

from conftest import Graph, overrides, wait_until
from robot import Robot

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

"""Publishes the images of a folder over and over, made ready beforehand: what a benchmark feeds a node with.

`image_source_node` converts every image anew, as a camera driver does; where a node, its source and its readers share
two cores, that would be measured too.
"""

from __future__ import annotations

import copy
import itertools
import sys
import threading
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from perception.nodes.convert import calibration_to_message, image_to_compressed, image_to_message
from perception.nodes.environment import prepare
from perception.nodes.image_source_node import Pace
from perception.nodes.outputs import RESULTS
from perception.nodes.sources import open_source
from perception.tasks.geometry import Camera
from perception.tasks.image import Image, resize

IMAGES = 30
"""A second of a camera's images, 28 MB of 640x480: more than the processor's caches hold."""


class Feeder(Node):
    """`image` and `camera_info` from the parameters `source`, a folder of 640x480 images, and `rate`; stamps are zero.

    With `burst`, so many come at once, as rarely as keeps the rate. With `hd` they are 1280x720, `image/compressed`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("feeder", **options)
        source = str(self.declare_parameter("source", "").value)
        self._rate = float(self.declare_parameter("rate", 30.0).value or 30.0)
        self._burst = int(self.declare_parameter("burst", 1).value or 1)
        hd = bool(self.declare_parameter("hd", False).value)
        header = Header(frame_id="camera_optical")
        frames = list(itertools.islice(open_source(source), IMAGES))
        images, calibration = [frame.image for frame in frames], frames[0].calibration
        camera = calibration.camera if calibration else None
        if hd:
            images, camera = [_wider(image) for image in images], _wider_camera(camera) if camera else None
        make = image_to_compressed if hd else image_to_message
        self._images = [serialize_message(make(image, header)) for image in images]
        self._info = serialize_message(calibration_to_message(camera, header)) if camera else None
        kind, topic = (CompressedImage, "image/compressed") if hd else (ImageMessage, "image")
        qos = copy.copy(RESULTS)
        qos.depth = max(qos.depth, self._burst)  # those that are not sent yet are not to be replaced
        self._image_publisher = self.create_publisher(kind, topic, qos)
        self._info_publisher = self.create_publisher(CameraInfo, "camera_info", qos)

    def run(self, stopped: threading.Event) -> None:
        """Publish until `stopped`, or until ROS is shut down."""
        pace = Pace(self._burst / self._rate)
        images = itertools.cycle(self._images)
        while pace.wait(stopped) is not None and self.context.ok():
            for _ in range(self._burst):
                if self._info:
                    self._info_publisher.publish(self._info)
                self._image_publisher.publish(next(images))


def _wider(image: Image) -> Image:
    """The middle 640x360 of a 640x480 image, twice as large."""
    middle = image.data[image.size[0] // 8 : -image.size[0] // 8]
    return Image(resize(middle, (2 * middle.shape[0], 2 * middle.shape[1])), image.encoding)


def _wider_camera(camera: Camera) -> Camera:
    """That of such an image."""
    height = camera.height * 3 // 4
    cx, cy = 2 * camera.cx + 0.5, 2 * (camera.cy - camera.height // 8) + 0.5
    return Camera(2 * camera.width, 2 * height, 2 * camera.fx, 2 * camera.fy, cx, cy)


def main(arguments: list[str] | None = None) -> int:
    prepare()
    rclpy.init(args=arguments)
    node = Feeder()
    try:
        node.run(threading.Event())
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

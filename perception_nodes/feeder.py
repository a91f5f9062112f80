"""Publishes the images of a folder over and over, made ready beforehand: what a benchmark feeds a node with.

`image_source_node` converts every image anew, as a camera driver does; where a node, its source and its readers share
two cores, that would be measured too.
"""

from __future__ import annotations

import itertools
import sys
import threading
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from perception.nodes.convert import calibration_to_message, image_to_message
from perception.nodes.environment import prepare
from perception.nodes.image_source_node import Pace
from perception.nodes.outputs import RESULTS
from perception.nodes.sources import open_source

IMAGES = 30
"""A second of a camera's images, 28 MB of 640x480: more than the processor's caches hold."""


class Feeder(Node):
    """`image` and `camera_info` at a steady rate from the parameters `source` and `rate`; stamps are all zero."""

    def __init__(self, **options: Any) -> None:
        super().__init__("feeder", **options)
        source = str(self.declare_parameter("source", "").value)
        self._rate = float(self.declare_parameter("rate", 30.0).value or 30.0)
        header = Header(frame_id="camera_optical")
        frames = list(itertools.islice(open_source(source), IMAGES))
        self._images = [serialize_message(image_to_message(frame.image, header)) for frame in frames]
        calibration = frames[0].calibration
        self._info = serialize_message(calibration_to_message(calibration, header)) if calibration else None
        self._image_publisher = self.create_publisher(ImageMessage, "image", RESULTS)
        self._info_publisher = self.create_publisher(CameraInfo, "camera_info", RESULTS)

    def run(self, stopped: threading.Event) -> None:
        """Publish until `stopped`, or until ROS is shut down."""
        pace = Pace(1 / self._rate)
        for image in itertools.cycle(self._images):
            if pace.wait(stopped) is None or not self.context.ok():
                return
            if self._info:
                self._info_publisher.publish(self._info)
            self._image_publisher.publish(image)


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

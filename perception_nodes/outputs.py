"""What a node publishes. Outputs take arrays and make messages only for those who listen."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, PointCloud2
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from perception.nodes.convert import calibration_to_message, image_to_message, points_to_message
from perception.tasks.calibration import Calibration
from perception.tasks.geometry import Camera
from perception.tasks.image import Image, layout

RESULTS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=4, reliability=ReliabilityPolicy.RELIABLE)
"""Reliable (REP 2003): every subscriber matches. Four, because the middleware sends from a thread of its own: with one,
of two images in quick succession the newer would replace the older before it is sent."""


class Output:
    """A topic; its QoS can be overridden through ROS's own `qos_overrides` parameters."""

    message_type: type[Any]

    def __init__(self, node: Node, topic: str, qos: QoSProfile = RESULTS) -> None:
        self._node = node
        options = QoSOverridingOptions.with_default_policies()
        qos = copy.copy(qos)  # rclpy writes overrides into the profile that it is given
        self._publisher = node.create_publisher(self.message_type, topic, qos, qos_overriding_options=options)

    @property
    def topic(self) -> str:
        """The name after remapping."""
        return self._publisher.topic_name

    @property
    def wanted(self) -> bool:
        """Whether anybody listens; if not, nothing needs to be computed for this output."""
        return self._publisher.get_subscription_count() > 0

    def close(self) -> None:
        """Withdraw the topic."""
        self._node.destroy_publisher(self._publisher)

    def _send(self, message: Any) -> None:
        self._publisher.publish(message)


class ImageOutput(Output):
    """sensor_msgs/Image."""

    message_type = ImageMessage

    def __init__(self, node: Node, topic: str, qos: QoSProfile = RESULTS) -> None:
        super().__init__(node, topic, qos)
        self._message = ImageMessage()
        self._pixels = np.zeros(0)

    def pixels(self, size: tuple[int, int], encoding: str) -> np.ndarray:
        """An array that `publish` sends without a copy, for images of size = (height, width). Every frame has it anew.

        Copies and fresh memory are most of what a large message costs.
        """
        shape, dtype = layout(encoding, size)
        if self._pixels.shape != shape or self._message.encoding != encoding:
            empty = Image(np.zeros(shape, dtype), encoding)
            self._message = image_to_message(empty, Header())
            self._pixels = np.frombuffer(self._message.data, dtype).reshape(shape)
        return self._pixels

    def publish(self, image: Image, header: Header) -> None:
        pixels = self.pixels(image.size, image.encoding)
        if image.data is not pixels:
            np.copyto(pixels, image.data)
        self._message.header = header
        self._send(self._message)


class CalibrationOutput(Output):
    """sensor_msgs/CameraInfo of an image output."""

    message_type = CameraInfo

    def __init__(self, node: Node, topic: str, qos: QoSProfile = RESULTS) -> None:
        super().__init__(node, topic, qos)
        self._last: tuple[Calibration | Camera, CameraInfo] | None = None

    def publish(self, calibration: Calibration | Camera, header: Header) -> None:
        if self._last is None or self._last[0] != calibration:
            self._last = calibration, calibration_to_message(calibration, header)
        message = self._last[1]
        message.header = header
        self._send(message)


class PointsOutput(Output):
    """An organised sensor_msgs/PointCloud2."""

    message_type = PointCloud2

    def publish(self, points: np.ndarray, header: Header, bgr: np.ndarray | None = None) -> None:
        """`points` float32 (height, width, 3) in metres, optical frame; `bgr` uint8 of the same shape."""
        self._send(points_to_message(points, header, bgr))

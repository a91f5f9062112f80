"""What a node publishes. Outputs take arrays and make messages only for those who listen."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, PointCloud2
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from perception.nodes.convert import calibration_to_message, image_to_message, points_to_message
from perception.nodes.exchange import exchange_of
from perception.tasks.calibration import Calibration
from perception.tasks.geometry import Camera
from perception.tasks.image import Image, layout

RESULTS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=4, reliability=ReliabilityPolicy.RELIABLE)
"""Reliable (REP 2003): every subscriber matches. Four, because the middleware sends from a thread of its own: with one,
of two images in quick succession the newer would replace the older before it is sent."""
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Whoever subscribes later gets the newest too."""


class Output:
    """A topic; its QoS can be overridden through ROS's own `qos_overrides` parameters.

    Nodes of the same process take what it publishes from the exchange, where the subclass `exchanges` it; messages are
    for the others.
    """

    message_type: type[Any]
    exchanges = False

    def __init__(self, node: Node, topic: str, qos: QoSProfile = RESULTS) -> None:
        self._node = node
        options = QoSOverridingOptions.with_default_policies()
        qos = copy.copy(qos)  # rclpy writes overrides into the profile that it is given
        self._publisher = node.create_publisher(self.message_type, topic, qos, qos_overriding_options=options)
        self.topic: str = self._publisher.topic_name
        """The name after remapping."""
        self._exchange = exchange_of(node)
        if self.exchanges:
            self._exchange.offer(self.topic)

    @property
    def wanted(self) -> bool:
        """Whether anybody listens; if not, nothing needs to be computed for this output."""
        return self._wanted_here or self._wanted_outside

    @property
    def _wanted_here(self) -> bool:
        """Whether another node of this process does."""
        return self.exchanges and self._exchange.wanted(self.topic)

    @property
    def _wanted_outside(self) -> bool:
        return self._publisher.get_subscription_count() > 0

    @property
    def _sends(self) -> bool:
        """Whether a message is due. With nobody anywhere it is, too: one may just appear, or the topic be latched."""
        return self._wanted_outside or not self._wanted_here

    def close(self) -> None:
        """Withdraw the topic."""
        if self.exchanges:
            self._exchange.withdraw(self.topic)
        self._node.destroy_publisher(self._publisher)

    def _send(self, message: Any) -> None:
        self._publisher.publish(message)


class ImageOutput(Output):
    """sensor_msgs/Image."""

    message_type = ImageMessage
    exchanges = True

    def __init__(self, node: Node, topic: str, qos: QoSProfile = RESULTS) -> None:
        super().__init__(node, topic, qos)
        self._message = ImageMessage()
        self._pixels = np.zeros(0)

    def pixels(self, size: tuple[int, int], encoding: str) -> np.ndarray:
        """An array for images of size = (height, width) that `publish` sends without a copy. Every frame has it anew.

        Copies and fresh memory are most of what a large message costs. What another node of this process takes must
        not change, so that its memory is fresh; then the message for others is a copy.
        """
        shape, dtype = layout(encoding, size)
        if self._wanted_here:
            return np.empty(shape, dtype)
        return self._message_pixels(shape, dtype, encoding)

    def publish(self, image: Image, header: Header, message: ImageMessage | None = None) -> None:
        """Send an image; `message`, where there is one already that says the same, goes out as it is."""
        if self._wanted_here and image.data is not self._pixels:  # a node that joined since `pixels` misses one frame
            shared = image.data.view()
            shared.flags.writeable = False
            self._exchange.send(self.topic, Image(shared, image.encoding), header)
        if self._sends and message:
            self._send(message)
        elif self._sends:
            pixels = self._message_pixels(image.data.shape, image.data.dtype, image.encoding)
            if image.data is not pixels:
                np.copyto(pixels, image.data)
            self._message.header = header
            self._send(self._message)

    def _message_pixels(self, shape: tuple[int, ...], dtype: np.dtype, encoding: str) -> np.ndarray:
        """What the message's data hold."""
        if self._pixels.shape != shape or self._message.encoding != encoding:
            empty = Image(np.zeros(shape, dtype), encoding)
            self._message = image_to_message(empty, Header())
            self._pixels = np.frombuffer(self._message.data, dtype).reshape(shape)
        return self._pixels


class CalibrationOutput(Output):
    """sensor_msgs/CameraInfo of an image output."""

    message_type = CameraInfo
    exchanges = True

    def __init__(self, node: Node, topic: str, qos: QoSProfile = RESULTS) -> None:
        super().__init__(node, topic, qos)
        self._last: tuple[Calibration | Camera | CameraInfo, CameraInfo] | None = None

    def publish(self, calibration: Calibration | Camera | CameraInfo, header: Header) -> None:
        """Send a calibration; one that came as a message goes on as it is, but for the header."""
        self._exchange.send(self.topic, calibration)
        if not self._sends:
            return
        if self._last is None or self._last[0] != calibration:
            given = isinstance(calibration, CameraInfo)  # not changed: nodes of this process have it
            message = copy.copy(calibration) if given else calibration_to_message(calibration, header)
            self._last = calibration, message
        message = self._last[1]
        message.header = header
        self._send(message)


class PointsOutput(Output):
    """An organised sensor_msgs/PointCloud2."""

    message_type = PointCloud2

    def publish(self, points: np.ndarray, header: Header, bgr: np.ndarray | None = None) -> None:
        """`points` float32 (height, width, 3) in metres, optical frame; `bgr` uint8 of the same shape."""
        self._send(points_to_message(points, header, bgr))

"""Depth in the style in which perception nodes are usually written: what `perception bench` compares ours with.

Its habits can be left off one by one, each for what our nodes do instead. Same engine, same preprocessing and parsing;
nothing here is used by our nodes, and the file does not change to suit a comparison.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage

from perception import engines
from perception.nodes.convert import bytes_of, calibration_from_message, image_from_message
from perception.nodes.environment import prepare
from perception.nodes.parameters import Parameters, declare, parameter
from perception.tasks import depth as task
from perception.tasks.config import DEPTH_MODEL
from perception.tasks.geometry import Camera, Fit
from perception.tasks.image import Image, preprocess


@dataclass(frozen=True)
class UsualParameters(Parameters):
    model: str = parameter(DEPTH_MODEL, "Registered name of the model, or path of an ONNX file.")
    target: str = parameter("auto", "Runtime of the engine.")
    precision: str = parameter("auto", "Precision of the engine.")
    threads: int = parameter(0, "Threads of the runtime; 0 means all cores.", minimum=0, maximum=256)
    queue: bool = parameter(True, "Keep the last 10 images, reliably; without: the newest, best effort.")
    copies: bool = parameter(True, "Convert images by copying, to BGR and back; without: a view of the message.")
    in_callback: bool = parameter(True, "Work in the subscription's callback; without: in a thread, newest first.")
    bytes_data: bool = parameter(True, "Assign bytes to the message's data; without: an array.array.")


class UsualDepthNode(Node):
    """`image` and `camera_info` in, `depth` (32FC1 metres) out."""

    def __init__(self, **options: Any) -> None:
        super().__init__("usual_depth", **options)
        self._parameters_given = declare(self, UsualParameters)
        given = self._parameters_given
        self._engine = engines.load(given.model, given.target, given.precision, given.threads)
        self._camera: Camera | None = None
        self._newest: Any = None
        self._changed = threading.Condition()
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)
        if not given.queue:
            qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._publisher = self.create_publisher(ImageMessage, "depth", 10)
        self.create_subscription(CameraInfo, "camera_info", self._on_info, 10)
        self.create_subscription(ImageMessage, "image", self._on_image if given.in_callback else self._put, qos)
        if not given.in_callback:
            threading.Thread(target=self._serve, name="worker", daemon=True).start()

    def _on_info(self, message: CameraInfo) -> None:
        self._camera = calibration_from_message(message).camera

    def _put(self, message: ImageMessage) -> None:
        with self._changed:
            self._newest = message
            self._changed.notify()

    def _serve(self) -> None:
        while self.context.ok():
            with self._changed:
                if not self._changed.wait_for(lambda: self._newest is not None, 0.2):
                    continue
                message, self._newest = self._newest, None
            self._on_image(message)

    def _on_image(self, message: ImageMessage) -> None:
        image = image_from_message(message)
        if self._parameters_given.copies:
            image = _copied(image)
        fit = Fit.of(image.size, self._engine.config, self._camera)
        outputs = self._engine.run(preprocess(image, self._engine.config, fit))
        metres = task.parse(outputs, fit, self._engine.config).metres
        answer = ImageMessage(header=message.header, encoding="32FC1", height=metres.shape[0], width=metres.shape[1])
        answer.step = 4 * metres.shape[1]
        answer.data = metres.tobytes() if self._parameters_given.bytes_data else bytes_of(metres)
        with contextlib.suppress(RuntimeError):  # shut down meanwhile
            self._publisher.publish(answer)


def _copied(image: Image) -> Image:
    """As a bridge to OpenCV does: a copy, and RGB as BGR, which is swapped back for the network."""
    copy, other = np.array(image.data), {"rgb8": "bgr8", "bgr8": "rgb8"}.get(image.encoding)
    return Image(np.ascontiguousarray(copy[..., ::-1]), other) if other else Image(copy, image.encoding)


def main(arguments: list[str] | None = None) -> int:
    prepare()
    rclpy.init(args=arguments)
    node = UsualDepthNode()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

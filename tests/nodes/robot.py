"""The robot around a node under test: its camera, whoever reads the answers, the log, the services."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from conftest import FOCAL, Graph, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Log, SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from perception.nodes.convert import calibration_to_message, image_to_message
from perception.nodes.inputs import SENSOR_DATA
from perception.tasks.calibration import Calibration
from perception.tasks.geometry import Camera
from perception.tasks.image import Image

CAMERA = Camera(640, 480, FOCAL[0] * 640, FOCAL[1] * 480, 319.5, 239.5)  # FOCAL's lens: the network's metres are metres
SMALL = Camera(64, 32, FOCAL[0] * 64, FOCAL[1] * 32, 31.5, 15.5)  # the same lens with the network's own pixels


class Robot(Node):
    """Publishes camera frames and keeps what the depth node answers, by topic and nanoseconds of the stamp."""

    TOPICS = {
        "depth": ImageMessage,
        "depth/camera_info": CameraInfo,
        "depth/points": PointCloud2,
        "depth/overlay": ImageMessage,
    }
    uses_lens = True
    """Whether the node under test listens to calibrations."""

    def __init__(self, *topics: str, namespace: str = "/robot", transport: str = "raw", name: str = "robot") -> None:
        super().__init__(name, namespace=namespace)
        self._born = time.time()  # the log is latched, and holds what was said to those before
        self.image: Any = None
        self.appear(transport)
        self.info = self.create_publisher(CameraInfo, "camera_info", 1)
        self.got: dict[str, dict[int, Any]] = {topic: {} for topic in topics}
        self._callers: dict[str, Client] = {}
        self.logs: list[Log] = []
        self.statuses: list[DiagnosticStatus] = []
        for topic in topics:
            self.create_subscription(self.TOPICS[topic], topic, lambda m, t=topic: self._keep(t, m), SENSOR_DATA)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Log, "/rosout", self.logs.append, latched)
        self.create_subscription(DiagnosticArray, "/diagnostics", lambda m: self.statuses.extend(m.status), 10)

    def _keep(self, topic: str, message: Any) -> None:
        self.got[topic][message.header.stamp.nanosec] = message

    def appear(self, transport: str = "raw") -> None:
        """Begin to publish images."""
        if transport == "raw":
            self.image = self.create_publisher(ImageMessage, "image", 1)
        else:
            self.image = self.create_publisher(CompressedImage, f"image/{transport}", 1)

    def vanish(self) -> None:
        """Withdraw the image topic."""
        self.destroy_publisher(self.image)
        self.image = None

    def connected(self) -> bool:
        lens = not self.uses_lens or self.info.get_subscription_count()
        ready = self.image.get_subscription_count() and lens
        answers = (self.resolve_topic_name(topic) for topic in self.got)
        return bool(ready) and all(self.count_publishers(topic) for topic in answers)

    def header(self, number: int) -> Header:
        header = Header(frame_id="camera_optical")
        header.stamp.sec, header.stamp.nanosec = 12, number
        return header

    def calibrate(self, camera: Camera | Calibration) -> None:
        self.info.publish(calibration_to_message(camera, self.header(0)))

    def send(self, number: int, pixels: np.ndarray, camera: Camera | Calibration | None = CAMERA) -> Header:
        """Publish one frame of rgb8 pixels, and its calibration unless that is None."""
        header = self.header(number)
        if camera:
            self.info.publish(calibration_to_message(camera, header))
        self.image.publish(image_to_message(Image(pixels, "rgb8"), header))
        return header

    def errors(self, level: int = 40) -> list[str]:
        """What other nodes logged at this level (10 debug, 20 info, 30 warning, 40 error) since this one exists."""
        own = self.get_logger().name
        logs = [log for log in list(self.logs) if log.level == level and log.name != own]
        return [log.msg for log in logs if log.stamp.sec + log.stamp.nanosec * 1e-9 > self._born]

    def warnings(self) -> list[str]:
        return self.errors(30)

    def values(self) -> dict[str, str]:
        """The newest diagnostics."""
        return {item.key: item.value for item in self.statuses[-1].values} if self.statuses else {}

    def call(self, kind: type, name: str, request: Any, seconds: float = 10.0) -> Any:
        """The response of a service of another node; call it from outside the executor."""
        if name not in self._callers:
            self._callers[name] = self.create_client(kind, name)
        wait_until(self._callers[name].service_is_ready, what=name)
        future = self._callers[name].call_async(request)
        wait_until(future.done, seconds, f"the response of {name}")
        return future.result()

    def set(self, node: str, together: bool = False, **values: Any) -> list[SetParametersResult]:
        """Change parameters of another node through its services, one by one or together."""
        items = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        if together:
            request = SetParametersAtomically.Request(parameters=items)
            return [self.call(SetParametersAtomically, f"{node}/set_parameters_atomically", request).result]
        return list(self.call(SetParameters, f"{node}/set_parameters", SetParameters.Request(parameters=items)).results)

    def change_state(self, node: str, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return bool(self.call(ChangeState, f"{node}/change_state", request).success)

    def state(self, node: str) -> str:
        return str(self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.label)


def exchange(
    graph: Graph, robot: Robot, pixels: np.ndarray, number: int = 1, seconds: float = 10.0, **options: Any
) -> dict[str, Any]:
    """Send one frame until it is answered on every topic: best effort may lose one, and calibration comes first."""
    wait_until(robot.connected, seconds, "matching publishers and subscribers")

    def answered() -> bool:
        robot.send(number, pixels, **options)
        return all(number in messages for messages in robot.got.values())

    wait_until(answered, seconds, "an answer on every topic")
    return {topic: messages[number] for topic, messages in robot.got.items()}


def grey(level: int, camera: Camera = SMALL) -> np.ndarray:
    """A uniform picture, which the fake engine takes for a wall `level` tenths of a metre away."""
    return np.full((camera.height, camera.width, 3), level, np.uint8)


def metres(message: ImageMessage) -> np.ndarray:
    """The depth map of a message."""
    assert message.encoding == "32FC1" and message.step == 4 * message.width
    return np.frombuffer(message.data, np.float32).reshape(message.height, message.width)


def total(counts: Mapping[str, int]) -> int:
    """Frames that ended in one of the four ways."""
    return sum(counts[name] for name in ("published", "dropped", "failed", "skipped"))

"""The depth node on real topics: content, stamps, geometry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import FOCAL, FakeEngine, Graph, overrides, wait_until
from perception.nodes.convert import calibration_to_message, image_to_message
from perception.nodes.depth_node import DepthNode
from perception.nodes.inputs import SENSOR_DATA
from perception.tasks.geometry import Camera
from perception.tasks.image import Image
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, PointCloud2
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

CAMERA = Camera(640, 480, 0.9 * 640, 1.2 * 480, 319.5, 239.5)  # FOCAL's lens: the network's metres are metres


class Robot(Node):
    """Publishes camera frames and keeps what the depth node answers, by topic and stamp."""

    TOPICS = {
        "depth": ImageMessage,
        "depth/camera_info": CameraInfo,
        "depth/points": PointCloud2,
        "depth/overlay": ImageMessage,
    }

    def __init__(self, *topics: str, namespace: str = "/robot") -> None:
        super().__init__("robot", namespace=namespace)
        self.image = self.create_publisher(ImageMessage, "image", 1)
        self.info = self.create_publisher(CameraInfo, "camera_info", 1)
        self.got: dict[str, dict[int, Any]] = {topic: {} for topic in topics}
        for topic in topics:
            self.create_subscription(self.TOPICS[topic], topic, lambda m, t=topic: self._keep(t, m), SENSOR_DATA)

    def _keep(self, topic: str, message: Any) -> None:
        self.got[topic][message.header.stamp.nanosec] = message

    def connected(self) -> bool:
        ready = self.image.get_subscription_count() and self.info.get_subscription_count()
        return bool(ready) and all(self.count_publishers(f"/robot/{topic}") for topic in self.got)

    def send(self, number: int, pixels: np.ndarray, camera: Camera | None = CAMERA) -> Header:
        header = Header(frame_id="camera_optical")
        header.stamp.sec, header.stamp.nanosec = 12, number
        if camera:
            self.info.publish(calibration_to_message(camera, header))
        self.image.publish(image_to_message(Image(pixels, "rgb8"), header))
        return header


def exchange(graph: Graph, robot: Robot, pixels: np.ndarray, number: int = 1, **options: Any) -> dict[str, Any]:
    """Send one frame until it is answered on every topic: best effort may lose one, and calibration comes first."""
    wait_until(robot.connected, what="matching publishers and subscribers")

    def answered() -> bool:
        robot.send(number, pixels, **options)
        return all(number in messages for messages in robot.got.values())

    wait_until(answered, what="an answer on every topic")
    return {topic: messages[number] for topic, messages in robot.got.items()}


@pytest.fixture
def depth_node(graph: Graph, engine: FakeEngine) -> DepthNode:
    node = graph.add(DepthNode(namespace="/robot"))
    assert node.autostart()
    return node


def test_depth_is_metres_with_the_images_header(graph: Graph, depth_node: DepthNode) -> None:
    robot = graph.add(Robot("depth", "depth/camera_info"))
    pixels = np.full((480, 640, 3), 20, np.uint8)
    pixels[:, 320:] = 60
    answer = exchange(graph, robot, pixels, number=7)
    depth, info = answer["depth"], answer["depth/camera_info"]
    assert depth.encoding == "32FC1" and (depth.height, depth.width, depth.step) == (480, 640, 640 * 4)
    metres = np.frombuffer(depth.data, np.float32).reshape(480, 640)
    assert np.allclose(metres[:, :300], 2.0, atol=0.01) and np.allclose(metres[:, 340:], 6.0, atol=0.01)
    assert depth.header.frame_id == info.header.frame_id == "camera_optical"
    assert depth.header.stamp.sec == info.header.stamp.sec == 12
    assert (info.width, info.height) == (640, 480) and np.allclose(info.k, CAMERA.matrix.ravel())


@pytest.mark.parametrize(("width", "height"), [(640, 480), (640, 360)])
def test_points_of_a_plane_of_known_pose(
    graph: Graph, engine: FakeEngine, depth_node: DepthNode, width: int, height: int
) -> None:
    """The network sees a tilted plane through its own squeezed camera; the points must lie on the plane in metres."""
    camera = Camera(width, height, 500.0, 510.0, width / 2 + 3, height / 2 - 5)
    normal, distance = np.array([0.2, -0.3, 0.93]), 3.0
    seen = camera.resized(64, 32)
    columns, rows = seen.rays()
    z = distance / (normal[0] * columns[None, :] + normal[1] * rows[:, None] + normal[2])
    scale = np.sqrt(500 / width / FOCAL[0] * 510 / height / FOCAL[1])
    engine.depth = lambda _: z / scale  # what a network trained behind FOCAL's lens would say
    robot = graph.add(Robot("depth/points"))
    answer = exchange(graph, robot, np.zeros((height, width, 3), np.uint8), camera=camera)["depth/points"]
    assert (answer.width, answer.height, answer.point_step) == (width, height, 12)
    points = np.frombuffer(answer.data, np.float32).reshape(height, width, 3)
    inner = points[
        height // 16 : -height // 16, width // 16 : -width // 16
    ]  # beyond the outermost network pixel depth is held
    assert np.abs(inner @ normal / distance - 1).max() < 0.01

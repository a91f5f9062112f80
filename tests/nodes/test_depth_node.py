"""The depth node on real topics: content, stamps, geometry."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import FOCAL, FakeEngine, Graph
from robot import CAMERA, Robot, exchange

from perception.nodes.depth_node import DepthNode
from perception.tasks.geometry import Camera


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


def test_a_narrow_view_is_laid_into_the_training_view(graph: Graph, engine: FakeEngine, depth_node: DepthNode) -> None:
    """Through twice the training focal length, a network that pads sees the image in its middle, and metres stay."""
    engine.config = engine.config.replace(pads_narrow_views=True)
    robot = graph.add(Robot("depth"))
    camera = Camera(640, 480, 2 * FOCAL[0] * 640, 2 * FOCAL[1] * 480, 319.5, 239.5)
    pixels = np.full((480, 640, 3), 20, np.uint8)
    pixels[:, 320:] = 60
    metres = np.frombuffer(exchange(graph, robot, pixels, camera=camera)["depth"].data, np.float32).reshape(480, 640)
    assert np.allclose(metres[:, :300], 2.0, atol=0.01) and np.allclose(metres[:, 340:], 6.0, atol=0.01)


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

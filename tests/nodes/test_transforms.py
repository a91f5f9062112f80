"""Transforms: what is said on /tf, and what is known without tf2."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Transform
from rclpy.qos import DurabilityPolicy
from std_msgs.msg import Header

from perception.nodes.transforms import TransformOutput, Transforms, pose_from_message
from perception.tasks.poses import pose_of


class FakeNode:
    """Notes what is published; tf2_msgs, whose type a real publisher would need, is not among the wheels."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.made: list[Any] = []

    def create_publisher(self, kind: type, topic: str, qos: Any, **_: Any) -> Any:
        self.made.append((topic, qos))
        return SimpleNamespace(topic_name=topic, publish=self.sent.append, get_subscription_count=lambda: 1)

    context = SimpleNamespace


@pytest.mark.parametrize("static", [False, True])
def test_a_transform_says_where_the_child_stands(monkeypatch: pytest.MonkeyPatch, static: bool) -> None:
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", SimpleNamespace(TFMessage=SimpleNamespace))
    node: Any = FakeNode()
    output = TransformOutput(node, static)
    (made,) = node.made
    assert made[0] == ("/tf_static" if static else "/tf")
    assert (made[1].durability == DurabilityPolicy.TRANSIENT_LOCAL) is static
    pose = pose_of((1, -2, 0.5), (0.1, 0.2, -0.3, 0.9))
    header = Header(frame_id="camera_optical", stamp=Time(sec=3))
    output.publish(pose, header, "view_optical")
    (transform,) = node.sent[0].transforms
    assert transform.header == header and transform.child_frame_id == "view_optical"
    assert isinstance(transform.transform, Transform)
    np.testing.assert_allclose(pose_from_message(transform.transform), pose, atol=1e-12)


def test_without_tf2_a_frame_stands_in_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    node: Any = FakeNode()
    transforms = Transforms(node)
    assert np.array_equal(transforms.pose("a", "a", Time(), 0.1), np.eye(4))
    with pytest.raises(ValueError, match="frame 'a' cannot be carried over to 'b'.*tf2-ros-py.*give poses in 'b'"):
        transforms.pose("a", "b", Time(), 0.1)
    transforms.close()
    with pytest.raises(ImportError):
        TransformOutput(node)

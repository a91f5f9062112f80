"""Transforms: what is said on /tf, and what is known without tf2."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Transform
from rclpy.clock import ClockType, ROSClock
from rclpy.qos import DurabilityPolicy
from rclpy.time import Time as ClockTime
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


def test_transforms_are_forgotten_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a bag begins again: tf2 would refuse what is older than it keeps beside its newest."""
    cleared: list[bool] = []
    fake = SimpleNamespace(
        Buffer=lambda: SimpleNamespace(clear=lambda: cleared.append(True)),
        TransformListener=lambda buffer, node: SimpleNamespace(unregister=lambda: None),
        TransformException=KeyError,
    )
    monkeypatch.setitem(sys.modules, "tf2_ros", fake)
    clock = ROSClock()
    clock._set_ros_time_is_active(True)
    node: Any = FakeNode()
    node.get_clock = lambda: clock
    transforms = Transforms(node)
    for seconds, count in ((100, 0), (105, 0), (104, 1), (110, 1), (3, 2)):
        clock.set_ros_time_override(ClockTime(seconds=seconds, clock_type=ClockType.ROS_TIME))
        assert len(cleared) == count
    transforms.close()
    clock.set_ros_time_override(ClockTime(seconds=1, clock_type=ClockType.ROS_TIME))
    assert len(cleared) == 2


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

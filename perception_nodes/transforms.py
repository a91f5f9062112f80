"""Where frames stand in each other (tf2), as far as that is installed; nothing of it is among the ROS 2 wheels."""

from __future__ import annotations

from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Transform, TransformStamped, Vector3
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time as ClockTime
from std_msgs.msg import Header

from perception.nodes.outputs import LATCHED, RESULTS, Output
from perception.tasks.poses import pose_of, quaternion_of


def pose_from_message(pose: Pose | Transform) -> np.ndarray:
    """The 4x4 pose of a geometry_msgs/Pose or Transform.

    Raises:
        ValueError: numbers that are not finite, or a quaternion of length 0.
    """
    place: Point | Vector3 = pose.translation if isinstance(pose, Transform) else pose.position
    turn: Quaternion = pose.rotation if isinstance(pose, Transform) else pose.orientation
    return pose_of((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))


def pose_to_message(pose: np.ndarray) -> Pose:
    """The geometry_msgs/Pose of a 4x4 pose."""
    x, y, z = pose[:3, 3].tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=_quaternion(pose))


def _quaternion(pose: np.ndarray) -> Quaternion:
    return Quaternion(**dict(zip("xyzw", quaternion_of(pose[:3, :3]).tolist(), strict=True)))


class Transforms:
    """What others publish on /tf and /tf_static, where tf2_ros is installed.

    The node's executor takes it in, so that `pose` must not be called there.
    """

    def __init__(self, node: Node) -> None:
        self._listener: Any = None
        try:
            import tf2_ros
        except ImportError:
            return
        self._refusal: type[Exception] = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        # A bag that begins again: tf2 takes no transform that is older than its newest by more than it keeps.
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jumps = node.get_clock().create_jump_callback(backward, post_callback=lambda _: self._buffer.clear())

    def close(self) -> None:
        """Unsubscribe."""
        if self._listener:
            self._listener.unregister()
            self._jumps.unregister()
        self._listener = None

    def pose(self, frame: str, reference: str, stamp: Time, timeout: float) -> np.ndarray:
        """Where `frame` stands in `reference`, 4x4; waits up to `timeout` seconds for that to be known.

        Raises:
            ValueError: it is not known at that time, or tf2_ros is not installed; the message says what to do.
        """
        if frame == reference:
            return np.eye(4)
        if not self._listener:
            raise ValueError(
                f"a pose in frame {frame!r} cannot be carried over to {reference!r}, since the package tf2_ros is not "
                f"installed; install it (apt install ros-$ROS_DISTRO-tf2-ros-py), or give poses in {reference!r}"
            )
        when = ClockTime.from_msg(stamp)
        try:
            found = self._buffer.lookup_transform(reference, frame, when, Duration(nanoseconds=round(timeout * 1e9)))
        except self._refusal as error:
            raise ValueError(
                f"no transform from frame {frame!r} to {reference!r} at {when.nanoseconds / 1e9:.3f} s within "
                f"{timeout:g} s: {error}; publish it on /tf, with stamps of the same clock as the images', or give "
                f"poses in {reference!r}"
            ) from error
        return pose_from_message(found.transform)


class TransformOutput(Output):
    """tf2_msgs/TFMessage on /tf, or latched on /tf_static.

    Raises:
        ImportError: tf2_msgs is not installed.
    """

    def __init__(self, node: Node, static: bool = False) -> None:
        from tf2_msgs.msg import TFMessage

        self.message_type = TFMessage
        super().__init__(node, "/tf_static" if static else "/tf", LATCHED if static else RESULTS)

    def publish(self, pose: np.ndarray, header: Header, child: str) -> None:
        """Say where the frame `child` stands in the header's: 4x4, metres."""
        x, y, z = pose[:3, 3].tolist()
        transform = Transform(translation=Vector3(x=x, y=y, z=z), rotation=_quaternion(pose))
        stamped = TransformStamped(header=header, child_frame_id=child, transform=transform)
        self._send(self.message_type(transforms=[stamped]))

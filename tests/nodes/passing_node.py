"""A pipeline as others build them, for tests: passes `image` on as `result`, but for every fifth."""

from __future__ import annotations

import contextlib
import sys

import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("passing")
publisher = node.create_publisher(Image, "result", 10)
seen = 0


def pass_on(message: Image) -> None:
    global seen
    seen += 1
    if seen % 5:
        publisher.publish(message)


node.create_subscription(Image, sys.argv[1], pass_on, qos_profile_sensor_data)
with contextlib.suppress(KeyboardInterrupt):
    rclpy.spin(node)

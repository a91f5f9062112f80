"""A reliable reader of `image` that does nothing with it: what a benchmark stops in mid-air."""

from __future__ import annotations

import contextlib
import sys

import rclpy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import Image as ImageMessage

from perception.nodes.environment import prepare
from perception.nodes.outputs import RESULTS


def main(arguments: list[str] | None = None) -> int:
    prepare()
    rclpy.init(args=arguments)
    node = rclpy.create_node("reader")
    node.create_subscription(ImageMessage, "image", lambda message: None, RESULTS, raw=True)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

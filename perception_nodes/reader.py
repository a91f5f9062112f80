"""A reliable reader of `image`, or of what that is remapped to, that does nothing with it: what a benchmark stops in
mid-air."""

from __future__ import annotations

import contextlib
import importlib
import sys

import rclpy
from rclpy.executors import ExternalShutdownException

from perception.nodes.environment import prepare
from perception.nodes.outputs import RESULTS


def main(arguments: list[str] | None = None) -> int:
    prepare()
    rclpy.init(args=arguments)
    node = rclpy.create_node("reader")
    package, name = node.declare_parameter("message_type", "sensor_msgs/Image").value.split("/")
    message_type = getattr(importlib.import_module(f"{package}.msg"), name)
    node.create_subscription(message_type, "image", lambda message: None, RESULTS, raw=True)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

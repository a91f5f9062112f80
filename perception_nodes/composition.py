"""Host of pipelines that starts all nodes in one process; `launch_support.py` is the other one."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import rclpy

from perception.nodes.environment import prepare
from perception.nodes.node import BaseNode, spin
from perception.nodes.pipeline import NodeDescription


def node_class(executable: str) -> type[BaseNode]:
    """The node that `perception.nodes.<executable>` defines: the one subclass of BaseNode in that module.

    Raises:
        ValueError: no such module, or not just one node in it.
    """
    name = f"perception.nodes.{executable}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # the module is there; it is something it needs that is not
            raise
        raise ValueError(f"there is no node {executable}: {name} cannot be imported") from error
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseNode) and value.__module__ == name
    ]
    if len(found) != 1:
        raise ValueError(f"{name} defines {len(found)} nodes; a node's module defines one subclass of BaseNode")
    return found[0]


def make_node(description: NodeDescription) -> BaseNode:
    """The node, not yet configured. ROS must be initialised.

    Raises:
        ValueError: a parameter that the node refuses.
    """
    arguments = ["--ros-args", *description.remapping_arguments(), *description.parameter_arguments()]
    kind = node_class(description.executable)
    return kind(description.name, namespace=description.namespace, cli_args=arguments)


def run_in_process(descriptions: Sequence[NodeDescription], log_level: str) -> int:
    """Serve the nodes until SIGINT or SIGTERM; the exit status.

    Raises:
        ValueError: a node refuses its parameters.
    """
    prepare()
    rclpy.init(args=["--ros-args", "--log-level", log_level])
    nodes: list[BaseNode] = []
    try:
        for description in descriptions:
            nodes.append(make_node(description))
    except BaseException:
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
        raise
    return spin(nodes)

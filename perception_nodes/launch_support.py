"""Host of pipelines that starts each node as a process, for the files in launch/; `composition.py` is the other one."""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch_ros.actions import Node

# mypy takes the folder launch/ of this repository for the package.
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity  # type: ignore[attr-defined]
from perception.nodes.environment import prepare
from perception.nodes.pipeline import Argument, NodeDescription, Pipeline, load_pipeline

RESPAWN_DELAY = 2.0
"""Seconds before a node that ended is started again, so that one that cannot start does not fill the log."""


def pipeline_launch(name: str) -> LaunchDescription:
    """All of a launch file: the arguments of `config/pipelines/<name>.yaml`, and its nodes."""
    pipeline = load_pipeline(name)
    arguments = [_declare(argument) for argument in pipeline.arguments.values()]
    return LaunchDescription([*arguments, OpaqueFunction(function=_start, args=[pipeline])])


def _declare(argument: Argument) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(
        argument.name,
        default_value=argument.default_text,
        description=argument.description,
        choices=list(argument.choices) or None,
    )


def _start(context: LaunchContext, pipeline: Pipeline) -> list[LaunchDescriptionEntity]:
    """Everything to start once the arguments are known: the nodes, after the builds if those are asked for."""
    prepare()  # the nodes' processes inherit the environment
    given = context.launch_configurations  # it also holds those of launch files that include this one
    values = pipeline.read({name: given[name] for name in pipeline.arguments})
    entities: list[LaunchDescriptionEntity] = [
        _node(description, values["log_level"], values["respawn"]) for description in pipeline.nodes(values)
    ]
    for command in reversed(pipeline.build_commands(values)):
        entities = _after(command, entities)
    return entities


def _node(description: NodeDescription, log_level: str, respawn: bool) -> Node:
    return Node(
        package="perception",
        executable=description.executable,
        name=description.name,
        namespace=description.namespace,
        remappings=list(description.remappings.items()),
        # Not `parameters`: launch_ros files those under the node's full name, which beats a later file's /**.
        ros_arguments=[*description.parameter_arguments(), "--log-level", log_level],
        output="screen",
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY,
    )


def _after(command: list[str], entities: list[LaunchDescriptionEntity]) -> list[LaunchDescriptionEntity]:
    """Run a command, then `entities` if it succeeded; if not, end the launch."""

    def proceed(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        if event.returncode != 0:
            # An exception ends the launch with a status that scripts and systemd see; a Shutdown event does not.
            raise RuntimeError(f"`{' '.join(command)}` ended with status {event.returncode}; no node is started")
        return entities

    build = ExecuteProcess(cmd=command, name="build", output="screen")
    return [RegisterEventHandler(OnProcessExit(target_action=build, on_exit=proceed)), build]

"""`perception run`: start a pipeline, all its nodes in this process."""

from __future__ import annotations

import argparse
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perception.nodes.pipeline import Pipeline


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "run", help="start a pipeline, all nodes in one process", description="`ros2 launch` without launch: " + __doc__
    )
    parser.add_argument("pipeline", help="name of a pipeline, such as depth_pipeline")
    parser.add_argument("arguments", nargs="*", metavar="name:=value", help="the pipeline's arguments")
    parser.add_argument("-s", "--show-args", action="store_true", help="show the pipeline's arguments and end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from perception.nodes.pipeline import load_pipeline

    pipeline = load_pipeline(args.pipeline)
    if args.show_args:
        print(describe(pipeline))
        return 0
    values = pipeline.read(dict(map(_split, args.arguments)))
    if values["respawn"]:
        raise ValueError("respawn:=true needs a process for each node: use ros2 launch, or Restart= of systemd")
    nodes = pipeline.nodes(values)
    for command in pipeline.build_commands(values):
        if status := subprocess.call(command):  # a process of its own, so that what building needs is freed
            return status

    from perception.nodes.composition import run_in_process

    return run_in_process(nodes, values["log_level"])


def describe(pipeline: Pipeline) -> str:
    """The pipeline and its arguments in words."""
    lines = [pipeline.description, "", "Arguments (name:=value):"]
    for argument in pipeline.arguments.values():
        choices = f"; one of {', '.join(argument.choices)}" if argument.choices else ""
        lines += [f"  {argument.name}", f"      {argument.description} (default {argument.default_text!r}{choices})"]
    return "\n".join(lines)


def _split(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":=")
    if not separator or not name:
        raise ValueError(f"argument {text!r} is not understood; write name:=value")
    return name, value

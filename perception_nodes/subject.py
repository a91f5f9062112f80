"""What `perception bench` measures: a pipeline of ours in either host, or whatever a command starts."""

from __future__ import annotations

import posixpath
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perception.nodes.pipeline import load_pipeline, pipeline_names

HOSTS = ("processes", "one")
COMPRESSED = "/compressed"


@dataclass(frozen=True)
class Subject:
    """Processes to start, and where images go in and results come out."""

    name: str
    """What the user calls it."""
    commands: Mapping[str, list[str]]
    """A name for each process, and what starts it."""
    images: str
    """Topic of the images, which the bag has too."""
    output: str
    """Topic with a result for each image, under the image's stamp."""
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Full names of those that tell counts and durations on /diagnostics, each with the topic of its images."""
    builds: list[list[str]] = field(default_factory=list)
    """Commands that build what they need, before they are started."""


def read_subject(
    words: Sequence[str], images: str, compressed: bool, info: str | None, host: str, output: str = ""
) -> Subject:
    """A pipeline of ours by its name and arguments, or else a command.

    Args:
        words: of a command line: name and name:=value …, or a command, whole or in words.
        images, compressed, info, host, output: see `our_pipeline`.

    Raises:
        ValueError: neither of them, or what cannot be measured.
    """
    if words[0] not in pipeline_names():
        if len(words) == 1 and " " not in words[0]:
            raise ValueError(
                f"there is no pipeline {words[0]}; there are: {', '.join(pipeline_names())}; for another give, in "
                "quotes, the command that starts it, and its --output"
            )
        return any_command(words[0] if len(words) == 1 else shlex.join(words), images, output)
    pairs = [word.partition(":=") for word in words[1:]]
    if wrong := [name for name, separator, _ in pairs if not separator]:
        raise ValueError(f"argument {wrong[0]!r} is not understood; write name:=value")
    return our_pipeline(words[0], {name: text for name, _, text in pairs}, images, compressed, info, host, output)


def our_pipeline(
    name: str,
    given: Mapping[str, str],
    images: str,
    compressed: bool,
    info: str | None,
    host: str,
    output: str = "",
) -> Subject:
    """A pipeline of `config/pipelines`, fed from the topics of a bag.

    Args:
        given: its arguments, as texts; those for topics and time follow from the bag.
        images: the bag's topic.
        compressed: whether its images are, as sensor_msgs/CompressedImage.
        info: the bag's topic of the calibration, None where it has none.
        host: one of `HOSTS`: each node a process of its own, or all in one.
        output: topic of results, in the pipeline's namespace unless it begins with /; empty: that which it names.

    Raises:
        ValueError: no such pipeline or host, an argument that is not accepted, or a topic that no node of ours takes.
    """
    if host not in HOSTS:
        raise ValueError(f"host {host!r} is unknown; accepted: {', '.join(HOSTS)}")
    pipeline = load_pipeline(name)
    if given.get("cameras"):
        raise ValueError(f"cameras {given['cameras']!r} cannot be measured: a bag's one topic of images is played")
    if compressed and not images.endswith(COMPRESSED):
        raise ValueError(
            f"{images} has compressed images, which {name} takes from a topic that ends in {COMPRESSED} only; make raw "
            "ones of them by `perception convert BAG --images raw --out RAW`, and give RAW"
        )
    topics = {"image": images.removesuffix(COMPRESSED) if compressed else images, "use_sim_time": "true"}
    topics["image_transport"] = "compressed" if compressed else "raw"
    if info:
        topics["camera_info"] = info
    arguments = {key: text for key, text in topics.items() if key in pipeline.arguments} | dict(given)
    values = pipeline.read(arguments)
    nodes = pipeline.nodes(values)
    if host == "one":
        texts = [f"{key}:={text}" for key, text in arguments.items()]
        commands = {name: [sys.executable, "-m", "perception.cli.main", "run", name, *texts]}
    else:
        commands = {node.name: node.command() for node in nodes}
    namespace = str(values["namespace"]).strip("/")
    output = posixpath.join("/", namespace, output or pipeline.output)  # one that begins with / stays as it is
    shown = " ".join([name, *(f"{key}:={text}" for key, text in given.items())])
    shown += " (one process)" if host == "one" else ""
    builds = pipeline.build_commands(values | {"build": True})
    inputs = {node.full_name: node.topic("image") for node in nodes}
    return Subject(shown, commands, images, output, inputs, builds)


def any_command(command: str, images: str, output: str) -> Subject:
    """Whatever a command starts, `ros2 launch` with any launch file for instance.

    Raises:
        ValueError: an empty command, or no output topic.
    """
    words = shlex.split(command)
    if not words or not output:
        raise ValueError(f"command {command!r} with output {output!r} cannot be measured; give both")
    return Subject(command, {"pipeline": words}, images, posixpath.join("/", output))


def described(subject: Subject) -> dict[str, Any]:
    """For the report."""
    return {
        "name": subject.name,
        "images": subject.images,
        "output": subject.output,
        "commands": {name: shlex.join(words) for name, words in subject.commands.items()},
    }

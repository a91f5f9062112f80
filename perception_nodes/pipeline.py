"""Pipelines: which nodes run together, and how their parameters and topics follow from a few arguments.

One description, `config/pipelines/<name>.yaml`, serves two hosts, so that they cannot differ: `launch_support.py`
starts each node as a process, `composition.py` all of them in one. Neither is imported here, nor is ROS.

    description: what it does
    output: depth                   # topic of the result that belongs to an image, by whose stamps `bench` measures
    arguments: {name: {default: ..., description: ..., choices: [...]}}    # the default's type is the argument's
    nodes:
      - executable: depth_node      # module perception.nodes.depth_node
        name: depth_node            # by default as the executable
        condition: source           # started unless this argument is empty or false
        each: split                 # once for each worker of the split in this argument's folder, as $(worker), with
                                    # $(graph), its ONNX file, and $(worker_device)
        device: $(worker_device)    # only where the argument `device` is empty, or names this one among others
        parameters: {model: $(model)}
        remappings: {image: $(image)}

`$(name)` is the value of an argument: of its own type where it stands alone, as text within a longer string.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from perception.nodes.names import NAMES
from perception.tasks.resources import share
from perception.tasks.vit_split import read_split

FOLDER = "config/pipelines"
_REFERENCE = re.compile(r"\$\((\w+)\)")
_TOPIC = re.compile(rf"(~?/)?{NAMES}")
_NAMESPACE = re.compile(rf"/|(/?{NAMES})?")
_WORKER = ("worker", "graph", "worker_device")
"""What a node that stands for each worker of a split can refer to."""
_TYPES = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


@dataclass(frozen=True)
class Argument:
    """What a pipeline can be told when it is started; its type is that of `default`: bool, int, float or str."""

    name: str
    default: Any
    description: str
    choices: tuple[str, ...] = ()

    @property
    def default_text(self) -> str:
        """The default as it would be written on a command line."""
        return self.default if isinstance(self.default, str) else json.dumps(self.default)

    def read(self, text: str) -> Any:
        """The value that `text` means.

        Raises:
            ValueError: it has another type, or is none of the choices.
        """
        kind = type(self.default)
        if self.choices and text not in self.choices:
            raise ValueError(f"argument {self.name}:={text} is not accepted; choose one of {', '.join(self.choices)}")
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        try:
            if kind is not bool:
                return kind(text)
        except ValueError:
            pass  # said below, in words that name the argument
        raise ValueError(f"argument {self.name}:={text} must be {_TYPES[kind]}, such as {self.default_text}")


HOST_ARGUMENTS = (
    Argument("namespace", "", "Namespace of all nodes and of their relative topics."),
    Argument("use_sim_time", False, "Take the time from /clock."),
    Argument("autostart", True, "Configure and activate the nodes; false leaves it to a lifecycle manager."),
    Argument("build", False, "Build the engines first, for this machine; does nothing where they are up to date."),
    Argument("params_file", "", "File of ROS parameters; it has precedence over all that the arguments say."),
    Argument("log_level", "info", "What the nodes log.", ("debug", "info", "warn", "error", "fatal")),
    Argument("respawn", False, "Start a node's process again when it ends (ros2 launch only)."),
)
"""Arguments of every pipeline. Those that are parameters too are given to all nodes."""
NODE_PARAMETERS = ("use_sim_time", "autostart")
MODELS = ("model", "depth_model")
"""Parameters of nodes that name models."""


@dataclass(frozen=True)
class NodeDescription:
    """A node to start: everything is resolved, nothing refers to arguments any more."""

    executable: str
    name: str
    namespace: str
    parameters: Mapping[str, Any]
    remappings: Mapping[str, str]
    params_file: str = ""

    def parameter_arguments(self) -> list[str]:
        """Command-line arguments, to follow --ros-args, for the parameters; the file is last, where it wins."""
        arguments = []
        for name, value in self.parameters.items():
            # JSON is YAML, and its quotes keep the text "1" a text.
            arguments += ["-p", f"{name}:={json.dumps(value, ensure_ascii=False)}"]
        return arguments + (["--params-file", self.params_file] if self.params_file else [])

    def remapping_arguments(self) -> list[str]:
        """Command-line arguments, to follow --ros-args, for names of topics."""
        return [text for source, target in self.remappings.items() for text in ("-r", f"{source}:={target}")]

    @property
    def full_name(self) -> str:
        """Namespace and name."""
        return posixpath.join("/", self.namespace.strip("/"), self.name)

    def topic(self, name: str) -> str:
        """Full name of what the node calls so, a name without ~ and /."""
        return posixpath.join("/", self.namespace.strip("/"), self.remappings.get(name, name))

    def command(self) -> list[str]:
        """What starts the node as a process, without launch."""
        names = ["-r", f"__node:={self.name}", "-r", f"__ns:=/{self.namespace.strip('/')}"]
        arguments = [*names, *self.remapping_arguments(), *self.parameter_arguments()]
        return [sys.executable, "-m", f"perception.nodes.{self.executable}", "--ros-args", *arguments]


class Pipeline:
    """A description that was read and checked.

    Raises:
        ValueError: `content` is not a description of a pipeline; the message says where.
    """

    def __init__(self, name: str, content: Any) -> None:
        self.name = name
        _check_keys(content, f"pipeline {name}", {"description", "output", "arguments", "nodes"}, set())
        self.description: str = content["description"]
        self.output: str = content["output"]
        own = [self._argument(key, fields) for key, fields in content["arguments"].items()]
        self.arguments = {argument.name: argument for argument in (*own, *HOST_ARGUMENTS)}
        if len(self.arguments) < len(own) + len(HOST_ARGUMENTS):
            raise ValueError(f"pipeline {name} defines an argument that every pipeline has: {_names(HOST_ARGUMENTS)}")
        self._nodes: list[dict[str, Any]] = content["nodes"]
        for node in self._nodes:
            self._check_node(node)

    def read(self, given: Mapping[str, str]) -> dict[str, Any]:
        """The value of every argument, where `given` holds texts for some of them.

        Raises:
            ValueError: an unknown argument, or a value that is not accepted.
        """
        if unknown := given.keys() - self.arguments.keys():
            accepted = _names(self.arguments.values())
            raise ValueError(f"{self.name} has no argument {', '.join(sorted(unknown))}; it has {accepted}")
        values = {name: argument.default for name, argument in self.arguments.items()}
        values |= {name: self.arguments[name].read(text) for name, text in given.items()}
        if not _NAMESPACE.fullmatch(values["namespace"]):
            raise ValueError(f"argument namespace:={values['namespace']} is not a ROS namespace, such as robot/front")
        if values["params_file"] and not Path(values["params_file"]).is_file():
            raise ValueError(f"argument params_file:={values['params_file']} is no file; give a file of ROS parameters")
        return values

    def nodes(self, values: Mapping[str, Any]) -> list[NodeDescription]:
        """The nodes to start with these `values`, which are those of `read`.

        Raises:
            ValueError: a topic's name is not one of ROS, a split cannot be read, or there is no such device.
        """
        copies = [(node, own) for node in self._nodes for own in self._copies(node, values)]
        if here := values.get("device", "").split():
            devices = {_filled(node["device"], own): None for node, own in copies if "device" in node}
            if unknown := [name for name in here if name not in devices]:
                raise ValueError(f"argument device:={unknown[0]} is no device; there are {', '.join(devices)}")
            copies = [(node, own) for node, own in copies if _filled(node.get("device", ""), own) in ("", *here)]
        wanted = [(node, own) for node, own in copies if "condition" not in node or own[node["condition"]]]
        return [self._resolve(node, own) for node, own in wanted]

    def build_commands(self, values: Mapping[str, Any]) -> list[list[str]]:
        """The commands that build what the nodes load; none unless the argument `build` is true."""
        if not values["build"]:
            return []
        program = [sys.executable, "-m", "perception.cli.main", "engines", "build", "--if-needed"]
        given = [node.parameters for node in self.nodes(values)]
        wanted = [(each[name], each) for each in given for name in MODELS if each.get(name)]
        choices = dict.fromkeys((model, each["target"], each["precision"]) for model, each in wanted)
        return [[*program, model, "--target", target, "--precision", precision] for model, target, precision in choices]

    def _copies(self, node: Mapping[str, Any], values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The values of a node: one set of them, or one for each worker of the split; none where no split is named."""
        if "each" not in node:
            return [values]
        if not values[node["each"]]:
            return []
        split = read_split(values[node["each"]])
        told = [(worker.name, str(split.folder / worker.graph), worker.device) for worker in split.workers]
        return [{**values, **dict(zip(_WORKER, worker, strict=True))} for worker in told]

    def _argument(self, name: str, fields: Any) -> Argument:
        _check_keys(fields, f"argument {name} of pipeline {self.name}", {"default", "description"}, {"choices"})
        if type(fields["default"]) not in _TYPES:
            raise ValueError(
                f"argument {name} of pipeline {self.name} has the default {fields['default']!r}; "
                f"it must be {', '.join(_TYPES.values())}"
            )
        return Argument(name, fields["default"], fields["description"], tuple(fields.get("choices", ())))

    def _check_node(self, node: Any) -> None:
        optional = {"name", "condition", "each", "device", "parameters", "remappings"}
        _check_keys(node, f"a node of pipeline {self.name}", {"executable"}, optional)
        texts = [*node.get("parameters", {}).values(), *node.get("remappings", {}).values()]
        texts += [node.get("name"), node.get("device")]
        references = {name for text in texts if isinstance(text, str) for name in _REFERENCE.findall(text)}
        references -= set(_WORKER if "each" in node else ())
        references |= {node[key] for key in ("condition", "each") if key in node}
        if unknown := references - self.arguments.keys():
            raise ValueError(
                f"{node['executable']} of pipeline {self.name} refers to {', '.join(sorted(unknown))}, "
                f"which is none of its arguments: {_names(self.arguments.values())}"
            )

    def _resolve(self, node: Mapping[str, Any], values: Mapping[str, Any]) -> NodeDescription:
        remappings = {key: _filled(text, values) for key, text in node.get("remappings", {}).items()}
        for key, target in remappings.items():
            if not _TOPIC.fullmatch(target):
                raise ValueError(f"{key}:={target} is not a topic's name of ROS, such as /camera/image_raw")
        parameters = {key: _filled(value, values) for key, value in node.get("parameters", {}).items()}
        parameters |= {name: values[name] for name in NODE_PARAMETERS}
        executable = node["executable"]
        name, params_file = _filled(node.get("name", executable), values), values["params_file"]
        return NodeDescription(executable, name, values["namespace"], parameters, remappings, params_file)


def load_pipeline(name: str) -> Pipeline:
    """The pipeline of this name among those that are installed.

    Raises:
        ValueError: there is none, or its description is wrong.
    """
    if name not in pipeline_names():
        raise ValueError(f"there is no pipeline {name}; there are: {', '.join(pipeline_names())}")
    path = share(FOLDER) / f"{name}.yaml"
    try:
        return Pipeline(name, yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error


def pipeline_names() -> list[str]:
    """Names of the installed pipelines."""
    return sorted(path.stem for path in share(FOLDER).glob("*.yaml"))


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """`value` with its references replaced."""
    if not isinstance(value, str):
        return value
    if alone := _REFERENCE.fullmatch(value):
        return values[alone[1]]
    return _REFERENCE.sub(lambda match: str(values[match[1]]), value)


def _check_keys(content: Any, what: str, required: set[str], optional: set[str]) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{what} is {content!r}; expected a mapping with {', '.join(sorted(required))}")
    if missing := required - content.keys():
        raise ValueError(f"{what} lacks {', '.join(sorted(missing))}")
    if unknown := content.keys() - required - optional:
        accepted = ", ".join(sorted(required | optional))
        raise ValueError(f"{what} has {', '.join(map(str, unknown))}; accepted: {accepted}")


def _names(arguments: Any) -> str:
    return ", ".join(argument.name for argument in arguments)

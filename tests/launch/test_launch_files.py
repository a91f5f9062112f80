"""Launch files and pipeline descriptions belong together; where launch_ros is, what a launch file makes of one."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from perception.nodes.pipeline import HOST_ARGUMENTS, load_pipeline, pipeline_names
from perception.tasks.vit_split import Split

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
PIPELINES = {"distributed_vit": "vit_pipeline"}
"""Of launch files that have a name of their own."""


def launch_file(pipeline: str) -> Path:
    names = {value: key for key, value in PIPELINES.items()}
    return ROOT / "launch" / f"{names.get(pipeline, pipeline)}.launch.py"


def test_every_pipeline_has_a_launch_file_and_no_launch_file_is_without() -> None:
    assert sorted(map(launch_file, pipeline_names())) == LAUNCH_FILES


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_a_launch_file_holds_nothing_of_its_own(path: Path) -> None:
    """Arguments and nodes come from the YAML alone: the file does no more than hand its name on."""
    (function,) = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))
    assert function.name == "generate_launch_description"
    (statement,) = function.body
    name = path.name.removesuffix(".launch.py")
    assert ast.unparse(statement) == f"return pipeline_launch({PIPELINES.get(name, name)!r})"


@pytest.fixture(params=pipeline_names())
def name(request: pytest.FixtureRequest) -> str:
    """A pipeline's."""
    return str(request.param)


def test_a_pipeline_takes_what_people_need(name: str) -> None:
    """Names that users, documents and scripts rely on."""
    pipeline = load_pipeline(name)
    arguments = pipeline.arguments
    needed = "image camera_info image_transport precision target threads source"
    # Remappings that chain nodes are those of one camera.
    cameras = ["cameras"] if len(pipeline.nodes(pipeline.read({}))) == 1 and "model" in arguments else []
    assert "model" in arguments or "split" in arguments
    assert {*needed.split(), *cameras, *(argument.name for argument in HOST_ARGUMENTS)} <= arguments.keys()


@pytest.fixture
def description(name: str) -> Any:
    """The pipeline's LaunchDescription, from its file."""
    pytest.importorskip("launch_ros", reason="launch_ros is not installed (it is not among the ROS 2 wheels)")
    path = launch_file(name)
    spec = importlib.util.spec_from_file_location(f"{name}_launch", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def started(description: Any, **arguments: str) -> list[Any]:
    """The actions that follow from the arguments, none of them run."""
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(arguments)
    actions: list[Any] = []
    for entity in description.entities:
        assert isinstance(entity, (DeclareLaunchArgument, OpaqueFunction))
        actions += entity.execute(context) or []
    return actions


def command(context: Any, node: Any) -> list[str]:
    """The command line of a launch_ros node as far as our description makes it."""
    from launch.utilities import perform_substitutions

    return [perform_substitutions(context, words) for words in node.cmd[1:] if all(hasattr(w, "text") for w in words)]


def test_declared_arguments_are_those_of_the_yaml(description: Any, name: str) -> None:
    declared = {argument.name: argument for argument in description.get_launch_arguments()}
    ours = load_pipeline(name).arguments
    assert list(declared) == list(ours)
    for key, argument in ours.items():
        assert "".join(part.text for part in declared[key].default_value) == argument.default_text
        assert declared[key].description.startswith(argument.description)
        assert tuple(declared[key].choices or ()) == argument.choices


def test_nodes_are_those_of_the_yaml(description: Any, name: str, split: Split) -> None:
    from launch import LaunchContext

    given = {"source": "/data/clip", "threads": "2", "image": "/eye/image", "namespace": "robot", "log_level": "debug"}
    pipeline = load_pipeline(name)
    given |= {"split": str(split.folder)} if "split" in pipeline.arguments else {}
    wanted = pipeline.nodes(pipeline.read(given))
    actions = started(description, **given)
    assert [action.node_executable for action in actions] == [node.executable for node in wanted]
    for action, node in zip(actions, wanted, strict=True):
        words = command(LaunchContext(), action)
        assert words[: words.index("--log-level") + 2] == [
            "--ros-args", *node.parameter_arguments(), "--log-level", "debug"
        ]  # fmt: skip
        remappings = {str(a[0].text): str(b[0].text) for a, b in action._Node__remappings}
        assert remappings == dict(node.remappings)


def test_a_wrong_value_stops_the_launch_in_words(description: Any) -> None:
    with pytest.raises(ValueError, match="argument threads:=many must be an integer, such as 0"):
        started(description, threads="many")


def test_the_environment_of_the_nodes_has_our_profile(description: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "RMW_IMPLEMENTATION"):
        monkeypatch.setenv(variable, "")
    started(description)
    assert Path(os.environ["FASTDDS_DEFAULT_PROFILES_FILE"]).name == "fastdds.xml"
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "/mine.xml")
    started(description)
    assert os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] == "/mine.xml"


@pytest.mark.parametrize(("program", "starts"), [("pass", True), ("raise SystemExit(3)", False)])
def test_nodes_start_after_a_build_that_succeeded(
    description: Any, monkeypatch: pytest.MonkeyPatch, program: str, starts: bool
) -> None:
    """A real launch, in which commands of the test stand for two builds, and a function for the nodes."""
    from launch.actions import OpaqueFunction

    from launch import LaunchService
    from perception.nodes import launch_support

    seen: list[bool] = []
    node = OpaqueFunction(function=lambda context: seen.append(True))
    monkeypatch.setattr(launch_support, "_node", lambda *_: node)
    monkeypatch.setattr(
        launch_support.Pipeline, "build_commands", lambda *_: [[sys.executable, "-c", program], [sys.executable, "-V"]]
    )
    service = LaunchService(noninteractive=True)
    service.include_launch_description(description)
    assert service.run() == (0 if starts else 1)
    assert bool(seen) is starts

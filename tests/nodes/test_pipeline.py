"""Pipeline descriptions: what they resolve to, what they refuse, and that the nodes know all they are told."""

from __future__ import annotations

from typing import Any

import pytest

from perception.engines.runtimes import PRECISIONS, RUNTIMES
from perception.nodes.composition import node_class
from perception.nodes.inputs import TRANSPORTS
from perception.nodes.parameters import rules
from perception.nodes.pipeline import HOST_ARGUMENTS, Pipeline, load_pipeline, pipeline_names
from perception.tasks.config import DEPTH_MODEL, DETECTION_MODEL, ENHANCEMENT_MODEL, SEGMENTATION_MODEL
from perception.tasks.vit_split import Split


def content(**changes: Any) -> dict[str, Any]:
    """A small description."""
    plain = {
        "description": "A test.",
        "output": "depth",
        "arguments": {
            "image": {"default": "image", "description": "Topic."},
            "model": {"default": "fastdepth", "description": "Model."},
            "threads": {"default": 0, "description": "Threads."},
            "gain": {"default": 1.0, "description": "Gain."},
            "source": {"default": "", "description": "Source."},
            "mode": {"default": "slow", "description": "Mode.", "choices": ["slow", "fast"]},
        },
        "nodes": [
            {"executable": "image_source_node", "condition": "source", "parameters": {"source": "$(source)"}},
            {
                "executable": "depth_node",
                "name": "front",
                "parameters": {
                    "model": "$(model)", "threads": "$(threads)", "label": "$(mode)-$(threads)", "fixed": 0.5,
                    "target": "auto", "precision": "fp16",
                },
                "remappings": {"image": "$(image)"},
            },
        ],
    }  # fmt: skip
    return plain | changes


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline("test", content())


def test_arguments_become_typed_parameters_and_topics(pipeline: Pipeline) -> None:
    given = {
        "threads": "3",
        "model": "1",
        "image": "/camera/image_raw",
        "namespace": "robot/front",
        "autostart": "FALSE",
    }
    (front,) = pipeline.nodes(pipeline.read(given))  # without a source there is no node for it
    assert (front.executable, front.name, front.namespace) == ("depth_node", "front", "robot/front")
    assert front.parameters == {
        "model": "1", "threads": 3, "label": "slow-3", "fixed": 0.5, "target": "auto", "precision": "fp16",
        "use_sim_time": False, "autostart": False,
    }  # fmt: skip
    assert front.remappings == {"image": "/camera/image_raw"}


def test_a_condition_starts_its_node(pipeline: Pipeline) -> None:
    source, front = pipeline.nodes(pipeline.read({"source": "/data/clip"}))
    assert source.executable == source.name == "image_source_node" and front.name == "front"
    assert source.parameters["source"] == "/data/clip" and source.namespace == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"thread": "1"}, "test has no argument thread; it has image, model, threads"),
        ({"threads": "two"}, "argument threads:=two must be an integer, such as 0"),
        ({"threads": "2.5"}, "argument threads:=2.5 must be an integer"),
        ({"gain": "loud"}, "argument gain:=loud must be a number, such as 1.0"),
        ({"autostart": "1"}, "argument autostart:=1 must be true or false, such as true"),
        ({"mode": "faster"}, "argument mode:=faster is not accepted; choose one of slow, fast"),
        ({"log_level": "loud"}, "choose one of debug, info, warn, error, fatal"),
        ({"namespace": "a-b"}, "argument namespace:=a-b is not a ROS namespace"),
        ({"params_file": "/no/such.yaml"}, "argument params_file:=/no/such.yaml is no file"),
        ({"image": "my image"}, "image:=my image is not a topic's name of ROS"),
        ({"image": ""}, "image:= is not a topic's name of ROS"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(pipeline: Pipeline, given: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=".+") as error:
        pipeline.nodes(pipeline.read(given))
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ([], "pipeline test is []; expected a mapping"),
        (content(extra=1), "pipeline test has extra; accepted: arguments, description, nodes"),
        ({"description": "", "nodes": []}, "pipeline test lacks arguments"),
        (content(arguments={"image": {"default": "image"}}), "argument image of pipeline test lacks description"),
        (
            content(arguments={"a": {"default": None, "description": ""}}),
            "has the default None; it must be",
        ),
        (content(arguments={"build": {"default": "", "description": ""}}), "an argument that every pipeline has"),
        (content(nodes=[{"name": "x"}]), "a node of pipeline test lacks executable"),
        (content(nodes=[{"executable": "x", "condition": "moon"}]), "x of pipeline test refers to moon"),
        (content(nodes=[{"executable": "x", "parameters": {"a": "b$(c)"}}]), "x of pipeline test refers to c, which"),
        (content(nodes=[{"executable": "x", "name": "$(worker)"}]), "x of pipeline test refers to worker, which"),
        (content(nodes=[{"executable": "x", "each": "moons"}]), "x of pipeline test refers to moons, which"),
    ],
)
def test_wrong_descriptions_are_refused(changed: Any, said: str) -> None:
    with pytest.raises(ValueError, match=".+") as error:
        Pipeline("test", changed)
    assert said in str(error.value)


def test_build_names_each_engine_once(pipeline: Pipeline) -> None:
    assert pipeline.build_commands(pipeline.read({})) == []
    (command,) = pipeline.build_commands(pipeline.read({"build": "true", "model": "tiny"}))
    words = ["engines", "build", "--if-needed", "tiny", "--target", "auto", "--precision", "fp16"]
    assert command[-len(words) :] == words


def test_build_names_every_model_of_a_node() -> None:
    pipeline = load_pipeline("view_synthesis_pipeline")
    for given, models in (({}, ["fastdepth_mobilenet_v2"]), ({"model": "a", "depth_model": "b"}, ["a", "b"])):
        commands = pipeline.build_commands(pipeline.read(given | {"build": "true"}))
        assert [command[6] for command in commands] == models


def test_an_unknown_pipeline_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match="there is no pipeline dept; there are: .*depth_pipeline"):
        load_pipeline("dept")


def vit_nodes(**given: str) -> list[str]:
    pipeline = load_pipeline("vit_pipeline")
    return [node.name for node in pipeline.nodes(pipeline.read(given))]


def test_a_split_has_a_node_for_each_worker_that_runs_here(split: Split) -> None:
    folder = str(split.folder)
    pipeline = load_pipeline("vit_pipeline")
    first, second, fusion = pipeline.nodes(pipeline.read({"split": folder, "build": "true"}))
    assert (first.executable, first.name, second.name) == ("vit_worker_node", "worker_0", "worker_1")
    assert first.parameters["model"] == f"{folder}/worker_0.onnx" and fusion.parameters["split"] == folder
    assert [command[6] for command in pipeline.build_commands(pipeline.read({"split": folder, "build": "true"}))] == [
        f"{folder}/worker_{number}.onnx" for number in range(2)
    ]
    assert vit_nodes(split=folder, device="pi_2") == ["worker_1"]
    assert vit_nodes(split=folder, device="fusion") == ["vit_fusion_node"]
    assert vit_nodes(split=folder, device="pi_1 fusion", source="x") == [
        "image_source_node", "worker_0", "vit_fusion_node"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="device:=pi_3 is no device; there are fusion, pi_1, pi_2"):
        vit_nodes(split=folder, device="pi_1 pi_3")
    with pytest.raises(ValueError, match="no split in '/nowhere'"):
        vit_nodes(split="/nowhere")


@pytest.mark.parametrize("name", pipeline_names())
def test_nodes_know_every_parameter_that_a_pipeline_gives_them(name: str, split: Split) -> None:
    """ROS ignores parameters that a node does not declare, so a misspelt one would never be noticed."""
    pipeline = load_pipeline(name)
    everything = pipeline.read({key: "x" for key, argument in pipeline.arguments.items() if argument.default == ""
                                and key not in ("params_file", "namespace", "split", "device")})  # fmt: skip
    everything |= {"split": str(split.folder)}
    for node in pipeline.nodes(everything):
        known = rules(node_class(node.executable).parameters_type)
        for parameter, value in node.parameters.items():
            if parameter == "use_sim_time":  # rclpy's own
                continue
            kind, rule, default = known[parameter]
            assert type(value) is kind, f"{name}: {node.executable}'s {parameter} is {kind.__name__}"
            choices = [c for a in pipeline.arguments.values() if a.name == parameter for c in a.choices]
            assert all(rule.accepts(choice) for choice in choices), f"{name}: {parameter} offers what is refused"


def test_all_that_decides_how_images_are_brightened_is_an_argument() -> None:
    pipeline = load_pipeline("low_light_pipeline")
    given = {"dark_below": 0.1, "bright_above": 0.3, "flicker_time": 2.0}
    enhancement, _ = pipeline.nodes(pipeline.read({name: str(value) for name, value in given.items()}))
    assert given.items() <= enhancement.parameters.items()


@pytest.mark.parametrize("name", pipeline_names())
def test_choices_are_those_of_the_engines_and_inputs(name: str) -> None:
    arguments = load_pipeline(name).arguments
    assert set(arguments["target"].choices) == {"auto", *RUNTIMES}
    assert set(arguments["precision"].choices) == {"auto", *PRECISIONS}
    assert set(arguments["image_transport"].choices) == set(TRANSPORTS)


@pytest.mark.parametrize("name", pipeline_names())
def test_defaults_are_the_nodes_own(name: str, split: Split) -> None:
    pipeline = load_pipeline(name)
    for node in pipeline.nodes(pipeline.read({}) | {"split": str(split.folder)}):
        table = rules(node_class(node.executable).parameters_type)
        for parameter, value in node.parameters.items():
            if parameter in table and str(split.folder) not in str(value):
                assert value == table[parameter][2], f"{name}: {parameter}"


def test_the_models_are_those_that_others_run_too() -> None:
    pipelines = {name: load_pipeline(name).arguments for name in pipeline_names()}
    models = {name: arguments["model"].default for name, arguments in pipelines.items() if "model" in arguments}
    expected = {
        "depth": DEPTH_MODEL,
        "depth_segmentation": SEGMENTATION_MODEL,
        "detection": DETECTION_MODEL,
        "low_light": ENHANCEMENT_MODEL,
        "segmentation": SEGMENTATION_MODEL,
        "view_synthesis": DEPTH_MODEL,
    }
    assert models == {f"{name}_pipeline": model for name, model in expected.items()}
    assert load_pipeline("depth_segmentation_pipeline").arguments["depth_model"].default == DEPTH_MODEL


@pytest.mark.parametrize("name", pipeline_names())
def test_every_argument_is_described(name: str) -> None:
    for argument in (*load_pipeline(name).arguments.values(), *HOST_ARGUMENTS):
        assert argument.description.endswith(".") and argument.read(argument.default_text) == argument.default

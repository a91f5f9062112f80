"""Pipelines in one process: nodes made from descriptions, and a pipeline that gives depth."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import FakeEngine, Graph, wait_until
from robot import CAMERA, Robot, metres

from perception.evaluation.rgbd_folder import RGBDWriter
from perception.nodes.composition import make_node, node_class
from perception.nodes.pipeline import load_pipeline


def test_a_node_of_one_process_gets_its_name_topics_and_parameters(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"threads": 4, "max_depth": 7.0}}}))
    model = 'odd "name": {1}, é'
    given = {"threads": "2", "model": model, "namespace": "robot", "image": "/camera/image", "params_file": str(file)}
    pipeline = load_pipeline("depth_pipeline")
    (description,) = pipeline.nodes(pipeline.read(given))
    node = make_node(description)
    try:
        assert node.get_fully_qualified_name() == "/robot/depth_node"
        assert node.resolve_topic_name("image") == "/camera/image"
        assert node.resolve_topic_name("camera_info") == "/robot/camera_info"
        assert node.get_parameter("model").value == model
        assert node.get_parameter("threads").value == 4  # the file has precedence
        assert node.get_parameter("max_depth").value == 7.0
        assert node.get_parameter("rectify").value is False
    finally:
        node.destroy_node()


def test_a_parameter_that_a_node_refuses_is_named(tmp_path: Path) -> None:
    pipeline = load_pipeline("depth_pipeline")
    (description,) = pipeline.nodes(pipeline.read({"threads": "1000"}))
    with pytest.raises(ValueError, match="threads = 1000 must be"):
        make_node(description)


def test_a_node_is_found_by_the_name_of_its_executable() -> None:
    assert node_class("depth_node").__name__ == "DepthNode"
    with pytest.raises(ValueError, match="there is no node death_node"):
        node_class("death_node")
    with pytest.raises(ValueError, match="defines 0 nodes"):
        node_class("parameters")


def test_source_and_depth_node_work_together(graph: Graph, engine: FakeEngine, tmp_path: Path) -> None:
    writer = RGBDWriter(tmp_path / "clip", CAMERA, 30.0, "none", "test")
    writer.write_frame(np.full((480, 640, 3), 40, np.uint8), None)
    pipeline = load_pipeline("depth_pipeline")
    values = pipeline.read(
        {"source": str(tmp_path / "clip"), "loop": "true", "namespace": "robot", "image": "eye/image"}
    )
    robot = graph.add(Robot("depth", "depth/camera_info"))
    for description in pipeline.nodes(values):
        assert graph.add(make_node(description)).autostart()
    wait_until(lambda: robot.got["depth"] and robot.got["depth/camera_info"], what="depth")
    depth = next(iter(robot.got["depth"].values()))
    assert depth.header.frame_id == "camera_optical" and np.allclose(metres(depth), 4.0, atol=0.1)
    info = next(iter(robot.got["depth/camera_info"].values()))
    assert np.allclose(info.k, CAMERA.matrix.ravel())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_all_nodes_until_a_signal(graph: Graph, number: signal.Signals) -> None:
    robot = graph.add(Robot())
    command = [
        sys.executable,
        "-m",
        "perception.cli.main",
        "run",
        "depth_pipeline",
        "autostart:=false",
        "source:=later",
    ]
    process = subprocess.Popen([*command, "namespace:=robot"], stderr=subprocess.PIPE, text=True)
    try:
        wanted = {"/robot/image_source_node", "/robot/depth_node"}
        wait_until(lambda: wanted <= {status.name for status in robot.statuses}, 30, "diagnostics of both nodes")
        process.send_signal(number)
        said = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in said

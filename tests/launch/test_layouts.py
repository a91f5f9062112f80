"""Layouts and the systemd unit name what the nodes and the pipeline really have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from perception.nodes.pipeline import load_pipeline, pipeline_names
from perception.tasks.vit_split import Split

CONFIG = Path(__file__).resolve().parents[2] / "config"
SHOWN = {
    "depth": {"/image", "/depth", "/depth/points", "/depth/overlay"},
    "depth_segmentation": {"/image", "/mask/overlay", "/depth/points"},
    "detection": {"/image", "/detections/overlay"},
    "low_light": {"/image", "/image_enhanced", "/detections/overlay"},
    "segmentation": {"/image", "/mask/overlay", "/confidence"},
    "view_synthesis": {"/image", "/view", "/view/depth"},
    "vit": {"/image"},
}
"""Topics of every layout, by the pipeline's name."""
MORE = {
    "depth": {"/camera_info", "/depth/camera_info"},
    "depth_segmentation": {"/labels"},
    "detection": {"/detections", "/labels"},
    "low_light": {"/image_enhanced/camera_info"},
    "segmentation": {"/labels"},
    "view_synthesis": {"/view/camera_info"},
    "vit": {"/classification", "/labels"},
}
"""Those that Foxglove may have besides."""
tasks = pytest.mark.parametrize("task", SHOWN)


def test_every_pipeline_has_its_layouts_and_its_unit() -> None:
    wanted = sorted(name.removesuffix("_pipeline") for name in pipeline_names())
    for folder, pattern in (("rviz", "{}.rviz"), ("foxglove", "{}.json"), ("systemd", "perception-{}.service")):
        assert sorted(path.name for path in (CONFIG / folder).iterdir()) == [pattern.format(name) for name in wanted]
    assert sorted(SHOWN) == wanted


def strings(content: Any) -> set[str]:
    """All strings within nested lists and mappings, keys too."""
    if isinstance(content, dict):
        return strings(list(content.items()))
    if isinstance(content, (list, tuple)):
        return set().union(*map(strings, content))
    return {content} if isinstance(content, str) else set()


@tasks
def test_rviz_shows_the_topics_in_the_frame_of_the_camera(task: str) -> None:
    layout = yaml.safe_load((CONFIG / "rviz" / f"{task}.rviz").read_text())["Visualization Manager"]
    topics = {display["Topic"]["Value"] for display in layout["Displays"] if "Topic" in display}
    assert topics == SHOWN[task]
    assert layout["Global Options"]["Fixed Frame"] == load_pipeline(f"{task}_pipeline").arguments["frame_id"].default


@tasks
def test_foxglove_shows_the_topics_and_lays_out_every_panel(task: str) -> None:
    layout = json.loads((CONFIG / "foxglove" / f"{task}.json").read_text())
    topics = {text for text in strings(layout["configById"]) if text.startswith("/")}
    assert SHOWN[task] <= topics <= SHOWN[task] | MORE[task] | {"/diagnostics"}
    panels = {text for text in strings(layout["layout"]) if "!" in text}
    assert panels == set(layout["configById"])


@tasks
def test_the_systemd_unit_starts_a_pipeline_with_arguments_that_it_has(task: str, split: Split) -> None:
    text = (CONFIG / "systemd" / f"perception-{task}.service").read_text()
    command = re.search(r"exec perception run (\w+) ([^'\n]+)'", text)
    assert command and command[1] == f"{task}_pipeline"
    given = dict(word.split(":=") for word in command[2].split())
    pipeline = load_pipeline(command[1])
    folder = given.get("split", "")
    for node in pipeline.nodes(pipeline.read(given | ({"split": str(split.folder)} if folder else {}))):
        model = node.parameters["model"].replace(str(split.folder), folder)
        assert re.search(rf"perception engines build {model}\b", text)

"""Layouts and the systemd unit name what the nodes and the pipeline really have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from perception.nodes.pipeline import load_pipeline

CONFIG = Path(__file__).resolve().parents[2] / "config"
TOPICS = {"/image", "/camera_info", "/depth", "/depth/camera_info", "/depth/points", "/depth/overlay", "/diagnostics"}
SHOWN = {"/image", "/depth", "/depth/points", "/depth/overlay"}


def strings(content: Any) -> set[str]:
    """All strings within nested lists and mappings, keys too."""
    if isinstance(content, dict):
        return strings(list(content.items()))
    if isinstance(content, (list, tuple)):
        return set().union(*map(strings, content))
    return {content} if isinstance(content, str) else set()


def test_rviz_shows_the_topics_in_the_frame_of_the_camera() -> None:
    layout = yaml.safe_load((CONFIG / "rviz" / "depth.rviz").read_text())["Visualization Manager"]
    topics = {display["Topic"]["Value"] for display in layout["Displays"] if "Topic" in display}
    assert topics == SHOWN
    assert layout["Global Options"]["Fixed Frame"] == load_pipeline("depth_pipeline").arguments["frame_id"].default


def test_foxglove_shows_the_topics_and_lays_out_every_panel() -> None:
    layout = json.loads((CONFIG / "foxglove" / "depth.json").read_text())
    topics = {text for text in strings(layout["configById"]) if text.startswith("/")}
    assert SHOWN <= topics <= TOPICS
    panels = {text for text in strings(layout["layout"]) if "!" in text}
    assert panels == set(layout["configById"])


def test_the_systemd_unit_starts_a_pipeline_with_arguments_that_it_has() -> None:
    text = (CONFIG / "systemd" / "perception-depth.service").read_text()
    command = re.search(r"exec perception run (\w+) ([^'\n]+)'", text)
    assert command
    given = dict(word.split(":=") for word in command[2].split())
    pipeline = load_pipeline(command[1])
    assert pipeline.nodes(pipeline.read(given))

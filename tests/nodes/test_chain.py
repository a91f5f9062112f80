"""Stages that pass images on: the same nodes in one process and in several."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import Graph, wait_until
from robot import SMALL, grey

from perception.evaluation.rgbd_folder import RGBDWriter
from perception.nodes.chain import chain
from perception.nodes.composition import make_node
from perception.nodes.relay import RelayNode
from perception.nodes.session import Observer, Session


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nodes_that_feed_each_other_end_together(tmp_path: Path, number: signal.Signals) -> None:
    """The source is withdrawn first, and those that it fed find nothing to subscribe to any more."""
    writer = RGBDWriter(tmp_path / "clip", SMALL, 30.0, "none", "test")
    writer.write_frame(grey(10), None)
    with Session(Observer, tmp_path / "log") as session:
        process = session.run("chain", [sys.executable, "-m", "perception.nodes.chain", str(tmp_path / "clip"), "3"])
        said = session.observer.diagnostics
        session.wait(lambda: int(said.get("/chain/relay_3", {}).get("received", 0)) > 5, 30, "images")
        process.send_signal(number)
        time.sleep(0.03)
        process.send_signal(number)  # as a terminal and launch both do
        assert process.wait(5) == 0
    assert "Traceback" not in (tmp_path / "log" / "chain.log").read_text()
    assert "cannot close" not in (tmp_path / "log" / "chain.log").read_text()


def test_images_reach_the_last_stage_in_one_process(graph: Graph, tmp_path: Path) -> None:
    writer = RGBDWriter(tmp_path / "clip", SMALL, 30.0, "none", "test")
    for level in (10, 20, 30):
        writer.write_frame(np.full((SMALL.height, SMALL.width, 3), level, np.uint8), None)
    descriptions = chain(str(tmp_path / "clip"), 3, rate=50.0)
    assert [description.full_name for description in descriptions] == [
        "/chain/source",
        *(f"/chain/relay_{n}" for n in (1, 2, 3)),
    ]
    nodes = [graph.add(make_node(description)) for description in descriptions]
    assert all(node.autostart() for node in nodes)
    last = nodes[-1]
    assert isinstance(last, RelayNode)
    wait_until(lambda: last.statistics.counts["skipped"] >= 5, what="images at the last stage")
    for node in nodes:
        node.trigger_deactivate()
    for node in nodes[1:]:
        counts = node.statistics.counts
        assert (
            counts["received"] == counts["published"] + counts["dropped"] + counts["skipped"] and not counts["failed"]
        )
    assert nodes[1].statistics.counts["published"] == nodes[2].statistics.counts["received"], "nothing is lost between"
    topics = {topic for node in nodes for topic in (entity.topic_name for entity in node.subscriptions)}
    assert not {"/chain/stage_0", "/chain/stage_1", "/chain/stage_2"} & topics, "no message is made"

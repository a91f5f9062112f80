"""Lifecycle: every transition through the real services, failures, and the node as a process that signals end."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXIT_SECONDS, PROCESS, FakeEngine, Graph, Start, overrides, wait_until
from lifecycle_msgs.msg import Transition
from robot import SMALL, Robot, exchange, grey, metres

from perception.engines import EngineError
from perception.nodes import depth_node as depth_module
from perception.nodes import model_node
from perception.nodes.depth_node import DepthNode
from perception.tasks.config import DEPTH_MODEL

NODE = "/robot/depth_node"
CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
SHUTDOWN = {
    "unconfigured": Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    "inactive": Transition.TRANSITION_INACTIVE_SHUTDOWN,
    "active": Transition.TRANSITION_ACTIVE_SHUTDOWN,
}


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """Every engine that was loaded; each says a wall stands at a tenth of the brightness in metres."""
    loaded: list[FakeEngine] = []

    def load(*_: Any) -> FakeEngine:
        loaded.append(FakeEngine(lambda image: image.mean(axis=2) / 10))
        return loaded[-1]

    monkeypatch.setattr(model_node.engines, "load", load)
    return loaded


@pytest.fixture
def managed(graph: Graph, engines: list[FakeEngine]) -> DepthNode:
    """A node that nobody has started."""
    return graph.add(DepthNode(namespace="/robot"))


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("worker-")]


def topics(node: DepthNode) -> set[str]:
    """The node's own topics, in and out."""
    entities = [*node.subscriptions, *node.publishers]
    return {entity.topic_name for entity in entities if entity.topic_name.startswith("/robot/")} - {
        f"{NODE}/transition_event"
    }


def test_twenty_rounds_leave_nothing_behind(graph: Graph, managed: DepthNode, engines: list[FakeEngine]) -> None:
    robot = graph.add(Robot("depth"))
    assert robot.state(NODE) == "unconfigured" and topics(managed) == set()
    for number in range(1, 21):
        assert robot.change_state(NODE, CONFIGURE) and robot.state(NODE) == "inactive"
        outputs = {f"/robot/{topic}" for topic in ("depth", "depth/camera_info", "depth/points", "depth/overlay")}
        assert topics(managed) == outputs and not workers()
        assert robot.change_state(NODE, ACTIVATE) and robot.state(NODE) == "active"
        assert topics(managed) == outputs | {"/robot/image", "/robot/camera_info"} and workers()
        if number in (1, 20):
            assert (metres(exchange(graph, robot, grey(number), number, camera=SMALL)["depth"]) == number / 10).all()
        assert robot.change_state(NODE, DEACTIVATE) and robot.state(NODE) == "inactive"
        assert topics(managed) == outputs and not workers()
        assert robot.change_state(NODE, CLEANUP) and robot.state(NODE) == "unconfigured"
        assert topics(managed) == set() and len(engines) == number and all(engine.closed for engine in engines)
    wait_until(lambda: not robot.count_subscribers("/robot/image"), what="the last subscription to go")


def test_activating_again_does_not_load_again(graph: Graph, managed: DepthNode, engines: list[FakeEngine]) -> None:
    robot = graph.add(Robot("depth"))
    assert robot.change_state(NODE, CONFIGURE)
    assert len(engines) == 1 and engines[0].runs == 1  # the first run, which is a slow one, comes before any frame
    for number in (1, 2):
        assert robot.change_state(NODE, ACTIVATE)
        assert not managed.statistics.counts and not managed.statistics.spreads(), "every activation counts anew"
        exchange(graph, robot, grey(30), number, camera=SMALL)
        assert robot.change_state(NODE, DEACTIVATE)
    assert len(engines) == 1 and not engines[0].closed


def test_transitions_that_are_not_possible_are_refused(graph: Graph, managed: DepthNode) -> None:
    """rclpy itself lets them end the process."""
    robot = graph.add(Robot())
    for transition in (ACTIVATE, DEACTIVATE, CLEANUP, SHUTDOWN["active"], 250):
        assert not robot.change_state(NODE, transition)
        assert robot.state(NODE) == "unconfigured"
    wait_until(lambda: any(f"transition {ACTIVATE} is refused" in text for text in robot.errors()), what="the log")
    assert robot.change_state(NODE, CONFIGURE) and not robot.change_state(NODE, CONFIGURE)
    assert robot.state(NODE) == "inactive"


def test_without_an_engine_configure_fails_with_the_command_and_works_once_it_is_built(
    graph: Graph, managed: DepthNode, engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = graph.add(Robot("depth"))
    load = model_node.engines.load

    def missing(*_: Any) -> FakeEngine:
        raise EngineError("no engine for 'fastdepth'; build it: perception engines build fastdepth")

    monkeypatch.setattr(model_node.engines, "load", missing)
    assert not robot.change_state(NODE, CONFIGURE) and robot.state(NODE) == "unconfigured"
    sentence = "cannot configure: no engine for 'fastdepth'; build it: perception engines build fastdepth"
    wait_until(lambda: sentence in robot.errors(), what="the sentence")
    assert topics(managed) == set()
    monkeypatch.setattr(model_node.engines, "load", load)
    assert robot.change_state(NODE, CONFIGURE) and robot.change_state(NODE, ACTIVATE)
    assert (metres(exchange(graph, robot, grey(30), camera=SMALL)["depth"]) == 3.0).all()


def test_an_engine_of_another_task_is_refused_and_closed(
    graph: Graph, managed: DepthNode, engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FakeEngine(lambda image: image)
    other.config = other.config.replace(task="detection")
    monkeypatch.setattr(model_node.engines, "load", lambda *_: other)
    robot = graph.add(Robot())
    assert not robot.change_state(NODE, CONFIGURE) and other.closed and managed.engine is None
    words = ("'fake'", "'detection'", "'depth'")
    wait_until(lambda: any(all(word in text for word in words) for text in robot.errors()), what="the sentence")


def test_outputs_that_cannot_all_be_made_are_withdrawn(
    graph: Graph, managed: DepthNode, engines: list[FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(depth_module.PointsOutput):
        def __init__(self, *_: Any) -> None:
            raise KeyError("no points today")

    robot = graph.add(Robot())
    with monkeypatch.context() as patched:
        patched.setattr(depth_module, "PointsOutput", Broken)
        assert not robot.change_state(NODE, CONFIGURE)
    assert robot.state(NODE) == "unconfigured" and engines[0].closed and topics(managed) == set()
    wait_until(lambda: any("KeyError: 'no points today'" in text for text in robot.errors()), what="the reason")
    assert robot.change_state(NODE, CONFIGURE) and len(topics(managed)) == 4


def test_a_failing_cleanup_is_said_and_recovered_from(
    graph: Graph, managed: DepthNode, engines: list[FakeEngine]
) -> None:
    robot = graph.add(Robot())
    assert robot.change_state(NODE, CONFIGURE)
    close, calls = engines[0].close, []

    def fails_once() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("device is busy")
        close()

    engines[0].close = fails_once  # type: ignore[method-assign]
    assert not robot.change_state(NODE, CLEANUP)
    wait_until(lambda: "cannot clean up: device is busy" in robot.errors(), what="the reason")
    assert robot.state(NODE) == "unconfigured" and engines[0].closed
    assert robot.change_state(NODE, CONFIGURE) and len(engines) == 2


def test_deactivate_waits_for_the_inference_and_nothing_follows(
    graph: Graph, managed: DepthNode, engines: list[FakeEngine]
) -> None:
    robot = graph.add(Robot("depth"))
    assert robot.change_state(NODE, CONFIGURE) and robot.change_state(NODE, ACTIVATE)
    exchange(graph, robot, grey(30), 1, camera=SMALL)
    begun, ended = threading.Event(), threading.Event()

    def slow(image: np.ndarray) -> np.ndarray:
        if image.max() == 77:  # not one of those that `exchange` sent in excess
            begun.set()
            time.sleep(0.3)
            ended.set()
        return image.mean(axis=2)

    engines[0].depth = slow
    robot.send(2, grey(77), SMALL)
    assert begun.wait(10)
    for number in (3, 4, 5):  # one becomes ready for the engine, one waits, one is replaced
        robot.send(number, grey(30), SMALL)
        time.sleep(0.02)
    assert not ended.is_set()
    assert robot.change_state(NODE, DEACTIVATE)
    assert ended.is_set() and not workers()
    counts, runs = managed.statistics.counts, engines[0].runs
    assert counts["received"] == sum(counts[how] for how in ("published", "dropped", "failed", "skipped"))
    robot.image.publish(robot.image.msg_type())
    wait_until(lambda: 2 in robot.got["depth"], what="the frame that was under way")
    time.sleep(0.2)
    assert not {3, 4, 5} & robot.got["depth"].keys()
    assert managed.statistics.counts == counts and engines[0].runs == runs


@pytest.mark.parametrize("state", SHUTDOWN)
def test_shutdown_from_every_state(graph: Graph, managed: DepthNode, engines: list[FakeEngine], state: str) -> None:
    robot = graph.add(Robot())
    steps = {"unconfigured": [], "inactive": [CONFIGURE], "active": [CONFIGURE, ACTIVATE]}[state]
    assert all(robot.change_state(NODE, step) for step in steps) and robot.state(NODE) == state
    assert robot.change_state(NODE, SHUTDOWN[state]) and robot.state(NODE) == "finalized"
    assert all(engine.closed for engine in engines) and len(engines) == bool(steps)
    assert topics(managed) == set() and not workers()


@pytest.mark.parametrize(("autostart", "state"), [(True, "active"), (False, "unconfigured")])
def test_autostart(graph: Graph, engines: list[FakeEngine], autostart: bool, state: str) -> None:
    node = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(autostart=autostart)))
    assert node.autostart()
    assert graph.add(Robot()).state(NODE) == state and len(engines) == autostart


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_process_while_it_serves(graph: Graph, start: Start, name: str) -> None:
    process = start(PROCESS)
    robot = graph.add(Robot("depth"))
    wait_until(robot.connected, 30, "the process")
    assert (metres(exchange(graph, robot, grey(30), camera=SMALL)["depth"]) == 3.0).all()
    robot.create_timer(0.005, lambda: robot.send(2, grey(30), SMALL))
    wait_until(lambda: 2 in robot.got["depth"], what="the stream")
    process.send_signal(getattr(signal, name))
    said = process.communicate(timeout=EXIT_SECONDS)[1]
    assert process.returncode == 0, said
    assert "Traceback" not in said and "[ERROR]" not in said, said


def test_without_an_engine_the_process_ends_with_the_command_that_builds_it(start: Start, tmp_path: Path) -> None:
    process = start("-m", "perception.nodes.depth_node", PERCEPTION_ENGINES=str(tmp_path))
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    errors = [line for line in said.splitlines() if "ERROR" in line]
    assert len(errors) == 1 and f"perception engines build {DEPTH_MODEL} " in errors[0], said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "max_depth:=-1.0"], ["max_depth = -1.0", ">= 0.01 and <= 1000", "the node does not start"]),
        (["-p", "min_depth:"], ["min_depth:"]),
    ],
)
def test_wrong_parameters_end_the_process_with_one_sentence(
    start: Start, arguments: list[str], words: list[str]
) -> None:
    process = start("-m", "perception.nodes.depth_node", "--ros-args", *arguments)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 1 and "Traceback" not in said
    assert all(word in said for word in words), said

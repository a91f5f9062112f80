"""What goes wrong on robots: floods, clocks, killed processes, signals at the wrong moment, no disk, no memory."""

from __future__ import annotations

import gc
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from conftest import EXIT_SECONDS, PROCESS, FakeEngine, Graph, Start, overrides, wait_until
from lifecycle_msgs.msg import Transition
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import SMALL, Robot, exchange, grey, metres, total
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image as ImageMessage

from perception.nodes import model_node
from perception.nodes.depth_node import DepthNode
from perception.nodes.environment import PROFILE_VARIABLES
from perception.nodes.inputs import ImageInput
from perception.nodes.node import SUCCESS

NODE = "/robot/depth_node"
EXECUTABLE = Path(__file__).resolve().parents[2] / "tools" / "node_executable"
UNSET = dict.fromkeys(PROFILE_VARIABLES, "")
"""Else processes inherit the profile of this one."""
LOST = ("--ros-args", "-r", "__ns:=/lost")
"""Where processes are killed: for the 20 s of their lease others see topics and services of theirs."""


def test_counts_add_up_whenever_the_node_stops(graph: Graph, depth_node: DepthNode, engine: FakeEngine) -> None:
    """In a flood, from one frame to the next: what was received is what came out and what did not, exactly."""
    engine.seconds = 0.003
    robot = graph.add(Robot("depth"))
    exchange(graph, robot, grey(30), camera=SMALL)
    robot.create_timer(0.001, lambda: robot.send(2, grey(30), SMALL))
    generator, received = random.Random(0), 0
    for _ in range(40):
        assert robot.change_state(NODE, Transition.TRANSITION_DEACTIVATE)
        counts = depth_node.statistics.counts
        assert counts["received"] == total(counts), counts
        received += counts["received"]
        assert robot.change_state(NODE, Transition.TRANSITION_ACTIVATE)
        time.sleep(generator.uniform(0, 0.05))
    assert received > 100


def test_a_thousand_rounds_leave_nothing_behind(graph: Graph, engine: FakeEngine) -> None:
    node = DepthNode(namespace="/robot")
    graph.nodes.append(node)  # not spun yet: a thousand calls of a service would take longer
    assert node.trigger_configure() == SUCCESS
    before: dict[str, int] = {}
    for number in range(1000):
        assert node.trigger_activate() == SUCCESS and node.trigger_deactivate() == SUCCESS
        if number == 100:
            before = usage()
    after = usage()
    assert after["threads"] == before["threads"] and after["files"] <= before["files"]
    assert after["memory"] - before["memory"] < 4 << 20, "bytes"
    assert not list(node.subscriptions)
    node.trigger_activate()
    graph.executor.add_node(node)
    robot = graph.add(Robot("depth"))
    assert (metres(exchange(graph, robot, grey(30), camera=SMALL)["depth"]) == 3.0).all()


def usage() -> dict[str, int]:
    """Threads of nodes, open files and bytes of memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    names = [thread.name for thread in threading.enumerate()]
    return {
        "threads": sum(name.startswith(("receiver", "worker-")) for name in names),
        "files": len(os.listdir("/proc/self/fd")),
        "memory": pages * resource.getpagesize(),
    }


def test_stamps_that_jump_back_change_nothing(graph: Graph, depth_node: DepthNode) -> None:
    """A camera that was restarted, a bag that begins anew: every frame is answered under its own stamp."""
    robot = graph.add(Robot("depth"))
    for number, level in ((900, 10), (500, 20), (501, 30), (0, 40), (900, 50)):
        robot.got["depth"].clear()
        assert (metres(exchange(graph, robot, grey(level), number, camera=SMALL)["depth"]) == level / 10).all()
    assert not depth_node.statistics.counts["failed"]


def test_a_clock_that_is_reset_holds_up_neither_depth_nor_diagnostics(graph: Graph, engine: FakeEngine) -> None:
    node = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(use_sim_time=True)))
    assert node.autostart()
    robot = graph.add(Robot("depth"))
    clock = robot.create_publisher(Clock, "/clock", 1)
    for seconds, level in ((1000, 10), (5, 20), (0, 30), (2000, 40)):

        def told(seconds: int = seconds) -> bool:
            clock.publish(Clock(clock=Time(sec=seconds)))
            return bool(node.get_clock().now().nanoseconds == seconds * 10**9)

        wait_until(told, what="the clock")
        robot.got["depth"].clear()
        assert (metres(exchange(graph, robot, grey(level), level, camera=SMALL)["depth"]) == level / 10).all()
        robot.statuses.clear()
        wait_until(lambda: robot.statuses, what="diagnostics")
    assert all(0 <= spread.max < 10 for spread in node.statistics.spreads().values())


def test_a_reader_whose_qos_does_not_match_costs_nothing(
    graph: Graph, depth_node: DepthNode, engine: FakeEngine
) -> None:
    robot = graph.add(Robot())
    wants_latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.create_subscription(ImageMessage, "depth", lambda message: pytest.fail("it cannot match"), wants_latched)
    wait_until(robot.connected, what="the node")
    runs = engine.runs

    def skipped() -> bool:
        robot.send(1, grey(30), SMALL)
        return depth_node.statistics.counts["skipped"] > 5

    wait_until(skipped, what="frames that nobody wants")
    assert engine.runs == runs
    other = graph.add(Robot("depth", name="other"))
    assert (metres(exchange(graph, other, grey(50), 2, camera=SMALL)["depth"]) == 5.0).all()


@pytest.mark.parametrize("step", ["_hand_on", "preprocess", "run", "publish"])
def test_a_lack_of_memory_costs_a_frame(
    graph: Graph, depth_node: DepthNode, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    robot = graph.add(Robot("depth"))
    exchange(graph, robot, grey(30), camera=SMALL)
    settle(depth_node)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 900 KiB")

    owner = {"_hand_on": ImageInput, "preprocess": model_node, "run": engine, "publish": depth_node}[step]
    with monkeypatch.context() as patched:
        patched.setattr(owner, step, fail)
        robot.send(2, grey(30), SMALL)
        wait_until(lambda: depth_node.statistics.counts["failed"], what="the count")
    assert "MemoryError: Unable to allocate" in depth_node.statistics.last_error
    assert (metres(exchange(graph, robot, grey(50), 3, camera=SMALL)["depth"]) == 5.0).all()
    settle(depth_node)
    assert depth_node.statistics.counts["failed"] == 1


def settle(node: DepthNode) -> None:
    """Wait for the end of every frame that was received: `exchange` may have sent one several times."""

    def settled() -> bool:
        counts = node.statistics.counts
        return counts["received"] == total(counts)

    time.sleep(0.05)
    wait_until(settled, what="the last frame")


def test_a_killed_node_is_replaced_by_the_next(graph: Graph, start: Start) -> None:
    """SIGKILL in the middle of a flood: what it held in shared memory must not stop the next one, nor its camera."""
    robot = graph.add(Robot("depth", namespace="/lost"))
    for number in (1, 2):
        process = start(PROCESS, *LOST)
        robot.got["depth"].clear()
        exchange(graph, robot, grey(10 * number), number, seconds=30, camera=SMALL)
        flood = robot.create_timer(0.002, lambda: robot.send(9, grey(30), SMALL))
        wait_until(lambda: 9 in robot.got["depth"], what="the flood")
        process.send_signal(signal.SIGKILL)
        process.wait(EXIT_SECONDS)
        time.sleep(0.1)
        robot.destroy_timer(flood)


def test_a_killed_reader_does_not_hold_up_the_others(graph: Graph, engine: FakeEngine, start: Start) -> None:
    """It was reliable: until its lease ends the middleware waits for what it has not confirmed, the node does not."""
    node = graph.add(DepthNode(namespace="/lost"))
    assert node.autostart()
    robot = graph.add(Robot("depth", namespace="/lost"))
    reader = start("-m", "perception.nodes.reader", *LOST, "-r", "image:=depth")
    wait_until(lambda: ("reader", "/lost") in robot.get_node_names_and_namespaces(), 30, "the reader")
    wait_until(lambda: matched(node) >= 2, what="the reader's subscription")
    exchange(graph, robot, grey(30), camera=SMALL)
    reader.send_signal(signal.SIGKILL)
    for number in range(10, 40):
        begin = time.monotonic()
        exchange(graph, robot, grey(30), number, camera=SMALL)
        assert time.monotonic() - begin < 1.0
    assert node.statistics.spreads()["publish"].max < 0.5


def matched(node: DepthNode) -> int:
    """Subscriptions that the node's depth has."""
    (publisher,) = (publisher for publisher in node.publishers if publisher.topic_name.endswith("/depth"))
    return int(publisher.get_subscription_count())


def unstarted(graph: Graph, robot: Robot) -> None:
    wait_until(lambda: ("depth_node", "/robot") in robot.get_node_names_and_namespaces(), 30, "the process")
    assert robot.state(NODE) == "unconfigured"


def inactive(graph: Graph, robot: Robot) -> None:
    unstarted(graph, robot)
    assert robot.change_state(NODE, Transition.TRANSITION_CONFIGURE)


def idle(graph: Graph, robot: Robot) -> None:
    wait_until(robot.connected, 30, "the process")


def awaiting_calibration(graph: Graph, robot: Robot) -> None:
    idle(graph, robot)
    robot.create_timer(0.005, lambda: robot.send(2, grey(30), None))


def flooded(graph: Graph, robot: Robot) -> None:
    idle(graph, robot)
    robot.create_timer(0.0005, lambda: robot.send(2, grey(30), SMALL))
    wait_until(lambda: 2 in robot.got["depth"], what="the flood")


@pytest.mark.parametrize("state", [unstarted, inactive, idle, awaiting_calibration, flooded])
def test_an_interrupt_ends_the_process_from_any_state(
    graph: Graph, start: Start, state: Callable[[Graph, Robot], None]
) -> None:
    waits = ["--ros-args", "-p", "autostart:=false"] if state in (unstarted, inactive) else []
    process = start(PROCESS, *waits)
    state(graph, graph.add(Robot("depth")))
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=EXIT_SECONDS)[1]
    assert process.returncode == 0 and "Traceback" not in said, said


@pytest.mark.parametrize("seconds", np.linspace(0.05, 1.8, 8).round(2).tolist())
def test_an_interrupt_ends_the_process_while_it_starts(start: Start, seconds: float) -> None:
    """Nothing crashes, and nothing hangs; among imports Python says so with a traceback, our executables do not."""
    process = start(PROCESS)
    time.sleep(seconds)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=EXIT_SECONDS)[1]
    assert process.returncode in (0, 1, -signal.SIGINT), said
    assert "terminate called" not in said and "Fatal Python error: Seg" not in said


def test_an_interrupt_ends_the_executable_quietly_while_it_imports(start: Start, tmp_path: Path) -> None:
    (tmp_path / "rclpy.py").write_text(
        "import sys, time\nprint('importing', file=sys.stderr, flush=True)\ntime.sleep(60)"
    )
    executable = shutil.copy(EXECUTABLE, tmp_path / "depth_node")
    process = start(str(executable), PYTHONPATH=str(tmp_path))
    assert process.stderr and "importing" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=EXIT_SECONDS)[1] == ""
    assert process.returncode == 0


def test_an_interrupt_ends_the_process_while_it_loads(start: Start) -> None:
    process = start(PROCESS, FAKE_LOAD_SECONDS="1.0")
    assert process.stderr
    while "loading" not in (line := process.stderr.readline()):
        assert line, "it ended"
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=EXIT_SECONDS)[1]
    assert process.returncode == 0 and "Traceback" not in said, said


def test_without_room_for_the_middlewares_files_the_node_starts(graph: Graph, start: Start, tmp_path: Path) -> None:
    """A file stands where the folder for the profile would be made."""
    (tmp_path / f"perception-{os.getuid()}").write_text("in the way")
    process = start(PROCESS, XDG_RUNTIME_DIR=str(tmp_path), PERCEPTION_SHM_BYTES="4000000", **UNSET)
    robot = graph.add(Robot("depth"))
    wait_until(robot.connected, 30, "the process")
    assert (metres(exchange(graph, robot, grey(30), camera=SMALL)["depth"]) == 3.0).all()
    process.send_signal(signal.SIGINT)
    assert "shipped profile" in process.communicate(timeout=EXIT_SECONDS)[1]

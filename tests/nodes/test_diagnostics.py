"""/diagnostics of a running node: what it says, how often, and how it ranks it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import FakeEngine, Graph, overrides, wait_until
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from robot import SMALL, Robot, exchange, grey, total

from perception.nodes.depth_node import DepthNode
from perception.nodes.diagnostics import COUNTS, device_temperature

STAGES = {
    "transport",
    "receive",
    "wait",
    "decode",
    "preprocess",
    "infer",
    "publish",
    "latency",
    "overhead",
    "callback_overhead",
    "age",
}


def next_status(robot: Robot) -> DiagnosticStatus:
    """A status that was made after this call."""
    count = len(robot.statuses)
    wait_until(lambda: len(robot.statuses) > count, what="diagnostics")
    return robot.statuses[-1]


def test_a_status_holds_counts_rate_stages_and_engine(graph: Graph, depth_node: DepthNode, engine: FakeEngine) -> None:
    engine.seconds = 0.02
    robot = graph.add(Robot("depth"))
    for number in range(1, 8):
        exchange(graph, robot, grey(30), number, camera=SMALL)
    wait_until(lambda: total(depth_node.statistics.counts) == depth_node.statistics.counts["received"], what="the rest")
    next_status(robot)
    status, values = robot.statuses[-1], robot.values()
    assert status.name == "/robot/depth_node" and status.hardware_id == "test"
    assert status.level == DiagnosticStatus.OK and status.message == "ok"
    assert {name: int(values[name]) for name in COUNTS} == {name: depth_node.statistics.counts[name] for name in COUNTS}
    assert int(values["published"]) >= 7 and float(values["rate_hz"]) > 0
    assert {key.removesuffix("_p50_ms") for key in values if key.endswith("_p50_ms")} == STAGES
    points = {
        stage: [float(values[f"{stage}_{point}_ms"]) for point in ("p50", "p95", "p99", "max")] for stage in STAGES
    }
    assert all(row == sorted(row) and row[0] >= 0 for row in points.values()), points
    assert points["infer"][0] >= 20
    assert points["latency"][3] >= points["infer"][3] and points["age"][3] >= points["latency"][0]
    assert points["overhead"][0] <= points["latency"][0] - 20 + 1
    assert {key: values[key] for key in ("model", "target", "precision", "key", "device")} == engine.info


def test_a_failure_after_another_activation_is_an_error_again(graph: Graph, depth_node: DepthNode) -> None:
    """Counts begin anew with it, and what the last report said of the counts before must not hide new ones."""
    robot = graph.add(Robot("depth"))
    for _ in range(2):
        exchange(graph, robot, grey(30), 1, camera=SMALL)
        robot.image.publish(robot.image.msg_type(encoding="cmyk8", width=1, height=1))
        wait_until(lambda: robot.statuses and robot.statuses[-1].level == DiagnosticStatus.ERROR, what="the error")
        assert robot.values()["failed"] == "1"
        depth_node.trigger_deactivate()
        depth_node.trigger_activate()
        robot.statuses.clear()


def test_it_comes_once_a_second(graph: Graph, depth_node: DepthNode) -> None:
    arrays: list[DiagnosticArray] = []
    robot = graph.add(Robot())
    robot.create_subscription(DiagnosticArray, "/diagnostics", arrays.append, 10)
    wait_until(lambda: len(arrays) >= 3, what="three reports")
    stamps = [array.header.stamp.sec + array.header.stamp.nanosec * 1e-9 for array in arrays[:3]]
    assert (stamps[2] - stamps[0]) / 2 == pytest.approx(1.0, abs=0.4)


def test_a_failed_frame_is_an_error_until_the_next_report(graph: Graph, depth_node: DepthNode) -> None:
    robot = graph.add(Robot("depth"))
    exchange(graph, robot, grey(30), 1, camera=SMALL)
    wait_until(lambda: next_status(robot).level == DiagnosticStatus.OK, what="the all-clear")
    robot.image.publish(robot.image.msg_type(encoding="cmyk8", width=1, height=1))
    status = next_status(robot)
    wait_until(lambda: int(robot.values()["failed"]) == 1, what="the count")
    if status.level == DiagnosticStatus.OK:  # the report was on its way when the frame came
        status = robot.statuses[-1]
    assert status.level == DiagnosticStatus.ERROR
    assert status.message.startswith("1 not usable in the last second: ") and "'cmyk8'" in status.message
    wait_until(lambda: next_status(robot).level == DiagnosticStatus.OK, what="the all-clear")
    assert robot.statuses[-1].message == "ok" and robot.values()["failed"] == "1"


@pytest.mark.parametrize("use_sim_time", [False, True], ids=["system time", "a simulator's clock that stands still"])
def test_a_node_that_is_not_active_says_so(graph: Graph, engine: FakeEngine, use_sim_time: bool) -> None:
    graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(autostart=False, use_sim_time=use_sim_time)))
    robot = graph.add(Robot())
    status = next_status(robot)
    assert status.level == DiagnosticStatus.WARN and status.message == "not active"
    assert robot.values()["received"] == "0" and "infer_p50_ms" not in robot.values()


def test_the_hottest_zone_that_can_be_read_is_the_temperature(tmp_path: Path) -> None:
    assert device_temperature(tmp_path) is None
    for index, text in enumerate(["41500\n", "63250\n", "", "off"]):
        zone = tmp_path / f"thermal_zone{index}"
        zone.mkdir()
        (zone / "temp").write_text(text)
    (tmp_path / "thermal_zone9").mkdir()
    assert device_temperature(tmp_path) == 63.25

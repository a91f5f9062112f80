"""Outputs: quality of service, its overrides, and readers that stand still."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import numpy as np
import rclpy
from conftest import FakeEngine, Graph, overrides, wait_until
from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy
from robot import CAMERA, SMALL, Robot, exchange, grey
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from perception.nodes import inputs, outputs
from perception.nodes.convert import image_from_message
from perception.nodes.depth_node import DepthNode
from perception.tasks.image import Image

TOPICS = tuple(f"/robot/{topic}" for topic in Robot.TOPICS)
READER = """
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("reader")
node.create_subscription(Image, "/robot/depth", lambda message: print("got", flush=True), 10)
rclpy.spin(node)
"""


def test_outputs_are_reliable_and_keep_the_newest_few(graph: Graph, depth_node: DepthNode) -> None:
    robot = graph.add(Robot())
    for publisher in depth_node.publishers:
        if publisher.topic_name in TOPICS:
            qos = publisher.qos_profile
            assert (qos.history, qos.depth) == (HistoryPolicy.KEEP_LAST, 4)
    for topic in TOPICS:
        wait_until(lambda topic=topic: robot.get_publishers_info_by_topic(topic), what="discovery")
        (info,) = robot.get_publishers_info_by_topic(topic)
        assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert info.qos_profile.durability == DurabilityPolicy.VOLATILE


def test_an_override_changes_one_topic_alone(graph: Graph, engine: FakeEngine) -> None:
    """rclpy writes it into the profile it is given, which all topics share."""
    given = {
        "qos_overrides./robot/depth.publisher.reliability": "best_effort",
        "qos_overrides./robot/depth.publisher.depth": 3,
        "qos_overrides./robot/image.subscription.reliability": "reliable",
    }
    node = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(**given)))
    for _ in range(2):  # on the second round the parameters exist already
        assert node.autostart()
        profiles = {entity.topic_name: entity.qos_profile for entity in [*node.publishers, *node.subscriptions]}
        depth = profiles["/robot/depth"]
        assert (depth.reliability, depth.depth) == (ReliabilityPolicy.BEST_EFFORT, 3)
        for topic in TOPICS[1:]:
            assert (profiles[topic].reliability, profiles[topic].depth) == (ReliabilityPolicy.RELIABLE, 4)
        assert profiles["/robot/image"].reliability == ReliabilityPolicy.RELIABLE
        assert profiles["/robot/camera_info"].reliability == ReliabilityPolicy.BEST_EFFORT
        node.trigger_deactivate()
        node.trigger_cleanup()
    assert outputs.RESULTS.reliability == ReliabilityPolicy.RELIABLE and outputs.RESULTS.depth == 4
    assert inputs.SENSOR_DATA.reliability == ReliabilityPolicy.BEST_EFFORT


def test_a_wrong_override_is_said_and_nothing_is_left(graph: Graph, engine: FakeEngine) -> None:
    given = {"qos_overrides./robot/depth/points.publisher.reliability": "certain"}
    node = graph.add(DepthNode(namespace="/robot", parameter_overrides=overrides(**given)))
    robot = graph.add(Robot())
    assert not node.autostart() and engine.closed
    assert not {publisher.topic_name for publisher in node.publishers} & set(TOPICS)
    wait_until(lambda: any("certain" in text for text in robot.errors()), what="the reason")


def test_one_topic_is_withdrawn_with_the_node(graph: Graph, depth_node: DepthNode) -> None:
    robot = graph.add(Robot("depth"))
    exchange(graph, robot, grey(30), camera=SMALL)
    depth_node.trigger_deactivate()
    depth_node.trigger_cleanup()
    wait_until(lambda: not any(robot.count_publishers(topic) for topic in TOPICS), what="the topics to go")


def test_pixels_written_in_place_are_sent_and_others_copied(graph: Graph) -> None:
    writer, reader = graph.add(rclpy.create_node("writer")), graph.add(rclpy.create_node("reader"))
    output = outputs.ImageOutput(writer, "map")
    got: dict[str, np.ndarray] = {}
    reader.create_subscription(
        ImageMessage, "map", lambda m: got.update({m.header.frame_id: image_from_message(m).data}), 10
    )
    wait_until(lambda: output.wanted, what="the reader")

    def send(name: str, pixels: np.ndarray, encoding: str) -> None:
        output.publish(Image(pixels, encoding), Header(frame_id=name))
        wait_until(lambda: name in got, what=name)

    numbers = np.arange(12, dtype=np.float32)
    in_place = {"first": numbers.reshape(3, 4), "again": -numbers.reshape(3, 4), "other shape": numbers.reshape(2, 6)}
    for name, values in in_place.items():
        pixels = output.pixels(values.shape, "32FC1")
        pixels[:] = values
        send(name, pixels, "32FC1")
    assert output.pixels((2, 6), "32FC1") is pixels, "the memory is kept"
    copied = {"of another": numbers[::-1].reshape(2, 6), "other encoding": np.full((2, 6), 7, np.uint8)}
    send("of another", copied["of another"], "32FC1")
    send("other encoding", copied["other encoding"], "mono8")
    for name, values in (in_place | copied).items():
        np.testing.assert_array_equal(got[name], values)
    output.close()


def test_a_stalled_reader_does_not_hold_up_the_publisher(graph: Graph, depth_node: DepthNode) -> None:
    """Another process with a reliable subscription is stopped as by a debugger; depth goes on as before."""
    robot = graph.add(Robot("depth"))
    exchange(graph, robot, grey(30, CAMERA))
    reader = subprocess.Popen([sys.executable, "-c", READER], stdout=subprocess.PIPE, text=True)
    try:
        robot.create_timer(0.04, lambda: robot.send(2, grey(30, CAMERA)))
        assert reader.stdout and reader.stdout.readline() == "got\n"
        reader.send_signal(signal.SIGSTOP)
        time.sleep(0.5)  # for buffers to fill
        before, begin = depth_node.statistics.counts, time.monotonic()
        robot.got["depth"].clear()
        wait_until(lambda: depth_node.statistics.counts["published"] >= before["published"] + 25, 10, "25 frames")
        # Writes that block until they time out (0.1 s in Fast DDS) would leave some 10 frames a second, while 25 come.
        after, seconds = depth_node.statistics.counts, time.monotonic() - begin
        received = after["received"] - before["received"]
        assert after["published"] - before["published"] >= 0.8 * received, f"{before} {after} in {seconds:.1f} s"
        wait_until(lambda: 2 in robot.got["depth"], what="the depth at the other reader")
    finally:
        reader.send_signal(signal.SIGCONT)
        reader.kill()
        reader.communicate()

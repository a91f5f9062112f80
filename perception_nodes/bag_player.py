"""Plays a rosbag on its own topics with /clock, as `ros2 bag play --clock` does, and notes when it sent each image.

Nothing of ROS besides rclpy is needed. It serves `perception bench`: images may also come at another rate, or one by
one as the pipeline takes them.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from perception.evaluation.bags import INFO_TYPE, Bag, Raw, latched
from perception.evaluation.conversion import moved, to_ros2
from perception.nodes.inputs import SENSOR_DATA
from perception.nodes.node import BaseNode, NodeParameters, run_node
from perception.nodes.outputs import RESULTS
from perception.nodes.parameters import parameter
from perception.tasks.messages import stamp_in

TICK = 0.01
"""Seconds between two messages on /clock while nothing else happens."""
CONNECT_SECONDS = 5.0
"""How long the first message waits for subscribers that ROS knows of and that are not connected, as one with other QoS
never is."""
ANSWER_SECONDS = 2.0
"""How long the next image waits for the answer to the last one, where images come as they are taken."""


@dataclass(frozen=True)
class BagPlayerParameters(NodeParameters):
    bag: str = parameter("", "Bag folder, or a .mcap, .db3 or .bag file.")
    images: str = parameter("", "Topic whose messages are counted, paced and noted.")
    topics: str = parameter("", "Topics to play besides, separated by spaces.")
    rate: float = parameter(0.0, "Images a second; 0: as they were recorded.", minimum=0.0, maximum=10000.0)
    answers: str = parameter("", "Topic with a message for each image; the next one is sent when that has come.")
    least: float = parameter(
        0.0, "Seconds before which a bag that is over starts again, time going on.", minimum=0.0, maximum=1e7
    )
    sent: str = parameter("", "File for what was sent: int64 (n, 2), stamps and steady clock, nanoseconds (.npy).")


class BagPlayerNode(BaseNode):
    """Publishes serialised messages as they lie in the bag; /clock shows when they were recorded."""

    parameters_type = BagPlayerParameters
    parameters: BagPlayerParameters

    def __init__(self, name: str = "bag_player", **options: Any) -> None:
        super().__init__(name, **options)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._bag: Bag | None = None
        self._late_calibrations: list[Raw] = []
        self._topic_publishers: dict[str, Any] = {}
        self._clock_publisher: Any = None
        self._answers: Any = None
        self._answered = threading.Event()
        self._awaited = 0
        self._shown: int | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._sent: list[tuple[int, int]] = []
        self._state = ""

    def setup(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="perception-")
        self._bag = Bag(to_ros2(Path(self.parameters.bag), Path(self._scratch.name)))
        images, types = self.parameters.images, self._bag.types
        for topic in (images, *self.parameters.topics.split()):
            if topic not in types:
                raise ValueError(f"{self.parameters.bag} has no topic {topic!r}; it has {', '.join(sorted(types))}")
            qos = (
                QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
                if latched(self._bag, topic)
                else RESULTS
            )
            self._topic_publishers[topic] = self.create_publisher(message_type(types[topic]), topic, qos)
        self._clock_publisher = self.create_publisher(Clock, "/clock", 10)
        self._late_calibrations = [
            next(self._bag.raw([topic]))
            for topic in self.parameters.topics.split()
            if types[topic] == INFO_TYPE and self._bag.counts.get(topic)
            if next(self._bag.raw([images, topic])).topic == images
        ]

    def teardown(self) -> None:
        for publisher in (*self._topic_publishers.values(), self._clock_publisher):
            if publisher:
                self.destroy_publisher(publisher)
        self._topic_publishers, self._clock_publisher = {}, None
        if self._bag:
            self._bag.close()
        if self._scratch:
            self._scratch.cleanup()
        self._bag = self._scratch = None
        self._late_calibrations = []

    def start(self) -> None:
        self._sent, self._state, self._shown = [], "", None
        self._stopped.clear()
        if self.parameters.answers:
            self._listen(self.parameters.answers)
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._answered.set()
        if self._thread:
            self._thread.join()
            if self.parameters.sent:
                np.save(self.parameters.sent, np.array(self._sent, np.int64).reshape(-1, 2))
        self._thread = None
        if self._answers:
            self.destroy_subscription(self._answers)
        self._answers = None

    def watch(self) -> list[str]:
        return [self._state] if self._state else []

    def describe(self) -> dict[str, str]:
        return {"bag": self.parameters.bag}

    def _listen(self, topic: str) -> None:
        """Hear of answers: of whatever type the topic is, once somebody publishes it."""
        types = dict(self.get_topic_names_and_types()).get(self.resolve_topic_name(topic))
        if not types:
            raise ValueError(f"nobody publishes {topic}, whose messages were to ask for the next image")
        self._answers = self.create_subscription(message_type(types[0]), topic, self._on_answer, SENSOR_DATA, raw=True)

    def _run(self) -> None:
        """Send message by message, in a thread of its own, so that pacing blocks nobody."""
        try:
            self._wait_for_subscribers()
            self._play()
        except Exception as error:
            self.statistics.fail("failed", str(error))
            self._state = f"bag {self.parameters.bag} ends early: {error}"
            self.get_logger().error(self._state)
        if not self._stopped.is_set() and not self._state:
            self._state = f"bag {self.parameters.bag} has ended after {len(self._sent)} images"
            self.get_logger().info(self._state)

    def _play(self) -> None:
        parameters = self.parameters
        begin, first = time.monotonic_ns(), None
        for raw in self._messages():
            counted = raw.topic == parameters.images
            first = raw.time if first is None else first
            if parameters.answers:
                if counted:
                    self._wait_for_answer(raw)
            elif parameters.rate:
                self._wait_until(begin + round(len(self._sent) * 1e9 / parameters.rate), raw.time)
            else:
                self._wait_until(begin + raw.time - first, raw.time)
            if self._stopped.is_set():
                return
            self._send(raw, counted)

    def _wait_for_subscribers(self) -> None:
        """What is sent before they are connected they would lack, and it would count as lost. One at least is for the
        images, though a node that is new here may not have heard of it yet."""
        end = time.monotonic() + CONNECT_SECONDS

        def lacks(topic: str) -> bool:
            least = max(int(topic == self.parameters.images), self.count_subscribers(topic))
            return bool(self._topic_publishers[topic].get_subscription_count() < least)

        while any(map(lacks, self._topic_publishers)):
            if time.monotonic() > end or self._stopped.wait(TICK):
                return

    def _wait_for_answer(self, raw: Raw) -> None:
        """Wait for that of the last image, and from now on for that of this one."""
        if self._sent and not self._answered.wait(ANSWER_SECONDS):
            self.get_logger().warning(f"no answer on {self.parameters.answers} for {ANSWER_SECONDS:g} s; going on")
        self._awaited = stamp_in(raw.data)
        self._answered.clear()

    def _on_answer(self, data: bytes) -> None:
        if stamp_in(data) == self._awaited:
            self._answered.set()

    def _messages(self) -> Iterator[Raw]:
        """The bag's messages; again and again until `least` is over, each time as much later as the bag lasts.

        A calibration that was recorded after the first image, to which it belongs, comes before that too: a pipeline
        that waits for it, as it may since it is published, would lack the first image of every run.
        """
        assert self._bag
        images = self.parameters.images
        topics = (images, *self.parameters.topics.split())
        period = self._bag.duration + self._bag.duration // max(self._bag.counts[images] - 1, 1)
        end = time.monotonic() + self.parameters.least
        offset, ahead = 0, self._late_calibrations
        while not self._stopped.is_set():
            for raw in self._bag.raw(topics):
                if raw.topic == images:
                    yield from (calibration.replace(time=raw.time) for calibration in ahead)
                    ahead = []
                yield moved(self._bag, raw, offset)
            if time.monotonic() >= end:
                return
            offset += period

    def _wait_until(self, due: int, recorded: int) -> None:
        """Wait for a time of the steady clock, /clock running up to the time of the recording, nanoseconds both."""
        whole = due - time.monotonic_ns()
        begin = recorded - whole if self._shown is None else self._shown
        while (left := (due - time.monotonic_ns()) / 1e9) > 0:
            if left > TICK:
                self._show_time(recorded - round((recorded - begin) * left * 1e9 / whole))
            if self._stopped.wait(min(left, TICK)):
                return

    def _show_time(self, nanoseconds: int) -> None:
        self._shown = max(nanoseconds, self._shown or 0)  # it never goes back, whatever the rate
        seconds, rest = divmod(self._shown, 1_000_000_000)
        self._clock_publisher.publish(Clock(clock=Time(sec=seconds, nanosec=rest)))

    def _send(self, raw: Raw, counted: bool) -> None:
        self._show_time(raw.time)
        data = bytes(raw.data)
        if counted:
            self.statistics.count("received")
            self._sent.append((stamp_in(data) or raw.time, time.monotonic_ns()))
        self._topic_publishers[raw.topic].publish(data)
        if counted:
            self.statistics.count("published")


def message_type(name: str) -> Any:
    """The class of a message such as "sensor_msgs/msg/Image".

    Raises:
        ValueError: its package is not installed.
    """
    package, _, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"messages of type {name} are not known here: install the package {package}") from error


def main() -> int:
    return run_node(BagPlayerNode)


if __name__ == "__main__":
    sys.exit(main())

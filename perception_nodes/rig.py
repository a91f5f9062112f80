"""What measurements of a node with a model share: the node, what feeds and reads it, each a process of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image as ImageMessage
from vision_msgs.msg import Detection2DArray

from perception import engines
from perception.nodes.inputs import SENSOR_DATA
from perception.nodes.session import Observer, Session
from perception.tasks.config import DEPTH_MODEL
from perception.tasks.messages import stamp_of

NAMESPACE = "/benchmark"
SOURCE = f"{NAMESPACE}/image_source_node"
SETTLE = 1.0
"""Seconds for discovery and the first frames, which are not measured."""
BARE_SECONDS = 6.0
"""How long the bare engine runs."""
INPUTS = (0.8, 0.95, 1.1)
"""Rates of input at which the highest rate of output is looked for, over the rate of inferences and nothing else. More
input than the node can take lowers its rate: receiving what is dropped takes time from the inferences."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """The node of a task, and its main topic."""

    executable: str
    topic: str
    message_type: type[Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """With which it infers for every image."""

    @property
    def full_name(self) -> str:
        """With its namespace, as its diagnostics have it."""
        return f"{NAMESPACE}/{self.executable}"


NODES = {
    "depth": Measured("depth_node", "depth", ImageMessage),
    "detection": Measured("detection_node", "detections", Detection2DArray),
    "enhancement": Measured(
        "enhancement_node", "image_enhanced", ImageMessage, {"dark_below": 1.0, "bright_above": 1.0}
    ),
    "segmentation": Measured("segmentation_node", "mask", ImageMessage),
    "view_synthesis": Measured("view_synthesis_node", "view", ImageMessage, {"orbit": True}),
}
IMAGES = Measured("image_source_node", "image", ImageMessage)


class Counter(Observer):
    """Notes when messages of a node's topic arrive, in seconds of the steady clock; and their stamps, if not `raw`."""

    def __init__(self, of: Measured, raw: bool = True) -> None:
        super().__init__("counter", NAMESPACE)
        self.arrivals: list[float] = []
        self.stamps: list[int] = []
        self._raw = raw
        self.create_subscription(of.message_type, of.topic, self._on_message, SENSOR_DATA, raw=raw)

    def _on_message(self, message: Any) -> None:
        self.arrivals.append(time.monotonic())
        if not self._raw:
            self.stamps.append(stamp_of(message))


class Listener(Observer):
    """Makes a node publish its results and lets them lie: what a reader does with them is not the node's cost.

    The middleware delivers every message; nobody takes them, because the node that subscribes is not spun.
    """

    def __init__(self, of: Measured) -> None:
        super().__init__("listener", NAMESPACE)
        self._reader = rclpy.create_node("result_reader", namespace=NAMESPACE)
        self._reader.create_subscription(of.message_type, of.topic, lambda message: None, SENSOR_DATA)

    def destroy_node(self) -> None:
        self._reader.destroy_node()
        super().destroy_node()

    def published(self, node: str) -> int:
        """Frames that `node` has published, as its diagnostics say."""
        return int(self.diagnostics.get(node, {}).get("published", 0))


def slow_share(seconds: float = 5.0, window: float = 0.01) -> float:
    """The share of windows in which copying memory, alone on the machine, went at less than 0.6 of its median speed.

    A host that holds up a virtual machine now and then does not always count that as stolen.
    """
    source = np.zeros(200_000, np.float32)
    target, speeds = np.empty_like(source), []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        count = 0
        while (now := time.perf_counter()) < begin + window:
            np.copyto(target, source)
            count += 1
        speeds.append(count / (now - begin))
    return float(np.mean(np.array(speeds) < 0.6 * np.median(speeds)))


@dataclass
class Rig:
    """The machine's figures for one engine. `source` is a folder of 640x480 images."""

    source: str
    out: Path
    model: str = DEPTH_MODEL
    target: str = "auto"
    precision: str = "auto"
    threads: int = 0
    seconds: float = 15.0
    say: Callable[[str], None] = print
    _parameters: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self._parameters = {"model": self.model, "target": self.target, "precision": self.precision}

    @cached_property
    def node(self) -> Measured:
        """The node that runs the model."""
        with engines.load(self.model, self.target, self.precision, self.threads) as engine:
            return NODES[engine.config.task]

    def run(self, scenario: str) -> Figures:
        """A scenario's figures, and how much of the machine others had: the share of the processors that other machines
        of the same host took meanwhile, as far as it tells, and the `slow_share` just before.

        Durations of a few milliseconds mean little where they are more than a few thousandths.
        """
        slow = slow_share()
        before, begin = psutil.cpu_times(), time.monotonic()
        figures: Figures = getattr(self, scenario)()
        seconds = (time.monotonic() - begin) * (os.cpu_count() or 1)
        stolen = getattr(psutil.cpu_times(), "steal", 0.0) - getattr(before, "steal", 0.0)
        return figures | {"stolen_share": round(stolen / seconds, 4), "slow_share": round(slow, 4)}

    def _capacity(self, threads: int) -> tuple[float, dict[str, str]]:
        """Seconds of one run of the bare engine, and the node's diagnostics at the input that gives the most output."""
        before = self._bare_seconds(threads)
        found = [self._node_values(share / before, threads) for share in INPUTS]
        best = max(found, key=lambda values: float(values["rate_hz"]))
        return (before + self._bare_seconds(threads)) / 2, best

    def _bare_seconds(self, threads: int) -> float:
        """Mean seconds of one run of the engine alone: of as many as fit, like the node's rate."""
        with engines.load(self.model, self.target, self.precision, threads) as engine:
            image = np.random.default_rng(0).integers(0, 255, (1, *engine.config.input_size, 3), np.uint8)
            engine.run(image)
            count, start = 0, time.perf_counter()
            while time.perf_counter() < start + BARE_SECONDS:
                engine.run(image)
                count += 1
            return (time.perf_counter() - start) / count

    def _bare_seconds_beside(self, rate: float, threads: int) -> float:
        """The same while another process receives the feeder's images, which take their share of the machine."""
        with Session(Observer, self.out / "log") as session:
            session.start("reader", {}, namespace=NAMESPACE)
            session.start("feeder", {"source": self.source, "rate": rate}, namespace=NAMESPACE)
            session.wait(lambda: session.observer.count_subscribers(f"{NAMESPACE}/image"), 60, "the reader")
            time.sleep(SETTLE)
            return self._bare_seconds(threads)

    def _node_values(
        self,
        rate: float,
        threads: int,
        stalled_reader: bool = False,
        node: Mapping[str, Any] | None = None,
        feed: Mapping[str, Any] | None = None,
    ) -> dict[str, str]:
        """The node's diagnostics after `seconds` of input at `rate`; statistics begin when everything runs.

        Args:
            node, feed: parameters of the node and of the feeder besides.
        """
        with Session(lambda: Listener(self.node), self.out / "log") as session:
            self._start_node(session, threads, node)
            name = self.node.full_name
            fed = {"source": self.source, "rate": float(rate), **(feed or {})}
            session.start("feeder", fed, namespace=NAMESPACE)
            session.wait(lambda: session.observer.published(name), 60, "the first result")
            if stalled_reader:
                self._stall_a_reader(session)
            time.sleep(SETTLE)
            session.change_state(name, Transition.TRANSITION_DEACTIVATE)
            session.change_state(name)  # counts anew
            time.sleep(self.seconds)
            session.change_state(name, Transition.TRANSITION_DEACTIVATE)  # every frame has come to its end
            session.observer.diagnostics.pop(name)
            return dict(session.wait(lambda: session.observer.diagnostics.get(name), 10, "diagnostics"))

    def _start_source(self, session: Session, rate: float) -> None:
        parameters = {
            "source": self.source,
            "rate": float(rate),
            "loop": True,
            "cache": 512,  # decoding must not limit the rate
            "publish_depth_true": False,
            "autostart": False,
        }
        session.start("image_source_node", parameters, namespace=NAMESPACE)
        session.change_state(SOURCE, Transition.TRANSITION_CONFIGURE)

    def _start_node(self, session: Session, threads: int, more: Mapping[str, Any] | None = None) -> Any:
        parameters = self._parameters | {"threads": threads, **self.node.parameters, **(more or {})}
        return session.start(self.node.executable, parameters, namespace=NAMESPACE)

    def _stall_a_reader(self, session: Session) -> None:
        """A reliable reader of the results is stopped in mid-air."""
        kind = self.node.message_type
        parameters = {"message_type": f"{kind.__module__.partition('.')[0]}/{kind.__name__}"}
        reader = session.start("reader", parameters, namespace=NAMESPACE, remappings={"image": self.node.topic})
        topic = f"{NAMESPACE}/{self.node.topic}"
        session.wait(lambda: session.observer.count_subscribers(topic) >= 2, 60, "the reader to be stalled")
        time.sleep(SETTLE)
        reader.send_signal(signal.SIGSTOP)
        self.say(f"one reliable reader of {self.node.topic} is stopped")

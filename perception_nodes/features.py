"""Features of a split's workers as topics: `features/worker_0` and so on, sensor_msgs/CompressedImage."""

from __future__ import annotations

import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from perception.nodes.exchange import Inlet, exchange_of
from perception.nodes.outputs import RESULTS, Output
from perception.nodes.receiver import Receiver
from perception.tasks.features import Features, decode_features, encode_features
from perception.tasks.messages import stamp_of
from perception.tasks.vit_split import Split

TOPIC = "features"
ARRIVING = QoSProfile(depth=32, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Of what comes from workers: links deliver in bursts, and each of a burst is of another image."""


@dataclass(frozen=True)
class Sent:
    """What came of a worker for an image: float32 features, and the image's header."""

    header: Header
    values: np.ndarray


class FeaturesOutput(Output):
    """What a worker sends. Nodes of the process get the `Features`, rounded like the message's, and the header."""

    message_type = CompressedImage
    exchanges = True

    def __init__(self, node: Node, topic: str, qos: QoSProfile = RESULTS) -> None:
        super().__init__(node, topic, qos)
        self._message = CompressedImage()

    def publish(self, features: Features, kind: str, header: Header) -> None:
        """`kind` is one of `features.KINDS`; raises ValueError for numbers that it cannot hold."""
        data, text = encode_features(features, kind)
        self._exchange.send(self.topic, decode_features(data, text), header)
        if self._sends:
            self._message.header, self._message.format = header, text
            self._message.data = array.array("B", data)
            self._send(self._message)


class FeaturesInput:
    """Hears all workers of a split, each on its topic, and checks that what they send is of this split.

    What a node of this process publishes comes through the exchange.

    Args:
        deliver: called with a worker's number and what it sent, in the receiver's or the publishing node's thread; must
            return at once.
        refuse: called in the same threads with a worker's name and a sentence for a message that is not usable.
    """

    def __init__(
        self,
        node: Node,
        split: Split,
        deliver: Callable[[int, Sent], None],
        refuse: Callable[[str, str], None],
    ) -> None:
        self._node, self._split, self._deliver, self._refuse = node, split, deliver, refuse
        self._receiver = Receiver(node, lambda topic, reason: refuse(topic.rpartition("/")[2], reason))
        self._subscriptions: dict[int, Subscription] = {}
        self._inlets: list[Inlet] = []
        self._exchange = exchange_of(node)
        for number, worker in enumerate(split.workers):
            topic = node.resolve_topic_name(f"{TOPIC}/{worker.name}")
            inlet = Inlet(topic, partial(self._on_features, number), partial(self._switch, number))
            self._inlets.append(inlet)
            self._exchange.join(inlet)

    def close(self) -> None:
        """Unsubscribe."""
        for inlet in self._inlets:
            self._exchange.leave(inlet)
        self._receiver.close()

    def present(self) -> list[int]:
        """Numbers of the workers whose topics somebody publishes."""
        return [number for number, inlet in enumerate(self._inlets) if self._node.count_publishers(inlet.topic)]

    def strangers(self) -> list[str]:
        """Names that somebody publishes features under and that are none of this split's workers."""
        below = self._node.resolve_topic_name(TOPIC) + "/"
        known = {inlet.topic for inlet in self._inlets}
        topics = {name for name, _ in self._node.get_topic_names_and_types() if name.startswith(below)}
        return [name.removeprefix(below) for name in sorted(topics - known) if self._node.count_publishers(name)]

    def _switch(self, number: int, here: bool) -> None:
        """Subscribe to a worker's topic unless a node of this process publishes it."""
        if old := self._subscriptions.pop(number, None):
            self._receiver.remove(old)
        if not here and self._node.context.ok():  # after a signal nothing can be created
            callback = partial(self._on_message, number)
            # By the name that is remapped once, see ImageInput.
            name = f"{TOPIC}/{self._split.workers[number].name}"
            self._subscriptions[number] = self._receiver.add(CompressedImage, name, callback, ARRIVING)

    def _on_message(self, number: int, message: Any, _middleware: Mapping[str, int]) -> None:
        try:
            features = decode_features(bytes(message.data), message.format)
        except ValueError as error:
            self._refuse(self._split.workers[number].name, f"{self._inlets[number].topic}: {error}")
            return
        self._on_features(number, features, message.header)

    def _on_features(self, number: int, features: Features, header: Header) -> None:
        sent = Sent(header, features.values)
        if objection := self._objection(number, features, sent):
            self._refuse(self._split.workers[number].name, objection)
        else:
            self._deliver(number, sent)

    def _objection(self, number: int, features: Features, sent: Sent) -> str:
        """Why features are not usable; empty if they are."""
        worker, split = self._split.workers[number], self._split
        who = f"{worker.name} ({worker.device})"
        if features.split != split.short_hash:
            return (
                f"{who} is refused: it runs the split {features.split}, this node {split.short_hash}; copy "
                f"{split.folder} to its device and start it again"
            )
        if features.worker != worker.name or len(features.values) != worker.features:
            return (
                f"{who} is refused: {len(features.values)} features of {features.worker!r} came on its topic; expected "
                f"are {worker.features} of {worker.name!r}"
            )
        if not stamp_of(sent):
            return f"{who} sends features of images without stamps, which cannot be joined; set them in the driver"
        return ""

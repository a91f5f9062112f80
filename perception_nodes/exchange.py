"""Results that pass between the nodes of one process as they are: arrays, without a message, a copy or the middleware.

rclpy has no intra-process transport. Outputs of a process offer here what they publish, by the topic's full name, and
inputs take it. Whoever listens outside the process gets messages as ever.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from rclpy.node import Node


class Inlet:
    """An input's end of a topic.

    Args:
        deliver: called with what is published, in the publisher's thread; must return at once.
        present: told whether anybody in this process publishes the topic: at the beginning, and when it changes.
    """

    def __init__(self, topic: str, deliver: Callable[..., None], present: Callable[[bool], None]) -> None:
        self.topic, self.deliver, self.present = topic, deliver, present


class Exchange:
    """Who publishes and who takes which topic in this process. Methods may be called from any thread.

    Several nodes of the process may publish a topic; each result goes to every inlet, in the publisher's thread. What
    other processes publish on it does not reach the inlets.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._publishers: Counter[str] = Counter()
        self._inlets: dict[str, tuple[Inlet, ...]] = {}

    def offer(self, topic: str) -> None:
        """A publisher of the topic begins."""
        with self._lock:
            self._publishers[topic] += 1
            if self._publishers[topic] == 1:
                self._tell(topic, True)

    def withdraw(self, topic: str) -> None:
        """A publisher of the topic ends."""
        with self._lock:
            self._publishers[topic] -= 1
            if not self._publishers[topic]:
                self._tell(topic, False)

    def join(self, inlet: Inlet) -> None:
        """An inlet begins."""
        with self._lock:
            self._inlets[inlet.topic] = (*self._inlets.get(inlet.topic, ()), inlet)
            inlet.present(self._publishers[inlet.topic] > 0)

    def leave(self, inlet: Inlet) -> None:
        """An inlet ends, if it has begun; when this returns, nothing is delivered to it any more."""
        with self._lock:
            others = tuple(other for other in self._inlets.get(inlet.topic, ()) if other is not inlet)
            self._inlets[inlet.topic] = others

    def wanted(self, topic: str) -> bool:
        """Whether the topic has an inlet."""
        return bool(self._inlets.get(topic))

    def send(self, topic: str, *result: Any) -> None:
        """Deliver a result to every inlet of the topic; it must not change any more."""
        with self._lock:
            for inlet in self._inlets.get(topic, ()):
                inlet.deliver(*result)

    def _tell(self, topic: str, there: bool) -> None:
        for inlet in self._inlets.get(topic, ()):
            inlet.present(there)


_exchanges: WeakKeyDictionary[Any, Exchange] = WeakKeyDictionary()
_creating = threading.Lock()


def exchange_of(node: Node) -> Exchange:
    """That of the node's context: nodes of different ROS domains do not hear each other in one process either."""
    with _creating:
        return _exchanges.setdefault(node.context, Exchange())

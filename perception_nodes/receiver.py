"""Takes messages from subscriptions in a thread of its own, past rclpy's executor.

For every callback the executor builds its wait set anew, several times, of all that a node has: a lifecycle node with
its services takes 1 ms of the interpreter for each image, in the middle of the image's way.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

Callback = Callable[[Any, Mapping[str, int]], None]
"""Called with a message, or its bytes, and what the middleware says of it, such as when it was received."""
LOOK_SECONDS = 1.0
"""How long a receiver waits at most before it looks whether ROS was shut down, of which nothing may wake it."""
RETRY_SECONDS = 0.1
"""After an error of the middleware."""


class NotForExecutor(CallbackGroup):
    """Keeps subscriptions from the executor."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


class Receiver:
    """Calls back with the messages of some of a node's subscriptions, one at a time.

    Where several wait, they are served in the order in which they were added.

    Args:
        lose: called with a topic and a sentence for a message that could not be taken or whose callback raised; the
            others go on. The topic is empty where none could be taken for a while.
    """

    def __init__(self, node: Node, lose: Callable[[str, str], None]) -> None:
        self._node, self._lose = node, lose
        self._lock = threading.Lock()
        self._callbacks: dict[Subscription, Callback] = {}
        """Replaced, never changed."""
        self._closed = threading.Event()
        # Made with the first subscription: on a context that was shut down neither can be.
        self._wake: GuardCondition | None = None
        self._thread: threading.Thread | None = None

    def add(self, kind: type[Any], topic: str, callback: Callback, qos: QoSProfile, **options: Any) -> Subscription:
        """Subscribe; `options` are those of `Node.create_subscription`.

        Events of its QoS are not asked for: an executor that waits for them wakes up with every message.
        """
        options |= {
            "callback_group": NotForExecutor(),
            "event_callbacks": SubscriptionEventCallbacks(use_default_callbacks=False),
        }
        subscription = self._node.create_subscription(kind, topic, lambda message: None, qos, **options)
        with self._lock:
            self._callbacks = {**self._callbacks, subscription: callback}
            if self._wake is None:
                self._wake = GuardCondition(None, None, context=self._node.context)
                self._thread = threading.Thread(target=self._run, args=[self._wake], name="receiver", daemon=True)
                self._thread.start()
        self._wake.trigger()
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Unsubscribe. Nothing more is taken; what has been may still be called back with, until `close` returns."""
        with self._lock:
            self._callbacks = {key: value for key, value in self._callbacks.items() if key is not subscription}
        if self._wake:
            self._wake.trigger()
        self._node.destroy_subscription(subscription)

    def close(self) -> None:
        """Unsubscribe from all; when this returns, nothing is called back any more. More than once does nothing."""
        if self._closed.is_set():
            return
        for subscription in self._callbacks:
            self.remove(subscription)
        self._closed.set()
        if self._wake and self._thread:
            self._wake.trigger()
            # rclpy's lock, which the thread needs to end, may be held by who shuts ROS down and closes its nodes.
            self._thread.join(None if self._node.context.ok() else 2 * LOOK_SECONDS)
            self._wake.destroy()

    @property
    def _serves(self) -> bool:
        return not self._closed.is_set() and bool(self._node.context.ok())

    def _run(self, wake: GuardCondition) -> None:
        while self._serves:
            callbacks = self._callbacks
            try:
                self._serve(callbacks, wake)
            except Exception as error:  # the thread must not end while the node thinks that it listens
                if self._serves and callbacks is self._callbacks:  # else a subscription was removed meanwhile
                    self._lose("", f"no message can be taken: {type(error).__name__}: {error}")
                    self._closed.wait(RETRY_SECONDS)

    def _serve(self, callbacks: dict[Subscription, Callback], wake: GuardCondition) -> None:
        """Take messages until the subscriptions change."""
        context = self._node.context.handle
        with contextlib.ExitStack() as held:  # from being destroyed
            for handle in (context, wake.handle, *(subscription.handle for subscription in callbacks)):
                held.enter_context(handle)
            wait_set = rclpy_implementation.WaitSet(len(callbacks), 1, 0, 0, 0, 0, context)
            while callbacks is self._callbacks and self._serves:
                wait_set.clear_entities()
                for subscription in callbacks:
                    wait_set.add_subscription(subscription.handle)
                wait_set.add_guard_condition(wake.handle)
                wait_set.wait(round(LOOK_SECONDS * 1e9))
                ready = wait_set.get_ready_entities("subscription")
                for subscription, callback in callbacks.items():
                    if subscription.handle.pointer in ready:
                        self._take(subscription, callback)

    def _take(self, subscription: Subscription, callback: Callback) -> None:
        """Call back with the next message, if it is one: what is cut short the middleware leaves out by itself."""
        try:
            with self._lock:
                if subscription not in self._callbacks:  # removed since the wait: others may deliver what is in it
                    return
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is not None:
                callback(*taken)
        except Exception as error:
            topic = subscription.topic_name
            self._lose(topic, f"a message on {topic} is lost: {type(error).__name__}: {error}")

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
from rclpy.exceptions import InvalidHandle
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from perception.nodes.node import ERROR_PERIOD

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

Callback = Callable[[Any, Mapping[str, int]], None]
"""Called with a message, or its bytes, and what the middleware says of it, such as when it was received."""
LOOK_NANOSECONDS = 1_000_000_000
"""How long a receiver waits at most before it looks whether it has been closed: after a signal nothing may wake it."""


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
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._callbacks: dict[Subscription, Callback] = {}
        """Replaced, never changed."""
        self._closed = False
        self._wake = GuardCondition(None, None, context=node.context)
        self._thread = threading.Thread(target=self._run, name="receiver", daemon=True)
        self._thread.start()

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
        self._wake.trigger()
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Unsubscribe. A message that has been taken may still be called back with, until `close` returns."""
        with self._lock:
            self._callbacks = {key: value for key, value in self._callbacks.items() if key is not subscription}
        self._wake.trigger()
        self._node.destroy_subscription(subscription)

    def close(self) -> None:
        """Unsubscribe from all; when this returns, nothing is called back any more. More than once does nothing."""
        if self._closed:
            return
        for subscription in self._callbacks:
            self.remove(subscription)
        self._closed = True
        self._wake.trigger()
        self._thread.join()
        self._wake.destroy()

    @property
    def _serves(self) -> bool:
        return not self._closed and bool(self._node.context.ok())

    def _run(self) -> None:
        while self._serves:
            try:
                self._serve(self._callbacks)
            except InvalidHandle:  # removed since; the next round knows
                pass
            except RuntimeError:  # RCLError
                if self._serves:
                    raise

    def _serve(self, callbacks: dict[Subscription, Callback]) -> None:
        """Take messages until the subscriptions change."""
        context = self._node.context.handle
        with contextlib.ExitStack() as held:  # from being destroyed
            for handle in (context, self._wake.handle, *(subscription.handle for subscription in callbacks)):
                held.enter_context(handle)
            wait_set = rclpy_implementation.WaitSet(len(callbacks), 1, 0, 0, 0, 0, context)
            while callbacks is self._callbacks and self._serves:
                wait_set.clear_entities()
                for subscription in callbacks:
                    wait_set.add_subscription(subscription.handle)
                wait_set.add_guard_condition(self._wake.handle)
                wait_set.wait(LOOK_NANOSECONDS)
                ready = wait_set.get_ready_entities("subscription")
                for subscription, callback in callbacks.items():
                    if subscription.handle.pointer in ready:
                        self._take(subscription, callback)

    def _take(self, subscription: Subscription, callback: Callback) -> None:
        """Call back with a message; one that cannot be taken (a text that is no UTF-8, say) must not end the thread."""
        try:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is not None:
                callback(*taken)
        except Exception as error:
            if self._serves:
                self._node.get_logger().error(
                    f"a message on {subscription.topic_name} is lost: {type(error).__name__}: {error}",
                    throttle_duration_sec=ERROR_PERIOD,
                )

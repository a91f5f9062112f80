"""The receiver: messages come in order, past the executor, and what goes wrong ends neither it nor the node."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import rclpy
from conftest import Graph, wait_until
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import String

from perception.nodes import receiver as module
from perception.nodes.receiver import Receiver

QOS = QoSProfile(depth=100)


@pytest.fixture
def node(graph: Graph) -> Node:
    """One that is not spun: what it receives comes past its executor."""
    node = rclpy.create_node("receives", namespace="/robot")
    graph.nodes.append(node)
    return node


@pytest.fixture
def lost() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def receiver(node: Node, lost: list[tuple[str, str]]) -> Iterator[Receiver]:
    receiver = Receiver(node, lambda topic, reason: lost.append((topic, reason)))
    yield receiver
    receiver.close()


def talk(graph: Graph, topic: str) -> Any:
    """A publisher on a topic that a subscription has found."""
    publisher = graph.add(rclpy.create_node(f"talks_{topic}", namespace="/robot")).create_publisher(String, topic, QOS)
    wait_until(publisher.get_subscription_count, what="the subscription")
    return publisher


def test_messages_come_in_order_with_what_the_middleware_says(graph: Graph, node: Node, receiver: Receiver) -> None:
    got: list[tuple[str, Any]] = []
    receiver.add(String, "a", lambda message, info: got.append((message.data, info)), QOS)
    publisher = talk(graph, "a")
    for number in range(50):
        publisher.publish(String(data=str(number)))
    wait_until(lambda: len(got) == 50, what="all messages")
    assert [text for text, _ in got] == [str(number) for number in range(50)]
    assert 0 <= time.time_ns() - got[-1][1]["received_timestamp"] < 60e9


def test_of_waiting_messages_those_of_the_subscription_added_first_come_first(
    graph: Graph, node: Node, receiver: Receiver
) -> None:
    got: list[str] = []
    busy, go = threading.Event(), threading.Event()

    def stand_still(message: String, info: Any) -> None:
        busy.set()
        go.wait(10)

    receiver.add(String, "gate", stand_still, QOS)
    receiver.add(String, "first", lambda message, info: got.append("first"), QOS)
    receiver.add(String, "second", lambda message, info: got.append("second"), QOS)
    gate, first, second = (talk(graph, topic) for topic in ("gate", "first", "second"))
    gate.publish(String())
    wait_until(busy.is_set, what="the gate")
    second.publish(String())
    first.publish(String())
    time.sleep(0.2)
    go.set()
    wait_until(lambda: len(got) == 2, what="both messages")
    assert got == ["first", "second"]


def test_a_removed_subscription_is_gone_and_the_others_go_on(graph: Graph, node: Node, receiver: Receiver) -> None:
    got: list[str] = []
    one = receiver.add(String, "one", lambda message, info: got.append("one"), QOS)
    receiver.add(String, "two", lambda message, info: got.append("two"), QOS)
    first, second = talk(graph, "one"), talk(graph, "two")
    receiver.remove(one)
    wait_until(lambda: not first.get_subscription_count(), what="the subscription to go")
    first.publish(String())
    second.publish(String())
    wait_until(lambda: got, what="the other's message")
    time.sleep(0.1)
    assert got == ["two"]


def test_what_waits_in_a_removed_subscription_is_not_taken(graph: Graph, node: Node, receiver: Receiver) -> None:
    """Else one that moved to the exchange would have a message twice."""
    got: list[str] = []
    busy, go, done = threading.Event(), threading.Event(), threading.Event()

    def gate(message: String, info: Any) -> None:
        busy.set()
        go.wait(10)

    receiver.add(String, "gate", gate, QOS)
    receiver.add(String, "removes", lambda message, info: receiver.remove(removed), QOS)
    removed = receiver.add(String, "removed", lambda message, info: got.append("removed"), QOS)
    receiver.add(String, "last", lambda message, info: done.set(), QOS)
    topics = [talk(graph, topic) for topic in ("gate", "removes", "removed", "last")]
    topics[0].publish(String())
    wait_until(busy.is_set, what="the gate")
    for publisher in topics[1:]:
        publisher.publish(String())
    time.sleep(0.2)
    go.set()
    wait_until(done.is_set, what="the last message")
    assert not got


def test_closing_waits_for_the_callback_and_ends_the_thread(graph: Graph, node: Node, receiver: Receiver) -> None:
    entered, left = threading.Event(), threading.Event()

    def slow(message: String, info: Any) -> None:
        entered.set()
        time.sleep(0.3)
        left.set()

    receiver.add(String, "a", slow, QOS)
    talk(graph, "a").publish(String())
    wait_until(entered.is_set, what="the callback")
    receiver.close()
    assert left.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "receiver"]
    assert not list(node.subscriptions)
    receiver.close()


def test_a_callback_that_raises_is_told_and_survived(
    graph: Graph, receiver: Receiver, lost: list[tuple[str, str]]
) -> None:
    got: list[str] = []

    def picky(message: String, info: Any) -> None:
        if message.data == "bad":
            raise KeyError("no such thing")
        got.append(message.data)

    receiver.add(String, "a", picky, QOS)
    publisher = talk(graph, "a")
    publisher.publish(String(data="bad"))
    publisher.publish(String(data="good"))
    wait_until(lambda: got == ["good"], what="the next message")
    assert [topic for topic, _ in lost] == ["/robot/a"] and "/robot/a is lost: KeyError" in lost[0][1]


def test_an_error_of_the_middleware_is_told_and_survived(
    graph: Graph, receiver: Receiver, lost: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that ended would leave a node that thinks that it listens."""
    real, calls = module.rclpy_implementation.WaitSet, []

    def fail_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise MemoryError("bad alloc")
        return real(*arguments)

    monkeypatch.setattr(module.rclpy_implementation, "WaitSet", fail_once)
    got: list[str] = []
    receiver.add(String, "a", lambda message, info: got.append(message.data), QOS)
    talk(graph, "a").publish(String(data="good"))
    wait_until(lambda: got == ["good"], what="the message")
    assert lost == [("", "no message can be taken: MemoryError: bad alloc")]


def test_a_receiver_ends_with_ros_and_can_be_closed_after_it() -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("short", context=context)
    receiver = Receiver(node, pytest.fail)
    receiver.add(String, "a", lambda message, info: None, QOS)
    context.shutdown()
    begin = time.monotonic()
    receiver.close()
    assert time.monotonic() - begin < 2 * module.LOOK_SECONDS + 0.5
    assert not [thread for thread in threading.enumerate() if thread.name == "receiver"]
    Receiver(node, pytest.fail).close()
    node.destroy_node()


def test_a_damaged_message_is_survived(graph: Graph, node: Node, receiver: Receiver) -> None:
    got: list[str] = []
    receiver.add(String, "a", lambda message, info: got.append(message.data), QOS)
    publisher = talk(graph, "a")
    publisher.publish(b"\x00\x01\x00\x00" + b"\xff\x00\x00\x00" + b"short")  # 255 characters are announced
    publisher.publish(String(data="good"))
    wait_until(lambda: got == ["good"], what="the next message")


def test_the_executor_leaves_the_messages_alone(graph: Graph) -> None:
    """Else it would take some of them, and wake up for every one."""
    node = graph.add(rclpy.create_node("spun", namespace="/robot"))
    receiver = Receiver(node, pytest.fail)
    threads: set[str] = set()
    got: list[str] = []
    try:
        receiver.add(
            String, "a", lambda m, info: (got.append(m.data), threads.add(threading.current_thread().name)), QOS
        )
        publisher = talk(graph, "a")
        for number in range(100):
            publisher.publish(String(data=str(number)))
        wait_until(lambda: len(got) == 100, what="all messages")
    finally:
        receiver.close()
    assert threads == {"receiver"}

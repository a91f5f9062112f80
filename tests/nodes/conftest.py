"""Nodes under test run in this process, on real topics of a domain of their own that does not leave the machine."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed; run tools/set_up.py or source a ROS 2")

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.task import Future  # noqa: E402

from perception.nodes import model_node  # noqa: E402
from perception.nodes.depth_node import DepthNode  # noqa: E402
from perception.nodes.environment import prepare  # noqa: E402
from perception.nodes.session import keep_local  # noqa: E402
from perception.tasks.config import ModelConfig, Output  # noqa: E402

FOCAL = (0.9, 1.2)
PROCESS = str(Path(__file__).with_name("fake_depth_node.py"))
"""The depth node as a program, with a fake engine."""
EXIT_SECONDS = 2.0
"""How soon a process has to end after a signal."""
Start = Callable[..., "subprocess.Popen[str]"]


class FakeEngine:
    """An engine whose depth is what a test says it is, as float32 of the network's size."""

    def __init__(self, depth: Callable[[np.ndarray], np.ndarray], seconds: float = 0.0) -> None:
        self.config = ModelConfig(
            name="fake", task="depth", input_size=(32, 64), outputs=(Output("depth", (1, 1, 32, 64), "m"),), focal=FOCAL
        )
        self.info = {"model": "fake", "target": "fake", "precision": "fp32", "key": "0", "device": "test"}
        self.depth, self.seconds = depth, seconds
        self.trained = True
        self.closed = False
        self.runs = 0

    def run(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        assert image.shape == (1, 32, 64, 3) and image.dtype == np.uint8
        self.runs += 1
        time.sleep(self.seconds)
        return {"depth": np.broadcast_to(self.depth(image[0]), (32, 64)).astype(np.float32)[None, None]}

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="session", autouse=True)
def ros() -> Iterator[None]:
    os.environ["ROS_DOMAIN_ID"] = str(100 + os.getpid() % 100)
    keep_local()
    prepare()
    rclpy.init()
    gc.collect()
    gc.freeze()  # what earlier tests imported is no garbage either, and every graph that closes looks for some
    yield
    rclpy.try_shutdown()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that nodes load: brightness of the image in tenths of a metre."""
    fake = FakeEngine(lambda image: image.mean(axis=2) / 10)
    monkeypatch.setattr(model_node.engines, "load", lambda *_: fake)
    return fake


class Graph:
    """Nodes spinning in a thread."""

    def __init__(self) -> None:
        self.executor = SingleThreadedExecutor()
        self.nodes: list[Any] = []
        self._closing = Future()
        self._thread = threading.Thread(target=self._spin, name="graph", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        self.executor.spin_until_future_complete(self._closing)  # shutdown() does not wait for callbacks

    def add(self, node: Any) -> Any:
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def close(self) -> None:
        self._closing.set_result(None)
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()
        self.executor.shutdown()
        for node in self.nodes:
            if hasattr(node, "close"):
                node.close()
            node.destroy_node()
        # rclpy frees a lifecycle node only with the Python object, and until then rcl keeps its name for /rosout.
        self.nodes.clear()
        gc.collect()


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph()
    yield graph
    graph.close()


@pytest.fixture
def depth_node(graph: Graph, engine: FakeEngine) -> DepthNode:
    node = graph.add(DepthNode(namespace="/robot"))
    assert node.autostart()
    return node


@pytest.fixture
def start(ros: None) -> Iterator[Start]:
    """Starts Python with arguments as a process in /robot; ends it whatever happens."""
    processes: list[subprocess.Popen[str]] = []

    def start(*command: str, **environment: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, *command, "--ros-args", "-r", "__ns:=/robot"]
        environ = os.environ | environment
        processes.append(subprocess.Popen(arguments, env=environ, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], Any], seconds: float = 10.0, what: str = "the condition") -> Any:
    """The condition's first true value; fails the test after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.005)
    pytest.fail(f"waited {seconds} s in vain for {what}")


def overrides(**values: Any) -> list[Parameter]:
    """Parameters as a launch file gives them."""
    return [Parameter(name, value=value) for name, value in values.items()]

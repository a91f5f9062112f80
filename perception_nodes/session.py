"""A pipeline under observation: its nodes as processes of their own, and a node that drives and watches them."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from perception.engines.device import cpu
from perception.nodes.environment import prepare

T = TypeVar("T")
STOP_SECONDS = 8.0
"""`ros2 launch` itself waits for 5."""


class SessionError(RuntimeError):
    """A node ended or did not answer; the message ends with the last lines it wrote."""


class Observer(Node):
    """Sees what the nodes say on /diagnostics and drives their lifecycle. Subclasses subscribe to more."""

    def __init__(self, name: str = "observer", namespace: str = "/") -> None:
        super().__init__(name, namespace=namespace)
        self.diagnostics: dict[str, dict[str, str]] = {}
        """Node's full name to the newest values, with the status' message under "message"."""
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            values = {item.key: item.value for item in status.values}
            self.diagnostics[status.name] = values | {"message": status.message}


class Session:
    """Starts and stops node processes and spins an observer in a thread.

    Args:
        observer: makes the observer once ROS is initialised.
        log: folder for what the processes write, one file each.
    """

    def __init__(self, observer: Callable[[], Observer], log: Path) -> None:
        prepare()
        self._owns_ros = not rclpy.ok()
        if self._owns_ros:
            rclpy.init(args=[])  # of the command line, name:=value is for the pipeline and remaps nothing here
        self._log = log
        log.mkdir(parents=True, exist_ok=True)
        self.observer: Any = observer()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.observer)
        self._thread = threading.Thread(target=self._executor.spin, name="observer", daemon=True)
        self._thread.start()

    def start(
        self,
        executable: str,
        parameters: Mapping[str, Any],
        name: str = "",
        namespace: str = "/",
        remappings: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start `perception.nodes.<executable>` as a process; `name` renames the node."""
        name = name or executable
        arguments = ["-r", f"__node:={name}", "-r", f"__ns:={namespace}"]
        for key, value in parameters.items():
            shown = str(value).lower() if isinstance(value, bool) else f"'{value}'" if value == "" else value
            arguments += ["-p", f"{key}:={shown}"]
        for source, target in (remappings or {}).items():
            arguments += ["-r", f"{source}:={target}"]
        return self.run(name, [sys.executable, "-m", f"perception.nodes.{executable}", "--ros-args", *arguments])

    def run(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command as a process called `name` here."""
        with (self._log / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # what the command starts ends with it
            )
        self.processes[name] = process
        return process

    def wait(self, condition: Callable[[], T | None], seconds: float, what: str) -> T:
        """The condition's first true value.

        Raises:
            SessionError: `seconds` passed, or a process ended with an error.
        """
        end = time.monotonic() + seconds
        while not (value := condition()):
            self.check()
            if time.monotonic() > end:
                raise SessionError(f"waited {seconds:.0f} s in vain for {what}{self._last_words(*self.processes)}")
            time.sleep(0.002)
        return value

    def check(self) -> None:
        """Raise SessionError if a process ended with an error."""
        for name, process in self.processes.items():
            if process.poll():
                raise SessionError(f"{name} ended with status {process.returncode}{self._last_words(name)}")

    def change_state(self, node: str, transition: int = Transition.TRANSITION_ACTIVATE, seconds: float = 30.0) -> None:
        """Take the lifecycle node with this full name through a transition of lifecycle_msgs/Transition."""
        client = self.observer.create_client(ChangeState, f"{node}/change_state")
        self.wait(client.service_is_ready, seconds, f"{node}/change_state")
        request = ChangeState.Request()
        request.transition.id = transition
        future = client.call_async(request)
        self.wait(future.done, seconds, f"{node} to change its state")
        self.observer.destroy_client(client)
        if not future.result().success:
            raise SessionError(f"{node} refused transition {transition}{self._last_words(node.rpartition('/')[2])}")

    def stop(self, name: str) -> None:
        """End one process, and what it started, as ctrl-C does; killed if they do not end."""
        process = self.processes.pop(name)
        if process.poll() is None:
            _signal_group(process, signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _signal_group(process, signal.SIGKILL)

    def close(self) -> None:
        """End all processes and the observer."""
        for name in list(self.processes):
            self.stop(name)
        self._executor.shutdown(timeout_sec=STOP_SECONDS)
        self._thread.join(STOP_SECONDS)
        self.observer.destroy_node()
        if self._owns_ros:
            rclpy.try_shutdown()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _last_words(self, *names: str, lines: int = 5) -> str:
        said = []
        for name in names:
            path = self._log / f"{name}.log"
            text = path.read_text(errors="replace").strip().splitlines()[-lines:] if path.is_file() else []
            said += [f"  {name}: {line}" for line in text]
        return "".join(f"\n{line}" for line in said)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To a process and all that it started; nothing where none is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def isolate() -> None:
    """Put this process and those it starts on a ROS domain of their own, another than the one set; see `keep_local`.

    Call it before `rclpy.init`: a node that is there already stays where it is.
    """
    own = 1 + os.getpid() % 99  # 0 is everybody's, and from 102 on a domain's ports may be taken by other programs
    taken = os.environ.get("ROS_DOMAIN_ID", "").strip()
    os.environ["ROS_DOMAIN_ID"] = str(own + 1 if taken.isdecimal() and int(taken) == own else own)
    keep_local()


def keep_local() -> None:
    """Keep discovery on this machine unless the user has said how far it goes."""
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")
    else:
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def machine() -> dict[str, Any]:
    """What a measurement was made on."""
    return {
        "cpu": cpu().name,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "ros": os.environ.get("ROS_DISTRO", "wheels (jazzy)"),
        "rmw": os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"),
    }

"""A rosbag through an unmodified pipeline over real topics: latency, loss, processors, memory and accuracy."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message

from perception.evaluation.replayed import Passage, growth
from perception.nodes.bag_player import message_type
from perception.nodes.convert import MessageError, image_from_message
from perception.nodes.diagnostics import counts_of, device_temperature, engine_of, stages_of
from perception.nodes.session import Observer, Session, SessionError
from perception.nodes.subject import Subject
from perception.tasks.messages import metres_of, stamp_in

PLAYER = "/perception_bench/bag_player"
SETTLE = 1.0
"""Seconds for discovery to reach the last participant."""
REPORTED = 1.5
"""Seconds after which /diagnostics, which come once a second, hold the last frame; results on their way come too."""
QUEUE = 200
"""Results that wait for this process at most."""
SAMPLED = 0.5
"""Seconds between two looks at the processes."""
STRIDE = 4
"""Results that are kept for accuracy are every fourth row and column: whole maps would cost memory and time."""


class Watcher(Observer):
    """Notes when each result arrives, and keeps the results where they are to be compared with the truth."""

    def __init__(self, output: str, keep: Collection[int]) -> None:
        super().__init__("watcher", "/perception_bench")
        self._output, self._keep, self._kind = output, keep, None
        self.arrived: list[tuple[int, int]] = []
        self.unreadable = 0
        self.kept: dict[int, np.ndarray] = {}

    def subscribe(self) -> bool:
        """Listen to the output once somebody publishes it; whether that is so."""
        types = dict(self.get_topic_names_and_types()).get(self._output)
        publishers = self.get_publishers_info_by_topic(self._output)
        if types and publishers and self._kind is None:
            self._kind = message_type(types[0])
            # As reliable as the publisher, and a deep queue: what this process does not take would count as lost.
            qos = QoSProfile(depth=QUEUE, reliability=publishers[0].qos_profile.reliability)
            self.create_subscription(self._kind, self._output, self._on_result, qos, raw=True)
        return self._kind is not None

    def _on_result(self, data: bytes) -> None:
        now = time.monotonic_ns()
        stamp = stamp_in(data)
        self.arrived.append((stamp, now))
        if stamp in self._keep:
            try:
                metres = metres_of(image_from_message(deserialize_message(data, self._kind)))
                self.kept[stamp] = metres[::STRIDE, ::STRIDE].copy()
            except (MessageError, AttributeError):  # no image, or none of depth
                self.unreadable += 1


class Sampler:
    """Looks at processes and what they started, now and then, in a thread: processor time and resident memory."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._roots = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in pids}
        self.temperatures: list[float] = []
        self.megahertz: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> dict[str, dict[str, float]]:
        """End; processor time in cores, memory in MiB, by process."""
        self._stopped.set()
        self._thread.join()
        return {name: _usage(np.array(rows).reshape(-1, 3)) for name, rows in self._rows.items()}

    def weather(self) -> dict[str, float | None]:
        """Highest temperature and median clock, where the machine shows them."""
        return {
            "temperature_c": round(max(self.temperatures), 1) if self.temperatures else None,
            "clock_mhz": round(float(np.median(self.megahertz))) if self.megahertz else None,
        }

    def _run(self) -> None:
        while True:
            for name, root in self._roots.items():
                self._rows[name].append(self._look(root))
            if (celsius := device_temperature()) is not None:
                self.temperatures.append(celsius)
            if frequency := psutil.cpu_freq():
                self.megahertz.append(frequency.current)
            if self._stopped.wait(SAMPLED):
                return

    @staticmethod
    def _look(root: psutil.Process) -> tuple[float, float, float]:
        """Steady clock, seconds of processor time and bytes of memory."""
        seconds = memory = 0.0
        try:
            for process in (root, *root.children(recursive=True)):
                times = process.cpu_times()
                seconds += times.user + times.system
                memory += process.memory_info().rss
        except psutil.NoSuchProcess:  # the session says so
            pass
        return time.monotonic(), seconds, memory


def _usage(rows: np.ndarray) -> dict[str, float]:
    t, seconds, memory = rows.T
    span = t[-1] - t[0] if len(t) > 1 else 0.0
    return {
        "cores": round(float((seconds[-1] - seconds[0]) / span), 3) if span else 0.0,
        "memory_mib": round(float(memory.max() / 2**20), 1),
        "growth_mib": round(growth(t, memory / 2**20), 2),
    }


@dataclass
class Trial:
    """What one run showed."""

    passage: Passage
    figures: dict[str, Any]
    """For the report."""
    kept: dict[int, np.ndarray] = field(default_factory=dict)
    """Results by stamp, where they were asked for."""


@dataclass
class BagBench:
    """Runs of one bag. `topics` of the bag are played besides the subject's images."""

    bag: Path
    topics: tuple[str, ...]
    out: Path

    def build(self, subject: Subject) -> float:
        """Build what the subject needs and does not have; seconds that took.

        Raises:
            ValueError: a build failed; what it said is on the terminal.
        """
        start = time.monotonic()
        for command in subject.builds:
            if status := subprocess.call(command):
                raise ValueError(f"`{' '.join(command)}` ended with status {status}")
        return round(time.monotonic() - start, 2)

    def run(
        self,
        subject: Subject,
        rate: float = 0.0,
        seconds: float | None = None,
        one_by_one: bool = False,
        keep: Collection[int] = (),
    ) -> Trial:
        """Start the subject anew, play the bag, and end everything.

        Args:
            rate: images a second; 0: as they were recorded.
            seconds: how long, the bag starting again at its end; None: once through the bag.
            one_by_one: the next image when the last one's result has come.
            keep: stamps of which the results, depth maps, are kept.

        Raises:
            SessionError: a process ended, a topic never appeared, or the bag could not be played to its end.
        """
        sent = self.out / "sent.npy"
        sent.unlink(missing_ok=True)
        player = {
            "bag": str(self.bag),
            "images": subject.images,
            "topics": " ".join(topic for topic in self.topics if topic != subject.images),
            "rate": float(rate),
            "answers": subject.output if one_by_one else "",
            "loop": seconds is not None,
            "sent": str(sent),
            "autostart": False,
        }
        with Session(lambda: Watcher(subject.output, keep), self.out / "log") as session:
            watcher: Watcher = session.observer
            begin = time.monotonic()
            for name, command in subject.commands.items():
                session.run(name, command)
            pids = {name: process.pid for name, process in session.processes.items()}
            session.wait(lambda: watcher.count_subscribers(subject.images), 120, f"a subscriber of {subject.images}")
            session.wait(watcher.subscribe, 120, f"a publisher of {subject.output}")
            ready = time.monotonic() - begin
            session.start("bag_player", player, namespace=PLAYER.rpartition("/")[0])
            session.change_state(PLAYER, Transition.TRANSITION_CONFIGURE)
            time.sleep(SETTLE)
            session.change_state(PLAYER)
            sampler = Sampler(pids)
            sampler.start()
            self._wait_for_end(session, seconds)
            usage = sampler.stop()
            session.change_state(PLAYER, Transition.TRANSITION_DEACTIVATE)
            time.sleep(REPORTED)
            passage = Passage(np.load(sent), np.array(watcher.arrived, np.int64).reshape(-1, 2))
            asked = "one by one" if one_by_one else f"{rate:g} Hz" if rate else "as recorded"
            figures = {"asked": asked, "ready_s": round(ready, 2)} | _figures(passage, watcher, subject)
            return Trial(passage, figures | {"processes": usage} | sampler.weather(), watcher.kept)

    def _wait_for_end(self, session: Session, seconds: float | None) -> None:
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            session.check()
            said = session.observer.diagnostics.get(PLAYER, {}).get("message", "")
            if "ends early" in said:
                raise SessionError(said)
            if end is None and "has ended" in said:
                return
            time.sleep(0.05)


def _figures(passage: Passage, watcher: Watcher, subject: Subject) -> dict[str, Any]:
    """What was sent and came, and what the nodes say."""
    nodes = {name: _node(watcher.diagnostics.get(name, {})) for name in subject.nodes}
    first = (passage.arrived[0, 1] - passage.sent[0, 1]) / 1e6 if len(passage.arrived) and len(passage.sent) else None
    return {
        "first_result_ms": None if first is None else round(float(first), 1),
        **passage.summary(),
        "unreadable": watcher.unreadable,
        "lost_where": lost_where(passage, [node["counts"] for node in nodes.values() if node]),
        "nodes": nodes,
    }


def lost_where(passage: Passage, counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Where images were lost, by the counts of the nodes in the order in which they pass them on.

    Of each node: "transport" before it, "slot" (a newer frame came), "error" and "unwanted" in it. "unexplained" is
    what the last node says it published and did not come; for a pipeline that tells no counts, all that was lost.
    """
    places = dict.fromkeys(("transport", "slot", "error", "unwanted"), 0)
    before = len(passage.sent)
    for node in counts:
        places["transport"] += before - node["received"]
        places["slot"] += node["dropped"]
        places["error"] += node["failed"]
        places["unwanted"] += node["skipped"]
        before = node["published"]
    return places | {"unexplained": before - (len(passage.sent) - passage.lost)}


def _node(values: Mapping[str, str]) -> dict[str, Any]:
    """What a node says about itself."""
    if "received" not in values:
        return {}
    return {"counts": counts_of(values), "stages_ms": stages_of(values), "engine": engine_of(values)}

"""What the depth node costs, measured on real topics: overhead, throughput, age under load, transport, start, memory.

Every scenario starts the node as a process of its own, takes what it needs to compare with in the same run, and returns
figures. Nothing is asserted here: a machine's figures are read by people.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image as ImageMessage

from perception import engines
from perception.nodes.chain import chain
from perception.nodes.diagnostics import counts_of, engine_of, stages_of
from perception.nodes.inputs import SENSOR_DATA
from perception.nodes.session import Observer, Session
from perception.nodes.statistics import spread
from perception.tasks.config import DEPTH_MODEL
from perception.tasks.messages import stamp_of

NAMESPACE = "/benchmark"
SOURCE, DEPTH = f"{NAMESPACE}/image_source_node", f"{NAMESPACE}/depth_node"
SETTLE = 1.0
"""Seconds for discovery and the first frames, which are not measured."""
INPUTS = (0.8, 0.95, 1.1)
"""Rates of input at which the highest rate of output is looked for, over the rate of inferences and nothing else. More
input than the node can take lowers its rate: receiving what is dropped takes time from the inferences."""

Figures = dict[str, Any]


class Counter(Observer):
    """Counts the messages of one topic without unpacking them: (stamp or 0, seconds of arrival)."""

    def __init__(self, topic: str = "depth", raw: bool = True) -> None:
        super().__init__("counter", NAMESPACE)
        self.arrivals: list[float] = []
        self.stamps: list[int] = []
        self._raw = raw
        self.create_subscription(ImageMessage, topic, self._on_message, SENSOR_DATA, raw=raw)

    def _on_message(self, message: Any) -> None:
        self.arrivals.append(time.monotonic())
        if not self._raw:
            self.stamps.append(stamp_of(message))


class Listener(Observer):
    """Makes the node publish depth and lets it lie: what a reader does with it is not the node's cost.

    The middleware delivers every map; nobody takes them, because the node that subscribes is not spun.
    """

    def __init__(self) -> None:
        super().__init__("listener", NAMESPACE)
        self._reader = rclpy.create_node("depth_reader", namespace=NAMESPACE)
        self._reader.create_subscription(ImageMessage, "depth", lambda message: None, SENSOR_DATA)

    def destroy_node(self) -> None:
        self._reader.destroy_node()
        super().destroy_node()

    def published(self, node: str) -> int:
        """Frames that `node` has published, as its diagnostics say."""
        return int(self.diagnostics.get(node, {}).get("published", 0))


@dataclass
class Benchmark:
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

    def run(self, scenario: str) -> Figures:
        """A scenario's figures, and the share of the processors that other machines of the same host took meanwhile.

        Durations of a few milliseconds mean little where that is more than a few thousandths.
        """
        before, begin = psutil.cpu_times(), time.monotonic()
        figures: Figures = getattr(self, scenario)()
        seconds = (time.monotonic() - begin) * (os.cpu_count() or 1)
        stolen = getattr(psutil.cpu_times(), "steal", 0.0) - getattr(before, "steal", 0.0)
        return figures | {"stolen_share": round(stolen / seconds, 4)}

    def overhead(self) -> Figures:
        """Latency at 30 Hz with one subscriber, inference left out, from the node's own stages."""
        values = self._node_values(30.0, self.threads)
        return {"stages_ms": stages_of(values), "counts": counts_of(values), "engine": engine_of(values)}

    def throughput(self) -> Figures:
        """The highest rate of the node, and the rate of the bare engine.

        On one thread the work around an inference can overlap with the next one, so the node is compared with the bare
        engine. On all cores nothing is left to overlap with: it is compared with one inference and one overhead (what
        the node shows at 30 Hz) after the other.
        """
        figures: Figures = {}
        for threads in dict.fromkeys((1, os.cpu_count() or 1)):
            overhead = stages_of(self._node_values(30.0, threads))["callback_overhead"]["p50"] / 1e3
            seconds, values = self._capacity(threads)
            rate = float(values["rate_hz"])
            stages = stages_of(values)
            figures[f"threads_{threads}"] = {
                "bare_engine_hz": round(1 / seconds, 1),
                "overhead_at_30_hz_ms": round(1e3 * overhead, 2),
                "node_hz": rate,
                "to_bare_engine": round(rate * seconds, 3),
                "to_inference_and_overhead": round(rate * (seconds + overhead), 3),
                "stages_p50_ms": {name: stages[name]["p50"] for name in ("infer", "preprocess", "publish")},
                "engine": engine_of(values),
            }
        return figures

    def overload(self) -> Figures:
        """Age of the output at 3 times the input that the node can take, without and with a stalled reader."""
        figures: Figures = {}
        rate = 3 * float(self._capacity(self.threads)[1]["rate_hz"])
        for name, stalled in (("free", False), ("stalled_reader", True)):
            values = self._node_values(rate, self.threads, stalled_reader=stalled)
            stages = stages_of(values)
            bound = 1.25 * stages["infer"]["p99"] + 1e3 / rate + 5
            figures[name] = {
                "input_hz": round(rate, 1),
                "age_ms": stages["age"],
                "infer_ms": stages["infer"],
                "bound_p99_ms": round(bound, 2),
                "within": stages["age"]["p99"] <= bound,
                "counts": counts_of(values),
            }
        return figures

    def transport(self, frames: int = 900, rate: float = 30.0) -> Figures:
        """Share of best-effort 640x480 images that reach another process, after matching."""
        with Session(lambda: Counter("image", raw=False), self.out / "log") as session:
            self._start_source(session, rate)
            session.wait(lambda: session.observer.count_publishers(f"{NAMESPACE}/image"), 30, "the source's topic")
            time.sleep(SETTLE)
            session.change_state(SOURCE)
            time.sleep(frames / rate + SETTLE)
            session.change_state(SOURCE, Transition.TRANSITION_DEACTIVATE)
            time.sleep(1.5)
            sent = int(session.observer.diagnostics[SOURCE]["published"])
            stamps = session.observer.stamps
        limits = {
            name: int(path.read_text())
            for name in ("rmem_max", "wmem_max")
            if (path := Path("/proc/sys/net/core") / name).is_file()
        }
        return {
            "sent": sent,
            "arrived": len(set(stamps)),
            "share": round(len(set(stamps)) / sent, 4),
            "kernel_limits": limits,
        }

    def chain(self) -> Figures:
        """Images a second through stages that pass them on, all in one process and each in its own.

        What the last stage receives is counted: it passes nothing on, as nobody listens. 640x480 from memory, faster
        than any stage can take them.
        """
        figures: Figures = {}
        for stages in (2, 3):
            rates = {host: self._chain_rate(stages, host) for host in ("one", "processes")}
            figures[f"stages_{stages}"] = {f"{host}_hz": round(rate, 1) for host, rate in rates.items()} | {
                "ratio": round(rates["one"] / rates["processes"], 2)
            }
        return figures

    def _chain_rate(self, stages: int, host: str) -> float:
        nodes = chain(self.source, stages)
        last = nodes[-1].full_name
        with Session(Observer, self.out / "log") as session:
            if host == "one":
                session.run("chain", [sys.executable, "-m", "perception.nodes.chain", self.source, str(stages)])
            else:
                for node in reversed(nodes):
                    session.run(node.name, node.command())

            def received() -> int:
                return int(session.observer.diagnostics.get(last, {}).get("received", 0))

            session.wait(received, 60, f"images at the last of {stages} stages")
            time.sleep(SETTLE)
            rates = []
            for _ in range(5):  # diagnostics come once a second, by a clock of their own
                session.observer.diagnostics.pop(last, None)
                before, begin = session.wait(received, 10, "diagnostics"), time.monotonic()
                time.sleep(self.seconds / 5)
                session.observer.diagnostics.pop(last, None)
                after = session.wait(received, 10, "diagnostics")
                rates.append((after - before) / (time.monotonic() - begin))
        return float(np.median(rates))

    def startup(self, rounds: int = 3) -> Figures:
        """Seconds from exec of the node to its first depth map, engine built and source running."""
        seconds = []
        for _ in range(rounds):
            with Session(Counter, self.out / "log") as session:
                self._start_source(session, 30.0)
                session.change_state(SOURCE)
                time.sleep(SETTLE)
                start = time.monotonic()
                self._start_node(session, self.threads)
                session.wait(lambda: session.observer.arrivals, 60, "the first depth map")
                seconds.append(session.observer.arrivals[0] - start)
        return {"seconds": [round(value, 2) for value in seconds]}

    def memory(self, rounds: int = 10) -> Figures:
        """Resident memory of the node while it serves, and how it grows over rounds of configure and cleanup."""
        with Session(Counter, self.out / "log") as session:
            self._start_source(session, 30.0)
            process = psutil.Process(self._start_node(session, self.threads).pid)
            session.change_state(SOURCE)
            session.wait(lambda: len(session.observer.arrivals) > 60, 60, "two seconds of depth")
            serving = process.memory_info().rss
            after = []
            for number in range(rounds):
                for transition in ("DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"):
                    session.change_state(DEPTH, getattr(Transition, f"TRANSITION_{transition}"))
                session.observer.arrivals.clear()
                session.wait(lambda: len(session.observer.arrivals) > 10, 30, f"depth in round {number}")
                after.append(round(process.memory_info().rss / 2**20, 1))
        return {
            "serving_mib": round(serving / 2**20, 1),
            "after_each_round_mib": after,
            "last_less_third_mib": round(after[-1] - after[2], 1),
        }

    def _capacity(self, threads: int) -> tuple[float, dict[str, str]]:
        """Seconds of one run of the bare engine, and the node's diagnostics at the input that gives the most output."""
        before = self._bare_seconds(threads)
        found = [self._node_values(share / before, threads) for share in INPUTS]
        best = max(found, key=lambda values: float(values["rate_hz"]))
        return (before + self._bare_seconds(threads)) / 2, best

    def _bare_seconds(self, threads: int) -> float:
        """Median seconds of one run of the engine alone."""
        with engines.load(self.model, self.target, self.precision, threads) as engine:
            image = np.random.default_rng(0).integers(0, 255, (1, *engine.config.input_size, 3), np.uint8)
            durations = []
            end = time.perf_counter() + 4
            while time.perf_counter() < end:
                start = time.perf_counter()
                engine.run(image)
                durations.append(time.perf_counter() - start)
        return spread(durations[len(durations) // 4 :]).p50

    def _node_values(self, rate: float, threads: int, stalled_reader: bool = False) -> dict[str, str]:
        """The node's diagnostics after `seconds` of input at `rate`; statistics begin when everything runs."""
        with Session(Listener, self.out / "log") as session:
            self._start_node(session, threads)
            session.start("feeder", {"source": self.source, "rate": float(rate)}, namespace=NAMESPACE)
            session.wait(lambda: session.observer.published(DEPTH), 60, "the first depth map")
            if stalled_reader:
                self._stall_a_reader(session)
            time.sleep(SETTLE)
            session.change_state(DEPTH, Transition.TRANSITION_DEACTIVATE)
            session.change_state(DEPTH)  # counts anew
            time.sleep(self.seconds)
            session.observer.diagnostics.pop(DEPTH)
            return dict(session.wait(lambda: session.observer.diagnostics.get(DEPTH), 10, "diagnostics"))

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

    def _start_node(self, session: Session, threads: int) -> Any:
        return session.start("depth_node", self._parameters | {"threads": threads}, namespace=NAMESPACE)

    def _stall_a_reader(self, session: Session) -> None:
        """A reliable reader of the depth is stopped in mid-air."""
        reader = session.start("reader", {}, namespace=NAMESPACE, remappings={"image": "depth"})
        depth = f"{NAMESPACE}/depth"
        session.wait(lambda: session.observer.count_subscribers(depth) >= 2, 60, "the reader to be stalled")
        time.sleep(SETTLE)
        reader.send_signal(signal.SIGSTOP)
        self.say("one reliable reader of the depth topic is stopped")

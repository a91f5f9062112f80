"""What a node with a model costs, measured on real topics: overhead, throughput, transport, chains, start, memory.

Every scenario starts the node as a process of its own, takes what it needs to compare with in the same run, and returns
figures. Nothing is asserted here: a machine's figures are read by people.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from lifecycle_msgs.msg import Transition
from std_msgs.msg import Header

from perception import engines
from perception.nodes.chain import chain
from perception.nodes.convert import image_from_message, image_to_message
from perception.nodes.diagnostics import counts_of, engine_of, stages_of
from perception.nodes.image_source_node import Pace
from perception.nodes.rig import IMAGES, NAMESPACE, SETTLE, SOURCE, Counter, Figures, Rig
from perception.nodes.session import Observer, Session
from perception.nodes.sources import open_source
from perception.tasks import enhancement, get_task
from perception.tasks.durations import spread
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess

NEVER = threading.Event()
"""What is not set: nobody stops a measurement."""


class Benchmark(Rig):
    """Scenarios of a node that is not overloaded."""

    def overhead(self) -> Figures:
        """Latency at 30 Hz with one subscriber, inference left out, from the node's own stages: of raw 640x480 images
        and of compressed 1280x720 ones. Beside them the same arithmetic in a plain loop, without ROS."""
        inputs = {"raw_640x480": ({}, {}), "jpeg_1280x720": ({"image_transport": "compressed"}, {"hd": True})}
        figures: Figures = {"without_ros_ms": self._arithmetic()}
        for name, (node, feed) in inputs.items():
            values = self._node_values(30.0, self.threads, node=node, feed=feed)
            figures[name] = {"stages_ms": stages_of(values), "counts": counts_of(values), "engine": engine_of(values)}
        return figures

    def _arithmetic(self, count: int = 300) -> Figures:
        """What decoding, preprocessing and parsing of 640x480 images take in this thread, in turn with sleep until the
        next thirtieth of a second, and without sleep.

        What the machine makes of sleep, by cold caches and a processor that has to be woken, is no node's doing.
        """
        cv2.setNumThreads(1)
        frames = list(itertools.islice(open_source(self.source), 30))
        header = Header()
        messages = [image_to_message(frame.image, header) for frame in frames]
        with engines.load(self.model, self.target, self.precision, self.threads) as engine:
            fit = Fit.of(frames[0].image.size, engine.config)
            outputs = dict(engine.run(preprocess(frames[0].image, engine.config, fit)))
            parse = get_task(engine.config.task).parse
            depth = np.zeros(fit.source, np.float32)
            given: dict[str, Callable[[Image, np.ndarray], dict[str, Any]]] = {
                "depth": lambda image, tensor: {"out": depth},
                "enhancement": lambda image, tensor: {"image": enhancement.accepted(image), "tensor": tensor},
            }
            more = given.get(engine.config.task, lambda image, tensor: {})
            found: Figures = {}
            for name, period in (("at_30_hz", 1 / 30), ("in_a_row", 0.0)):
                pace, durations = Pace(period), []
                for number in range(count):
                    pace.wait(NEVER)
                    start = time.perf_counter()
                    image = image_from_message(messages[number % len(messages)])
                    tensor = preprocess(image, engine.config, fit)
                    parse(outputs, fit, engine.config, **more(image, tensor))
                    durations.append(time.perf_counter() - start)
                found[name] = spread(durations).milliseconds()
        return found

    def throughput(self) -> Figures:
        """The highest rate of the node, and the rate of the bare engine, alone and beside the same traffic of images.

        On one thread the work around an inference can overlap with the next one, so the node is compared with the bare
        engine. On all cores nothing is left to overlap with: it is compared with one inference and one overhead (what
        the node shows at 30 Hz) after the other.
        """
        figures: Figures = {}
        for threads in dict.fromkeys((1, os.cpu_count() or 1)):
            overhead = stages_of(self._node_values(30.0, threads))["callback_overhead"]["p50"] / 1e3
            seconds, values = self._capacity(threads)
            rate = float(values["rate_hz"])
            beside = self._bare_seconds_beside(rate, threads)
            stages = stages_of(values)
            figures[f"threads_{threads}"] = {
                "bare_engine_hz": round(1 / seconds, 1),
                "bare_engine_beside_traffic_hz": round(1 / beside, 1),
                "overhead_at_30_hz_ms": round(1e3 * overhead, 2),
                "node_hz": rate,
                "to_bare_engine": round(rate * seconds, 3),
                "to_bare_engine_beside_traffic": round(rate * beside, 3),
                "to_inference_and_overhead": round(rate * (seconds + overhead), 3),
                "stages_p50_ms": {name: stages[name]["p50"] for name in ("infer", "preprocess", "publish")},
                "engine": engine_of(values),
            }
        return figures

    def transport(self, frames: int = 900, rate: float = 30.0) -> Figures:
        """Share of best-effort 640x480 images that reach another process, after matching."""
        with Session(lambda: Counter(IMAGES, raw=False), self.out / "log") as session:
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
        """Seconds from exec of the node to its first result, engine built and source running."""
        seconds = []
        for _ in range(rounds):
            with Session(lambda: Counter(self.node), self.out / "log") as session:
                self._start_source(session, 30.0)
                session.change_state(SOURCE)
                time.sleep(SETTLE)
                start = time.monotonic()
                self._start_node(session, self.threads)
                session.wait(lambda: session.observer.arrivals, 60, "the first result")
                seconds.append(session.observer.arrivals[0] - start)
        return {"seconds": [round(value, 2) for value in seconds]}

    def memory(self, rounds: int = 24) -> Figures:
        """Resident memory of the node while it serves, and how it grows over rounds of cleanup and configure: medians
        of five rounds, the last ones less those after the third, because new threads take new parts of the heap."""
        with Session(lambda: Counter(self.node), self.out / "log") as session:
            self._start_source(session, 30.0)
            process = psutil.Process(self._start_node(session, self.threads).pid)
            session.change_state(SOURCE)
            session.wait(lambda: len(session.observer.arrivals) > 60, 60, "two seconds of results")
            serving = process.memory_info().rss
            after = []
            for number in range(rounds):
                for transition in ("DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"):
                    session.change_state(self.node.full_name, getattr(Transition, f"TRANSITION_{transition}"))
                session.observer.arrivals.clear()
                session.wait(lambda: len(session.observer.arrivals) > 10, 30, f"results in round {number}")
                after.append(round(process.memory_info().rss / 2**20, 1))
        return {
            "serving_mib": round(serving / 2**20, 1),
            "after_each_round_mib": after,
            "growth_mib": round(float(np.median(after[-5:]) - np.median(after[3:8])), 1),
        }

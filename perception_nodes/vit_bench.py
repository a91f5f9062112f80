"""A split on several hosts while something goes wrong: how soon images are answered, how often, and how rightly.

Hosts are network namespaces of this machine. One, `base`, has the camera, the fusion node and whoever reads its
answers, all on one clock; each worker has a host of its own, called as its device.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header
from vision_msgs.msg import Classification

from perception.evaluation.class_folder import ClassDataset
from perception.evaluation.vit_bench_report import PLAIN, predicted_accuracy, table, told_cost
from perception.nodes.convert import image_to_message
from perception.nodes.diagnostics import counts_of, stages_of
from perception.nodes.image_source_node import Pace
from perception.nodes.network import Link, Network
from perception.nodes.outputs import RESULTS
from perception.nodes.pipeline import NodeDescription
from perception.nodes.session import Observer, Session, machine
from perception.tasks.durations import spread
from perception.tasks.image import Image
from perception.tasks.messages import stamp_of
from perception.tasks.vit_split import Split, SplitWorker

BASE = "base"
FUSION = "vit_fusion_node"
FAULTS = ("restart", "cut", "loss", "slow", "kill")
"""What begins and ends while images flow."""
SCENARIOS = (PLAIN, *FAULTS, "skew", "all")
STAGES = ("wait", "fuse", "latency", "overrun", "overhead")
"""Of the fusion node's."""
LOSS = 0.2
SLOWER = 10
SKEW = 0.05
SLICE = 0.001
"""Seconds for which a slowed process runs at a time: short beside what an image takes, which else would often fall into
one, or have to wait for the next."""
UNHURRIED = 0.05
"""Seconds after which a process that is let alone is looked after: more often would disturb what is measured."""
SETTLE = 1.0
"""Seconds after the last image in which its answer may come, and in which diagnostics do."""
SKEWED_CLOCK = f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {{
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(clock, now);
  if (clock == CLOCK_REALTIME && (now->tv_nsec += {round(SKEW * 1e9)}) >= 1000000000) {{
    now->tv_nsec -= 1000000000;
    now->tv_sec += 1;
  }}
  return status;
}}
"""
"""Linux has one clock of the time of day for all namespaces: a library that is loaded first sets a process's ahead."""


@dataclass(frozen=True)
class Options:
    """How a split is measured."""

    frames: int
    """Images of each scenario."""
    rate: float
    """Images a second."""
    deadline: float
    """Of the fusion node, seconds."""
    share: float
    """Of the time for which each worker's host runs, so that all are equally slow."""
    link: Link
    discovery: str
    target: str
    precision: str
    threads: int


@dataclass(frozen=True)
class Shown:
    """An image, uint8 (height, width, 3) RGB, and the class that it shows; empty where that is not known."""

    pixels: np.ndarray
    label: str = ""


def images(dataset: ClassDataset | None, labels: Sequence[str], count: int = 500) -> list[Shown]:
    """So many of a data set, in some order; without one, noise of 32x32.

    Raises:
        ValueError: classes that are none of `labels`.
    """
    random = np.random.default_rng(0)
    if dataset is None:
        return [Shown(pixels) for pixels in random.integers(0, 256, (30, 32, 32, 3), np.uint8)]
    if unknown := set(dataset.labels) - set(labels):
        raise ValueError(f"{dataset.name} has images of {', '.join(sorted(unknown))}, which the split does not know")
    frames = (dataset[int(place)] for place in random.permutation(len(dataset))[:count])
    return [Shown(frame.rgb, dataset.labels[frame.label]) for frame in frames]


class Camera(Observer):
    """Publishes images on `image` and notes what is answered, and when."""

    def __init__(self, shown: Sequence[Shown]) -> None:
        super().__init__("camera")
        self._shown = [(image_to_message(Image(one.pixels, "rgb8"), Header()), one.label) for one in shown]
        self._image = self.create_publisher(ImageMessage, "image", RESULTS)
        self.create_subscription(Classification, "classification", self._on_answer, RESULTS)
        self.sent: dict[int, tuple[float, str]] = {}
        """Stamp to when it was sent, seconds of the steady clock, and the true class."""
        self.answers: dict[int, tuple[float, str]] = {}
        """Stamp to when the answer came, and the likeliest class."""

    def _on_answer(self, message: Classification) -> None:
        self.answers[stamp_of(message)] = time.perf_counter(), message.results[0].class_id

    def show(self, number: int) -> None:
        """Publish an image."""
        message, label = self._shown[number % len(self._shown)]
        message.header.stamp = self.get_clock().now().to_msg()
        self.sent[stamp_of(message)] = time.perf_counter(), label
        self._image.publish(message)

    def listeners(self) -> int:
        return int(self._image.get_subscription_count())


class Throttle:
    """Lets a process run for a share of the time only, a slice at a time, as if its host were so much slower.

    Args:
        process: asked each time, since one may end and another begin; None: there is none now.
        share: may be changed at any time; 1 leaves the process alone.
    """

    def __init__(self, process: Callable[[], subprocess.Popen[bytes] | None], share: float) -> None:
        self._process, self.share = process, share
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="throttle", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(SLICE if self.share < 1 else UNHURRIED):
            process, share = self._process(), self.share
            if share == 1 or process is None or process.poll() is not None:
                continue
            process.send_signal(signal.SIGSTOP)
            self._stopped.wait(SLICE / share - SLICE)
            process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Let it run."""
        self._stopped.set()
        self._thread.join()


class VitBench:
    """Runs of a split on hosts of this machine.

    Args:
        network: stands already; its hosts are `base`, where this thread is to be, and the split's devices.
    """

    def __init__(self, split: Split, network: Network, out: Path, shown: Sequence[Shown], options: Options) -> None:
        self.split, self._network, self._out, self._shown, self._options = split, network, out, shown, options
        self._throttles: dict[str, Throttle] = {}
        """By worker."""

    def run(self, scenario: str) -> dict[str, Any]:
        """So many images while something goes wrong in their middle third; in "all" everything does, in turn."""
        before = {host: sum(self._network.bytes(host)) for host in self._network.hosts}
        with Session(lambda: Camera(self._shown), self._out / "log" / scenario) as session:
            self._start(session, skewed=self.split.workers[-1].name if scenario in ("skew", "all") else "")
            with self._throttled(session):
                figures = self._measure(session, scenario)
        after = {host: sum(self._network.bytes(host)) for host in self._network.hosts}
        return figures | {"link_bytes": {host: after[host] - before[host] for host in after}}

    def _start(self, session: Session, skewed: str) -> None:
        if os.environ.get("ROS_DISCOVERY_SERVER"):
            session.run("server", self._network.server_command())
        self._start_fusion(session)
        for worker in self.split.workers:
            self._start_worker(session, worker, worker.name == skewed)
        camera: Camera = session.observer
        workers = [f"/{worker.name}" for worker in self.split.workers]
        session.wait(lambda: camera.listeners() == len(workers), 120, "all workers to listen")
        session.wait(lambda: camera.count_publishers("classification"), 60, "the fusion node")
        session.wait(lambda: {f"/{FUSION}", *workers} <= camera.diagnostics.keys(), 60, "diagnostics of all nodes")

    def _start_fusion(self, session: Session) -> None:
        parameters = {"split": str(self.split.folder.resolve()), "deadline": self._options.deadline}
        session.run(FUSION, NodeDescription(FUSION, FUSION, "", parameters, {}).command())

    def _start_worker(self, session: Session, worker: SplitWorker, skewed: bool = False) -> None:
        parameters = {name: getattr(self._options, name) for name in ("target", "precision", "threads")}
        parameters |= {"model": str(self.split.graph_path(worker).resolve())}
        command = NodeDescription("vit_worker_node", worker.name, "", parameters, {}).command()
        if skewed:
            command = ["env", f"LD_PRELOAD={self._skewed_clock()}", *command]
        session.run(worker.name, self._network.command(worker.device, command))

    def _skewed_clock(self) -> Path:
        library = (self._out / "skewed_clock.so").resolve()
        words = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
        subprocess.run(words, input=SKEWED_CLOCK.encode(), check=True)
        return library

    @contextlib.contextmanager
    def _throttled(self, session: Session) -> Iterator[None]:
        """Each worker's host slow if that is asked for, all equally; `slow` makes one slower."""
        for worker in self.split.workers:
            process = partial(session.processes.get, worker.name)
            self._throttles[worker.name] = Throttle(process, self._options.share)
        try:
            yield
        finally:
            for throttle in self._throttles.values():
                throttle.end()

    def _measure(self, session: Session, scenario: str) -> dict[str, Any]:
        camera: Camera = session.observer
        options, actions = self._options, self._schedule(session, scenario)
        pace, never = Pace(1 / options.rate), threading.Event()
        for number in range(-round(SETTLE * options.rate), options.frames):
            pace.wait(never)
            if number == 0:
                camera.sent.clear()  # what came before was to warm up
            for act in actions.get(number, ()):
                act()
            camera.show(max(0, number))
        time.sleep(options.deadline + SETTLE)
        session.check()
        camera.diagnostics.pop(f"/{FUSION}", None)
        values = session.wait(lambda: camera.diagnostics.get(f"/{FUSION}"), 10, "diagnostics of the fusion node")
        return self._figures(camera, dict(values))

    def _schedule(self, session: Session, scenario: str) -> dict[int, list[Callable[[], None]]]:
        """What is done before which image. Each fault lasts for the middle third of its share of the images."""
        faults = FAULTS if scenario == "all" else (scenario,) if scenario in FAULTS else ()
        actions: dict[int, list[Callable[[], None]]] = {}
        for place, fault in enumerate(faults):
            begin, end = self._fault(session, fault)
            third = self._options.frames / len(faults) / 3
            for action, thirds in ((begin, 3 * place + 1), (end, 3 * place + 2)):
                actions.setdefault(round(thirds * third), []).append(action)
        return actions

    def _fault(self, session: Session, name: str) -> tuple[Callable[[], None], Callable[[], None]]:
        """What begins it and what ends it."""
        first, share = self.split.workers[0], self._options.share

        def kill(process: str) -> None:
            session.processes.pop(process).kill()

        def restart() -> None:
            kill(FUSION)
            self._start_fusion(session)

        def slow(times: float) -> None:
            self._throttles[first.name].share = share / times

        return {
            "restart": (restart, lambda: None),
            "cut": (lambda: self._network.cut(first.device), lambda: self._network.mend(first.device)),
            "loss": (lambda: self._network.lose(LOSS), lambda: self._network.lose(0)),
            "slow": (lambda: slow(SLOWER), lambda: slow(1)),
            "kill": (lambda: kill(first.name), lambda: self._start_worker(session, first)),
        }[name]

    def _infer_ms(self, camera: Camera) -> dict[str, float]:
        """Median of each worker that has said one."""
        told = {one.name: stages_of(camera.diagnostics.get(f"/{one.name}", {})) for one in self.split.workers}
        return {name: stages["infer"]["p50"] for name, stages in told.items() if "infer" in stages}

    def _figures(self, camera: Camera, values: dict[str, str]) -> dict[str, Any]:
        answered = {stamp: camera.answers[stamp] for stamp in camera.sent if stamp in camera.answers}
        delays = [when - camera.sent[stamp][0] for stamp, (when, _) in answered.items()]
        arrivals = sorted(when for when, _ in answered.values())
        ends = (*arrivals, max(sent for sent, _ in camera.sent.values()))
        known = [stamp for stamp in camera.sent if camera.sent[stamp][1]]
        right = [stamp for stamp in known if stamp in answered and answered[stamp][1] == camera.sent[stamp][1]]
        names = [f"{event}_{worker.name}" for worker in self.split.workers for event in ("missing", "late")]
        names += [f"without_{count}" for count in range(1, len(self.split.workers))]
        stages = stages_of(values)
        counts = counts_of(values) | {name: int(values[name]) for name in ("late", "refused", "incomplete", *names)}
        return {
            "sent": len(camera.sent),
            "answered": len(answered),
            "latency_ms": spread(delays).milliseconds() if delays else {},
            "longest_gap_s": round(float(np.diff(ends).max(initial=0.0)), 3),
            "accuracy": round(len(right) / len(known), 4) if known else None,
            "accuracy_of_answered": round(len(right) / sum(stamp in answered for stamp in known), 4) if right else None,
            "accuracy_predicted": predicted_accuracy(self.split, counts),
            "infer_ms": self._infer_ms(camera),
            "fusion_ms": {name: stages[name] for name in STAGES if name in stages},
            "counts": counts,
        }


def bench(
    split: Split, dataset: ClassDataset | None, scenarios: Sequence[str], options: Options, out: Path
) -> dict[str, Any]:
    """Measure a split in scenarios, one after another; report.json in `out` grows with each."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 99))
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"split": str(split.folder), "hash": split.hash, "workers": len(split.workers)}
    report |= {"machine": machine(), "options": asdict(options), "predictions": dict(split.predictions)}
    report |= {"macs": [worker.macs for worker in split.workers], "scenarios": {}}
    shown = images(dataset, split.labels)
    with Network(list(dict.fromkeys((BASE, *split.devices))), options.link) as network, network.inside(BASE):
        os.environ.update(network.environment(options.discovery))
        if options.discovery != "multicast":
            network.forbid_multicast()
        runs = VitBench(split, network, out, shown, options)
        for scenario in scenarios:
            print(f"{split.folder}: {scenario}", flush=True)
            report["scenarios"][scenario] = runs.run(scenario)
            (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{table(report)}\n\n{told_cost(report)}\n\nreport: {out / 'report.json'}")
    return report

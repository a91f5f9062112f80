"""What each habit of the usual perception node costs: the same bag through `usual_depth` and through our node, in turn.

The habits are left off one after the other, for what our nodes do instead, so that each line differs from the one
before in one habit; the last is our node.
"""

from __future__ import annotations

import shutil
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from perception.evaluation.bags import BagWriter
from perception.evaluation.recording import FrameWriter
from perception.evaluation.replayed import total
from perception.nodes.bag_bench import BagBench, Feed, Trial
from perception.nodes.rig import Figures, Rig
from perception.nodes.sources import open_source
from perception.nodes.subject import Subject

HABITS = ("queue", "copies", "in_callback", "bytes_data")
"""Parameters of `usual_depth`, in the order in which they are left off."""
IMAGES, INFO, DEPTH = "/camera/image_raw", "/camera/camera_info", "/depth"
RATE, OVERLOAD = 30.0, 1.5
"""Images a second that every node can take; and how much more than the rate at which ours answers one by one, which is
more than any can."""


class Habits(Rig):
    """The comparison."""

    def habits(self, rounds: int = 3) -> Figures:
        """Age of the results (from the sending of an image to the arrival of its depth) and processor time, at a rate
        that all nodes can take and at one that none can; medians over the rounds, in which the nodes take turns."""
        if self.node.executable != "depth_node":
            raise ValueError(f"habits are those of a usual depth node, and {self.model} is for {self.node.executable}")
        bench = BagBench(self._bag(), (INFO,), self.out)
        subjects = self._subjects()
        alone = bench.run(subjects[-1], Feed(seconds=self.seconds, one_by_one=True)).figures["output_hz"]
        runs: defaultdict[tuple[str, str], list[Trial]] = defaultdict(list)
        for number in range(rounds):
            for kind, rate in (("even", RATE), ("overload", OVERLOAD * alone)):
                for subject in subjects:
                    self.say(f"round {number + 1} of {rounds}, {rate:.0f} Hz: {subject.name}")
                    runs[kind, subject.name].append(bench.run(subject, Feed(rate, self.seconds)))
        return {
            kind: {subject.name: _medians(runs[kind, subject.name]) for subject in subjects}
            for kind in ("even", "overload")
        }

    def _bag(self) -> Path:
        """The source's frames as a bag, recorded at 30 Hz."""
        path = self.out / "habits_bag"
        shutil.rmtree(path, ignore_errors=True)  # an earlier run's, maybe of another source
        with BagWriter(path) as bag:
            writer = FrameWriter(bag)
            for number, frame in enumerate(open_source(self.source)):
                writer.write(10**9 + round(number * 1e9 / RATE), frame.image, frame.calibration)
        return path

    def _subjects(self) -> list[Subject]:
        """The usual node with all its habits, with one fewer each, and ours."""
        subjects = [self._subject("all habits", "usual_depth", {})]
        for number, habit in enumerate(HABITS, 1):
            off = dict.fromkeys(HABITS[:number], False)
            subjects.append(self._subject(f"without {habit}", "usual_depth", off))
        return [*subjects, self._subject("depth_node", "depth_node", {})]

    def _subject(self, name: str, executable: str, off: dict[str, bool]) -> Subject:
        words = [sys.executable, "-m", f"perception.nodes.{executable}", "--ros-args"]
        for topic, target in (("image", IMAGES), ("camera_info", INFO)):
            words += ["-r", f"{topic}:={target}"]
        for key, value in (self._parameters | {"threads": self.threads} | off).items():
            words += ["-p", f"{key}:={str(value).lower() if isinstance(value, bool) else value}"]
        return Subject(name, {"node": words}, IMAGES, DEPTH)


def _medians(trials: list[Trial]) -> dict[str, float]:
    """Milliseconds from sending to arrival, results a second, processor milliseconds for each result."""
    rows = []
    for trial in trials:
        figures = trial.figures
        latency, rate = figures["latency_ms"], figures["output_hz"]
        rows.append((latency["p50"], latency["p99"], rate, 1e3 * total(figures, "cores") / rate))
    names = ("age_p50_ms", "age_p99_ms", "output_hz", "cpu_ms_per_result")
    return dict(zip(names, np.median(rows, axis=0).round(2).tolist(), strict=True))

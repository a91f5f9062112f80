"""Features of all workers of a split vision transformer in; what the image shows, and the table of names, out."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perception.nodes.features import TOPIC, FeaturesInput, Sent
from perception.nodes.gathering import Arrival, Gathered, Gatherer
from perception.nodes.node import BaseNode, NodeParameters, run_node
from perception.nodes.parameters import parameter
from perception.nodes.vision import ClassificationOutput, LabelsOutput
from perception.tasks.fusion import Fusion, load_fusion
from perception.tasks.messages import stamp_of
from perception.tasks.vit_split import Split, read_split

EVENTS = ("late", "refused", "incomplete")
"""What is counted of features, and of answers, besides what every node counts."""


@dataclass(frozen=True)
class VitFusionParameters(NodeParameters):
    split: str = parameter("", "Folder that `perception vit split` wrote.")
    deadline: float = parameter(
        0.1,
        "Seconds from the first features of an image to its answer at the latest, with what is there then.",
        live=True,
        minimum=0.001,
        maximum=60.0,
    )
    max_classes: int = parameter(
        5, "How many classes of an image are reported, the likeliest.", live=True, minimum=1, maximum=1000
    )
    input_timeout: float = parameter(
        5.0,
        "Seconds without a worker's features before the node says why, and, if others' come, waits for it no more.",
        live=True,
        minimum=0.1,
        maximum=3600.0,
    )


class VitFusionNode(BaseNode):
    """Publishes `classification` and `labels` (latched). Waits for no worker beyond the deadline.

    Of its counts `received`, `published` and so on are of images. Besides, it counts features that were `late` (their
    image was answered) or `refused`, answers that were `incomplete`, those `without_N` workers, and for each worker
    how often it was missing and late.
    """

    parameters_type = VitFusionParameters
    parameters: VitFusionParameters

    def __init__(self, name: str = "vit_fusion_node", **options: object) -> None:
        super().__init__(name, **options)
        self._split: Split | None = None
        self._fusion: Fusion | None = None
        self._classification: ClassificationOutput | None = None
        self._labels: LabelsOutput | None = None
        self._input: FeaturesInput | None = None
        self._gatherer: Gatherer[Sent] | None = None
        self._heard: list[float] = []
        """When each worker sent something usable last, seconds of the steady clock."""
        self._awaited: list[float | None] = []
        """When others first spoke, by the same clock, of an image of which each worker did not, nor of any since; None:
        there is none. Where images come seldom all may be silent, and nobody is missing."""
        self._missing: tuple[int, ...] = ()
        """Numbers of the workers that the last answer was without."""
        self._told: set[str] = set()
        """Names of workers about which the log has said what `watch` says."""

    def setup(self) -> None:
        self._split = read_split(self.parameters.split)
        self._fusion = load_fusion(self._split)
        self._fusion([np.zeros(worker.features, np.float32) for worker in self._split.workers])  # the first is slow
        self._classification = ClassificationOutput(self, "classification")
        self._labels = LabelsOutput(self, "labels")
        self._labels.publish(self._split.labels, 0.0)

    def teardown(self) -> None:
        for output in (self._classification, self._labels):
            if output:
                output.close()
        self._classification = self._labels = None
        self._split = self._fusion = None

    def start(self) -> None:
        assert self._split
        workers = self._split.workers
        self._heard, self._missing, self._told = [time.monotonic()] * len(workers), (), set()
        self._awaited = [None] * len(workers)
        self._gatherer = Gatherer(
            len(workers), self._answer, self._on_failed, self._on_dropped, lambda: self.parameters.deadline
        )
        self._input = FeaturesInput(self, self._split, self._on_features, self._on_refused)

    def stop(self) -> None:
        if self._input:
            self._input.close()
        if self._gatherer:
            self._gatherer.stop()
        self._input = self._gatherer = None

    def watch(self) -> list[str]:
        assert self._split and self._input and self._gatherer
        now, timeout = time.monotonic(), self.parameters.input_timeout
        present = self._input.present()
        silent = [number for number, heard in enumerate(self._heard) if now - heard > timeout]
        given_up = [number for number, since in enumerate(self._awaited) if since and now - since > timeout]
        self._gatherer.expect([number for number in present if number not in given_up])
        problems = dict(self._silence(silent, present))
        for name in self._input.strangers():
            problems[name] = (
                f"{name} is refused: the split {self._split.short_hash} has no worker of this name; stop it, or copy "
                f"{self._split.folder} to its device"
            )
        for name in problems.keys() - self._told:
            self.get_logger().warning(problems[name])
        self._told = set(problems)
        return list(problems.values())

    def _silence(self, silent: list[int], present: list[int]) -> Iterator[tuple[str, str]]:
        """Name of each worker that is silent, and why as far as is known."""
        assert self._split
        for number in silent:
            worker, seconds = self._split.workers[number], time.monotonic() - self._heard[number]
            reason = f"nobody publishes {TOPIC}/{worker.name}; start a vit_worker_node for {worker.graph} there"
            if number in present:
                reason = "it is there but sends nothing of use; see what it says in /diagnostics, and the link to it"
            yield worker.name, f"no features from {worker.name} ({worker.device}) for {seconds:.0f} s: {reason}"

    def describe(self) -> dict[str, str]:
        if not self._split:
            return {}
        counts, workers = self.statistics.counts, self._split.workers
        told = {"model": self._split.model, "split": self._split.short_hash, "workers": str(len(workers))}
        told |= {"missing": ", ".join(f"{workers[number].name} ({workers[number].device})" for number in self._missing)}
        names = [*EVENTS, *(f"{event}_{worker.name}" for worker in workers for event in ("missing", "late"))]
        names += [f"without_{count}" for count in range(1, len(workers))]
        return told | {name: str(counts[name]) for name in names}

    def _on_features(self, number: int, sent: Sent) -> None:
        assert self._split and self._gatherer
        now, worker = time.monotonic(), self._split.workers[number]
        self._heard[number], self._awaited[number] = now, None
        arrival = self._gatherer.add(number, stamp_of(sent), sent)
        if arrival == Arrival.OPENED:
            self.statistics.count("received")
            for other, since in enumerate(self._awaited):
                if since is None and other != number:
                    self._awaited[other] = now
        elif arrival == Arrival.LATE:
            self.statistics.count("late")
            self.statistics.count(f"late_{worker.name}")
        elif arrival == Arrival.TWICE:
            who = f"{worker.name} ({worker.device})"
            reason = f"{who} sent features of one image twice: two nodes run {worker.graph}; stop one"
            self._on_refused(worker.name, reason)

    def _on_refused(self, name: str, reason: str) -> None:
        self.statistics.fail("refused", reason)
        self.complain("refused", reason, name)

    def _on_failed(self, _gathered: Gathered[Sent], error: Exception) -> None:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        self.statistics.fail("failed", reason)
        self.complain("failed", reason)

    def _on_dropped(self, _gathered: Gathered[Sent]) -> None:
        self.statistics.count("dropped")

    def _answer(self, gathered: Gathered[Sent]) -> None:
        assert self._split and self._fusion and self._classification and self._labels
        start = time.perf_counter()
        self._missing = tuple(gathered.missing)
        self._labels.publish(self._split.labels, 0.0)  # is silent but for a node that has come to publish there too
        if not self._classification.wanted:
            self.statistics.count("skipped")
            return
        found = self._fusion([sent.values if sent else None for sent in gathered.items])
        fused = time.perf_counter()
        header = next(sent.header for sent in gathered.items if sent)
        self._classification.publish(found, self._split.labels, header, self.parameters.max_classes)
        published = time.perf_counter()
        last = max(gathered.arrivals.values())
        stages = {
            "wait": start - gathered.first,
            "fuse": fused - start,
            "publish": published - fused,
            "latency": published - gathered.first,
            "overrun": max(0.0, published - gathered.due),
        }
        if not gathered.missing:
            stages["overhead"] = published - last
        names = [worker.name for worker in self._split.workers]
        stages |= {f"lag_{names[number]}": when - gathered.first for number, when in gathered.arrivals.items()}
        self.statistics.time(stages)
        self.statistics.count("published")
        for number in self._missing:
            self.statistics.count(f"missing_{names[number]}")
        if self._missing:
            self.statistics.count("incomplete")
            self.statistics.count(f"without_{len(self._missing)}")


def main() -> int:
    return run_node(VitFusionNode)


if __name__ == "__main__":
    sys.exit(main())

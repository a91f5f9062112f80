"""What a split comes to: who holds which classes, what that costs, and how often the answer is right."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from perception.engines.store import write_atomically
from perception.evaluation.tables import percent, table
from perception.evaluation.vit_split import SplitScores, public, told_scores
from perception.tasks.vit_split import Split
from perception.training.placement import MESSAGE, SENT, Fleet

MODEL = (
    "Predicted: a device takes its overhead, computes two operations a multiply-accumulate at its GFLOP/s, then sends "
    f"{SENT} bytes a feature and {MESSAGE} bytes beside; energy is its power times the time of all three. Power while "
    "it waits is not in it. The answer is there when the features of the last worker are fused."
)
UNCOUNTED = (
    "The devices file states no overhead: what an image takes to reach a device, to be decoded and to be answered, "
    "however little is computed, is not counted. Of small images it is most of the time; `perception vit bench` "
    "measures it."
)


def write_report(out: Path, split: Split, scores: SplitScores, alone: Mapping[str, float], fleet: Fleet) -> None:
    """Write report.json and report.md.

    Args:
        alone: of each worker with its own classifier, before it was fused: how often it tells its classes from each
            other and from the rest, which is one more, the mean over these classes.
    """
    known = {
        "split": split.hash,
        "model": split.model,
        "labels": list(split.labels),
        "workers": [dataclasses.asdict(worker) for worker in split.workers],
        "devices": dataclasses.asdict(fleet),
        "predictions": dict(split.predictions),
        "own_classifier": dict(alone),
        "measured": public(scores),
    }
    write_atomically(out / "report.json", json.dumps(known, indent=1).encode() + b"\n")
    write_atomically(out / "report.md", markdown(split, scores, alone).encode() + b"\n")


def markdown(split: Split, scores: SplitScores, alone: Mapping[str, float]) -> str:
    """The report as text."""
    head = ("worker", "device", "classes", "features", "parameters", "MMAC", "MB", "ms", "J", "own classifier")
    lines = [
        (
            worker.name,
            worker.device,
            ", ".join(worker.classes),
            str(worker.features),
            f"{worker.parameters:,}",
            f"{worker.macs / 1e6:.1f}",
            f"{worker.bytes / 1e6:.2f}",
            f"{worker.latency_ms:.2f}",
            f"{worker.energy_j:.4f}",
            percent(alone[worker.name]),
        )
        for worker in split.workers
    ]
    said = split.predictions
    return "\n\n".join(
        (
            f"# {split.model} on {len(split.workers)} devices",
            f"Split {split.short_hash}: the whole network is right on {percent(said['accuracy_full'])} of "
            f"{scores.images} images, the split on {percent(scores.accuracy)}. The largest worker has "
            f"{said['times_smaller_largest']:.1f} times fewer parameters and {said['times_fewer_macs_largest']:.1f} "
            "times fewer multiply-accumulates than the whole; all together "
            f"{said['times_smaller_sum']:.2f} times fewer parameters.",
            table(head, lines),
            "Own classifier: its classes and, as one more, all others; the mean over these, before workers were fused.",
            f"An answer takes {said['latency_ms']:.2f} ms and {said['energy_j']:.4f} J; the whole network on the "
            f"fastest device {said['latency_full_ms']:.2f} ms and {said['energy_full_j']:.4f} J.",
            MODEL,
            f"Overhead, of the devices file: {said['overhead_ms']:.2f} ms." if said["overhead_ms"] else UNCOUNTED,
            "## Accuracy",
            told_scores(split, scores),
        )
    )

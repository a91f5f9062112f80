"""What `perception vit bench` says of splits, beside what was predicted: accuracy, latency, and what an image costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perception.tasks.vit_split import Split

PLAIN = "plain"
"""The scenario in which nothing goes wrong."""


@dataclass(frozen=True)
class ImageCost:
    """Milliseconds of an image, medians, while nothing goes wrong."""

    latency: float
    """From when it was sent until its answer came."""
    inference: float
    """Of the slowest worker."""
    fusion: float
    """From the last features until the answer was published."""

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> ImageCost | None:
        """That of a split's report; None where it was not measured."""
        figures = report["scenarios"].get(PLAIN, {})
        inferences = list(figures.get("infer_ms", {}).values())
        if not inferences or not figures["latency_ms"]:
            return None
        fusion = figures["fusion_ms"].get("overhead", {}).get("p50", 0.0)
        return cls(figures["latency_ms"]["p50"], max(inferences), fusion)

    @property
    def overhead(self) -> float:
        """What is neither: its way to the worker, decoding, and the way of features and answer."""
        return self.latency - self.inference - self.fusion


def predicted_accuracy(split: Split, counts: Mapping[str, int]) -> float | None:
    """How many answers should be right by what was measured when the split was made, of each number of workers that an
    answer was without; None where that was not measured.

    Args:
        counts: the fusion node's.
    """
    said, published = split.predictions, counts["published"]
    if not {"accuracy", "accuracy_one_missing"} <= said.keys() or not published:
        return None
    missing = {worker.name: counts[f"missing_{worker.name}"] for worker in split.workers}
    one = said["accuracy_one_missing"]
    if sum(missing.values()):  # some workers are missed more than others, and they are missing more often
        of = [(said.get(f"accuracy_without_{name}", one), count) for name, count in missing.items()]
        one = sum(value * count for value, count in of) / sum(missing.values())
    found = {1: one, 2: said.get("accuracy_two_missing", 2 * one - said["accuracy"])}
    right = published * said["accuracy"]
    for count in range(1, len(split.workers)):
        value = found.get(count, said.get(f"accuracy_{count}_missing", found[2]))
        right += counts[f"without_{count}"] * (value - said["accuracy"])
    return round(right / published, 4)


def speed_ups(first: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, float]:
    """How many times as fast a split answers as the first, by name, of two reports in which `plain` was measured.

    `measured`; `by_macs`: as many times fewer multiply-accumulates as its largest worker has; `by_first`: all that the
    first took beside inference stays, and its inference shrinks with the multiply-accumulates; `by_devices`: as
    predicted when the splits were made, if that was.
    """
    one, other = ImageCost.of(first), ImageCost.of(report)
    assert one and other
    fewer = max(first["macs"]) / max(report["macs"])
    found = {
        "measured": one.latency / other.latency,
        "by_macs": fewer,
        "by_first": one.latency / (one.latency - one.inference + one.inference / fewer),
    }
    said = [each["predictions"].get("latency_ms") for each in (first, report)]
    return found | ({"by_devices": said[0] / said[1]} if all(said) else {})


def compared(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """How much faster each split is than the first, while nothing goes wrong, and how much was predicted, from what."""
    told = []
    first = reports[0]
    for report in reports[1:]:
        one, other = ImageCost.of(first), ImageCost.of(report)
        if not one or not other:
            continue
        times = speed_ups(first, report)
        told.append(
            f"{report['split']}: {times['measured']:.2f} times as fast as {first['split']} ({other.latency:.1f} and "
            f"{one.latency:.1f} ms). Predicted: {times['by_macs']:.2f} times by the largest worker's "
            f"multiply-accumulates alone; {times['by_first']:.2f} if what an image took there beside inference, "
            f"{one.latency - one.inference:.1f} ms, stays" + _by_devices(times, first, report)
        )
    return told


def _by_devices(times: Mapping[str, float], *reports: Mapping[str, Any]) -> str:
    if "by_devices" not in times:
        return "."
    stated = [each["predictions"].get("overhead_ms", 0.0) for each in reports]
    told = " and ".join(f"{value:.1f}" for value in stated) + " ms" if any(stated) else "none"
    return f"; {times['by_devices']:.2f} by the devices files (overhead stated: {told})."


def told_cost(report: Mapping[str, Any]) -> str:
    """What an image costs, as a devices file states it; empty where it was not measured."""
    cost = ImageCost.of(report)
    if not cost:
        return ""
    rate = 2 * max(report["macs"]) / (1e6 * cost.inference)
    return (
        f"An image took {cost.latency:.1f} ms: {cost.inference:.1f} of inference, {cost.fusion:.1f} of fusing, "
        f"{cost.overhead:.1f} of all else. In a devices file: gflops: {rate:.3g}, overhead: {cost.overhead:.3g}, "
        f"fusion_overhead: {cost.fusion:.3g}"
    )


def table(report: Mapping[str, Any]) -> str:
    """The report as a person reads it."""
    lines = [
        f"{'':<9}{'answered':>14}{'p50':>8}{'p95':>8}{'p99':>8}{'max ms':>8}{'over p99':>10}{'gap s':>7}"
        f"{'incomplete':>12}{'late':>6}{'fusion p50':>12}{'right':>8}{'predicted':>11}"
    ]
    for name, figures in report["scenarios"].items():
        delays, counts = figures["latency_ms"], figures["counts"]
        over, cost = (
            figures["fusion_ms"].get(stage, {}).get(point, float("nan"))
            for stage, point in (("overrun", "p99"), ("overhead", "p50"))
        )
        right, predicted = (
            "" if figures[name] is None else f"{figures[name]:.3f}"
            for name in ("accuracy_of_answered", "accuracy_predicted")
        )
        lines.append(
            f"{name:<9}{figures['answered']:>6} of {figures['sent']:<4}"
            + "".join(f"{delays.get(point, float('nan')):>8.1f}" for point in ("p50", "p95", "p99", "max"))
            + f"{over:>10.2f}{figures['longest_gap_s']:>7.2f}{counts['incomplete']:>12}{counts['late']:>6}{cost:>12.2f}"
            + f"{right:>8}{predicted:>11}"
        )
    return "\n".join(lines)

"""What a bench of splits says of figures that were worked out by hand."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from perception.evaluation.vit_bench_report import ImageCost, compared, predicted_accuracy, speed_ups, table, told_cost
from perception.tasks.vit_split import Split
from tests.tasks.test_vit_split import make_split


def report(name: str, macs: int, latency: float, infer: tuple[float, ...], **predictions: float) -> dict[str, Any]:
    plain = {
        "sent": 10, "answered": 9, "latency_ms": dict.fromkeys(("p50", "p95", "p99", "max"), latency),
        "infer_ms": {f"worker_{number}": value for number, value in enumerate(infer)},
        "fusion_ms": {"overhead": {"p50": 1.0}, "overrun": {"p99": 0.0}}, "longest_gap_s": 0.1,
        "counts": {"incomplete": 0, "late": 0}, "accuracy_of_answered": None, "accuracy_predicted": 0.5,
    }  # fmt: skip
    return {"split": name, "macs": [macs // 2, macs], "predictions": predictions, "scenarios": {"plain": plain}}


ONE = report("one", 400_000_000, 30.0, (20.0,), latency_ms=48.0, overhead_ms=8.0)
FIVE = report("five", 50_000_000, 15.0, (2.0, 4.0), latency_ms=16.0, overhead_ms=10.0)


def test_an_image_costs_more_than_inference() -> None:
    """Of 30 ms 20 are the slowest worker's inference, 1 the fusion's, and 9 are neither."""
    cost = ImageCost.of(ONE)
    assert cost == ImageCost(latency=30.0, inference=20.0, fusion=1.0) and cost.overhead == 9.0
    assert "An image took 30.0 ms: 20.0 of inference, 1.0 of fusing, 9.0 of all else" in told_cost(ONE)
    assert told_cost(ONE).endswith("gflops: 40, overhead: 9, fusion_overhead: 1"), "0.8 GFLOP in 20 ms"
    assert ImageCost.of(FIVE) == ImageCost(latency=15.0, inference=4.0, fusion=1.0)


def test_a_speed_up_is_predicted_with_what_does_not_shrink() -> None:
    """An eighth of the arithmetic is 2.5 of 20 ms; the other 10 ms stay: 30 / 12.5 in place of 8 times as fast."""
    assert speed_ups(ONE, FIVE) == pytest.approx({"measured": 2.0, "by_macs": 8.0, "by_first": 2.4, "by_devices": 3.0})
    (line,) = compared([ONE, FIVE])
    assert line.startswith("five: 2.00 times as fast as one (15.0 and 30.0 ms). Predicted: 8.00 times by the largest ")
    assert (
        "2.40 if what an image took there beside inference, 10.0 ms, stays;" in line
        and "3.00 by the devices files (overhead stated: 8.0 and 10.0 ms)." in line
    )
    unstated = [one | {"predictions": {"latency_ms": 10.0}} for one in (ONE, FIVE)]
    assert "1.00 by the devices files (overhead stated: none)." in compared(unstated)[0]
    unknown = compared([ONE, FIVE | {"predictions": {}}])[0]
    assert unknown.endswith("10.0 ms, stays.") and "by_devices" not in speed_ups(ONE, FIVE | {"predictions": {}})


def test_what_was_not_measured_is_not_told() -> None:
    faults = FIVE | {"scenarios": {"kill": FIVE["scenarios"]["plain"]}}
    silent = FIVE | {"scenarios": {"plain": FIVE["scenarios"]["plain"] | {"infer_ms": {}}}}
    unanswered = FIVE | {"scenarios": {"plain": FIVE["scenarios"]["plain"] | {"latency_ms": {}}}}
    for other in (faults, silent, unanswered):
        assert compared([ONE, other]) == compared([other, ONE]) == [] and told_cost(other) == ""
    assert table(faults).splitlines()[1].startswith("kill          9 of 10      15.0")


def of_workers(folder: Path, count: int) -> Split:
    split = make_split(folder)
    workers = tuple(dataclasses.replace(split.workers[0], name=f"worker_{number}") for number in range(count))
    return dataclasses.replace(split, workers=workers)


def test_accuracy_is_predicted_by_how_many_were_missing(tmp_path: Path) -> None:
    split = of_workers(tmp_path, 3)
    counts = Counter({"published": 20, "missing_worker_0": 6, "missing_worker_1": 2, "without_1": 4, "without_2": 2})
    measured = {"accuracy": 0.9, "accuracy_one_missing": 0.8, "accuracy_two_missing": 0.6}
    said = dataclasses.replace(split, predictions=measured)
    assert predicted_accuracy(said, counts) == pytest.approx((14 * 0.9 + 4 * 0.8 + 2 * 0.6) / 20)
    each = {"accuracy_without_worker_0": 0.7, "accuracy_without_worker_1": 0.86, "accuracy_without_worker_2": 0.84}
    said = dataclasses.replace(split, predictions=measured | each)
    assert predicted_accuracy(said, counts) == pytest.approx((14 * 0.9 + 4 * 0.74 + 2 * 0.6) / 20)
    assert predicted_accuracy(said, Counter(published=5)) == 0.9
    assert predicted_accuracy(split, counts) is None and predicted_accuracy(said, Counter()) is None


def test_more_may_be_missing_than_two(tmp_path: Path) -> None:
    measured = {"accuracy": 0.9, "accuracy_one_missing": 0.8, "accuracy_two_missing": 0.6, "accuracy_4_missing": 0.2}
    said = dataclasses.replace(of_workers(tmp_path, 5), predictions=measured)
    counts = Counter(published=10, missing_worker_0=8, without_4=5)
    assert predicted_accuracy(said, counts) == pytest.approx(0.55)

"""What is kept of a run, when it starts anew, and what rows say together."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from perception.evaluation.depth import DepthAssessment
from perception.evaluation.results import ResultLog, half_interval
from perception.tasks.depth_metrics import METRICS


def row(index: int, delta1: float, rmse: float = 0.5, **more: object) -> dict:
    scores = dict.fromkeys(METRICS, 0.0) | {"delta1": delta1, "rmse": rmse, "valid": 1.0}
    bands = {"0-1 m": [0.0, 0.0, 0.0, 0.0], "1-2 m": [10.0, index, 2.0, 5.0]}
    edges = {"edge_accuracy": math.nan if index else 2.0, "edge_completeness": 4.0}
    return {"index": index, "name": str(index), "metrics": scores, "bands": bands, "edges": edges} | {
        "milliseconds": float(index)
    } | more  # fmt: skip


def test_a_changed_header_starts_anew_and_says_what_changed(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = ResultLog(path, {"engine": "1", "data": "x"})
    log.append(row(0, 1.0))
    assert log.note == "" and len(ResultLog(path, {"engine": "1", "data": "x"}).rows) == 1
    log = ResultLog(path, {"engine": "2", "data": "x"})
    assert log.rows == [] and log.note == "starts anew: engine changed since log.jsonl was written"
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": 1', b"nonsense\n", b"[1]\n"])
def test_a_damaged_file_starts_anew(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(damage)
    log = ResultLog(path, {"engine": "1"})
    assert log.rows == [] and log.note == "starts anew: log.jsonl is damaged"


def test_what_follows_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = ResultLog(path, {})
    for index in range(3):
        log.append(row(index, 1.0, rmse=math.inf))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1], lines[2][:20], lines[3]]) + "\n")
    kept = ResultLog(path, {}).rows
    assert [kept_row["index"] for kept_row in kept] == [0] and kept[0]["metrics"]["rmse"] == math.inf
    assert [json.loads(line).get("index") for line in path.read_text().splitlines()] == [None, 0]


def test_rows_are_summed_up() -> None:
    rows = [row(0, 0.5), row(1, 1.0, 1.5), {"index": 2, "name": "2", "error": "torn"}, row(3, 0.6)]
    summary = DepthAssessment().summarise(rows)
    assert summary["samples"] == 4 and summary["failed"] == [{"name": "2", "error": "torn"}]
    assert summary["metrics"]["delta1"] == pytest.approx(0.7)
    assert summary["ci95"]["delta1"] == pytest.approx(1.96 * np.std([0.5, 1, 0.6], ddof=1) / math.sqrt(3))
    assert summary["bands"] == {"1-2 m": {"pixels": 30, "mae": 4 / 30, "rel": 0.2, "delta1": 0.5}}
    assert summary["edges"] == {"edge_accuracy": 2.0, "edge_completeness": 4.0}, "of the images that have edges"
    assert summary["latency_ms"]["p50"] == 1 and "stability" not in summary and "half_view" not in summary


def test_a_broken_frame_interrupts_the_sequence() -> None:
    rows = [row(0, 1.0, scale=1.0, change=math.nan), {"index": 1, "name": "1", "error": "torn"}]
    rows += [
        row(2, 1.0, scale=2.0, change=math.nan),
        row(3, 1.0, scale=2.2, change=0.3, half_view={"shift": -0.01, "change": 0.04}),
    ]
    rows += [row(4, 1.0, half_view={"shift": shift, "change": 0.1}) for shift in (-0.03, 0.05)]
    summary = DepthAssessment().summarise(rows)
    assert summary["stability"] == pytest.approx({"change": 0.3, "flicker": math.log(1.1), "pairs": 1})
    assert summary["half_view"] == {"bias": -0.01, "shift": 0.03, "change": 0.1, "frames": 3}


def test_intervals() -> None:
    assert half_interval(np.array([0.5])) == 0 and math.isnan(half_interval(np.array([1, np.inf])))


def test_values_of_a_group_hang_together() -> None:
    values = np.array([1.0, 2.0, 4.0, 5.0, 5.0, 7.0])
    plain = 1.96 * values.std(ddof=1) / np.sqrt(6)
    assert half_interval(values) == pytest.approx(plain) == half_interval(values, list("abcdef"))
    pairs = list("aabbcc")
    means = values.reshape(3, 2).mean(axis=1)
    assert half_interval(values, pairs) == pytest.approx(1.96 * means.std(ddof=1) / np.sqrt(3)), "of equal size"
    assert half_interval(np.repeat(means, 20), np.repeat(list("abc"), 20).tolist()) == pytest.approx(
        1.96 * means.std(ddof=1) / np.sqrt(3)
    ), "repeating tells nothing"
    assert math.isnan(half_interval(values, list("aaaaaa")))


def test_differences_are_taken_sample_by_sample() -> None:
    broken = {"index": 1, "name": "1", "error": "torn"}
    found = DepthAssessment().difference([row(0, 0.5), row(1, 0.0), row(2, 0.8)], [row(0, 0.6), broken, row(2, 0.9)])
    assert found["delta1"] == pytest.approx(-0.1) and found["delta1_ci95"] == pytest.approx(0, abs=1e-9)
    assert found["rmse"] == 0

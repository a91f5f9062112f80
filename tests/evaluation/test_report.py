"""The report: tables for people, JSON for programs, the block of a README, and the sheet of pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from memory import MemoryDataset, flat, says

from perception.evaluation.depth import DepthAssessment
from perception.evaluation.harness import run
from perception.evaluation.report import conditions, failures, markdown, readme_block, replace_block, write_report
from perception.evaluation.results import ResultLog
from perception.evaluation.sheet import CAPTION, draw_sheet, pick_cases


@pytest.fixture
def report(tmp_path: Path) -> dict:
    """Two engines on a sequence of three samples, one of them broken, and an engine that could not be had."""
    dataset = MemoryDataset([flat(2.0), "cannot be read", flat(4.0)], sequence=True)
    rows = {
        m: run(says(m), dataset, 3, DepthAssessment(half_view=True), ResultLog(tmp_path / f"{m}", {}))
        for m in (2.0, 3.0)
    }
    common = {"cost": (1_360_786, 366_400_000), "problem": "", "sheet": "a.png", "plots": {}, "remarks": []}
    info = {"runtime": "torch 2.0-build", "bytes": 4_400_000}
    summaries = {metres: DepthAssessment().summarise(found) for metres, found in rows.items()}
    summaries[2.0]["latency_ms"] = {"p50": 12.34, "p99": 20.0}
    entries = [
        {"model": "m", "target": "torch", "precision": "fp32", "facts": info, "summary": summaries[2.0]} | common,
        {"model": "m", "target": "b", "precision": "int8", "facts": {}, "summary": summaries[3.0]} | common,
        {"model": "m", "target": "c", "precision": "fp32", "facts": {}, "summary": {}} | common,
    ]
    for entry in entries:
        entry["difference"] = None
    entries[1]["difference"] = DepthAssessment().difference(rows[3.0], rows[2.0])
    entries[2] |= {"problem": "not installed | here", "sheet": ""}
    return {
        "task": "depth",
        "command": "perception eval m --data memory",
        "date": "2026-01-02T03:04:05+00:00",
        "data": {"name": "memory", "samples": 3, "sha256": "abcdef0123456789ff"},
        "sequence": True,
        "options": {"rule": {"valid": "target", "crop": "none", "min_depth": 0.0, "max_depth": math.inf}},
        "machine": {"cpu": "Some CPU", "cores": 2, "threads": "all"},
        "versions": {"python": "3.11"},
        "entries": entries,
    }


def test_the_tables_hold_what_was_measured(report: dict) -> None:
    text = markdown(report)
    delta1 = 1.96 * np.std([1, 0], ddof=1) / math.sqrt(2)
    assert f"| m | memory, 3 | 0.500 ± {delta1:.3f} | 1.000 ± 1.960 | 0.250 | 0.37 | 1.36 M | 12.3 / 20.0 |" in text
    assert "| 12.3 / 20.0 | torch 2.0 fp32 | 4.4 |" in text
    assert "| m | memory, 3 | - | - | - | 0.37 | 1.36 M | - | c fp32: not measured | - |" in text
    assert "| m torch fp32 | 0.500, 0.00 m" not in text and "| 2-3 m | 3-5 m |" in text
    assert "| m b int8 |" in text and "-0.5000 ± 0.9800" in text, "the difference to the reference"
    assert "- m c fp32: not installed | here" in text and "failed: 1 of 3: s1 (cannot be read)" in text
    assert "too narrow" in conditions(report)
    report["options"]["rule"]["max_depth"] = 10.0
    assert "cap 0 to 10 m" in conditions(report)


def test_the_lens_test_is_told_three_ways(report: dict) -> None:
    report["entries"][0]["summary"]["half_view"] = {"bias": -0.04, "shift": 0.06, "change": 0.071, "frames": 2}
    text = markdown(report)
    assert (
        "| half the view: change of all frames | half the view: change of a frame | half the view: change of a p"
        in text
    )
    assert "| -4.00 % (within 5 %) | 6.00 % (over 5 %) | 7.10 % (over 5 %) |" in text


def test_json_has_no_numbers_that_json_does_not_know(report: dict, tmp_path: Path) -> None:
    report["entries"][0]["summary"]["metrics"]["rel"] = math.inf
    machine, people = write_report(report, tmp_path)
    read = json.loads(machine.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["entries"][0]["summary"]["metrics"]["rel"] == "inf"
    assert read["entries"][0]["summary"]["edges"]["edge_accuracy"] is None
    assert read["entries"][1]["difference"]["delta1"] == -0.5 and people.read_text().startswith("# Depth on memory")


def test_failures_are_told_in_words(report: dict) -> None:
    assert failures(report["entries"][0]) == "failed: 1 of 3: s1 (cannot be read)"
    assert failures(report["entries"][2]) == ""


def test_the_block_of_a_readme_is_replaced(report: dict) -> None:
    text = "before\n<!-- results depth -->\nold\n<!-- /results depth -->\nafter\n"
    once = replace_block(text, "depth", "nyu", readme_block(report))
    assert once.startswith("before\n<!-- results depth -->\n| model |") and once.endswith(
        "<!-- /results depth -->\nafter\n"
    )
    assert "old" not in once and "Some CPU" in once and "`perception eval m --data memory`" in once
    assert replace_block(once, "depth", "nyu", readme_block(report)) == once
    with pytest.raises(ValueError, match="no lines <!-- results depth -->"):
        replace_block("nothing", "depth", "nyu", "table")


def test_a_data_set_may_have_a_block_of_its_own() -> None:
    block = "<!-- results {0} -->\nold\n<!-- /results {0} -->\n"
    text = block.format("depth") + block.format("depth nyu")
    ours, theirs = (replace_block(text, "depth", data, "new") for data in ("nyu", "clip"))
    assert ours == block.format("depth") + block.format("depth nyu").replace("old", "new")
    assert theirs == block.format("depth").replace("old", "new") + block.format("depth nyu")


def test_the_sheet_shows_best_median_and_worst(tmp_path: Path) -> None:
    dataset = MemoryDataset([*(flat(2 + 0.25 * i) for i in range(7)), "broken"])
    rows = run(says(2.0), dataset, 8, DepthAssessment(), ResultLog(tmp_path / "log", {}))
    cases = pick_cases(rows, DepthAssessment())
    assert [(word, row["index"]) for word, row in cases] == [
        ("best", 0), ("best", 1), ("median", 2), ("median", 3), ("worst", 5), ("worst", 6),
    ]  # fmt: skip
    assert [row["index"] for _, row in pick_cases(rows[:1], DepthAssessment())] == [0]
    draw_sheet(tmp_path / "sheet.png", "m", rows, dataset, DepthAssessment(), says(2.0))
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (CAPTION + 6 * (CAPTION + 225), 1200, 3)
    image, error = sheet[2 * CAPTION + 100, 150], sheet[2 * CAPTION + 100, 1050]
    assert (image == 20).all() and (error == 0).all(), "the best case is without error"
    with pytest.raises(OSError, match="could not be written"):
        draw_sheet(tmp_path / "absent" / "sheet.png", "m", rows, dataset, DepthAssessment(), says(2.0))

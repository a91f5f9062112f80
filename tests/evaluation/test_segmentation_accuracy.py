"""Masks against true masks, from the outputs of a network to the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from memory import InMemory

from perception.evaluation.assessment import Sample, find_assessment
from perception.evaluation.classes import band_names
from perception.evaluation.frames import MaskFrame
from perception.evaluation.harness import network, run
from perception.evaluation.judge import DatasetJudge, find_judge
from perception.evaluation.masks import MaskDataset
from perception.evaluation.report import markdown, results_table
from perception.evaluation.results import ResultLog
from perception.evaluation.segmentation import Counts, SegmentationAssessment
from perception.evaluation.sheet import draw_sheet, pick_cases
from perception.tasks.config import ModelConfig, Output
from perception.tasks.labels import UNLABELED

LABELS = ("cat", "dog", "eel")
SIZE = (24, 32)
CONFIG = ModelConfig(
    name="shades",
    task="segmentation",
    input_size=SIZE,
    outputs=(Output("mask", (1, *SIZE), "class", "uint8"), Output("confidence", (1, *SIZE), "1/255", "uint8")),
    labels=("dog", "cat", "bat"),
)


class MemoryMasks(InMemory, MaskDataset):
    name, labels = "masks in memory", LABELS


def shades(image: np.ndarray) -> Mapping[str, np.ndarray]:
    """Dark pixels are a dog, grey ones a cat, bright ones a bat; the darker, the surer."""
    grey = image[..., 0]
    return {"mask": (grey // 86).astype(np.uint8), "confidence": 255 - grey}


def scene(*columns: tuple[int, int]) -> MaskFrame:
    """An image of 64 by 48 pixels with two columns or more of equal width: of each the shade, and what it truly is."""
    shades_, classes = np.array(columns, np.uint8).repeat(64 // len(columns), axis=0).T
    rgb = np.broadcast_to(shades_[None, :, None], (48, 64, 3)).copy()
    return MaskFrame(rgb, np.broadcast_to(classes, (48, 64)).copy())


CAT, DOG, EEL = 0, 1, 2
RIGHT = scene((20, DOG), (120, CAT))
HALF = scene((20, DOG), (20, CAT))  # the cat is taken for a dog
STRANGE = scene((20, DOG), (220, EEL), (220, EEL), (120, UNLABELED))


def rows_of(
    frames: Sequence[MaskFrame | str], path: Path, assessment: SegmentationAssessment | None = None
) -> list[dict]:
    dataset, assessment = MemoryMasks(frames), assessment or SegmentationAssessment()
    return run(
        network(assessment, shades, CONFIG, dataset), dataset, len(frames), assessment, ResultLog(path, {})
    )  # fmt: skip


def test_classes_are_matched_by_name_and_pixels_counted(tmp_path: Path) -> None:
    row = rows_of([STRANGE], tmp_path / "log")[0]
    assert row["confusion"] == [[DOG, DOG, 768], [EEL, 3, 1536]] and row["labels"] == list(LABELS)
    assert row["boundary"] == {"dog": 1.0, "eel": 0.0}
    assert row["scores"] == {"mIoU": 0.5, "accuracy": pytest.approx(1 / 3)}
    remarks = SegmentationAssessment().remarks(CONFIG, MemoryMasks([RIGHT]))
    assert "not know, counted as missed" in remarks[0] and "eel" in remarks[0] and "bat" in remarks[1]
    with pytest.raises(ValueError, match="no class in common; the model knows bat, the data set cat, dog, eel"):
        SegmentationAssessment().inference(shades, CONFIG.replace(labels=("bat",)), MemoryMasks([RIGHT]))


def test_the_summary_is_of_all_pixels_together(tmp_path: Path) -> None:
    rows = rows_of([RIGHT, HALF, "torn", STRANGE], tmp_path / "log")
    summary = SegmentationAssessment().summarise(rows)
    dog, cat = (1536 + 1536 + 768) / (1536 + 1536 + 768 + 1536), 0.5
    assert summary["samples"] == 4 and summary["failed"] == [{"name": "s2", "error": "torn"}]
    assert summary["metrics"]["mIoU"] == pytest.approx((dog + cat + 0) / 3)
    assert summary["metrics"]["accuracy"] == pytest.approx((3072 + 1536 + 768) / (3072 + 3072 + 2304))
    assert summary["metrics"]["boundary"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert {name: one["IoU"] for name, one in summary["classes"].items()} == pytest.approx(
        {"cat": cat, "dog": dog, "eel": 0}
    )
    assert summary["absent"] == [] and SegmentationAssessment().summarise(rows[:1])["absent"] == ["eel"]
    assert summary["classes"]["eel"]["pixels"] == 1536 and summary["classes"]["dog"]["boundary F"] == pytest.approx(
        2 / 3
    )
    assert set(summary["ci95"]) == set(summary["metrics"]) and summary["ci95"]["mIoU"] > 0.05
    bands = summary["bands"]
    assert bands["50 to 70 %"] == {"pixels": pytest.approx(1536 / 8448), "right": 1.0}, "120 of 255: a half and more"
    assert list(bands) == [band_names()[place] for place in (0, 1, 3)] and summary["latency_ms"]["p50"] > 0


def test_only_classes_that_count_are_owed(tmp_path: Path) -> None:
    shared = SegmentationAssessment(shared_classes=True)
    assert shared.summarise(rows_of([STRANGE], tmp_path / "a", shared))["metrics"]["mIoU"] == 1
    only = SegmentationAssessment(classes="cat")
    summary = only.summarise(rows_of([RIGHT, HALF], tmp_path / "b", only))
    assert list(summary["classes"]) == ["cat"] and summary["metrics"]["mIoU"] == 0.5
    mistaken = scene((120, CAT), (120, DOG))
    summary = only.summarise(rows_of([mistaken], tmp_path / "d", only))
    assert summary["metrics"]["mIoU"] == 0.5, "a dog that is taken for a cat is an error about cats"
    assert summary["metrics"]["accuracy"] == 1 and list(summary["classes"]) == ["cat"]
    both = SegmentationAssessment(shared_classes=True, classes="cat")
    unknown = scene((120, CAT), (120, DOG), (120, EEL), (120, EEL))
    assert both.summarise(rows_of([unknown], tmp_path / "e", both))["metrics"]["mIoU"] == 0.5, "eels are not known"
    dataset = MemoryMasks([mistaken])
    sample = Sample(mistaken, only.inference(shades, CONFIG, dataset)(mistaken))
    assert only.pictures(sample, dataset)[3][24, 60, 2] > 200, "and is red"
    with pytest.raises(ValueError, match="class 'cot' is unknown here; like it are 'cat'"):
        rows_of([RIGHT], tmp_path / "c", SegmentationAssessment(classes="cot"))
    with pytest.raises(ValueError, match="tolerance 1.0 is not possible"):
        SegmentationAssessment(tolerance=1.0)


def test_intervals_are_those_of_drawn_images(tmp_path: Path) -> None:
    rows = rows_of([RIGHT, HALF] * 4, tmp_path / "log")
    counts = Counts(rows)
    weights = np.random.default_rng(0).integers(0, 3, (5, len(rows)))
    drawn = counts.metrics(weights)
    for place, chosen in enumerate(weights):
        repeated = Counts([row for row, times in zip(rows, chosen, strict=True) for _ in range(times)])
        expected = {name: values[0] for name, values in repeated.metrics().items()}
        assert {name: values[place] for name, values in drawn.items()} == pytest.approx(expected)
    assert len(Counts([])) == 0 and Counts([]).drawn["mIoU"].shape == (200,)


def test_the_difference_is_of_the_same_draws(tmp_path: Path) -> None:
    rows = rows_of([RIGHT, HALF, RIGHT, STRANGE] * 3, tmp_path / "log")
    assessment = SegmentationAssessment()
    assert set(assessment.difference(rows, rows).values()) == {0.0}
    worse = json.loads(json.dumps(rows))
    worse[0] |= {"confusion": [[CAT, DOG, 1536], [DOG, DOG, 1536]], "boundary": {"cat": 0.0, "dog": 0.0}}
    worse[1] = {"index": 1, "name": "s1", "error": "torn"}
    difference = assessment.difference(worse, rows)
    assert -0.2 < difference["mIoU"] < -0.01 and 0 < difference["mIoU_ci95"] < 0.3 and difference["boundary"] < 0


def test_an_interrupted_run_goes_on_to_identical_numbers(tmp_path: Path) -> None:
    frames = [RIGHT, HALF, "torn", STRANGE]
    whole = rows_of(frames, tmp_path / "whole")
    lines = (tmp_path / "whole").read_text().splitlines(keepends=True)
    (tmp_path / "part").write_text("".join(lines[:3]) + lines[3][:20])
    again = rows_of(frames, tmp_path / "part")
    for row in (*again, *whole):
        row.pop("milliseconds", None)
    assert json.dumps(again) == json.dumps(whole)


def test_the_judge_measures_miou_on_named_data_and_there_is_none_without() -> None:
    assert find_judge(CONFIG) is None
    judge = DatasetJudge(SegmentationAssessment(), MemoryMasks([RIGHT, HALF] * 4), frames=8)
    assert judge.metric == "mIoU" and judge.score(shades, CONFIG) == pytest.approx((2 / 3 + 1 / 2) / 2)
    with pytest.raises(ValueError, match="shades is for segmentation, and clip is for depth; name other data"):
        find_judge(CONFIG, "clip")
    with pytest.raises(ValueError, match="the data set is empty"):
        SegmentationAssessment().score(shades, CONFIG, MemoryMasks([]), [])


@pytest.fixture
def report(tmp_path: Path) -> dict:
    """A reference and another engine on three images."""
    frames, assessment = [RIGHT, HALF, STRANGE], SegmentationAssessment()
    rows = rows_of(frames, tmp_path / "log")
    entry = {
        "model": "shades", "target": "torch", "precision": "fp32", "facts": {}, "cost": None, "problem": "",
        "summary": assessment.summarise(rows), "difference": None, "sheet": "a.png",
        "remarks": assessment.remarks(CONFIG, MemoryMasks(frames)), "plots": assessment.plot(rows, tmp_path / "a"),
    }  # fmt: skip
    return {
        "task": "segmentation",
        "command": "perception eval shades --data memory",
        "date": "2026-01-02T03:04:05+00:00",
        "data": {"name": "memory", "samples": 3, "sha256": "abcdef0123456789ff"},
        "sequence": False,
        "options": assessment.options(),
        "machine": {"cpu": "Some CPU", "cores": 2, "threads": "all"},
        "versions": {"python": "3.11"},
        "entries": [entry, entry | {"target": "b", "difference": assessment.difference(rows, rows)}],
    }


def test_the_report_tells_classes_confidences_and_confusion(report: dict) -> None:
    text = markdown(report)
    assert "that no image shows" not in text
    report["entries"][0]["summary"]["absent"] = ["newt"]
    assert "Classes of the data set that no image shows: newt." in markdown(report)
    assert "those that it lacks are left out, where other reports may count them as 0" in text
    assert text.startswith("# Segmentation on memory") and "contours may be off by 0.75 % of the diagonal" in text
    assert "| model | data | mIoU | pixel accuracy | boundary F | GMAC |" in results_table(report)
    assert "+0.0000 ± 0.0000" in text and "## By class: IoU, boundary F" in text
    assert "| eel | 1536 | 0.000, 0.000 | 0.000, 0.000 |" in text and "| 50 to 70 % | 18.18 %, 100.00 % |" in text


def test_the_report_shows_which_class_is_taken_for_which(report: dict, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra `eval`)")
    assert "![Which class is taken for which](a-confusion.png)" in markdown(report)
    assert cv2.imread(str(tmp_path / "a-confusion.png")).shape[0] > 200


def test_the_sheet_shows_wrong_pixels(tmp_path: Path) -> None:
    frames, assessment = [RIGHT, HALF, "torn", STRANGE, RIGHT, HALF], SegmentationAssessment()
    dataset, rows = MemoryMasks(frames), rows_of(frames, tmp_path / "log")
    cases = pick_cases(rows, assessment)
    assert cases[0] == ("best", rows[0]) and cases[-1][1]["index"] in (1, 3, 5)
    assert assessment.caption(rows[0]) == "mIoU 1.000  accuracy 1.000"
    draw_sheet(
        tmp_path / "sheet.png", "shades", rows, dataset, assessment, network(assessment, shades, CONFIG, dataset)
    )
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 1200
    prediction = assessment.inference(shades, CONFIG, dataset)(STRANGE)
    image, truth, found, judged = assessment.pictures(Sample(STRANGE, prediction), dataset)
    assert judged[24, 20].argmax() == 2 and judged[24, 20, 2] > 200, "a wrong pixel is red"
    assert len(set(judged[24, 4])) == 1 == len(set(judged[24, 60])) and (judged[24, 60] == 96).all()
    assert (truth[24, 4] == found[24, 4]).all() and (truth[24, 60] == 0).all() and (found[24, 20] == 0).all()


def test_images_without_a_class_that_counts_come_last() -> None:
    nothing = {"scores": {"mIoU": math.nan, "accuracy": math.nan}}
    assert SegmentationAssessment.rank({"scores": {"mIoU": 0.2, "accuracy": 0.5}}) < SegmentationAssessment.rank(
        nothing
    )
    assert find_assessment("segmentation") is SegmentationAssessment

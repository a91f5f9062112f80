"""Detections against true boxes, from the outputs of a network to the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from memory import InMemory

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `eval`)")
from perception.evaluation.assessment import Sample, all_assessments, find_assessment
from perception.evaluation.box_verdicts import Verdicts
from perception.evaluation.boxes import Annotation, BoxDataset
from perception.evaluation.classes import Shared
from perception.evaluation.detection import DetectionAssessment, Prediction
from perception.evaluation.frames import BoxFrame
from perception.evaluation.harness import network, run
from perception.evaluation.judge import DatasetJudge, find_judge
from perception.evaluation.report import markdown
from perception.evaluation.results import ResultLog
from perception.evaluation.sheet import draw_sheet, pick_cases
from perception.tasks.config import ModelConfig, Output
from perception.tasks.decoders import BoxDecoder, FoundDecoder
from perception.tasks.detection import Detections

LABELS = ("cat", "dog", "eel")
CONFIG = ModelConfig(
    name="marks",
    task="detection",
    input_size=(32, 32),
    outputs=(Output("boxes", (1, 4, 4), "share"), Output("scores", (1, 4, 3), "score")),
    labels=("dog", "cat", "bat"),
    decoder=BoxDecoder(unit="share"),
)


class MemoryBoxes(InMemory, BoxDataset):
    name, labels = "boxes in memory", LABELS

    def annotation(self, index: int) -> Annotation:
        frame = self[index]
        return Annotation(frame.boxes, frame.labels, frame.ignore, None, (48, 64))


def picture(shade: int, *objects: tuple[str, tuple[float, ...]], ignore: Sequence[bool] = ()) -> BoxFrame:
    """An image of 64 by 48 pixels in one shade, by which `marks` knows it."""
    return BoxFrame(
        np.full((48, 64, 3), shade, np.uint8),
        np.array([box for _, box in objects], np.float32).reshape(-1, 4),
        np.array([LABELS.index(name) for name, _ in objects], np.int64),
        np.array(ignore or [False] * len(objects), bool),
    )


def marks(image: np.ndarray) -> Mapping[str, np.ndarray]:
    """A dog in the left half of every image, a cat in the right half of bright ones, a bat everywhere."""
    boxes = np.array([[[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]], np.float32)
    scores = np.zeros((1, 4, 3), np.float32)
    scores[0, 0, 0], scores[0, 2, 2] = 0.8, 0.9
    scores[0, 1, 1] = 0.7 if image.mean() > 100 else 0.0
    return {"boxes": boxes, "scores": scores}


DOG, CAT = ("dog", (0.0, 0.0, 32.0, 48.0)), ("cat", (32.0, 0.0, 64.0, 48.0))
EEL = ("eel", (10.0, 10.0, 20.0, 20.0))


def rows_of(frames: Sequence[BoxFrame | str], path: Path, assessment: DetectionAssessment | None = None) -> list[dict]:
    dataset, assessment = MemoryBoxes(frames), assessment or DetectionAssessment()
    estimate = network(assessment, marks, CONFIG, dataset)
    return run(estimate, dataset, len(frames), assessment, ResultLog(path, {}))


def test_classes_are_matched_by_name() -> None:
    shared = Shared(("dog", "cat", "", "bat"), LABELS)
    assert shared.places.tolist() == [1, 0, -1, -1] and shared.known.tolist() == [True, True, False]
    assert shared.strangers == ["bat"] and shared.missing == ["eel"]
    dataset = MemoryBoxes([picture(200, DOG, CAT)])
    found = DetectionAssessment().inference(marks, CONFIG, dataset)(dataset[0]).detections
    assert found.boxes.tolist() == [list(DOG[1]), list(CAT[1])] and found.labels.tolist() == [1, 0]
    assert DetectionAssessment().remarks(CONFIG, dataset) == [
        "classes that the model does not know, counted as missed (--shared-classes leaves them out): eel",
        "classes that the data set does not have, not looked for: bat",
    ]
    drops = CONFIG.replace(labels=LABELS, decoder=FoundDecoder(0.05, 0.6))
    assert "what scores less than 0.05" in DetectionAssessment().remarks(drops, dataset)[0]
    assert DetectionAssessment(score_threshold=0.05).remarks(drops, dataset) == []
    (remark,) = DetectionAssessment(score_threshold=0.05, iou_threshold=0.5).remarks(drops, dataset)
    assert "doubles by an overlap over 0.6, so that its figures are not those of 0.5" in remark
    with pytest.raises(ValueError, match="no class in common; the model knows bat, the data set cat, dog, eel"):
        DetectionAssessment().inference(marks, CONFIG.replace(labels=("bat",)), dataset)


def test_what_the_model_does_not_know_is_missed_unless_only_shared_classes_count(tmp_path: Path) -> None:
    frames = [picture(200, DOG, CAT, EEL), picture(50), picture(50, DOG)]
    summary = DetectionAssessment().summarise(rows_of(frames, tmp_path / "all"))
    dog = 1.0  # all dogs before what is found in the empty image, because equal scores keep their order
    assert summary["classes"]["cat"] == {"objects": 1, "mAP": pytest.approx(1), "AP50": pytest.approx(1)}
    assert summary["classes"]["eel"]["mAP"] == 0 and summary["classes"]["dog"]["objects"] == 2
    dog = summary["classes"]["dog"]["AP50"]
    assert dog == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-4), "the second of three dogs is none"
    assert summary["metrics"]["mAP"] == pytest.approx((1 + dog) / 3)
    only = DetectionAssessment(shared_classes=True)
    assert only.summarise(rows_of(frames, tmp_path / "shared", only))["metrics"]["mAP"] == pytest.approx((1 + dog) / 2)


def test_only_the_classes_of_interest_count(tmp_path: Path) -> None:
    frames = [picture(200, DOG, CAT, EEL), picture(50, DOG)]
    summary = DetectionAssessment().summarise(rows_of(frames, tmp_path / "log", DetectionAssessment(classes="cat")))
    assert list(summary["classes"]) == ["cat"] and summary["metrics"]["mAP"] == pytest.approx(1)
    with pytest.raises(ValueError, match="class 'cot' is unknown here; like it are 'cat'"):
        rows_of(frames, tmp_path / "other", DetectionAssessment(classes="cot"))


def test_ignored_objects_neither_count_nor_harm(tmp_path: Path) -> None:
    rows = rows_of([picture(50, DOG, ignore=[True]), picture(50, DOG)], tmp_path / "log")
    assert DetectionAssessment().summarise(rows)["metrics"]["mAP"] == pytest.approx(1)
    assert [row["counts"] for row in rows] == [
        {"right": 0, "wrong": 0, "missed": 0},
        {"right": 1, "wrong": 0, "missed": 0},
    ]


def test_verdicts_on_one_image() -> None:
    frame = picture(50, DOG, CAT)
    boxes = np.array([[0, 0, 32, 48], [1, 0, 32, 48], [0, 0, 5, 5], [0, 0, 32, 48]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([1, 1, 0, 0]))
    verdicts = Verdicts.of(frame, found)
    assert len(verdicts.right) == 1 and len(verdicts.wrong) == 3 and verdicts.missed.tolist() == [list(CAT[1])]
    assert len(Verdicts.of(frame, found, np.array([True, False])).missed) == 0


def test_verdicts_on_what_lies_in_a_crowd_and_in_a_difficult_object() -> None:
    frame = picture(50, DOG, ignore=[True])
    corner = Detections(np.array([[0, 0, 16, 24]], np.float32), np.array([0.9], np.float32), np.array([1]))
    assert len(Verdicts.of(frame, corner).wrong) == 1, "a quarter of it is no overlap"
    assert len(Verdicts.of(replace(frame, crowd=frame.ignore), corner).wrong) == 0
    whole = Detections(frame.boxes.repeat(2, 0), np.array([0.9, 0.8], np.float32), np.array([1, 1]))
    assert len(Verdicts.of(frame, whole).wrong) == 0


def test_an_interrupted_run_goes_on_to_identical_numbers_and_broken_images_are_named(tmp_path: Path) -> None:
    frames = [picture(200, DOG, CAT), "torn.jpg is not a readable image", picture(50, DOG), picture(50)]
    whole = rows_of(frames, tmp_path / "whole")
    lines = (tmp_path / "whole").read_text().splitlines(keepends=True)
    (tmp_path / "part").write_text("".join(lines[:3]) + lines[3][:40])
    again = rows_of(frames, tmp_path / "part")
    summary = DetectionAssessment().summarise(again)
    for row in (*again, *whole):
        row.pop("milliseconds", None)
    assert json.dumps(again) == json.dumps(whole)
    assert summary["samples"] == 4 and summary["failed"] == [{"name": "s1", "error": frames[1]}]
    assert summary["latency_ms"]["p50"] > 0 and set(summary["ci95"]) == {"mAP", "AP50"}


def test_the_difference_is_of_the_same_draws(tmp_path: Path) -> None:
    frames = [picture(200 if i % 3 else 50, DOG, CAT) for i in range(12)]
    rows = rows_of(frames, tmp_path / "log")
    same = DetectionAssessment().difference(rows, rows)
    assert set(same.values()) == {0.0}
    worse = json.loads(json.dumps(rows))
    for row in worse[:4]:
        row["found"] = {"boxes": [], "labels": [], "scores": []}
    difference = DetectionAssessment().difference(worse, rows)
    assert difference["mAP"] < -0.1 and 0 < difference["mAP_ci95"] < 0.5
    worse[0] = {"index": 0, "name": "s0", "error": "torn"}
    assert DetectionAssessment().difference(worse, rows)["mAP"] > difference["mAP"]


def test_the_judge_measures_map_on_named_data_and_there_is_none_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_judge(CONFIG) is None
    judge = DatasetJudge(DetectionAssessment(), MemoryBoxes([picture(200, DOG, CAT)] * 9), frames=3)
    assert judge.metric == "mAP" and judge.score(marks, CONFIG) == pytest.approx(1)
    silent = {"boxes": np.zeros((1, 4, 4), np.float32), "scores": np.zeros((1, 4, 3), np.float32)}
    assert math.isnan(judge.score(lambda image: silent, CONFIG))
    with pytest.raises(ValueError, match="marks is for detection, and clip is for depth; name other data"):
        find_judge(CONFIG, "clip")


@pytest.fixture
def report(tmp_path: Path) -> dict:
    """A reference and another engine on three images."""
    frames = [picture(200, DOG, CAT, EEL), picture(50), picture(50, DOG)]
    assessment, rows = DetectionAssessment(), rows_of(frames, tmp_path / "log")
    entry = {
        "model": "marks", "target": "torch", "precision": "fp32", "facts": {}, "cost": None, "problem": "",
        "summary": assessment.summarise(rows), "difference": None, "sheet": "a.png",
        "remarks": assessment.remarks(CONFIG, MemoryBoxes(frames)), "plots": assessment.plot(rows, tmp_path / "a"),
    }  # fmt: skip
    return {
        "task": "detection",
        "command": "perception eval marks --data memory",
        "date": "2026-01-02T03:04:05+00:00",
        "data": {"name": "memory", "samples": 3, "sha256": "abcdef0123456789ff"},
        "sequence": False,
        "options": assessment.options(),
        "machine": {"cpu": "Some CPU", "cores": 2, "threads": "all"},
        "versions": {"python": "3.11"},
        "entries": [entry, entry | {"target": "b", "difference": assessment.difference(rows, rows)}],
    }


def test_the_report_tells_classes_remarks_and_curves(report: dict, tmp_path: Path) -> None:
    text = markdown(report)
    assert text.startswith("# Detection on memory") and "boxes that score 1e-08 or more" in text
    assert "| model | data | mAP | AP50 | AP75 | GMAC |" in text and "+0.0000 ± 0.0000" in text
    assert "| class | objects | marks torch fp32 | marks b fp32 |" in text and "| cat | 1 | 1.000, 1.000 |" in text
    assert text.count("eel") == 2 and "- marks: classes that the model does not know, counted as missed" in text
    report["entries"][1] |= {"remarks": ["drops boxes"]}
    assert "- marks b fp32: drops boxes" in markdown(report) and "- marks torch fp32: classes" in markdown(report)
    assert "![Precision over recall](a-curves.png)" in text and (tmp_path / "a-curves.png").stat().st_size > 10_000


def test_the_sheet_draws_verdicts(tmp_path: Path) -> None:
    frames = [picture(200, DOG, CAT), picture(50, DOG), "torn", picture(50, CAT), picture(50), picture(200)]
    assessment, dataset = DetectionAssessment(), MemoryBoxes(frames)
    rows = rows_of(frames, tmp_path / "log")
    cases = pick_cases(rows, assessment)
    assert [row["index"] for _, row in cases][0] == 0 and cases[-1][0] == "worst"
    draw_sheet(tmp_path / "sheet.png", "marks", rows, dataset, assessment, network(assessment, marks, CONFIG, dataset))
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 1200
    prediction = assessment.inference(marks, CONFIG, dataset)(frames[3])
    judged = assessment.pictures(Sample(frames[3], prediction), dataset)[3]
    assert judged[24, 0].argmax() == 2, "a wrong box is red"
    assert isinstance(prediction, Prediction) and judged.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("options", "missed"), [({}, True), ({"shared_classes": True}, False), ({"classes": "dog, cat"}, False)]
)
def test_what_does_not_count_is_not_drawn_as_missed(options: dict, missed: bool) -> None:
    frame = picture(50, EEL)
    dataset, assessment = MemoryBoxes([frame]), DetectionAssessment(**options)
    prediction = assessment.inference(marks, CONFIG, dataset)(frame)
    image, truth, _, judged = assessment.pictures(Sample(frame, prediction), dataset)
    corner = judged[10, 15]  # on the upper edge of the eel, inside of the wrong dog
    assert (corner != image[10, 15]).any() == missed and (truth[10, 15] != image[10, 15]).any()


@pytest.mark.parametrize("options", [{"score_threshold": 1.0}, {"iou_threshold": 0.0}, {"most": 0}])
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="are not possible; accepted"):
        DetectionAssessment(**options)


def test_every_task_with_a_file_is_found() -> None:
    assert {"depth", "detection"} <= set(all_assessments())
    with pytest.raises(ValueError, match="models for juggling cannot be evaluated yet"):
        find_assessment("juggling")

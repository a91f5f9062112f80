"""Classes that were told against the true ones, from the outputs of a network to the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from memory import InMemory

from perception.evaluation.assessment import Sample, find_assessment
from perception.evaluation.class_folder import ClassDataset
from perception.evaluation.classification import Answers, ClassificationAssessment
from perception.evaluation.frames import ClassFrame
from perception.evaluation.harness import network, run
from perception.evaluation.judge import DatasetJudge, find_judge
from perception.evaluation.report import markdown
from perception.evaluation.results import ResultLog
from perception.evaluation.sheet import draw_sheet
from perception.tasks.config import ModelConfig, Output

LABELS = ("cat", "dog", "eel")
CAT, DOG, EEL = 0, 1, 2
CONFIG = ModelConfig(
    name="shades",
    task="classification",
    input_size=(24, 32),
    outputs=(Output("logits", (1, 3), "logit"),),
    labels=("dog", "cat", "bat"),
)


class MemoryClasses(InMemory, ClassDataset):
    name, labels = "classes in memory", LABELS


def shades(image: np.ndarray) -> Mapping[str, np.ndarray]:
    """Dark images show a dog, grey ones a cat, bright ones a bat; the nearer to one of three shades, the surer."""
    shade = float(image[..., 0].mean())
    return {"logits": -np.abs(np.array([[20, 120, 220]], np.float32) - np.float32(shade)) / 20}


def scene(shade: int, label: int) -> ClassFrame:
    return ClassFrame(np.full((48, 64, 3), shade, np.uint8), label)


FRAMES = [scene(20, DOG), scene(30, DOG), scene(120, CAT), scene(60, CAT), scene(120, EEL)]


def rows_of(
    frames: Sequence[ClassFrame | str], path: Path, assessment: ClassificationAssessment | None = None
) -> list[dict]:
    dataset, assessment = MemoryClasses(frames), assessment or ClassificationAssessment()
    return run(
        network(assessment, shades, CONFIG, dataset), dataset, len(frames), assessment, ResultLog(path, {})
    )  # fmt: skip


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    row = rows_of([scene(50, CAT)], tmp_path / "log")[0]
    chances = np.exp([-3.5, -1.5, -8.5]) / np.exp([-3.5, -1.5, -8.5]).sum()
    assert (row["truth"], row["found"], row["counts"]) == (CAT, [DOG, CAT], True), "bats are no answer, nor eels"
    assert row["chances"] == pytest.approx(chances[[1, 0]], abs=1e-5) and row["own"] == row["chances"][1]
    remarks = ClassificationAssessment().remarks(CONFIG, MemoryClasses(FRAMES))
    assert "eel" in remarks[0] and "bat" in remarks[1]
    with pytest.raises(ValueError, match="no class in common"):
        ClassificationAssessment().inference(shades, CONFIG.replace(labels=("bat",)), MemoryClasses(FRAMES))


def test_the_summary_counts_images(tmp_path: Path) -> None:
    rows = rows_of([*FRAMES, "torn"], tmp_path / "log")
    summary = ClassificationAssessment().summarise(json.loads(json.dumps(rows)))
    assert summary["samples"] == 6 and summary["failed"] == [{"name": "s5", "error": "torn"}]
    assert summary["metrics"] == pytest.approx({"top1": 3 / 5, "top5": 4 / 5, "mean_accuracy": (1 + 1 / 2 + 0) / 3})
    assert summary["classes"]["cat"] == {"images": 2, "accuracy": 0.5, "precision": 0.5}
    assert summary["classes"]["eel"]["accuracy"] == 0 and np.isnan(summary["classes"]["eel"]["precision"])
    assert sum(band["images"] for band in summary["bands"].values()) == pytest.approx(1)
    assert 0.1 < summary["ci95"]["top1"] < 0.5
    assert Answers(rows).confusion.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("assessment", "top1"),
    [(ClassificationAssessment(shared_classes=True), 3 / 4), (ClassificationAssessment(classes="cat"), 1 / 2)],
)
def test_which_images_count(assessment: ClassificationAssessment, top1: float, tmp_path: Path) -> None:
    summary = assessment.summarise(rows_of(FRAMES, tmp_path / "log", assessment))
    assert summary["metrics"]["top1"] == pytest.approx(top1)


def test_an_engine_is_held_against_another_on_the_same_draws(tmp_path: Path) -> None:
    assessment = ClassificationAssessment()
    rows = rows_of(FRAMES, tmp_path / "log")
    better = [row | {"found": [row["truth"]], "chances": [1.0]} for row in rows]
    difference = assessment.difference(better, rows)
    assert difference["top1"] == pytest.approx(0.4) and 0 < difference["top1_ci95"] < 0.5
    assert assessment.difference(rows, rows) == {"top1": 0, "top1_ci95": 0, "top5": 0, "top5_ci95": 0}


def test_a_build_of_engines_can_be_judged() -> None:
    judge = DatasetJudge(ClassificationAssessment(), MemoryClasses(FRAMES), 4)
    assert judge.metric == "top1" and judge.score(shades, CONFIG) == pytest.approx(2 / 4)
    assert find_judge(CONFIG) is None and find_assessment("classification") is ClassificationAssessment


def test_the_report_and_its_pictures(tmp_path: Path) -> None:
    assessment, dataset = ClassificationAssessment(), MemoryClasses(FRAMES)
    rows = rows_of(FRAMES, tmp_path / "log")
    entry = {
        "model": "shades", "target": "torch", "precision": "fp32", "summary": assessment.summarise(rows),
        "difference": assessment.difference(rows, rows), "remarks": [], "problem": "", "facts": {}, "cost": None,
        "sheet": "", "plots": assessment.plot(rows, tmp_path / "shades"),
    }  # fmt: skip
    report = {
        "task": "classification", "command": "c", "date": "d", "data": {"name": "n", "samples": 5, "sha256": "0" * 64},
        "sequence": False, "options": assessment.options(), "machine": {"cpu": "x", "cores": 2, "threads": 1},
        "versions": {}, "entries": [entry],
    }  # fmt: skip
    text = markdown(report)
    assert "| cat | 2 | 0.500, 0.500 |" in text and "| eel | 1 | 0.000, - |" in text
    assert "By confidence: share of images" in text and "Which class is taken for which" in text
    assert cv2.imread(str(tmp_path / "shades-confusion.png")) is not None
    estimate = network(assessment, shades, CONFIG, dataset)
    draw_sheet(tmp_path / "sheet.png", "shades", rows, dataset, assessment, estimate)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 600
    image, bars = assessment.pictures(Sample(FRAMES[0], estimate(FRAMES[0])[0]), dataset)
    assert (image == 20).all() and (bars == (90, 170, 60)).all(axis=2).any(), "the true one is green"
    assert assessment.caption(rows[0]).startswith("truth dog (0.99")
    assert sorted(rows, key=assessment.rank)[0]["truth"] == DOG and assessment.rank(rows[4]) == (0.0,)

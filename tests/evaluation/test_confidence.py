"""What scores are worth: the curve is found again, a detector's own is measured, and taught labels carry it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_labels import BOXES, Teacher, halves, photograph

from perception import engines
from perception.cli.main import main
from perception.evaluation.confidence import Confidence, judge_boxes
from perception.evaluation.yolo import YoloBoxes


def test_the_curve_that_scores_follow_is_found_again() -> None:
    rng = np.random.default_rng(0)
    true = Confidence(12.0, 0.43)
    scores = rng.uniform(0, 1, 20_000)
    found = Confidence.fit(scores, rng.random(20_000) < true(scores))
    assert found.slope == pytest.approx(12, rel=0.05) and found.middle == pytest.approx(0.43, abs=0.01)
    assert found.score_of(0.5) == pytest.approx(found.middle)
    assert found(np.array([found.score_of(0.9)])) == pytest.approx([0.9])
    assert found.score_of(1e-9) == found.score_of(0) == 0 and found.score_of(1) == np.inf


def test_a_few_boxes_that_scores_divide_cleanly_give_a_finite_curve() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.7, 0.8])
    found = Confidence.fit(scores, scores > 0.5)
    assert 0.3 < found.middle < 0.7 and 1 < found.slope < 100


def test_scores_that_say_nothing_are_refused() -> None:
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    with pytest.raises(ValueError, match="4 boxes are right and 0 wrong"):
        Confidence.fit(scores, np.ones(4, bool))
    with pytest.raises(ValueError, match="that score more are not right more often"):
        Confidence.fit(scores, scores < 0.5)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Left halves are black, as `halves` says with 0.9; right ones red, as it says with 0.5, in one image of four."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed; boxes are judged with it")
    folder = tmp_path / "truth"
    for number in range(8):
        photograph(folder / "images/train" / f"{number}.png", 64, 48)
        (folder / "labels/train").mkdir(parents=True, exist_ok=True)
        lines = ["1 0.25 0.5 0.5 1.0", *(["0 0.75 0.5 0.5 1.0"] if number % 4 == 0 else [])]
        (folder / "labels/train" / f"{number}.txt").write_text("\n".join(lines))
    (folder / "labels.txt").write_text("red\nblack\n")
    return folder


def test_a_detectors_scores_are_held_against_true_boxes(truth: Path) -> None:
    scores, right = judge_boxes(halves, BOXES, YoloBoxes(truth, "train"))
    assert {(float(score), bool(hit)) for score, hit in zip(scores.round(4), right, strict=True)} == {
        (0.9, True), (0.5, True), (0.5, False), (0.1, False)
    }  # fmt: skip
    found = Confidence.fit(scores, right)
    sure, unsure, hardly = found(np.array([0.9, 0.5, 0.1]))  # 8 of 8 are right, 2 of 8, and none
    assert sure > 0.8 and 0.2 < unsure < 0.4 and hardly < 0.1


def test_labels_carry_chances_instead_of_scores(
    truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Teacher, "config", BOXES)
    monkeypatch.setattr(Teacher, "run", staticmethod(halves))
    monkeypatch.setattr(engines, "load_whole", Teacher)
    photograph(tmp_path / "photos/1.png", 128, 48)
    command = ["label", str(tmp_path / "photos"), "--model", "boxes.onnx", "--calibrate", str(truth)]
    assert main([*command, "--out", str(tmp_path / "all"), "--score", "0.2"]) == 0
    assert "half are right" in capsys.readouterr().out
    (frame,) = YoloBoxes(tmp_path / "all", "train")
    assert frame.scores is not None and sorted(frame.scores) == pytest.approx([0.3, 0.85], abs=0.06)
    assert main([*command, "--out", str(tmp_path / "sure"), "--score", "0.4"]) == 0
    (frame,) = YoloBoxes(tmp_path / "sure", "train")
    assert frame.scores == pytest.approx([0.85], abs=0.06)
    assert main([*command, "--out", str(tmp_path / "none"), "--score", "0.9999999"]) == 1
    assert "no box of boxes is right 100% of the time; ask for less" in capsys.readouterr().err


def test_a_detector_that_finds_nothing_cannot_be_judged(truth: Path) -> None:
    silent = {"boxes": np.zeros((1, 2, 4), np.float32), "scores": np.zeros((1, 2, 3), np.float32)}
    scores, right = judge_boxes(lambda _: silent, BOXES, YoloBoxes(truth, "train"))
    assert len(scores) == len(right) == 0
    with pytest.raises(ValueError, match="0 boxes are right and 0 wrong"):
        Confidence.fit(scores, right)

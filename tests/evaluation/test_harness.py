"""The harness scores what the node would publish, tells broken samples, and goes on where it was interrupted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from memory import CAMERA, MemoryDataset, flat, says

from perception.evaluation.depth import DepthAssessment, evaluate_depth, predict_depth
from perception.evaluation.frames import RGBDFrame
from perception.evaluation.harness import network, run
from perception.evaluation.results import ResultLog
from perception.evaluation.stability import half_view_change
from perception.tasks.config import ModelConfig, Output
from perception.tasks.depth_metrics import Rule
from perception.tasks.geometry import Camera

CONFIG = ModelConfig(
    name="t",
    task="depth",
    input_size=(32, 32),
    outputs=(Output("depth", (1, 1, 32, 32), "m"),),
    focal=(60 / 64, 60 / 48),
)


def brightness(image: np.ndarray) -> dict[str, np.ndarray]:
    assert image.shape == (1, 32, 32, 3) and image.dtype == np.uint8
    return {"depth": image.mean(axis=3, dtype=np.float32)[:, None] / 10}


def test_means_over_frames() -> None:
    scores = evaluate_depth(brightness, CONFIG, [flat(2.0), flat(4.0)])
    assert scores["rmse"] == pytest.approx(1.0) and scores["delta1"] == 0.5 and scores["frames"] == 2
    assert scores["delta1_ci95"] == pytest.approx(1.96 * np.std([1, 0], ddof=1) / np.sqrt(2))
    assert scores["rmse_ci95"] == pytest.approx(1.96 * np.std([0, 2], ddof=1) / np.sqrt(2))


def test_half_the_field_of_view_leaves_the_metres() -> None:
    """Through twice the focal length a network that answers in angles says half, and the lens rule doubles it."""
    narrow = Camera(64, 48, 2 * CAMERA.fx, 2 * CAMERA.fy, 31.5, 23.5)
    wide_depth = predict_depth(brightness, CONFIG, flat(4.0, 40)).metres
    narrow_depth = predict_depth(lambda image: brightness(image // 2), CONFIG, flat(4.0, 40, camera=narrow)).metres
    assert np.allclose(wide_depth, narrow_depth)


@pytest.mark.parametrize("pads", [True, False])
def test_half_a_view_laid_into_the_whole_is_seen_as_it_was(pads: bool) -> None:
    """What a network says of a spot by its look alone stays, where the spot is not enlarged; elsewhere it doubles."""
    config = CONFIG.replace(pads_narrow_views=pads)
    rows, columns = np.indices((48, 64))
    pixels = np.repeat((40 + rows // 6 * 8 + columns // 8 * 8)[..., None], 3, axis=2).astype(np.uint8)
    frame = RGBDFrame(pixels, camera=CAMERA, name="blocks")
    whole = predict_depth(brightness, config, frame).metres
    change = half_view_change(lambda view: predict_depth(brightness, config, view).metres, frame, whole)
    assert change["shift"] == pytest.approx(0 if pads else 1, abs=0.03)


def test_depth_is_needed() -> None:
    with pytest.raises(ValueError, match="'a' has no true depth"):
        evaluate_depth(brightness, CONFIG, [RGBDFrame(np.zeros((4, 4, 3), np.uint8), name="a")])
    with pytest.raises(ValueError, match="empty"):
        evaluate_depth(brightness, CONFIG, [])


def test_only_inference_is_timed() -> None:
    ticks = iter([5.0, 5.25])
    metres, milliseconds = network(DepthAssessment(), brightness, CONFIG, MemoryDataset([]), lambda: next(ticks))(
        flat(2.0)
    )
    assert milliseconds == 250 and np.allclose(metres, 2)


BROKEN = [
    flat(2.0),
    "s1 cannot be read",
    RGBDFrame(np.zeros((48, 64, 3), np.uint8), name="none"),
    RGBDFrame(np.zeros((48, 64, 3), np.uint8), np.ones((24, 32), np.float32), name="small"),
    flat(0.0),
    flat(4.0),
]


def test_broken_samples_are_named_and_counted(tmp_path: Path) -> None:
    rows = run(says(2.0), MemoryDataset(BROKEN), 6, DepthAssessment(), ResultLog(tmp_path / "log.jsonl", {}))
    summary = DepthAssessment().summarise(rows)
    assert summary["samples"] == 6 and [broken["name"] for broken in summary["failed"]] == ["s1", "s2", "s3", "s4"]
    errors = [broken["error"] for broken in summary["failed"]]
    assert errors[0] == "s1 cannot be read" and "no true depth" in errors[1] and "registered" in errors[2]
    assert "no pixel is left" in errors[3]
    assert summary["metrics"]["delta1"] == 0.5 and summary["metrics"]["rmse"] == 1


def test_all_broken_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="all 2 samples of memory are broken; the first: why"):
        run(says(2.0), MemoryDataset(["why", "so"]), 2, DepthAssessment(), ResultLog(tmp_path / "log.jsonl", {}))


def test_the_rule_reaches_the_metrics(tmp_path: Path) -> None:
    options = DepthAssessment(Rule(max_depth=3.0))
    rows = run(says(9.0), MemoryDataset([flat(2.0)]), 1, options, ResultLog(tmp_path / "log.jsonl", {}))
    assert rows[0]["metrics"]["mae"] == 1, "clipped to the cap"


def drive() -> MemoryDataset:
    """A camera that nears a wall by 10 cm a frame."""
    poses = [np.eye(4) for _ in range(5)]
    for index, pose in enumerate(poses):
        pose[2, 3] = 0.1 * index
    return MemoryDataset([flat(3 - 0.1 * i, pose=pose) for i, pose in enumerate(poses)], sequence=True)


def wobbling(frame: RGBDFrame) -> tuple[np.ndarray, float]:
    """10 % too far in every second frame."""
    assert frame.pose is not None
    z = float(frame.pose[2, 3])
    return np.full(frame.rgb.shape[:2], (3 - z) * (1 + 0.1 * (round(10 * z) % 2)), np.float32), math.nan


@pytest.mark.parametrize("torn", [0, 15])
def test_an_interrupted_run_goes_on_to_identical_numbers(tmp_path: Path, torn: int) -> None:
    dataset, options = drive(), DepthAssessment(half_view=True)
    whole = run(wobbling, dataset, 5, options, ResultLog(tmp_path / "whole.jsonl", {"engine": "1"}))
    calls = []

    def dying(frame: RGBDFrame) -> tuple[np.ndarray, float]:
        calls.append(frame)
        if len(calls) > 6:
            raise KeyboardInterrupt
        return wobbling(frame)

    path = tmp_path / "part.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(dying, dataset, 5, options, ResultLog(path, {"engine": "1"}))
    path.write_bytes(path.read_bytes()[: -torn or None])
    log = ResultLog(path, {"engine": "1"})
    assert len(log.rows) == (2 if torn else 3) and log.note == f"goes on after {len(log.rows)} samples"
    again = run(wobbling, dataset, 5, options, log)
    assert json.dumps(again) == json.dumps(whole)
    assert path.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert len(ResultLog(path, {"engine": "1"}).rows) == 5


def test_steadiness_of_a_sequence(tmp_path: Path) -> None:
    def true(frame: RGBDFrame) -> tuple[np.ndarray, float]:
        assert frame.depth is not None
        return frame.depth, math.nan

    for estimate, expected in ((true, 0.0), (wobbling, 0.1)):
        log = ResultLog(tmp_path / f"{expected}.jsonl", {})
        stability = DepthAssessment().summarise(run(estimate, drive(), 5, DepthAssessment(), log))["stability"]
        assert stability["change"] == pytest.approx(expected, abs=0.012)
        assert stability["flicker"] == pytest.approx(math.log1p(expected), abs=1e-5) and stability["pairs"] == 4

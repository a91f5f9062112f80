"""The floor: the median of the training split, said of every frame."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from memory import MemoryDataset, flat

from perception.evaluation.datasets import find_dataset
from perception.evaluation.floor import constant, floor_of, median_depth
from perception.evaluation.frames import RGBDFrame
from perception.tasks.depth_metrics import metrics

DATA = Path(os.environ.get("PERCEPTION_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def test_the_median_leaves_unknown_pixels_out(tmp_path: Path) -> None:
    frames = [flat(depth) for depth in (1.0, 2.0, 9.0)]
    assert frames[2].depth is not None
    frames[2].depth[:, :32] = 0
    median = median_depth(MemoryDataset(frames))
    assert median.shape == (12, 16) and (median[:, :8] == 1.5).all() and (median[:, 8:] == 2).all()
    _, estimate = floor_of(MemoryDataset(frames), tmp_path)
    metres, milliseconds = estimate(flat(5.0))
    assert metres.shape == (48, 64) and metres[0, 0] == 1.5 and metres[0, -1] == 2 and math.isnan(milliseconds)
    (kept,) = tmp_path.glob("floor-*.npy")
    np.save(kept, np.full((2, 2), 7.0))
    assert floor_of(MemoryDataset(frames), tmp_path)[1](flat(5.0))[0][0, 0] == 7, "it is not computed again"


def test_a_few_broken_training_frames_are_left_out() -> None:
    blind = RGBDFrame(np.zeros((48, 64, 3), np.uint8))
    assert (median_depth(MemoryDataset([*[flat(1.0)] * 18, blind, "torn"])) == 1).all()
    with pytest.raises(ValueError, match="only 18 of 21 training frames of memory have depth"):
        median_depth(MemoryDataset([*[flat(1.0)] * 18, blind, blind, "torn"]))


def test_the_floor_of_nyu() -> None:
    """As the project's issue gives it: delta1 0.32, RMSE 1.22. Every sixth training and evaluation frame will do."""
    if not (DATA / "nyu_depth_v2" / "train").is_dir():
        pytest.skip(f"NYU Depth v2 is not in {DATA}; set PERCEPTION_DATA")
    frames = find_dataset("nyu", DATA)
    training = frames.training()
    assert training is not None and len(training) == 795 and len(frames) == 100
    estimate = constant(median_depth(MemoryDataset([training[i] for i in range(0, 795, 8)])))
    rows = []
    for frame in (frames[i] for i in range(0, 100, 3)):
        assert frame.depth is not None
        rows.append(metrics(estimate(frame)[0], frame.depth))
    assert 0.25 < np.mean([row["delta1"] for row in rows]) < 0.39
    assert 1.05 < np.mean([row["rmse"] for row in rows]) < 1.4

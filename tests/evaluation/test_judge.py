"""The judge of a build measures delta1 on known frames."""

from __future__ import annotations

import numpy as np
import pytest

from perception.evaluation.depth import DepthAssessment
from perception.evaluation.frames import Dataset, RGBDFrame
from perception.evaluation.judge import DatasetJudge, find_judge
from perception.tasks.config import ModelConfig, Output
from perception.tasks.geometry import Camera

CONFIG = ModelConfig("flat", "depth", (32, 32), (Output("depth", (1, 1, 32, 32), "m"),), size_divisor=2)


class Walls(Dataset[RGBDFrame]):
    """Frame i shows a wall at 1 + i metres."""

    name = "walls"

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> RGBDFrame:
        rgb, depth = np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 1.0 + index, np.float32)
        return RGBDFrame(rgb=rgb, depth=depth, camera=Camera(32, 32, 32, 32, 16, 16), name=str(index))

    def label(self, index: int) -> str:
        return str(index)

    def files(self, index: int) -> tuple:
        return ()


def _flat(metres: float):
    return lambda image: {"depth": np.full((1, 1, 32, 32), metres, np.float32)}


def test_a_share_of_the_walls_is_hit() -> None:
    judge = DatasetJudge(DepthAssessment(), Walls(), frames=5)  # at 1, 3, 5, 7 and 9 m
    assert judge.data.startswith("walls (5 frames, ")
    assert judge.score(_flat(3.0), CONFIG) == pytest.approx(1 / 5)
    assert judge.score(_flat(8.0), CONFIG) == pytest.approx(2 / 5)
    assert np.isnan(judge.score(_flat(float("nan")), CONFIG))


def test_the_clip_is_the_default() -> None:
    judge = find_judge(CONFIG)
    assert judge and judge.data.startswith("clip (50 frames, ") and judge.metric == "delta1"
    with pytest.raises(ValueError, match="no data set 'nowhere'"):
        find_judge(CONFIG, "nowhere")

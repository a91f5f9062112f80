"""The accuracy that a build of engines holds its candidates to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from perception.engines.acceptance import Predict
from perception.evaluation.datasets import data_hash, data_root, find_dataset
from perception.evaluation.frames import Dataset
from perception.evaluation.harness import evaluate_depth
from perception.tasks.config import ModelConfig

FRAMES = 50
"""So many frames tell a loss of 0.01 apart, because definition and engine see the same ones."""


class DepthJudge:
    """delta1 on frames with true depth, evenly spread over a data set."""

    metric = "delta1"

    def __init__(self, dataset: Dataset, frames: int = FRAMES) -> None:
        self._dataset = dataset
        places = np.linspace(0, len(dataset) - 1, min(frames, len(dataset)))
        self._places = [int(place) for place in places.round()]
        self.data = f"{dataset.name} ({len(self._places)} frames, {data_hash(dataset, self._places)[:8]})"

    def score(self, predict: Predict, config: ModelConfig) -> float:
        """Mean delta1 over the frames; NaN where nothing was predicted.

        Raises:
            ValueError: a broken frame, or one without true depth.
        """
        return evaluate_depth(predict, config, (self._dataset[place] for place in self._places))["delta1"]


def make_judge(data: str = "clip", root: Path | None = None) -> DepthJudge:
    """The judge of a data set by name or path; see `find_dataset`."""
    return DepthJudge(find_dataset(data, data_root(root)))

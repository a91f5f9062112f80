"""The accuracy that a build of engines holds its candidates to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perception.engines.acceptance import Judge, Predict
from perception.evaluation.assessment import Assessment, find_assessment
from perception.evaluation.datasets import data_hash, data_root, find_dataset
from perception.evaluation.frames import Dataset
from perception.tasks.config import ModelConfig

FRAMES = 50
"""So many frames tell a loss of 0.01 apart, because definition and engine see the same ones."""


class DatasetJudge:
    """A task's metric on frames whose truth is known, evenly spread over a data set."""

    def __init__(self, assessment: Assessment, dataset: Dataset[Any], frames: int = FRAMES) -> None:
        self.metric = assessment.metric
        self._assessment, self._dataset = assessment, dataset
        places = np.linspace(0, len(dataset) - 1, min(frames, len(dataset)))
        self._places = [int(place) for place in places.round()]
        self.data = f"{dataset.name} ({len(self._places)} frames, {data_hash(dataset, self._places)[:8]})"

    def score(self, predict: Predict, config: ModelConfig) -> float:
        """The metric over the frames; NaN where nothing was predicted.

        Raises:
            ValueError: a broken frame, or one without truth.
        """
        frames = (self._dataset[place] for place in self._places)
        return self._assessment.score(predict, config, self._dataset, frames)[self.metric]


def find_judge(config: ModelConfig, data: str | None = None, root: Path | None = None) -> Judge | None:
    """The judge of a model: on the data set of this name or path (see `find_dataset`), or else on the one that its task
    ships. None: no data set is named, and its task ships none.

    Raises:
        ValueError: no such data set, or one that tells nothing of the model's task.
    """
    assessment = find_assessment(config.task)
    name = data or assessment.judge_data
    if name is None:
        return None
    dataset = find_dataset(name, data_root(root), task=config.task)
    check_task(dataset, config)
    return DatasetJudge(assessment(), dataset)


def check_task(dataset: Dataset[Any], config: ModelConfig) -> None:
    """Whether a data set can judge a model.

    Raises:
        ValueError: it is for models of another task.
    """
    if config.task not in (dataset.task, *find_assessment(dataset.task).others):
        raise ValueError(
            f"{config.name} is for {config.task}, and {dataset.name} is for {dataset.task}; name other data"
        )

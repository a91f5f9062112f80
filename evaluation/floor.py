"""The floor of a data set: what one gets for knowing its rooms and looking at no image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from perception.evaluation.datasets import data_hash
from perception.evaluation.frames import Dataset, RGBDFrame
from perception.evaluation.harness import Estimate

LARGEST = 1000
"""Training frames beyond which evenly spread ones are taken."""
STEP = 4
"""The map is made of every fourth pixel: a median over hundreds of rooms is smooth."""


def median_depth(training: Dataset, progress: Callable[[list[int]], Iterable[int]] = iter) -> np.ndarray:
    """The pixelwise median of the true depth of a training split, float32 metres, every `STEP`-th row and column.

    Raises:
        ValueError: a training frame is broken or without depth, or their sizes differ.
    """
    places = np.unique(np.linspace(0, len(training) - 1, min(len(training), LARGEST)).round().astype(int))
    maps: list[np.ndarray] = []
    for place in progress(places.tolist()):
        depth = training[place].depth
        if depth is None or (maps and depth[::STEP, ::STEP].shape != maps[0].shape):
            raise ValueError(f"training frame {training.label(place)} has no depth, or one of another size")
        maps.append(np.where(depth > 0, depth, np.nan)[::STEP, ::STEP].astype(np.float32))
    return np.nanmedian(np.stack(maps), axis=0)


def floor_of(training: Dataset, folder: Path, progress: Callable[[list[int]], Iterable[int]] = iter) -> Estimate:
    """The median map as an estimate of every frame; it is kept in `folder` under the hash of the training split."""
    path = folder / f"floor-{data_hash(training)[:16]}.npy"
    if path.is_file():
        median = np.load(path)
    else:
        median = median_depth(training, progress)
        np.save(path, median)
    return constant(median)


def constant(metres: np.ndarray) -> Estimate:
    """An estimate that says the same map of every frame, stretched to its size."""

    def estimate(frame: RGBDFrame) -> tuple[np.ndarray, float]:
        height, width = frame.rgb.shape[:2]
        return cv2.resize(metres, (width, height), interpolation=cv2.INTER_LINEAR), math.nan

    return estimate

"""The floor of a data set: what one gets for knowing its rooms and looking at no image."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.engines.store import write_atomically
from perception.evaluation.assessment import Estimate, Progress
from perception.evaluation.datasets import data_hash
from perception.evaluation.frames import Dataset, RGBDFrame

LARGEST = 1000
"""Training frames beyond which evenly spread ones are taken."""
STEP = 4
"""The map is made of every fourth pixel: a median over hundreds of rooms is smooth."""


def median_depth(training: Dataset[RGBDFrame], progress: Progress = iter) -> np.ndarray:
    """The pixelwise median of the true depth of a training split, float32 metres, every `STEP`-th row and column.

    Broken frames, and those of another size than the first, are left out.

    Raises:
        ValueError: more than a tenth of the frames cannot be used.
    """
    places = floor_places(training)
    maps: list[np.ndarray] = []
    for place in progress(places):
        try:
            depth = training[place].depth
        except (ValueError, OSError):
            continue
        if depth is not None and (not maps or depth[::STEP, ::STEP].shape == maps[0].shape):
            maps.append(np.where(depth > 0, depth, np.nan)[::STEP, ::STEP].astype(np.float32))
    if len(maps) < 0.9 * len(places):
        raise ValueError(f"only {len(maps)} of {len(places)} training frames of {training.name} have depth of one size")
    return np.nanmedian(np.stack(maps), axis=0)


def floor_places(training: Dataset[Any]) -> list[int]:
    """The frames of a training split that a floor follows from."""
    places = np.linspace(0, len(training) - 1, min(len(training), LARGEST)).round().astype(int)
    return [int(place) for place in np.unique(places)]


def floor_of(training: Dataset[RGBDFrame], folder: Path, progress: Progress = iter) -> tuple[str, Estimate]:
    """The hash of the frames that count, and their median as an estimate of every frame, which is kept in `folder`."""
    key = data_hash(training, places=floor_places(training))
    path = folder / f"floor-{key[:16]}.npy"
    if path.is_file():
        return key, constant(np.load(path))
    median = median_depth(training, progress)
    file = io.BytesIO()
    np.save(file, median)
    write_atomically(path, file.getvalue())
    return key, constant(median)


def constant(metres: np.ndarray) -> Estimate:
    """An estimate that says the same map of every frame, stretched to its size."""

    def estimate(frame: RGBDFrame) -> tuple[np.ndarray, float]:
        height, width = frame.rgb.shape[:2]
        return cv2.resize(metres, (width, height), interpolation=cv2.INTER_LINEAR), math.nan

    return estimate

"""Accuracy as the robot gets it: the node's own preprocessing, engine and parsing over a data set with true depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from perception.evaluation.frames import RGBDFrame
from perception.tasks import depth as depth_task
from perception.tasks.config import ModelConfig
from perception.tasks.depth_metrics import metrics
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess

Predict = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""uint8 image of shape (1, height, width, 3) to the network's outputs by name; an engine's `run`."""


def predict_depth(predict: Predict, config: ModelConfig, frame: RGBDFrame) -> depth_task.Depth:
    """Depth of one frame, by the same steps as the node takes."""
    image = Image(frame.rgb, "rgb8")
    fit = Fit(image.size, config.input_size, frame.camera)
    return depth_task.parse(predict(preprocess(image, config)), fit, config)


def evaluate_depth(predict: Predict, config: ModelConfig, frames: Iterable[RGBDFrame]) -> dict[str, float]:
    """Depth metrics: the mean over images of each image's metric, and `delta1_ci95`, half a 95 % interval of delta1.

    Raises:
        ValueError: a frame without true depth, or no frame at all.
    """
    rows = []
    for frame in frames:
        if frame.depth is None:
            raise ValueError(f"frame {frame.name!r} has no true depth; accuracy needs a data set with depth")
        rows.append(metrics(predict_depth(predict, config, frame).metres, frame.depth))
    if not rows:
        raise ValueError("the data set is empty; nothing to evaluate")
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    spread = np.std([row["delta1"] for row in rows], ddof=min(1, len(rows) - 1))
    return means | {"delta1_ci95": float(1.96 * spread / np.sqrt(len(rows))), "frames": float(len(rows))}

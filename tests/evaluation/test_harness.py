"""The harness scores what the node would publish, in the source's own pixels and metres."""

from __future__ import annotations

import numpy as np
import pytest

from perception.evaluation.frames import RGBDFrame
from perception.evaluation.harness import evaluate_depth, predict_depth
from perception.tasks.config import ModelConfig, Output
from perception.tasks.geometry import Camera

CONFIG = ModelConfig(
    name="t", task="depth", input_size=(32, 32), outputs=(Output("depth", (1, 1, 32, 32), "m"),), focal=(0.9, 1.2)
)
CAMERA = Camera(64, 48, 0.9 * 64, 1.2 * 48, 31.5, 23.5)


def brightness(image: np.ndarray) -> dict[str, np.ndarray]:
    assert image.shape == (1, 32, 32, 3) and image.dtype == np.uint8
    return {"depth": image.mean(axis=3, dtype=np.float32)[:, None] / 10}


def frame(value: int, depth: float, camera: Camera = CAMERA) -> RGBDFrame:
    rgb = np.full((camera.height, camera.width, 3), value, np.uint8)
    return RGBDFrame(rgb, np.full((camera.height, camera.width), depth, np.float32), camera)


def test_means_over_frames() -> None:
    scores = evaluate_depth(brightness, CONFIG, [frame(20, 2.0), frame(20, 4.0)])
    assert scores["rmse"] == pytest.approx(1.0) and scores["delta1"] == 0.5 and scores["frames"] == 2
    assert scores["delta1_ci95"] == pytest.approx(1.96 * np.std([1, 0], ddof=1) / np.sqrt(2))


def test_half_the_field_of_view_leaves_the_metres() -> None:
    """Through twice the focal length a network that answers in angles says half, and the lens rule doubles it."""
    narrow = Camera(64, 48, 2 * CAMERA.fx, 2 * CAMERA.fy, 31.5, 23.5)
    wide_depth = predict_depth(brightness, CONFIG, frame(40, 4.0)).metres
    narrow_depth = predict_depth(lambda image: brightness(image // 2), CONFIG, frame(40, 4.0, narrow)).metres
    assert np.allclose(wide_depth, narrow_depth)


def test_depth_is_needed() -> None:
    with pytest.raises(ValueError, match="'a' has no true depth"):
        evaluate_depth(brightness, CONFIG, [RGBDFrame(np.zeros((4, 4, 3), np.uint8), name="a")])
    with pytest.raises(ValueError, match="empty"):
        evaluate_depth(brightness, CONFIG, [])

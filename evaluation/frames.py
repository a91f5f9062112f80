"""The frame that every data set of images with depth yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perception.tasks.geometry import Camera


@dataclass(frozen=True)
class RGBDFrame:
    """An image and, as far as they are known, its depth, camera, pose and time.

    `rgb` is uint8 of shape (height, width, 3); `depth` float32 metres along camera Z of the same height and width, NaN
    where unknown; `pose` camera to world, float64 4x4, metres, optical frame; `stamp` seconds.
    """

    rgb: np.ndarray
    depth: np.ndarray | None = None
    camera: Camera | None = None
    pose: np.ndarray | None = None
    stamp: float | None = None
    name: str = ""

"""A scene of known geometry: a papered wall with a box before it, seen from six places."""

from __future__ import annotations

import cv2
import numpy as np

from perception.tasks.geometry import Camera
from perception.tasks.poses import pose_of
from perception.training.view_data import Scene

SIDE = 32
CAMERA = Camera(SIDE, SIDE, 32.0, 32.0, 15.5, 15.5)
NAMES = ("image", "camera", "seen_depth", "instances", "own", "pose", "lens", "views", "depths", "masks")
"""Of what a batch consists of."""


def scene(seed: int) -> Scene:
    """Wall at 3 m, a square of 1 m at 2 m; colours by seed."""
    paper = np.random.default_rng(seed).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    paper = cv2.resize(paper, (240, 240), interpolation=cv2.INTER_CUBIC)
    poses = [pose_of((0.1 * (number - 2), 0.03 * number, 0), (0, 0.02 * number, 0, 1)) for number in range(6)]
    seen = [_seen(paper, pose) for pose in poses]
    images, depths, masks = (np.stack(values) for values in zip(*seen, strict=True))
    return Scene(images, depths, masks, np.stack(poses), CAMERA)


def _seen(paper: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns, rows = CAMERA.rays()
    rays = np.stack(np.broadcast_arrays(columns, rows[:, None], np.float32(1)), axis=-1) @ pose[:3, :3].T
    depth, point = [], []
    for wall in (2.0, 3.0):
        depth.append((wall - pose[2, 3]) / rays[..., 2])
        point.append(pose[:3, 3] + depth[-1][..., None] * rays)
    near = (np.abs(point[0][..., :2]) < 0.5).all(axis=-1)
    metres = np.where(near, depth[0], depth[1])
    where = np.where(near[..., None], point[0], point[1])
    u, v = (where[..., axis].astype(np.float32) * 40 + 120 for axis in (0, 1))
    image = cv2.remap(paper, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.where(near[..., None], 255 - image, image), metres.astype(np.float32), near.astype(np.uint8)

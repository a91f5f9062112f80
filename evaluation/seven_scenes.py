"""7-Scenes (Shotton et al., CVPR 2013): Kinect recordings whose depth is registered to the colour camera here.

The data set gives no calibration between its two cameras. The values below are the ones customary for the first Kinect:
registered by them, depth edges lie on colour edges far better than as they come, but not to the pixel, so that accuracy
measured on these frames is indicative. For replay; not for training.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from perception.evaluation.frames import Dataset, RGBDFrame
from perception.tasks.geometry import Camera
from perception.tasks.poses import translated
from perception.tasks.warping import warp_depth

FPS = 30.0
COLOR_CAMERA = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
BASELINE = np.array([0.025, 0.0, 0.0])
"""Where the colour camera stands in the depth camera's optical frame, metres: to its right. The axes are parallel."""
INVALID_CODES = (0, 65535)
REGISTRATION = (
    "indicative: depth registered to colour by the customary calibration of the first Kinect "
    "(depth focal length 585, colour 525 pixels, baseline 25 mm), not by one of this device"
)


class SevenScenes(Dataset[RGBDFrame]):
    """A sequence: frame-NNNNNN.color.jpg or .png, .depth.png (16 bit millimetres), .pose.txt (camera to world, metres).

    Raises:
        FileNotFoundError: no frames in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.images = sorted(folder.glob("frame-*.color.*"))
        if not self.images:
            raise FileNotFoundError(f"{folder} holds no frames of 7-Scenes; expected frame-000000.color.jpg and so on")
        intrinsics = folder / "camera-intrinsics.txt"
        k = np.loadtxt(intrinsics) if intrinsics.exists() else np.array([[585, 0, 320], [0, 585, 240], [0, 0, 1]])
        self.depth_camera = Camera(640, 480, k[0, 0], k[1, 1], k[0, 2], k[1, 2])
        self.camera, self.fps = COLOR_CAMERA, FPS

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether a folder looks like a sequence."""
        return next(folder.glob("frame-*.color.*"), None) is not None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sequence(self) -> bool:
        """30 frames a second of a hand-held camera."""
        return True

    @cached_property
    def poses(self) -> np.ndarray:
        """Of the colour camera in the world, float64 (N, 4, 4); NaN where a frame has none."""
        poses = [self._pose(index) for index in range(len(self))]
        return np.stack([np.full((4, 4), np.nan) if pose is None else pose for pose in poses])

    def label(self, index: int) -> str:
        """E.g. "frame-000000"."""
        return self.images[index].name.partition(".")[0]

    def files(self, index: int) -> tuple[Path, ...]:
        """Image, depth and pose."""
        stem = self.images[index].with_name(self.label(index))
        return self.images[index], Path(f"{stem}.depth.png"), Path(f"{stem}.pose.txt")

    def __getitem__(self, index: int) -> RGBDFrame:
        """Frame `index` as the colour camera saw it, with its depth and its pose; `stamp` counts from zero at 30 Hz.

        Raises:
            ValueError: a file of the frame is missing or damaged.
        """
        path = self.images[index]
        stem = path.with_name(path.name.partition(".")[0])
        color = cv2.imread(str(path), cv2.IMREAD_COLOR)
        codes = cv2.imread(f"{stem}.depth.png", cv2.IMREAD_UNCHANGED)
        if color is None or codes is None or codes.dtype != np.uint16 or codes.shape != color.shape[:2]:
            raise ValueError(f"{stem}.color and .depth.png are not a pair of 640x480 images; restore the files")
        metres = np.where(np.isin(codes, INVALID_CODES), np.nan, codes / 1000.0)
        depth = warp_depth(metres, self.depth_camera, self.camera, translated(BASELINE))
        stamp = (index % len(self)) / FPS
        rgb = cv2.cvtColor(color, cv2.COLOR_BGR2RGB)
        return RGBDFrame(rgb, depth, self.camera, self._pose(index % len(self)), stamp, name=stem.name)

    def _pose(self, index: int) -> np.ndarray | None:
        path = self.files(index)[2]
        return np.loadtxt(path) @ translated(BASELINE) if path.exists() else None

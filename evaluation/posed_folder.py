"""Images with cameras and poses, as NeRF's transforms.json and as COLMAP's text files say them.

NeRF (Mildenhall et al., ECCV 2020) and its successors write poses camera to world with OpenGL's axes (x right, y up, z
backward), COLMAP (Schönberger and Frahm, CVPR 2016) world to camera with those of an optical frame. Neither says how
long a unit of the scene is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.evaluation.frames import Dataset, RGBDFrame
from perception.evaluation.layouts import split_names
from perception.evaluation.rgbd_folder import IMAGE_SUFFIXES
from perception.tasks.geometry import Camera
from perception.tasks.poses import inverse, pose_of

TO_OPTICAL = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenGL's axes in an optical frame's, and the other way round."""
COLMAP_CAMERAS: Mapping[str, tuple[int, int, int, int]] = {"SIMPLE_PINHOLE": (0, 0, 1, 2), "PINHOLE": (0, 1, 2, 3)}
"""Where fx, fy, cx and cy stand among the parameters of a model; the others have distortion."""
DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
COLMAP_FOLDERS = (".", "sparse/0", "sparse", "colmap/sparse/0")
WHITE = 255


@dataclass(frozen=True)
class Shot:
    """An image file, its camera (None: a field of view that is told, of whatever size it has) and its pose."""

    path: Path
    camera: Camera | None
    pose: np.ndarray
    angle: float = math.nan
    """Horizontal field of view in radians, where there is no camera."""


class PosedFolder(Dataset[RGBDFrame]):
    """The images of a split, or all of them where there are no splits.

    Raises:
        ValueError: no such split, or files that are not as they should be.
    """

    def __init__(self, root: Path, split: str = "eval") -> None:
        found = self.find(root, split)
        if found is None:
            raise ValueError(
                f"{root} has no split {split!r}; expected transforms_{split}.json, transforms.json, or COLMAP's "
                "cameras.txt and images.txt there or in sparse/0"
            )
        self.name = f"{root.resolve().name} {split}" if "_" in found.name else root.resolve().name
        self.source = found
        self.shots = _transforms(found) if found.suffix == ".json" else _colmap(found, root)
        if not self.shots:
            raise ValueError(f"{found} names no image")
        self.poses = np.stack([shot.pose for shot in self.shots])

    @staticmethod
    def find(root: Path, split: str) -> Path | None:
        """The file of a split; None where there is none."""
        names = [f"transforms_{name}.json" for name in split_names(split)]
        for name in (*names, *(("transforms.json",) if split == "eval" else ())):
            if (root / name).is_file():
                return root / name
        for folder in COLMAP_FOLDERS if split == "eval" else ():
            if (root / folder / "cameras.txt").is_file() and (root / folder / "images.txt").is_file():
                return root / folder / "images.txt"
        return None

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether there is such a file, of whichever split."""
        return any(cls.find(root, split) for split in ("eval", "train"))

    def __len__(self) -> int:
        return len(self.shots)

    def label(self, index: int) -> str:
        """The file's name without its suffix."""
        return self.shots[index].path.stem

    def files(self, index: int) -> tuple[Path, ...]:
        """The image, and what says its pose."""
        return self.shots[index].path, self.source

    def __getitem__(self, index: int) -> RGBDFrame:
        shot = self.shots[index]
        rgb = _read_on_white(shot.path)
        height, width = rgb.shape[:2]
        camera = shot.camera
        if camera is None:
            focal = width / 2 / math.tan(shot.angle / 2)
            camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        if (camera.height, camera.width) != (height, width):
            camera = camera.resized(width, height)  # images are often kept at half or a quarter of their size
        return RGBDFrame(rgb, None, camera, shot.pose, name=self.label(index))


def _read_on_white(path: Path) -> np.ndarray:
    """An image, uint8 RGB; white shines through where it is transparent, as NeRF has it."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8:
        raise ValueError(f"{path} is not a readable image of 8 bits; remove or restore it")
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 4:
        share = pixels[..., 3:].astype(np.float32) / 255
        pixels = np.rint(pixels[..., :3] * share + WHITE * (1 - share)).astype(np.uint8)
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_BGR2RGB)


def _transforms(path: Path) -> list[Shot]:
    try:
        content = json.loads(path.read_text())
        return [_transform(path, {**content, **frame}) for frame in content["frames"]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not say poses as NeRF's files do ({type(error).__name__}: {error}); expected camera_angle_x, "
            "or fl_x, fl_y, cx, cy, w and h, and frames with file_path and transform_matrix"
        ) from error


def _transform(path: Path, values: Mapping[str, Any]) -> Shot:
    """Of a frame, for which `values` of the whole file hold where it has none of its own."""
    pose = np.asarray(values["transform_matrix"], np.float64) @ TO_OPTICAL
    if pose.shape != (4, 4):
        raise ValueError(f"transform_matrix of {values['file_path']} is not 4x4")
    image = path.parent / values["file_path"]
    if image.suffix.lower() not in IMAGE_SUFFIXES:
        image = next((file for suffix in IMAGE_SUFFIXES if (file := Path(f"{image}{suffix}")).is_file()), image)
    if any(values.get(name) for name in DISTORTION):
        raise ValueError(f"the camera of {values['file_path']} has distortion; undistort the images first")
    if "fl_x" not in values:
        return Shot(image, None, pose, float(values["camera_angle_x"]))
    width, height, focal = int(values["w"]), int(values["h"]), float(values["fl_x"])
    # Pixel centres lie at half numbers there.
    middle = float(values.get("cx", width / 2)) - 0.5, float(values.get("cy", height / 2)) - 0.5
    return Shot(image, Camera(width, height, focal, float(values.get("fl_y", focal)), *middle), pose)


def _colmap(path: Path, root: Path) -> list[Shot]:
    """Of images.txt, which has two lines for each image, the second one about points."""
    try:
        cameras = {}
        for words in filter(None, _lines(path.with_name("cameras.txt"))):
            place = COLMAP_CAMERAS[words[1]]
            fx, fy, cx, cy = (float(words[4:][number]) for number in place)
            cameras[words[0]] = Camera(int(words[2]), int(words[3]), fx, fy, cx - 0.5, cy - 0.5)
        shots = []
        for words in _lines(path)[::2]:
            w, *xyz = map(float, words[1:5])
            pose = inverse(pose_of([float(word) for word in words[5:8]], (*xyz, w)))
            shots.append(Shot(_image(root, " ".join(words[9:])), cameras[words[8]], pose))
        return sorted(shots, key=lambda shot: shot.path.name)
    except (KeyError, IndexError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} and cameras.txt do not say poses as COLMAP's text files do ({type(error).__name__}: {error}); "
            f"accepted cameras: {', '.join(COLMAP_CAMERAS)}, as its image_undistorter writes them"
        ) from error


def _lines(path: Path) -> list[list[str]]:
    """Words of each line that is no comment; a line of points may be empty."""
    return [line.split() for line in path.read_text().splitlines() if not line.startswith("#")]


def _image(root: Path, name: str) -> Path:
    return root / "images" / name if (root / "images").is_dir() else root / name

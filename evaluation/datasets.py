"""Data sets of images with true depth, behind one small protocol. Paths come from the user; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from perception.evaluation.frames import RGBDFrame
from perception.evaluation.rgbd_folder import RGBDFolder
from perception.evaluation.seven_scenes import SevenScenes
from perception.tasks.geometry import Camera


class Dataset(Protocol):
    """A sequence of frames with true depth."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RGBDFrame: ...

    def __iter__(self) -> Iterator[RGBDFrame]: ...


class NYUDepth:
    """NYU Depth v2 (Silberman et al., ECCV 2012) as folders `split/rgb`, `split/depth` of images with equal names.

    Depth is 8 bit: metres = (code + 0.5) / 25.5. A white frame surrounds each photograph, so every map is cut to rows
    45..470 and columns 40..600. The maps are mirrored left-right alike, and so is the principal point.
    """

    ROWS, COLUMNS = slice(45, 471), slice(40, 601)
    CAMERA = Camera(640, 480, 518.8579, 519.4696, 639 - 325.5824, 253.7362).cropped(40, 45, 561, 426)

    def __init__(self, root: Path, split: str) -> None:
        self.paths = sorted((root / split / "rgb").glob("*.*"))
        self.depth = root / split / "depth"
        if not self.paths:
            raise ValueError(
                f"no images in {root / split / 'rgb'}; expected NYU Depth v2 as <root>/<split>/rgb and depth"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> RGBDFrame:
        path = self.paths[index]
        rgb = cv2.imread(str(path), cv2.IMREAD_COLOR)
        codes = cv2.imread(str(self.depth / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        if rgb is None or codes is None:
            raise ValueError(f"{path} or its depth cannot be read as an image; restore the file")
        rgb = cv2.cvtColor(rgb[self.ROWS, self.COLUMNS], cv2.COLOR_BGR2RGB)
        metres = (codes[self.ROWS, self.COLUMNS].astype(np.float32) + 0.5) / 25.5
        return RGBDFrame(rgb=rgb, depth=metres, camera=self.CAMERA, name=path.stem)

    def __iter__(self) -> Iterator[RGBDFrame]:
        return (self[index] for index in range(len(self)))


def open_dataset(path: Path, split: str = "eval") -> Dataset:
    """The data set at `path`, recognised by its layout.

    Raises:
        ValueError: no known layout; the message lists those that are known.
    """
    if (path / split / "rgb").is_dir() and (path / split / "depth").is_dir():
        return NYUDepth(path, split)
    if SevenScenes.is_at(path):
        return SevenScenes(path)
    if (path / "rgb").is_dir() and (path / "camera.json").is_file():
        return RGBDFolder(path)
    raise ValueError(
        f"{path} holds no known data set; accepted: NYU Depth v2 as {path}/{split}/rgb and depth, "
        "a folder of RGB-D frames as rgb/, depth/ and camera.json, or of 7-Scenes"
    )

"""Where the files of data sets lie: folders of images beside folders of what is true of them, and names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from perception.evaluation.rgbd_folder import IMAGE_SUFFIXES

SPLITS = {"eval": ("eval", "val", "valid", "test"), "train": ("train",)}
"""What the folders or lists of a split may be called, the ones to be preferred first."""
NAMES = ("labels.txt", "classes.txt")
"""Files that may say what the classes are called, one a line."""
Layout = tuple[str, str]
"""Folders of images and of truth below a root; "{}" stands for a split."""


def split_names(split: str) -> tuple[str, ...]:
    """What a split may be called; one that is not among `SPLITS` by its own name only."""
    return SPLITS.get(split, (split,))


def find_folders(root: Path, split: str, layouts: Sequence[Layout], truth: str) -> tuple[Path, Path] | None:
    """The folders of images and of truth of a split, where the latter holds a file that is called like `truth`, such as
    "*.txt"; None where there are none.
    """
    for name in split_names(split):
        for layout in layouts:
            images, files = (root / place.format(name) for place in layout)
            if images.is_dir() and files.is_dir() and next(files.glob(truth), None):
                return images, files
    return None


def described(layouts: Sequence[Layout], split: str) -> str:
    """The layouts as a message tells them."""
    return " or ".join(f"{images} with {files}" for images, files in layouts).replace("{}", split)


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, sorted.

    Raises:
        ValueError: there are none.
    """
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise ValueError(f"{folder} holds no image; accepted: {', '.join(IMAGE_SUFFIXES)}")
    return images


def read_rgb(path: Path) -> np.ndarray:
    """An image file, uint8 RGB (height, width, 3).

    Raises:
        ValueError: it is none.
    """
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"{path} is not a readable image; remove or restore it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_labels(folder: Path) -> tuple[str, ...] | None:
    """Class names of the first file of `NAMES` in a folder; None where there is none."""
    for path in (folder / name for name in NAMES):
        if path.is_file():
            return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    return None

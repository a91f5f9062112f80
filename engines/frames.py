"""Real frames for calibration and parity: never the same ones for both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from perception.engines.errors import EngineError
from perception.tasks import typical
from perception.tasks.config import ModelConfig
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess
from perception.tasks.resources import share

SUFFIXES = (".jpg", ".jpeg", ".png")
SHIPPED = "clip/rgb"
PARITY_FRAMES = 16
CALIBRATION_FRAMES = 32


def find_frames(folder: Path | None = None) -> list[Path]:
    """Image files of a folder, sorted by name; of the shipped clip if no folder is given.

    Raises:
        EngineError: no such folder, or too few images in it.
    """
    try:
        folder = Path(folder) if folder else share(SHIPPED)
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise EngineError(f"no frames for parity and calibration: {error}; name a folder with --frames") from error
    if len(paths) < 2 * PARITY_FRAMES:
        raise EngineError(
            f"{folder} has {len(paths)} images ({', '.join(SUFFIXES)}); at least {2 * PARITY_FRAMES} are needed, half "
            "of them for calibration and half for parity"
        )
    return paths


def split(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(calibration, parity): evenly spread over the whole, of even and of odd places."""
    return _spread(paths[0::2], CALIBRATION_FRAMES), _spread(paths[1::2], PARITY_FRAMES)


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    places = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[place] for place in places]


def load_frames(paths: Sequence[Path], config: ModelConfig) -> list[np.ndarray]:
    """The network's input for each image file: uint8 (1, height, width, 3). The shipped clip is made `typical`.

    Raises:
        EngineError: a file is not an image.
    """
    frames = []
    for number, path in enumerate(paths):
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if pixels is None:
            raise EngineError(f"{path} is not an image that OpenCV reads; remove it from the folder")
        if _is_shipped(path):
            pixels = typical(config.task, pixels, number)
        image = Image(pixels, "bgr8")
        frames.append(preprocess(image, config, Fit.of(image.size, config)))
    return frames


def _is_shipped(path: Path) -> bool:
    try:
        return path.parent == share(SHIPPED)
    except FileNotFoundError:  # an installation without the clip
        return False

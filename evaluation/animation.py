"""Animations of pictures, as GIF, which every browser shows. Needs Pillow; callers say so where it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_animation(path: Path, pictures: Sequence[np.ndarray], seconds: float) -> None:
    """Write an animation that goes around for ever.

    Args:
        pictures: uint8 RGB (height, width, 3), all of one size.
        seconds: how long each of them is shown; GIF counts in hundredths.

    Raises:
        ImportError: Pillow is not installed.
    """
    from PIL import Image

    first, *others = (Image.fromarray(picture) for picture in pictures)
    first.save(path, save_all=True, append_images=others, duration=round(1000 * seconds), loop=0)

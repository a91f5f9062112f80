"""Colours of classes in pictures."""

from __future__ import annotations

import re
from functools import lru_cache

import cv2
import numpy as np

from perception.tasks.labels import chosen


@lru_cache(maxsize=64)  # every frame asks again
def palette(count: int) -> np.ndarray:
    """A colour for each of `count` classes, BGR uint8 (count, 3): neighbours differ clearly."""
    hues = (np.arange(count) * 180 * 0.618034) % 180  # the golden ratio never comes back to where it was
    pixels = np.stack([hues, np.full(count, 200), np.full(count, 255)], 1).astype(np.uint8).reshape(1, -1, 3)
    result = cv2.cvtColor(pixels, cv2.COLOR_HSV2BGR)[0] if count else pixels[0]
    result.flags.writeable = False
    return result


@lru_cache(maxsize=64)
def class_colors(text: str, labels: tuple[str, ...]) -> np.ndarray:
    """`palette` of the labels, some of them replaced; BGR uint8 (labels, 3).

    Args:
        text: "road=#804080, person=#dc143c": names as in `labels`, red, green and blue in hexadecimal.

    Raises:
        ValueError: a name that is none of `labels`, or no such colour.
    """
    result = palette(len(labels)).copy()
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, color = (piece.strip() for piece in part.rpartition("="))
        if not re.fullmatch("#[0-9a-fA-F]{6}", color) or not name:
            raise ValueError(f"{part!r} gives no class a colour; write name=#rrggbb, several separated by commas")
        result[chosen(name, labels)] = list(bytes.fromhex(color[1:]))[::-1]
    result.flags.writeable = False
    return result

"""Semantic segmentation: results, parity and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from perception.tasks.config import ModelConfig
from perception.tasks.geometry import Fit
from perception.tasks.image import resize
from perception.tasks.labels import UNLABELED, UNUSED

PARITY_BOUNDS: Mapping[str, float] = {"fp32": 0.001, "fp16": 0.005, "bf16": 0.03, "int8": 0.08}
"""Largest accepted `disagreement` with the float32 definition, frame by frame. int8 has 0.058 of 39 classes of rooms,
which are seldom sure, and loses nothing of their mIoU."""
ACCURACY_DROPS: Mapping[str, float] = {"fp32": 0.001, "fp16": 0.003, "bf16": 0.005, "int8": 0.01}
"""Largest accepted loss of mIoU against the float32 definition, over a data set."""
TIED = 0.2
"""What a pixel counts at least in `disagreement` where two engines say different classes: rounding decides few."""


@dataclass(frozen=True)
class Segmentation:
    """The class of every pixel of an image.

    `mask` is uint8 (height, width) in the original image's pixels: places in the config's `labels`, or UNLABELED;
    `confidence` uint8 of the same shape: 255 times the probability of that class.
    """

    mask: np.ndarray
    confidence: np.ndarray


def parse(
    outputs: Mapping[str, np.ndarray],
    fit: Fit,
    config: ModelConfig,
    classes: np.ndarray | None = None,
    out: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> Segmentation:
    """The classes of the source's pixels: of each the one that the network's nearest pixel has.

    Args:
        outputs: "mask" and "confidence", uint8 (1, h, w).
        fit: how the source was laid into the network's input; undone here.
        classes: bool (classes,), which of `config.labels` count; the others become UNLABELED. None: all of them.
        out: arrays of the source's shape where mask and confidence may go.
    """
    mask, confidence = (fit.covered(outputs[name].reshape(outputs[name].shape[-2:])) for name in ("mask", "confidence"))
    mask = cv2.LUT(mask, _renaming(config.labels, None if classes is None else classes.tobytes()))
    placed = resize(confidence, fit.source, "nearest", out[1])
    if placed is confidence:  # which is the engine's
        placed = confidence.copy()
    return Segmentation(resize(mask, fit.source, "nearest", out[0]), placed)


@lru_cache(maxsize=64)  # every frame asks again
def _renaming(labels: tuple[str, ...], classes: bytes | None) -> np.ndarray:
    """What becomes of every id: itself, or UNLABELED; uint8 (256,)."""
    if len(labels) > UNLABELED:
        raise ValueError(f"a mask of bytes tells {UNLABELED} classes apart, and the model has {len(labels)}")
    counts = np.array([label != UNUSED for label in labels])
    if classes is not None:
        counts &= np.frombuffer(classes, bool)
    result = np.full(256, UNLABELED, np.uint8)
    result[: len(labels)][counts] = np.flatnonzero(counts)
    return result


def disagreement(
    reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray], config: ModelConfig
) -> float:
    """How much probability at least must have moved from class to class, as a share of what both are sure of at most.

    Where both name the same class, that is the difference of their confidences. Where one says k with confidence c, and
    the other says something else with confidence d, the other gives k no more than d and no more than 1 - d: so
    c - min(d, 1 - d) has moved, or as much seen from the other side. A pixel that changes from one sure class to
    another counts in full; one where two classes are as good as tied, and rounding decides, for `TIED` of its
    confidence, so that a network that is sure of nothing cannot hide wrong masks.
    """
    if any(reference[name].shape != candidate[name].shape for name in ("mask", "confidence")):
        return float("inf")
    c, d = (side["confidence"].astype(np.float32) / 255 for side in (reference, candidate))
    moved = np.maximum(c - np.minimum(d, 1 - d), d - np.minimum(c, 1 - c))
    most = np.maximum(c, d)
    apart = np.where(reference["mask"] == candidate["mask"], np.abs(c - d), np.maximum(moved, TIED * most))
    return float(apart.sum() / max(float(most.sum()), 1.0))


def colorize(mask: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """A picture of a mask: BGR uint8 (height, width, 3), black where there is no class.

    Args:
        colors: BGR uint8 (classes, 3); see `perception.tasks.colors`.
    """
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(colors), 0] = colors
    return cv2.LUT(cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR), table)


def overlay(image: np.ndarray, mask: np.ndarray, colors: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """`image` (BGR uint8 of the mask's size) blended with the coloured mask; what has no class stays as it is."""
    blended = cv2.addWeighted(image, 1 - opacity, colorize(mask, colors), opacity, 0)
    return cv2.copyTo(image, cv2.compare(mask, UNLABELED, cv2.CMP_EQ), blended)

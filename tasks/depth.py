"""Monocular metric depth: results, parity and pictures. Its metrics are in `depth_metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from perception.tasks.config import ModelConfig
from perception.tasks.geometry import Camera, Fit
from perception.tasks.image import resize

PARITY_BOUNDS: Mapping[str, float] = {"fp32": 0.002, "fp16": 0.01, "bf16": 0.03, "int8": 0.05}
"""Largest accepted mean relative difference to the float32 definition, frame by frame."""
ACCURACY_DROPS: Mapping[str, float] = {"fp32": 0.001, "fp16": 0.003, "bf16": 0.01, "int8": 0.01}
"""Largest accepted loss of delta1 against the float32 definition, over a data set."""


@dataclass(frozen=True)
class Depth:
    """A depth map in the original image's pixels.

    `metres` is float32 of shape (height, width) along camera Z (REP 118): NaN invalid, +Inf too far, -Inf too close
    (REP 117). `camera` is None where the image came without a calibration; then points cannot be computed.
    """

    metres: np.ndarray
    camera: Camera | None


def parse(
    outputs: Mapping[str, np.ndarray],
    fit: Fit,
    config: ModelConfig,
    min_depth: float = 0.0,
    max_depth: float = float("inf"),
    out: np.ndarray | None = None,
) -> Depth:
    """Depth in metres behind the source's camera, at the source's resolution.

    Args:
        outputs: "depth", float32 of shape (1, 1, h, w), metres behind the training camera.
        fit: how the source was laid into the network's input; undone here.
        min_depth, max_depth: metres; what lies outside becomes -Inf and +Inf.
        out: float32 of the source's shape, where the result may go.
    """
    small = fit.covered(outputs["depth"].reshape(outputs["depth"].shape[-2:])) * np.float32(fit.depth_scale)
    metres = resize(small, fit.source, out=out)
    # Not finite or not positive: the network says nothing there. Interpolation never leaves the range of the small map,
    # which tells sooner whether any such pixel exists.
    low, high = float(small.min()), float(small.max())
    if not (low > min_depth and high <= max_depth):
        metres = _mark_range(metres, min_depth, max_depth)
    return Depth(metres, fit.camera)


def _mark_range(metres: np.ndarray, min_depth: float, max_depth: float) -> np.ndarray:
    marked = metres.copy()
    marked[metres > max_depth] = np.inf
    marked[metres < min_depth] = -np.inf
    marked[~(metres > 0)] = np.nan
    return marked


def disagreement(
    reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray], config: ModelConfig
) -> float:
    """Mean of |candidate - reference| / reference where the reference is positive; Inf if any pixel is not finite."""
    expected, got = reference["depth"], candidate["depth"]
    if expected.shape != got.shape or not np.isfinite(got).all():
        return float("inf")
    valid = expected > 1e-3
    if not valid.any():
        return float(np.abs(got).max())
    return float(np.mean(np.abs(got[valid] - expected[valid]) / expected[valid]))


def without_edges(metres: np.ndarray, threshold: float) -> np.ndarray:
    """Depth with NaN where it differs from the right or lower neighbour's by more than `threshold` times itself.

    A network's depth is smooth across the edges of objects; back-projected, such pixels hang in mid-air.
    """
    with np.errstate(invalid="ignore"):  # Inf - Inf
        across = np.abs(np.diff(metres, axis=1)) > threshold * metres[:, 1:]
        down = np.abs(np.diff(metres, axis=0)) > threshold * metres[1:]
    result = metres.copy()
    result[:, 1:][across] = np.nan
    result[1:][down] = np.nan
    return result


def colorize(metres: np.ndarray, near: float = 0.5, far: float = 8.0) -> np.ndarray:
    """A picture of depth: BGR uint8 of shape (height, width, 3), near warm, far cool; not finite is black.

    Colours follow log depth between `near` and `far` metres, so that they mean the same in every frame.
    """
    finite = np.isfinite(metres)
    far = max(far, 1.01 * near)  # of a flat scene
    clipped = np.clip(np.where(finite, metres, far), near, far)
    position = np.log(clipped / near) / np.log(far / near)
    picture = cv2.applyColorMap((255 * (1 - position)).astype(np.uint8), cv2.COLORMAP_TURBO)
    picture[~finite] = 0
    return picture


def overlay(image: np.ndarray, depth: Depth, opacity: float = 0.5) -> np.ndarray:
    """`image` (BGR uint8 of the depth's size) blended with the coloured depth."""
    return cv2.addWeighted(image, 1 - opacity, colorize(depth.metres), opacity, 0)

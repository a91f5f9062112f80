"""How right a novel view is: depth, where objects are, and whether what was seen lies where it should.

PSNR and SSIM are those of `enhancement_metrics`. Views are compared as nodes publish them, all pixels counting.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

FEATURES = 500
"""Points of an image that are matched at most."""
CONTRAST = 0.02
"""Of SIFT's points: half of what it asks for by itself, since small images have few."""
RATIO = 0.8
"""Largest distance of the best match's descriptor over the second best's (Lowe, IJCV 2004)."""
HIT = 0.04
"""Share of the image's width within which a point lies where it should: 5 pixels of 128."""
FEWEST = 8
"""Points by which a view is judged at least."""


def placement_iou(mask: np.ndarray, target: np.ndarray) -> float:
    """Intersection over union of where objects are and where they should be, both bool (height, width); NaN where there
    is none in either.

    Raises:
        ValueError: masks of other shapes.
    """
    if mask.shape != target.shape:
        raise ValueError(f"a mask of shape {mask.shape} cannot be held against one of shape {target.shape}")
    union = np.count_nonzero(mask | target)
    return float(np.count_nonzero(mask & target) / union) if union else float("nan")


def depth_errors(depth: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """`REL`, the mean of |depth - target| / target over the pixels where both are known, NaN where there is none; and
    `known`, the share of the target's known pixels of which the view says a depth.

    Raises:
        ValueError: maps of other shapes.
    """
    if depth.shape != target.shape:
        raise ValueError(f"depth of shape {depth.shape} cannot be held against one of shape {target.shape}")
    true = np.isfinite(target) & (target > 0)
    both = true & np.isfinite(depth)
    if not both.any():
        return {"REL": float("nan"), "known": 0.0 if true.any() else float("nan")}
    error = np.abs(depth[both] - target[both]) / target[both]
    return {"REL": float(error.mean()), "known": float(both.sum() / true.sum())}


@dataclass(frozen=True)
class Consistency:
    """Whether points of the input image are found in a view where they are in the true one.

    `hit_rate` is the share of the points found in the true view that are found in this one, too, within `HIT` of the
    image's width; `distance` the mean distance in shares of the width of those that are found in both. NaN where the
    true view has too few of the input's points, or for the distance where none is found in both.
    """

    hit_rate: float
    distance: float
    points: int


def consistency(source: np.ndarray, view: np.ndarray, target: np.ndarray) -> Consistency:
    """Matches of SIFT's points (Lowe, IJCV 2004) of the input in a view, held against those in the true one.

    MOVIS's measure with hand-made features in place of MASt3R's: only mutual nearest neighbours that pass Lowe's test.

    Args:
        source: the input image, uint8 RGB (height, width, 3).
        view, target: what was made, and what is true, of one shape.
    """
    if view.shape != target.shape:
        raise ValueError(f"a view of shape {view.shape} cannot be held against one of shape {target.shape}")
    points = _described(source)
    true, found = _matched(points, _described(target)), _matched(points, _described(view))
    if len(true) < FEWEST:
        return Consistency(float("nan"), float("nan"), len(true))
    gaps = np.array([np.linalg.norm(found[point] - true[point]) for point in true.keys() & found.keys()])
    gaps = gaps / target.shape[1]
    distance = float(gaps.mean()) if len(gaps) else float("nan")
    return Consistency(float((gaps < HIT).sum() / len(true)), distance, len(true))


def _described(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 2) and descriptors (N, 128) of points, float32."""
    sift = cv2.SIFT.create(nfeatures=FEATURES, contrastThreshold=CONTRAST)
    points, descriptors = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    places = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
    return places, np.zeros((0, 128), np.float32) if descriptors is None else descriptors


def _matched(points: tuple[np.ndarray, np.ndarray], others: tuple[np.ndarray, np.ndarray]) -> dict[int, np.ndarray]:
    """Of the points that are found among others: their numbers, and the places there."""
    (_, here), (places, there) = points, others
    if not len(here) or len(there) < 2:
        return {}
    # Squared distances, less what is the same for all of a point's candidates.
    apart = (here * here).sum(axis=1)[:, None] + (there * there).sum(axis=1) - 2 * here @ there.T
    best = apart.argmin(axis=1)
    first, second = np.partition(apart, 1, axis=1)[:, :2].T
    mutual = apart.argmin(axis=0)[best] == np.arange(len(here))
    good = np.flatnonzero(mutual & (first < RATIO**2 * second))
    return {int(number): places[best[number]] for number in good}

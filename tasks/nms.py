"""Non-maximum suppression in NumPy, class by class."""

from __future__ import annotations

import numpy as np

from perception.tasks.anchors import pairwise_iou

BLOCK = 128
"""Candidates that are compared with each other at once."""
FIRST = 1024
"""Candidates that are sorted at first. Most of a hundred boxes are found among them, and sorting all takes longer."""


def suppress(
    boxes: np.ndarray, owners: np.ndarray, scores: np.ndarray, classes: np.ndarray, threshold: float, limit: int
) -> np.ndarray:
    """Which of K candidates stay: the best `limit` of those that no better one of their class overlaps.

    The best candidate is taken, those of its class that overlap it by more than `threshold` are left out, and so on.
    Equal scores are ranked by class, then by box. That is also what is left of the best `limit` of each class, as
    TensorFlow's and ONNX's operators count.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        owners: (K,) which box a candidate's is, ascending within a class.
        scores, classes: (K,), finite.

    Returns:
        Their numbers (<= limit,), best first.
    """
    count = FIRST
    while True:
        order = _best(owners, scores, classes, count)
        kept = _greedy(boxes, owners, classes, order, threshold, limit)
        if len(kept) == limit or len(order) == len(scores):
            return kept
        count *= 8


def _best(owners: np.ndarray, scores: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the `count` best candidates and of those that equal the last of them, best first."""
    chosen = np.arange(len(scores))
    if len(scores) > count:
        chosen = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    return chosen[np.lexsort((owners[chosen], classes[chosen], -scores[chosen]))]


def _greedy(
    boxes: np.ndarray, owners: np.ndarray, classes: np.ndarray, order: np.ndarray, threshold: float, limit: int
) -> np.ndarray:
    kept = np.zeros(0, np.intp)
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        if len(kept):
            block = block[~_covers(boxes, owners, classes, kept, block, threshold).any(0)]
        covers = _covers(boxes, owners, classes, block, block, threshold)
        alive = np.ones(len(block), bool)
        for place in range(len(block)):
            if alive[place]:
                alive[place + 1 :] &= ~covers[place, place + 1 :]
        kept = np.concatenate([kept, block[alive]])
        if len(kept) >= limit:
            break
    return kept[:limit]


def _covers(
    boxes: np.ndarray, owners: np.ndarray, classes: np.ndarray, better: np.ndarray, worse: np.ndarray, threshold: float
) -> np.ndarray:
    """bool (len(better), len(worse)): of the same class, and overlapping by more than the threshold."""
    same = classes[better][:, None] == classes[worse][None]
    return same & (pairwise_iou(boxes[owners[better]], boxes[owners[worse]]) > threshold)

"""Anchor boxes of single-shot detectors (Liu et al., ECCV 2016) and the code in which boxes are told relative to them.

Boxes of this module are float32 (N, 4): centre x, centre y, width, height, as shares of the network's image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Shape = tuple[float, float]
"""Scale and aspect ratio (width / height) of an anchor."""
LONGEST = 20.0
"""Logarithm of the largest size, in anchors, that a code can ask for: the exponential of more is no number."""


def ssd_shapes(layers: int = 6, smallest: float = 0.2, largest: float = 0.95) -> tuple[tuple[Shape, ...], ...]:
    """The anchors of each place of each map in TensorFlow's SSD, in its order.

    Scales grow evenly from map to map. A map has the aspects 1, 2, 1/2, 3, 1/3 at its own scale, and 1 between its
    scale and the next one's; the first, whose places are many, has three.
    """
    scales = [smallest + (largest - smallest) * layer / (layers - 1) for layer in range(layers)] + [1.0]
    first: tuple[Shape, ...] = ((0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5))
    others = (
        (*((scale, aspect) for aspect in (1.0, 2.0, 0.5, 3.0, 0.3333)), (math.sqrt(scale * following), 1.0))
        for scale, following in zip(scales[1:], scales[2:], strict=False)
    )
    return (first, *others)


def ssd_grids(size: tuple[int, int], layers: int = 6, stride: int = 16) -> tuple[tuple[int, int], ...]:
    """(rows, columns) of each map for images of size = (height, width): each map is half the one before, rounded up."""
    height, width = (-(-length // stride) for length in size)
    grids = [(height, width)]
    while len(grids) < layers:
        height, width = -(-height // 2), -(-width // 2)
        grids.append((height, width))
    return tuple(grids)


def grid_anchors(grids: Sequence[tuple[int, int]], shapes: Sequence[Sequence[Shape]]) -> np.ndarray:
    """The anchors of all maps: map by map, row by row, column by column, and a place's anchors one after the other."""
    parts = []
    for (rows, columns), layer in zip(grids, shapes, strict=True):
        scales, roots = np.array([(scale, math.sqrt(aspect)) for scale, aspect in layer]).T
        y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
        anchors = np.empty((rows, columns, len(layer), 4))
        anchors[..., 0], anchors[..., 1] = x[..., None], y[..., None]
        anchors[..., 2], anchors[..., 3] = scales * roots, scales / roots
        parts.append(anchors.reshape(-1, 4))
    return np.concatenate(parts).astype(np.float32)


def encode(boxes: np.ndarray, anchors: np.ndarray, coder: Sequence[float]) -> np.ndarray:
    """Codes (N, 4) of boxes relative to anchors (N, 4): ty, tx, th, tw, each multiplied by its number in `coder`.

    Faster R-CNN's parametrisation (Ren et al., NeurIPS 2015, equation 2) in TensorFlow's order.
    """
    shift = (boxes[:, :2] - anchors[:, :2]) / anchors[:, 2:]
    growth = np.log(boxes[:, 2:] / anchors[:, 2:])
    return np.stack([shift[:, 1], shift[:, 0], growth[:, 1], growth[:, 0]], 1) * np.asarray(coder, np.float32)


def decode(codes: np.ndarray, anchors: np.ndarray, coder: Sequence[float]) -> np.ndarray:
    """The boxes (N, 4) of codes: the inverse of `encode`. What is not finite in a code is not finite in its box."""
    ty, tx, th, tw = (codes / np.asarray(coder, np.float32)).T
    boxes = [
        tx * anchors[:, 2] + anchors[:, 0],
        ty * anchors[:, 3] + anchors[:, 1],
        np.exp(np.minimum(tw, LONGEST)) * anchors[:, 2],
        np.exp(np.minimum(th, LONGEST)) * anchors[:, 3],
    ]
    return np.stack(boxes, 1).astype(np.float32)


def corners(boxes: np.ndarray) -> np.ndarray:
    """(N, 4) x1, y1, x2, y2 of boxes given by centre and size, in the same unit."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)


def pairwise_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union, float32 (N, M), of corner boxes (N, 4) and (M, 4); 0 where the union is empty."""
    common = pairwise_common(boxes, others)
    union = area(boxes)[:, None] + area(others)[None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def pairwise_common(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area (N, M) in which corner boxes (N, 4) and (M, 4) overlap."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.maximum(high - low, 0)
    return sides[..., 0] * sides[..., 1]


def area(boxes: np.ndarray) -> np.ndarray:
    """(N,) of corner boxes; 0 where a box ends before it begins."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]

"""Objects cut out of one frame and laid onto another: things on ground that they were never filmed on.

After Dwibedi et al., "Cut, Paste and Learn" (ICCV 2017), without their network for masks: what is filmed lies on ground
that is alike in and around its box, which tells which pixels are ground.
"""

from __future__ import annotations

import cv2
import numpy as np

from perception.evaluation.frames import BoxFrame
from perception.tasks.anchors import area, pairwise_common

TRIES = 20
"""Random places or crops that are tried before one goes without."""
RIM = 0.15
"""Of the ground around a box, as a share of the box's longer side, what is looked at and where it fades."""
HIDDEN = 0.2
"""Of the box of an object, the largest share that each pasted box may lie on."""
SCALES = 0.4, 2.0
"""How large what is pasted is beside what it was, at least and at most."""
LARGEST = 0.7
"""A pasted object's longest side, as a share of the frame's shorter one, at most."""
GROUND, OBJECT = 3.0, 5.0
"""Standard deviations from the ground's colour up to which a pixel is ground, and from which on it is not."""
FINEST = 64
"""Pixels of the longer side at which ground is told from object: enough for an outline."""
NOISE = 2.0
"""Standard deviation, in grey levels, that a camera gives ground which is all alike."""
LEAST_GROUND = 8
"""Pixels of ground that must be seen around an object."""
CLOSED = 0.04
"""Gaps in an object that are closed, as a share of its longer side to each side."""
FILLED = 0.12, 0.97
"""The share of its box that an object fills. Less or more means that it was not told from its ground."""


def paste(frame: BoxFrame, other: BoxFrame, rng: np.random.Generator) -> BoxFrame:
    """The frame with one object of another on it, of another size and at any angle; one that nothing else is near.

    Where the object cannot be told from its ground, it is laid down as it lies in its box, with a rim that fades. Where
    there is none, or no place where it hides little of the frame's own, the frame comes back as it is.
    """
    # What else there is around an object would come with it, and without its box.
    near = np.count_nonzero(pairwise_common(_rimmed(other.boxes), other.boxes), axis=1) > 1
    alone = np.flatnonzero(~other.ignore & ~near)
    if not len(alone):
        return frame
    chosen = int(rng.choice(alone))
    patch, cover, box = _cut_out(other, other.boxes[chosen].astype(float))
    angle = 360 * rng.uniform() if cover is not None else 0.0
    if cover is None:
        cover = _fading(patch.shape[:2], box)
    scale = min(
        SCALES[0] * (SCALES[1] / SCALES[0]) ** rng.uniform(),
        LARGEST * min(frame.rgb.shape[:2]) / np.hypot(*(box[2:] - box[:2])),
    )
    patch, cover, box = _turned(patch, cover, box, angle, scale)
    rows, columns = cover.shape
    height, width = frame.rgb.shape[:2]
    for _ in range(TRIES):
        # The box lies within the frame; its rim may not.
        x = round(rng.uniform(0, max(0, width - (box[2] - box[0]))) - box[0])
        y = round(rng.uniform(0, max(0, height - (box[3] - box[1]))) - box[1])
        placed = (box + (x, y, x, y)).clip(0, (width, height, width, height))
        if (
            not len(frame.boxes)
            or (pairwise_common(frame.boxes, placed[None])[:, 0] <= HIDDEN * area(frame.boxes)).all()
        ):
            break
    else:
        return frame
    rgb = frame.rgb.copy()
    low, high = (max(0, -x), max(0, -y)), (min(columns, width - x), min(rows, height - y))
    seen = np.s_[low[1] : high[1], low[0] : high[0]]
    under = rgb[y + low[1] : y + high[1], x + low[0] : x + high[0]]
    under[:] = under + (patch[seen] - under.astype(np.float32)) * cover[seen][..., None] + 0.5
    sure = [np.ones(len(one.boxes)) if one.scores is None else one.scores for one in (frame, other)]
    return BoxFrame(
        rgb,
        np.vstack([frame.boxes, placed]).astype(np.float32),
        np.append(frame.labels, other.labels[chosen]),
        np.append(frame.ignore, False),
        scores=np.append(sure[0], sure[1][chosen]).astype(np.float32),
        name=frame.name,
    )


def find_cover(patch: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """How much of each pixel is an object rather than the ground around it, float32 (H, W) from 0 to 1.

    Ground is what has the colours that lie around the box, about as far from the median as these are.

    Args:
        patch: uint8 (H, W, 3) RGB, the object with ground around it.
        box: x1, y1, x2, y2 of the object in it.

    Returns:
        None where that does not tell them apart.
    """
    height, width = patch.shape[:2]
    shrink = min(1.0, FINEST / max(height, width))
    columns, rows = (max(1, round(side * shrink)) for side in (width, height))
    small = cv2.resize(patch, (columns, rows), interpolation=cv2.INTER_AREA)
    colors = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2Lab), (0, 0), 0.8).astype(np.float32)
    outside = np.ones((rows, columns), bool)
    x1, y1, x2, y2 = np.round(box * shrink).astype(int)
    outside[max(0, y1) : y2, max(0, x1) : x2] = False
    ground = colors[outside]
    if len(ground) < LEAST_GROUND:
        return None
    spread = np.linalg.inv(np.cov(ground.T) + NOISE**2 * np.eye(3))
    away = colors - np.median(ground, axis=0)
    distance = np.sqrt(np.einsum("hwi,ij,hwj->hw", away, spread, away))
    cover = np.clip((distance - GROUND) / (OBJECT - GROUND), 0, 1).astype(np.float32)
    reach = 2 * max(1, round(CLOSED * max(rows, columns))) + 1
    cover = cv2.morphologyEx(cover, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    cover[outside] = 0
    filled = cover.sum() / max(1, (~outside).sum())
    if not FILLED[0] <= filled <= FILLED[1] or cover.max() <= 0.5:
        return None
    return np.asarray(cv2.resize(cover, (width, height), interpolation=cv2.INTER_LINEAR))


def _rimmed(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) with a rim of ground."""
    rim = np.maximum(3.0, RIM * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0))[:, None]
    return boxes + np.concatenate([-rim, -rim, rim, rim], axis=1)


def _cut_out(frame: BoxFrame, box: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """A box with a rim of its ground, what of it is object, and the box in it."""
    height, width = frame.rgb.shape[:2]
    x1, y1, x2, y2 = np.clip(np.round(_rimmed(box[None])[0]), 0, (width, height, width, height)).astype(int)
    patch, box = frame.rgb[y1:y2, x1:x2], box - (x1, y1, x1, y1)
    return patch, find_cover(patch, box), box


def _fading(shape: tuple[int, int], box: np.ndarray) -> np.ndarray:
    """1 within the box, falling to 0 at the edges of what is around."""
    ramps = []
    for count, low, high in zip(shape, (box[1], box[0]), (box[3], box[2]), strict=True):
        places = np.arange(count) + 0.5
        ramps.append(np.interp(places, [0, max(low, 1e-3), min(high, count - 1e-3), count], [0, 1, 1, 0]))
    return np.minimum.outer(*ramps).astype(np.float32)


def _turned(
    patch: np.ndarray, cover: np.ndarray, box: np.ndarray, angle: float, scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All three turned by degrees and scaled; the box is that of what is covered then."""
    rows, columns = cover.shape
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), angle, scale)
    reach = np.abs(matrix[:, :2]) @ (columns, rows)
    matrix[:, 2] += reach / 2 - (columns / 2, rows / 2)
    by_centres = matrix.copy()  # OpenCV's coordinates are 0 in a pixel's middle, those of boxes at its edge
    by_centres[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    size = tuple(int(side) for side in np.ceil(reach).clip(1))
    smooth = cv2.GaussianBlur(patch, (0, 0), 0.4 / scale) if scale < 0.7 else patch
    patch = cv2.warpAffine(smooth, by_centres, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    turned = cv2.warpAffine(cover, by_centres, size, flags=cv2.INTER_LINEAR)
    if angle == 0:
        return patch, turned, box * scale + np.tile(matrix[:, 2], 2)
    tight = _bounds(turned)
    if tight is None:  # thinner than a pixel
        corners = matrix @ np.array([[box[0], box[2], box[2], box[0]], [box[1], box[1], box[3], box[3]], [1, 1, 1, 1]])
        return patch, turned, np.concatenate([corners.min(axis=1), corners.max(axis=1)])
    # People draw boxes with some room around things, and what is pasted must not teach otherwise.
    room = scale * np.abs(box - _bounds(cover)).mean()
    return patch, turned, tight + (-room, -room, room, room)


def _bounds(cover: np.ndarray) -> np.ndarray | None:
    """x1, y1, x2, y2 around what is covered by more than half; None where nothing is."""
    inside = cover > 0.5
    x, y = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    return np.array([x[0], y[0], x[-1] + 1, y[-1] + 1], float) if len(x) else None

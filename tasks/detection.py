"""Object detection: results, parity and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from perception.tasks.anchors import area, pairwise_iou
from perception.tasks.colors import palette
from perception.tasks.config import ModelConfig
from perception.tasks.decoders import Decoder
from perception.tasks.geometry import Fit
from perception.tasks.labels import UNUSED
from perception.tasks.nms import suppress

PARITY_BOUNDS: Mapping[str, float] = {"fp32": 0.002, "fp16": 0.02, "bf16": 0.08, "int8": 0.15}
"""Largest accepted `disagreement` with the float32 definition, frame by frame."""
ACCURACY_DROPS: Mapping[str, float] = {"fp32": 0.001, "fp16": 0.003, "bf16": 0.005, "int8": 0.01}
"""Largest accepted loss of mAP against the float32 definition, over a data set."""
REPORTED = 0.5
"""Score from which on a node reports an object, and a picture shows it, unless another is asked for."""
MOST = 100
"""Boxes that COCO's protocol looks at in an image."""
IOU = 0.6
"""Overlap from which on a box is taken for another one's double; as MobileDet was published."""
COMPARED = 100
"""Candidates of each side that `disagreement` looks at."""


@dataclass(frozen=True)
class Detections:
    """What was found in an image, best first.

    `boxes` is float32 (N, 4): x1, y1, x2, y2 in pixels of the original image, whose edges are 0 and its width or
    height; `scores` float32 (N,); `labels` int64 (N,), places in the config's `labels`. `tracks` int64 (N,) are the
    numbers that tracking gave the objects, 0 where it gave none yet; None without tracking.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    tracks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)


def _quiet() -> np.errstate:
    """For outputs that are no numbers, or beyond them: what they come to is left out, and nobody is warned.

    A new one each time: NumPy 1 keeps in it what was before, and nodes of a process share this module.
    """
    return np.errstate(over="ignore", invalid="ignore")


def parse(
    outputs: Mapping[str, np.ndarray],
    fit: Fit,
    config: ModelConfig,
    score_threshold: float = 0.3,
    iou_threshold: float = IOU,
    most: int = MOST,
    classes: np.ndarray | None = None,
) -> Detections:
    """The objects in the source image, doubles left out class by class; finite boxes within the image, or none.

    Args:
        outputs: what `config.decoder` reads.
        fit: how the source was laid into the network's input; undone here.
        score_threshold: what scores less does not count.
        iou_threshold: overlap of more than which the worse of two boxes of a class is left out.
        most: how many boxes are returned at most.
        classes: bool (classes,), which of `config.labels` count; None: all of them.
    """
    decoder = _decoder(config)
    if UNUSED in config.labels:
        used = np.array([label != UNUSED for label in config.labels])
        classes = used if classes is None else used & classes
    with _quiet():
        found = decoder.candidates(outputs, score_threshold, classes)
        first = np.diff(found.owners, prepend=-1) > 0  # of the candidates of a box
        owners = np.cumsum(first) - 1
        boxes = decoder.boxes(outputs, config.input_size, found.owners[first])
        scores, labels = found.scores, found.classes
        if not (sound := np.isfinite(boxes).all(1)).all():
            good = sound[owners]
            owners, scores, labels = owners[good], scores[good], labels[good]
        kept = suppress(boxes, owners, scores, labels, iou_threshold, most)
        placed = _placed(boxes[owners[kept]], fit)
        seen = area(placed) > 0
        kept = kept[seen]
        return Detections(placed[seen], scores[kept], labels[kept].astype(np.int64))


def _decoder(config: ModelConfig) -> Decoder:
    if config.decoder is None:
        raise ValueError(f"model {config.name!r} does not say how its outputs become boxes; its config needs a decoder")
    return config.decoder


def _placed(boxes: np.ndarray, fit: Fit) -> np.ndarray:
    """Boxes of the network's image in the source's pixels, cut at its edges."""
    (rows, columns), (height, width) = fit.window, fit.source
    scale = width / (columns.stop - columns.start), height / (rows.stop - rows.start)
    placed = (boxes - np.array([columns.start, rows.start] * 2, np.float32)) * np.array(scale * 2, np.float32)
    return np.clip(placed, 0, np.array([width, height] * 2, np.float32)).astype(np.float32)


def disagreement(
    reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray], config: ModelConfig
) -> float:
    """How differently two outputs speak of the same image, before doubles are left out.

    Over the strongest candidates of either: the differences of their scores, and the shares of the boxes that do not
    overlap, weighted with the score; as a share of what both say at most. So an object that is lost, or found under
    another name, counts in full, however much nothing there is beside it. Inf where an output is not finite.
    """
    if not all(np.isfinite(output).all() for output in candidate.values()):
        return float("inf")
    decoder, classes = _decoder(config), len(config.labels)
    with _quiet():
        found = [decoder.candidates(outputs, 0.0, None) for outputs in (reference, candidate)]
        count = 1 + max(int(side.owners.max(initial=0)) for side in found)
        scores = np.zeros((2, count * classes), np.float32)
        for side, all_scores in zip(found, scores, strict=True):
            all_scores[side.owners * classes + side.classes] = side.scores
        places = np.unique(np.argsort(-scores, axis=1, kind="stable")[:, :COMPARED])
        owners, (mine, other) = places // classes, scores[:, places]
        boxes = [decoder.boxes(outputs, config.input_size, owners) for outputs in (reference, candidate)]
        overlap = np.array([pairwise_iou(a[None], b[None])[0, 0] for a, b in zip(*boxes, strict=True)])
        apart = np.abs(mine - other) + np.minimum(mine, other) * (1 - overlap)
        return float(apart.sum() / max(np.maximum(mine, other).sum(), 1.0))


def overlay(image: np.ndarray, detections: Detections, labels: Sequence[str]) -> np.ndarray:
    """A copy of `image` (BGR uint8) with the boxes, and above each its name, score and, where it has one, number."""
    picture = np.ascontiguousarray(image).copy()
    colors = palette(len(labels))
    scale = max(0.4, min(picture.shape[:2]) / 900)
    tracks = np.zeros(len(detections), int) if detections.tracks is None else detections.tracks
    columns = detections.boxes, detections.scores, detections.labels, tracks
    for box, score, label, track in zip(*(column[::-1] for column in columns), strict=True):
        color = tuple(map(int, colors[label]))
        x1, y1, x2, y2 = (round(float(value)) for value in box)
        cv2.rectangle(picture, (x1, y1), (x2, y2), color, max(2, round(3 * scale)))
        caption = f"{labels[label]} {score:.2f}" + (f" #{track}" if track else "")
        _caption(picture, caption, (x1, y1), color, scale)
    return picture


def _caption(picture: np.ndarray, text: str, corner: tuple[int, int], color: tuple[int, ...], scale: float) -> None:
    """Text on a bar of the box's colour, above the box where there is room, else in it."""
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    x = max(0, min(corner[0], picture.shape[1] - width))
    y = corner[1] if corner[1] >= height + below else corner[1] + height + below
    cv2.rectangle(picture, (x, y - height - below), (x + width, y), color, cv2.FILLED)
    cv2.putText(picture, text, (x, y - below // 2), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)

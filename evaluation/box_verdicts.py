"""Which boxes of a single image are right, in numbers and pictures: average precision says nothing of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from perception.evaluation.frames import BoxFrame
from perception.tasks.anchors import area, pairwise_common, pairwise_iou
from perception.tasks.detection import REPORTED, Detections, overlay

OVERLAP = 0.5
"""With which it is right."""
RIGHT, WRONG, MISSED = (80, 200, 80), (60, 60, 230), (40, 200, 240)
"""Colours, BGR."""


@dataclass(frozen=True)
class Verdicts:
    """Of boxes float32 (N, 4) each, in pixels: those found that are right and wrong, and those missed. What is to be
    ignored is nowhere."""

    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray

    @classmethod
    def of(cls, frame: BoxFrame, found: Detections, counts: np.ndarray | None = None) -> Verdicts:
        """The best detection chooses its object first.

        Args:
            counts: bool (objects,), which objects there are; None: all.
        """
        exists = np.ones(len(frame.labels), bool) if counts is None else counts
        seen, right, skipped = ~exists | frame.ignore, np.zeros(len(found), bool), np.zeros(len(found), bool)
        overlaps = pairwise_iou(found.boxes, frame.boxes)
        reach = overlaps.copy()  # of what is to be ignored
        if frame.crowd is not None:  # what lies in a crowd is not wrong, however large that is: COCO's protocol
            covered = pairwise_common(found.boxes, frame.boxes) / np.maximum(area(found.boxes), 1e-9)[:, None]
            reach[:, frame.crowd] = covered[:, frame.crowd]
        for place, label in enumerate(found.labels):
            same = exists & (frame.labels == label) & (overlaps[place] >= OVERLAP)
            if len(free := np.flatnonzero(same & ~seen)):
                seen[free[overlaps[place, free].argmax()]] = right[place] = True
            else:
                ignored = exists & (frame.labels == label) & frame.ignore
                skipped[place] = (reach[place, ignored] >= OVERLAP).any()
        return cls(found.boxes[right], found.boxes[~right & ~skipped], frame.boxes[~seen])


def shown(found: Detections) -> Detections:
    """Those that a node reports."""
    kept = found.scores >= REPORTED
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


def draw(
    frame: BoxFrame, found: Detections, labels: Sequence[str], counts: np.ndarray | None = None
) -> list[np.ndarray]:
    """The image, its true boxes, those found, and the verdicts on them: BGR uint8 of the image's size each.

    Args:
        counts: see `Verdicts.of`.
    """
    image = np.ascontiguousarray(frame.rgb[..., ::-1])
    verdicts = Verdicts.of(frame, found, counts)
    judged = image.copy()
    for boxes, colour in ((verdicts.missed, MISSED), (verdicts.wrong, WRONG), (verdicts.right, RIGHT)):
        for x1, y1, x2, y2 in boxes.round().astype(int).tolist():
            cv2.rectangle(judged, (x1, y1), (x2, y2), colour, max(1, round(min(image.shape[:2]) / 160)))
    truth = Detections(frame.boxes, np.ones(len(frame.labels), np.float32), frame.labels)
    return [image, overlay(image, truth, labels), overlay(image, found, labels), judged]

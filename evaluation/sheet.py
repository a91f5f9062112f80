"""A picture of the best, the median and the worst samples of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.evaluation.assessment import Assessment, Estimate, Sample
from perception.evaluation.frames import Dataset
from perception.evaluation.results import Row

WIDTH, CAPTION = 300, 24
"""Pixels of a picture's width and of a caption's height."""
ACROSS = 4
"""Pictures side by side at most."""
EACH = 2
SMALL = (cv2.IMWRITE_PNG_COMPRESSION, 6)
"""OpenCV by itself writes in a hurry, three times as much."""


def pick_cases(rows: Sequence[Row], assessment: Assessment) -> list[tuple[str, Row]]:
    """`EACH` best, median and worst samples, none twice."""
    ranked = sorted((row for row in rows if "error" not in row), key=assessment.rank)
    middle = max(0, (len(ranked) - EACH) // 2)
    groups = (("best", ranked[:EACH]), ("median", ranked[middle : middle + EACH]), ("worst", ranked[-EACH:]))
    cases: dict[int, tuple[str, Row]] = {}
    for word, group in groups:
        for row in group:
            cases.setdefault(row["index"], (word, row))
    return list(cases.values())


def draw_sheet(
    path: Path, title: str, rows: Sequence[Row], dataset: Dataset[Any], assessment: Assessment, estimate: Estimate
) -> None:
    """Write a PNG: the assessment's pictures of the picked samples, with their figures.

    Raises:
        OSError: it cannot be written.
    """
    width = 0
    strips = [_line(f"{title} on {dataset.name}: {assessment.legend}")]
    for word, row in pick_cases(rows, assessment):
        frame = dataset[row["index"]]
        pictures = assessment.pictures(Sample(frame, estimate(frame)[0]), dataset)
        size = WIDTH, round(WIDTH * frame.rgb.shape[0] / frame.rgb.shape[1])
        strips.append(_line(f"{word}: {row['name']}  {assessment.caption(row)}"))
        width = max(width, len(pictures) * WIDTH)
        strips.append(np.zeros((size[1], ACROSS * WIDTH, 3), np.uint8))
        for place, picture in enumerate(pictures):
            shown = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            strips[-1][:, place * WIDTH : (place + 1) * WIDTH] = shown
    if not cv2.imwrite(str(path), np.vstack(strips)[:, :width], SMALL):
        raise OSError(f"{path} could not be written")


def _line(text: str) -> np.ndarray:
    """A line of text, white on black, as wide as the pictures."""
    line = np.zeros((CAPTION, ACROSS * WIDTH, 3), np.uint8)
    cv2.putText(line, text, (6, CAPTION - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return line

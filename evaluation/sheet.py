"""A picture of the best, the median and the worst samples of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from perception.evaluation.frames import Dataset, RGBDFrame
from perception.evaluation.results import Row
from perception.tasks.depth import colorize

WIDTH, CAPTION = 300, 24
"""Pixels of a picture's width and of a caption's height."""
LARGEST_ERROR = 0.5
"""Relative error from which on the error map is white."""
EACH = 2


def pick_cases(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """`EACH` best, median and worst samples by delta1 (then RMSE), none twice."""
    good = [row for row in rows if "error" not in row]
    ranked = sorted(good, key=lambda row: (-row["metrics"]["delta1"], row["metrics"]["rmse"]))
    middle = max(0, (len(ranked) - EACH) // 2)
    groups = (("best", ranked[:EACH]), ("median", ranked[middle : middle + EACH]), ("worst", ranked[-EACH:]))
    cases: dict[int, tuple[str, Row]] = {}
    for word, group in groups:
        for row in group:
            cases.setdefault(row["index"], (word, row))
    return list(cases.values())


def draw_sheet(
    path: Path, title: str, rows: Sequence[Row], dataset: Dataset, estimate: Callable[[RGBDFrame], np.ndarray]
) -> None:
    """Write a PNG: image, truth, prediction and error of the picked samples, with their metrics.

    Raises:
        OSError: it cannot be written.
    """
    strips = [_line(f"{title} on {dataset.name}: image, truth, prediction, |error| / truth (white: 50 % or more)")]
    for word, row in pick_cases(rows):
        frame = dataset[row["index"]]
        scores = row["metrics"]
        caption = f"{word}: {row['name']}  delta1 {scores['delta1']:.3f}  RMSE {scores['rmse']:.3f} m"
        strips += [_line(f"{caption}  REL {scores['rel']:.3f}"), _pictures(frame, estimate(frame))]
    if not cv2.imwrite(str(path), np.vstack(strips)):
        raise OSError(f"{path} could not be written")


def _pictures(frame: RGBDFrame, metres: np.ndarray) -> np.ndarray:
    """The four pictures of a frame side by side, BGR."""
    assert frame.depth is not None
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(metres - frame.depth) / frame.depth
    known = np.isfinite(error)
    shades = (255 * np.clip(np.where(known, error, 0) / LARGEST_ERROR, 0, 1)).astype(np.uint8)
    heat = cv2.applyColorMap(shades, cv2.COLORMAP_HOT)
    heat[~known] = (96, 96, 96)
    height = round(WIDTH * frame.rgb.shape[0] / frame.rgb.shape[1])
    pictures = (frame.rgb[..., ::-1], colorize(frame.depth), colorize(metres), heat)
    return np.hstack([cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA) for picture in pictures])


def _line(text: str) -> np.ndarray:
    """A line of text, white on black, as wide as four pictures."""
    line = np.zeros((CAPTION, 4 * WIDTH, 3), np.uint8)
    cv2.putText(line, text, (6, CAPTION - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return line

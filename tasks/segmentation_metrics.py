"""Metrics of semantic segmentation: confusion, intersection over union, and how well contours are met."""

from __future__ import annotations

import cv2
import numpy as np

from perception.tasks.labels import UNLABELED

TOLERANCE = 0.0075
"""How far a contour may be off, as a share of the image's diagonal (Csurka et al., BMVC 2013)."""


def confusion_matrix(truth: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """How many pixels of each class (rows) were given to each (columns): int64 (classes, classes + 1).

    The last column counts pixels that were given to none of them. Pixels whose truth is no class do not count.

    Args:
        truth, mask: uint8 (height, width), or integers of any one shape, as of images that were classified; what is not
            below `classes`, such as `UNLABELED`, is no class.

    Raises:
        ValueError: the shapes differ.
    """
    _check(truth, mask)
    columns = classes + 1
    counted = truth < classes
    codes = truth[counted].astype(np.intp) * columns + np.minimum(mask[counted], classes)
    return np.bincount(codes, minlength=classes * columns).reshape(classes, columns).astype(np.int64)


def class_ious(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, float64 (..., classes); NaN where the truth does not have it.

    Args:
        confusion: one or more of `confusion_matrix`, summed over images, (..., classes, classes + 1).
    """
    right, owed = _right(confusion), confusion.sum(axis=-1)
    return _shares(right, np.where(owed > 0, owed + confusion[..., :-1].sum(axis=-2) - right, 0))


def metrics(confusion: np.ndarray, counted: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """What confusion matrices come to, float64 (...) each; NaN where there is no pixel.

    `mIoU`: the mean of `class_ious` over the classes that the truth has; `accuracy`: the share of right pixels;
    `mean_accuracy`: the same class by class, then the mean.

    Args:
        counted: bool (classes,), the classes that figures are of; what others' pixels were taken for wrongly still
            lowers the IoU. None: all.
    """
    which = np.ones(confusion.shape[-2], bool) if counted is None else counted
    ious, right, owed = (x[..., which] for x in (class_ious(confusion), _right(confusion), confusion.sum(axis=-1)))
    return {
        "mIoU": _mean(ious),
        "accuracy": _shares(right.sum(axis=-1), owed.sum(axis=-1)),
        "mean_accuracy": _mean(_shares(right, owed)),
    }


def boundary_scores(truth: np.ndarray, mask: np.ndarray, classes: int, tolerance: float = TOLERANCE) -> np.ndarray:
    """Boundary F-score of each class in an image (Csurka et al., BMVC 2013), float64 (classes,).

    The harmonic mean of the shares of predicted and of true contour pixels that lie near the other contour. A contour
    pixel of a class has one of another class beside it, above or below; where no truth is known there is no contour.

    Args:
        truth, mask: as for `confusion_matrix`.
        tolerance: distance that is near, as a share of the image's diagonal.

    Returns:
        NaN for classes that the truth does not have, or that have no contour in either.

    Raises:
        ValueError: the shapes differ.
    """
    _check(truth, mask)
    unknown = truth >= classes
    expected, got = (_contours(np.where(unknown, UNLABELED, np.minimum(side, classes))) for side in (truth, mask))
    disc = _disc(tolerance * float(np.hypot(*truth.shape)))
    scores = np.full(classes, np.nan)
    for place in np.unique(truth[~unknown]):
        owed, found = expected == place, got == place
        if not (owed.any() or found.any()):
            continue
        precision, recall = _near(found, owed, disc), _near(owed, found, disc)
        scores[place] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return scores


def _check(truth: np.ndarray, mask: np.ndarray) -> None:
    if truth.shape != mask.shape:
        raise ValueError(f"truth of shape {truth.shape} and mask of shape {mask.shape} differ; both are of one image")


def _contours(values: np.ndarray) -> np.ndarray:
    """The values of pixels beside another value, both known; `UNLABELED` elsewhere."""
    known, edge = values != UNLABELED, np.zeros(values.shape, bool)
    for first, second in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        differ = (values[first] != values[second]) & known[first] & known[second]
        edge[first] |= differ
        edge[second] |= differ
    return np.where(edge, values, UNLABELED)


def _near(some: np.ndarray, others: np.ndarray, disc: np.ndarray) -> float:
    """The share of pixels of bool (height, width) that have one of the others within a disc around them."""
    if not (some.any() and others.any()):
        return 0.0
    return float(cv2.dilate(others.view(np.uint8), disc)[some].mean())


def _disc(radius: float) -> np.ndarray:
    """The pixels whose centres are no farther away than the radius, uint8 with an odd number of rows and columns."""
    places = np.arange(-int(radius), int(radius) + 1)
    return (np.hypot(places[:, None], places) <= radius).astype(np.uint8)


def _right(confusion: np.ndarray) -> np.ndarray:
    return np.diagonal(confusion[..., :-1], axis1=-2, axis2=-1)


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where there is no whole."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Of the numbers along the last axis; NaN where there is none."""
    known = np.isfinite(values)
    return _shares(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))

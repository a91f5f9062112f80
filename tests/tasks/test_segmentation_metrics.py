"""Metrics of masks against plain loops, and worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.tasks.labels import UNLABELED
from perception.tasks.segmentation_metrics import boundary_scores, class_ious, confusion_matrix, metrics

CLASSES = 4


def random_maps(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth with ignored pixels, and a mask that says nothing here and there."""
    rng = np.random.default_rng(seed)
    values = np.array([*range(CLASSES), UNLABELED], np.uint8)
    chances = rng.dirichlet(np.full(CLASSES + 1, 0.5))
    truth = rng.choice(values, (height, width), p=chances)
    return truth, np.where(rng.random(truth.shape) < 0.6, truth, rng.choice(values, truth.shape))


MAPS = st.builds(random_maps, st.integers(0, 99999), st.integers(1, 7), st.integers(1, 7))


@given(MAPS)
def test_confusion_and_ious_are_those_of_plain_loops(maps: tuple[np.ndarray, np.ndarray]) -> None:
    truth, mask = maps
    pairs = [(t, m) for t, m in zip(truth.ravel().tolist(), mask.ravel().tolist(), strict=True) if t != UNLABELED]
    confusion = confusion_matrix(truth, mask, CLASSES)
    for row in range(CLASSES):
        for column, value in enumerate([*range(CLASSES), UNLABELED]):
            assert confusion[row, column] == pairs.count((row, value))
    expected = []
    for place in range(CLASSES):
        union = [pair for pair in pairs if place in pair]
        owed = any(t == place for t, _ in pairs)
        expected.append(pairs.count((place, place)) / len(union) if owed else math.nan)
    assert class_ious(confusion) == pytest.approx(expected, nan_ok=True)
    known = [value for value in expected if not math.isnan(value)]
    scores = metrics(confusion)
    assert scores["mIoU"] == pytest.approx(np.mean(known) if known else math.nan, nan_ok=True)
    right = sum(t == m for t, m in pairs)
    assert scores["accuracy"] == pytest.approx(right / len(pairs) if pairs else math.nan, nan_ok=True)


def plain_contour(values: np.ndarray, place: int) -> list[tuple[int, int]]:
    height, width = values.shape
    found = []
    for y in range(height):
        for x in range(width):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [values[b, a] for b, a in around if 0 <= b < height and 0 <= a < width]
            if values[y, x] == place and any(value not in (place, UNLABELED) for value in inside):
                found.append((y, x))
    return found


def plain_boundary_score(truth: np.ndarray, mask: np.ndarray, place: int, reach: float) -> float:
    nothing = CLASSES  # a prediction of no class is another class than all others
    shown = np.where(truth == UNLABELED, UNLABELED, np.where(mask == UNLABELED, nothing, mask))
    owed, found = plain_contour(truth, place), plain_contour(shown, place)
    if not (truth == place).any() or not (owed or found):
        return math.nan

    def share(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        near = [min((math.dist(one, other) for other in others), default=math.inf) <= reach for one in some]
        return sum(near) / len(near) if near else 0.0

    precision, recall = share(found, owed), share(owed, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=60)
@given(MAPS, st.sampled_from([0.0, 0.15, 0.25]))
def test_boundary_scores_are_those_of_plain_loops(maps: tuple[np.ndarray, np.ndarray], tolerance: float) -> None:
    truth, mask = maps
    reach = tolerance * math.hypot(*truth.shape)
    expected = [plain_boundary_score(truth, mask, place, reach) for place in range(CLASSES)]
    assert boundary_scores(truth, mask, CLASSES, tolerance) == pytest.approx(expected, nan_ok=True)


@given(MAPS)
def test_a_mask_that_is_the_truth_is_right_in_every_metric(maps: tuple[np.ndarray, np.ndarray]) -> None:
    truth, _ = maps
    scores = metrics(confusion_matrix(truth, truth, CLASSES))
    if (truth != UNLABELED).any():
        assert set(map(float, scores.values())) == {1.0}
    contours = boundary_scores(truth, truth, CLASSES)
    assert (contours[np.isfinite(contours)] == 1).all()


def test_by_hand() -> None:
    """Half of class 0 is taken for 1; class 2 is nowhere, but predicted where truth is unknown and once in vain."""
    truth = np.array([[0, 0, 1, 1, UNLABELED]], np.uint8)
    mask = np.array([[0, 1, 1, 2, 2]], np.uint8)
    confusion = confusion_matrix(truth, mask, 3)
    assert confusion.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert class_ious(confusion)[:2].tolist() == [1 / 2, 1 / 3] and math.isnan(class_ious(confusion)[2])
    scores = metrics(confusion)
    assert scores["mIoU"] == pytest.approx(5 / 12) and scores["accuracy"] == 0.5 == scores["mean_accuracy"]


def test_sums_over_images_and_many_at_once() -> None:
    stack = np.stack([confusion_matrix(*random_maps(seed, 6, 6), CLASSES) for seed in range(3)])
    scores = metrics(stack)
    assert scores["mIoU"].shape == (3,) and class_ious(stack).shape == (3, CLASSES)
    assert scores["accuracy"].tolist() == [metrics(one)["accuracy"].tolist() for one in stack]


def test_a_contour_may_be_off_by_the_tolerance() -> None:
    truth, mask = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
    truth[:, 40:], mask[:, 43:] = 1, 1
    assert boundary_scores(truth, mask, 2, 0.031).tolist() == [1, 1], "3 of 100 pixels"
    assert boundary_scores(truth, mask, 2, 0.029).tolist() == [0, 0]
    truth[:, 35:45] = UNLABELED
    assert np.isnan(boundary_scores(truth, truth, 2)).all(), "where truth is unknown there is no contour"


def test_shapes_must_agree() -> None:
    for measure in (confusion_matrix, boundary_scores):
        with pytest.raises(ValueError, match=r"truth of shape \(2, 3\) and mask of shape \(3, 2\) differ"):
            measure(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)

"""How right a novel view is."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from perception.tasks.view_synthesis_metrics import HIT, consistency, depth_errors, placement_iou


def test_placement_is_where_objects_are() -> None:
    mask, target = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    assert math.isnan(placement_iou(mask, target))
    target[:, :4] = True
    assert placement_iou(mask, target) == 0 and placement_iou(target, target) == 1
    mask[:, 2:6] = True
    assert placement_iou(mask, target) == pytest.approx(8 / 24)
    with pytest.raises(ValueError, match="cannot be held against"):
        placement_iou(mask[1:], target)


def test_depth_counts_where_both_are_known() -> None:
    target = np.array([[2.0, 4.0, np.nan, 1.0]])
    assert depth_errors(np.array([[2.2, 4.0, 1.0, np.nan]]), target) == pytest.approx({"REL": 0.05, "known": 2 / 3})
    nothing = depth_errors(np.full((1, 4), np.nan), target)
    assert math.isnan(nothing["REL"]) and nothing["known"] == 0
    assert math.isnan(depth_errors(target, np.full((1, 4), np.nan))["known"])
    with pytest.raises(ValueError, match="cannot be held against"):
        depth_errors(target[:, 1:], target)


def blobs(seed: int = 0) -> np.ndarray:
    """An image of 200x160 pixels with many points of its own."""
    rng = np.random.default_rng(seed)
    image = np.full((160, 200, 3), 128, np.uint8)
    for _ in range(120):
        centre, radius = rng.integers(10, 150, 2), int(rng.integers(2, 9))
        cv2.circle(image, tuple(map(int, centre)), radius, tuple(map(int, rng.integers(0, 256, 3))), -1, cv2.LINE_AA)
    return image


def shifted(image: np.ndarray, pixels: int) -> np.ndarray:
    return np.roll(image, pixels, axis=1)


def test_points_are_found_where_they_should_be() -> None:
    image = blobs()
    target = shifted(image, 12)
    right = consistency(image, target, target)
    assert right.hit_rate == 1 and right.distance == 0 and right.points > 30
    near = consistency(image, shifted(image, 16), target)
    assert near.hit_rate > 0.9 and near.distance == pytest.approx(4 / 200, abs=0.004)
    far = consistency(image, shifted(image, 12 + round(2 * HIT * 200)), target)
    assert far.hit_rate < 0.1 and far.distance == pytest.approx(2 * HIT, abs=0.02)
    wrong = consistency(image, blobs(1), target)
    assert wrong.hit_rate < 0.1


def test_where_nothing_is_found_nothing_is_said() -> None:
    grey = np.full((160, 200, 3), 128, np.uint8)
    empty = consistency(blobs(), grey, blobs())
    assert empty.hit_rate == 0 and math.isnan(empty.distance)
    blank = consistency(grey, blobs(), blobs())
    assert math.isnan(blank.hit_rate) and blank.points == 0
    with pytest.raises(ValueError, match="cannot be held against"):
        consistency(grey, grey[1:], grey)

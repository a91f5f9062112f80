"""Objects that are laid onto other frames: their outline, their boxes, and what they may not hide."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from perception.evaluation.frames import BoxFrame  # noqa: E402
from perception.tasks.anchors import pairwise_common  # noqa: E402
from perception.training.box_data import BoxAugmentation, BoxMixture  # noqa: E402
from perception.training.pasting import find_cover, paste  # noqa: E402

GREY, SAND = 100, 180


def ground(value: int, height: int = 100, width: int = 120) -> np.ndarray:
    """With a camera's noise."""
    noise = np.random.default_rng(value).normal(0, 4, (height, width, 1))
    return np.clip(value + noise, 0, 255).astype(np.uint8).repeat(3, axis=2)


def frame(rgb: np.ndarray, *boxes: tuple[float, ...], label: int = 1) -> BoxFrame:
    count = len(boxes)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return BoxFrame(rgb, array, np.full(count, label), np.zeros(count, bool))


@pytest.fixture
def red() -> BoxFrame:
    """A red rod of 40 x 8 pixels, aslant on grey, and its box."""
    rgb = ground(GREY)
    corners = cv2.boxPoints(((60, 50), (40, 8), 30)).round().astype(np.int32)
    cv2.fillPoly(rgb, [corners], (230, 20, 20))
    return frame(rgb, (*corners.min(axis=0), *(corners.max(axis=0) + 1)), label=2)


def is_red(rgb: np.ndarray) -> np.ndarray:
    return (rgb[..., 0] > 150) & (rgb[..., 1] < 90)


def test_an_object_is_told_from_the_ground_around_it(red: BoxFrame) -> None:
    x1, y1, x2, y2 = (int(side) for side in red.boxes[0])
    patch = red.rgb[y1 - 6 : y2 + 6, x1 - 6 : x2 + 6]
    cover = find_cover(patch, np.array([6, 6, 6 + x2 - x1, 6 + y2 - y1], float))
    assert cover is not None and cover.dtype == np.float32 and 0 <= cover.min() <= cover.max() <= 1
    inside = is_red(patch)
    assert cover[cv2.erode(inside.astype(np.uint8), np.ones((3, 3))) > 0].min() > 0.9
    assert cover[cv2.dilate(inside.astype(np.uint8), np.ones((7, 7))) == 0].max() < 0.1
    assert find_cover(ground(GREY, 40, 40), np.array([8.0, 8, 32, 32])) is None  # nothing but ground
    assert find_cover(patch, np.array([0.0, 0, *patch.shape[1::-1]])) is None  # no ground to be seen


def test_an_object_comes_without_its_ground_and_its_box_fits(red: BoxFrame) -> None:
    """The rod lies at other angles on sand, alone: around it all is sand as before, and the box is tight."""
    sand = frame(ground(SAND), (2, 2, 30, 20))
    shapes = set()
    for seed in range(30):
        both = paste(sand, red, np.random.default_rng(seed))
        assert both.labels.tolist() == [1, 2] and np.array_equal(both.boxes[0], sand.boxes[0])
        x1, y1, x2, y2 = both.boxes[1]
        assert 0 <= x1 < x2 <= 120 and 0 <= y1 < y2 <= 100
        seen = is_red(both.rgb)
        if min(x2 - x1, y2 - y1) > 6:
            rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
            assert np.abs(np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) - both.boxes[1]).max() <= 3
        beyond = cv2.dilate(seen.astype(np.uint8), np.ones((9, 9))) == 0
        assert np.abs(both.rgb[beyond].astype(int) - sand.rgb[beyond]).max() <= 12
        shapes.add((x2 - x1 > y2 - y1, x2 - x1 > 40))
        assert pairwise_common(sand.boxes, both.boxes[1:])[0, 0] <= 0.2 * 28 * 18
    assert len(shapes) >= 3  # along and across, small and large
    assert np.array_equal(sand.rgb, ground(SAND))


def test_what_cannot_be_cut_out_comes_in_its_box() -> None:
    """An object of its ground's own color is laid down upright with what is around it, which fades."""
    hidden = frame(ground(GREY), (40, 30, 80, 60))
    for seed in range(10):
        both = paste(frame(ground(SAND)), hidden, np.random.default_rng(seed))
        x1, y1, x2, y2 = both.boxes[0].round().astype(int)
        assert (x2 - x1) / (y2 - y1) == pytest.approx(4 / 3, rel=0.1)
        assert both.rgb[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].mean() == pytest.approx(GREY, abs=4)


def test_there_may_be_nothing_to_paste_or_no_place(red: BoxFrame) -> None:
    rng = np.random.default_rng(0)
    sand = frame(ground(SAND))
    assert paste(sand, frame(ground(GREY)), rng) is sand
    assert paste(sand, dataclasses.replace(red, ignore=np.ones(1, bool)), rng) is sand
    pair = dataclasses.replace(red, boxes=np.vstack([red.boxes, red.boxes + 20]), labels=np.array([2, 1]))
    assert paste(sand, dataclasses.replace(pair, ignore=np.array([False, True])), rng) is sand  # it would come along
    strewn = frame(ground(SAND), *((x, y, x + 4, y + 4) for x in range(0, 120, 4) for y in range(0, 100, 4)))
    assert paste(strewn, red, rng) is strewn


def test_a_teachers_doubt_goes_with_the_object(red: BoxFrame) -> None:
    unsure = dataclasses.replace(red, scores=np.array([0.5], np.float32))
    sand = frame(ground(SAND), (2, 2, 30, 20))
    both = paste(sand, unsure, np.random.default_rng(0))
    assert both.scores is not None and both.scores.tolist() == [1, 0.5]
    both = paste(dataclasses.replace(sand, scores=np.array([0.25], np.float32)), red, np.random.default_rng(0))
    assert both.scores is not None and both.scores.tolist() == [0.25, 1]


def test_as_many_are_pasted_as_asked(red: BoxFrame) -> None:
    mixture = BoxMixture([[red]], [1.0], [None], [np.arange(3)])
    still = BoxAugmentation(crop=0, expand=0, color=0, paste=3)
    labels = mixture.batch(0, 0, 200, (96, 96), still)[2]
    counts = (labels >= 0).sum(dim=1)
    assert counts.min() == 1 and counts.max() == 4
    assert [(counts == number).float().mean() for number in range(1, 5)] == pytest.approx([0.25] * 4, abs=0.12)

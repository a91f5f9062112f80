"""Non-maximum suppression against the rule in plain words, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks import nms
from perception.tasks.nms import suppress


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union if union > 0 else 0.0


def plain(boxes, owners, scores, classes, threshold: float, limit: int) -> list[int]:
    """Class by class, the best `limit` of each; then the best `limit` of all."""
    kept = []
    for label in sorted(set(classes.tolist())):
        mine: list[int] = []
        for i in sorted(np.flatnonzero(classes == label), key=lambda i: (-scores[i], owners[i])):
            if len(mine) < limit and all(plain_iou(boxes[owners[i]], boxes[owners[k]]) <= threshold for k in mine):
                mine.append(int(i))
        kept += mine
    return sorted(kept, key=lambda i: (-scores[i], classes[i], owners[i]))[:limit]


def problem(seed: int, boxes: int, candidates: int, classes: int, levels: int):
    """Boxes on a coarse grid and scores of few levels: overlaps at the threshold and ties are common."""
    rng = np.random.default_rng(seed)
    corner, size = rng.integers(0, 8, (boxes, 2)), rng.integers(1, 6, (boxes, 2))
    pairs = rng.permutation(boxes * classes)[:candidates]
    pairs.sort()
    owners, labels = pairs // classes, pairs % classes
    scores = (rng.integers(1, levels + 1, len(pairs)) / levels).astype(np.float32)
    return np.concatenate([corner, corner + size], 1).astype(np.float32), owners, scores, labels


@given(st.integers(0, 2**32), st.sampled_from([1, 3, 90]), st.sampled_from([2, 5, 1000]), st.sampled_from([1, 7, 100]))
def test_the_rule(seed: int, classes: int, levels: int, limit: int) -> None:
    given = problem(seed, 40, 60, classes, levels)
    for threshold in (0.0, 0.5, 0.6, 1.0):
        assert suppress(*given, threshold, limit).tolist() == plain(*given, threshold, limit)


@pytest.mark.parametrize("levels", [3, 10_000])
def test_many_candidates_are_sorted_step_by_step(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = problem(1, 300, 900, 4, levels)
    expected = plain(*given, 0.3, 50)
    for first in (1, 10, 10_000):
        monkeypatch.setattr(nms, "FIRST", first)
        assert suppress(*given, 0.3, 50).tolist() == expected


def test_nothing() -> None:
    empty = np.zeros(0)
    assert suppress(np.zeros((0, 4)), empty.astype(int), empty, empty.astype(int), 0.5, 100).size == 0
    assert suppress(np.ones((3, 4)), np.arange(3), np.ones(3), np.zeros(3, int), 0.5, 0).size == 0

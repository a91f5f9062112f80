"""Anchors against the published list, and the box code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from perception.tasks.anchors import area, corners, decode, encode, grid_anchors, pairwise_iou, ssd_grids, ssd_shapes

CODER = (10.0, 10.0, 5.0, 5.0)
GRIDS = ((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1))


def test_grids_halve_rounding_up() -> None:
    assert ssd_grids((320, 320)) == GRIDS
    assert ssd_grids((224, 300))[:3] == ((14, 19), (7, 10), (4, 5))


def test_anchors_are_those_that_were_published() -> None:
    """Values of the table in families.md 2.3: scales, aspects, order."""
    anchors = grid_anchors(GRIDS, ssd_shapes())
    assert anchors.shape == (2034, 4) and anchors.dtype == np.float32
    first = [[0.025, 0.025, 0.1, 0.1], [0.025, 0.025, 0.28284, 0.14142], [0.025, 0.025, 0.14142, 0.28284]]
    assert anchors[:3] == pytest.approx(np.array(first), abs=1e-5)
    assert anchors[3, :2] == pytest.approx([0.075, 0.025])  # the next column comes before the next row
    second = anchors[1200:1206]
    assert second[:, :2] == pytest.approx(np.full((6, 2), 0.05))
    ratios = second[:, 2] / second[:, 3]
    assert ratios == pytest.approx([1, 2, 0.5, 3, 0.3333, 1], abs=1e-4)
    scales = np.sqrt(second[:, 2] * second[:, 3])
    assert scales == pytest.approx([0.35] * 5 + [0.41833], abs=1e-5)
    extra = np.cumsum([1200, 600, 150, 54, 24, 6])[1:] - 1
    last = [anchors[place, 2] for place in extra]
    assert last == pytest.approx([0.41833, 0.57009, 0.72111, 0.87178, 0.97468], abs=1e-5)


@given(arrays.arrays(np.float32, (7, 2), elements=st.floats(0, 1, width=32)), st.integers(0, 2**16))
def test_decoding_undoes_encoding(centers: np.ndarray, seed: int) -> None:
    sizes = np.random.default_rng(seed).uniform(0.01, 1, (7, 2)).astype(np.float32)
    boxes = np.concatenate([centers, sizes], 1)
    anchors = grid_anchors(GRIDS, ssd_shapes())[100:2034:280]
    assert decode(encode(boxes, anchors, CODER), anchors, CODER) == pytest.approx(boxes, abs=1e-4)


def test_code_is_ty_tx_th_tw() -> None:
    anchor = np.array([[0.5, 0.5, 0.2, 0.4]], np.float32)
    assert decode(np.array([[10, 0, 0, 0]], np.float32), anchor, CODER)[0] == pytest.approx([0.5, 0.9, 0.2, 0.4])
    assert decode(np.array([[0, 0, 0, 5]], np.float32), anchor, CODER)[0] == pytest.approx([0.5, 0.5, 0.2 * np.e, 0.4])


def test_overlap_by_hand() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 5, 9], [4, 4, 3, 3]], np.float32)
    assert area(boxes).tolist() == [4, 4, 0, 0]
    assert pairwise_iou(boxes, boxes) == pytest.approx(
        np.array([[1, 1 / 7, 0, 0], [1 / 7, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    )
    assert corners(np.array([[1, 2, 2, 4]], np.float32)).tolist() == [[0, 0, 2, 4]]

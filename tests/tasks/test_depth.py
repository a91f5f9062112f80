"""Depth: parsing, parity, pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks import depth as task
from perception.tasks import get_task, task_names
from perception.tasks.config import ModelConfig, Output
from perception.tasks.geometry import Camera, Fit

CONFIG = ModelConfig(
    name="t", task="depth", input_size=(4, 6), outputs=(Output("depth", (1, 1, 4, 6), "m"),), focal=(0.9, 1.2)
)


def parsed(
    depth: np.ndarray, camera: Camera | None = None, source: tuple[int, int] = (8, 12), **limits: float
) -> task.Depth:
    return task.parse({"depth": depth[None, None].astype(np.float32)}, Fit.of(source, CONFIG, camera), CONFIG, **limits)


def test_depth_is_a_task() -> None:
    assert "depth" in task_names() and get_task("depth") is task
    with pytest.raises(ValueError, match="unknown task 'dpeth'.*depth"):
        get_task("dpeth")


def test_parse_stretches_to_the_source() -> None:
    result = parsed(np.full((4, 6), 2.5))
    assert result.metres.shape == (8, 12) and result.metres.dtype == np.float32
    assert np.allclose(result.metres, 2.5)


@given(st.floats(0.2, 4), st.floats(0.2, 4))
def test_metres_follow_the_lens(horizontal: float, vertical: float) -> None:
    """Behind a lens of k times the training focal length, everything seems k times as near."""
    camera = Camera(12, 8, 0.9 * 12 * horizontal, 1.2 * 8 * vertical, 6, 4)
    assert np.allclose(parsed(np.full((4, 6), 2.0), camera).metres, 2 * math.sqrt(horizontal * vertical), rtol=1e-5)


def test_parse_takes_the_window_that_shows_the_source() -> None:
    """A network that pads sees half the view in its middle; its map, at half its resolution, is cut there."""
    config = CONFIG.replace(input_size=(64, 96), pads_narrow_views=True)
    camera = Camera(12, 8, 2 * 0.9 * 12, 2 * 1.2 * 8, 6, 4)
    depth = np.full((1, 1, 32, 48), 9.0, np.float32)
    depth[..., 8:24, 12:36] = 2.0
    fit = Fit.of((8, 12), config, camera)
    assert np.array_equal(task.parse({"depth": depth}, fit, config).metres, np.full((8, 12), 2.0, np.float32))


def test_out_of_range_and_invalid_follow_rep_117() -> None:
    depth = np.array([[0.0, 0.5, 1.0, 9.0, 11.0, np.nan]] * 4)
    metres = parsed(depth, source=(4, 6), min_depth=0.8, max_depth=10.0).metres
    assert np.isnan(metres[:, [0, 5]]).all() and np.isneginf(metres[:, 1]).all() and np.isposinf(metres[:, 4]).all()
    assert np.allclose(metres[:, 2:4], [1, 9])


def test_disagreement() -> None:
    reference = {"depth": np.array([1.0, 2.0, 0.0])}
    assert task.disagreement(reference, reference, CONFIG) == 0
    assert task.disagreement(reference, {"depth": np.array([1.1, 2.0, 5.0])}, CONFIG) == pytest.approx(0.05)
    assert task.disagreement(reference, {"depth": np.array([1.0, np.nan, 0.0])}, CONFIG) == math.inf
    assert task.disagreement(reference, {"depth": np.ones(2)}, CONFIG) == math.inf


def test_edges_are_left_out() -> None:
    metres = np.full((4, 6), 2.0, np.float32)
    metres[:, 3:] = 4.0
    result = task.without_edges(metres, 0.2)
    assert np.isnan(result[:, 3]).all() and np.isfinite(np.delete(result, 3, axis=1)).all()


def test_colors_tell_near_from_far_and_unknown() -> None:
    picture = task.colorize(np.array([[0.5, 8.0, np.nan, np.inf]], np.float32))
    near, far, unknown, beyond = picture[0].astype(int)
    assert near[2] > near[0] and far[0] + far[2] < near[2] + 120 and (unknown == 0).all() and (beyond == 0).all()
    assert (near != far).any()
    assert len(np.unique(task.colorize(np.full((2, 2), 3.0), 3.0, 3.0))) <= 3


def test_overlay_blends() -> None:
    depth = task.Depth(np.full((2, 3), 2.0, np.float32), None)
    image = np.full((2, 3, 3), 100, np.uint8)
    assert (task.overlay(image, depth, 0.0) == 100).all()
    assert (task.overlay(image, depth, 1.0) == task.colorize(depth.metres)).all()

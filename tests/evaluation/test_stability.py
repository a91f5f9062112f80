"""Steadiness in time and behind another lens, worked out on walls."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from memory import CAMERA, flat

from perception.evaluation.frames import RGBDFrame
from perception.evaluation.stability import half_view, half_view_change, relative_change, scale_of


def at(z: float, x: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = x, 0, z
    return pose


def depth(frame: RGBDFrame, factor: float = 1.0) -> np.ndarray:
    assert frame.depth is not None
    return frame.depth * np.float32(factor)


def test_scale_is_the_median_ratio() -> None:
    truth = np.array([[1.0, 2.0, 4.0, 0.0, np.nan]])
    assert scale_of(np.array([[2.0, 2.0, 4.0, 9.0, 9.0]]), truth) == 1 and math.isnan(scale_of(truth, truth * 0))


def test_the_motion_of_the_camera_is_no_change() -> None:
    earlier, later = flat(3.0, pose=at(0)), flat(2.5, pose=at(0.5, 0.2))
    assert relative_change(earlier, depth(earlier), later, depth(later)) == pytest.approx(0, abs=1e-6)
    assert relative_change(earlier, depth(earlier), later, depth(later, 1.2)) == pytest.approx(0.2, abs=1e-6)
    # 3 m is said to be 3.3 m: seen from half a metre further on that is 2.8 m, and 2.5 m is said.
    changed = relative_change(earlier, depth(earlier, 1.1), later, depth(later))
    assert changed == pytest.approx(0.3 / 2.8, abs=1e-6)


def test_only_the_same_surface_counts() -> None:
    earlier, later = flat(3.0, pose=at(0)), flat(3.0, pose=at(0))
    moved = depth(later).copy()
    moved[:, 32:] = 1.5  # something came before the wall
    assert relative_change(earlier, depth(earlier), replace(later, depth=moved), moved) == 0
    assert math.isnan(relative_change(earlier, depth(earlier), flat(1.5, pose=at(0)), moved))


def test_without_poses_nothing_is_said() -> None:
    frame = flat(3.0)
    assert math.isnan(relative_change(frame, depth(frame), frame, depth(frame)))


def test_the_half_view_is_the_centre_behind_twice_the_focal_length() -> None:
    frame = flat(3.0)
    frame.rgb[12:36, 16:48] = 200
    view, window = half_view(frame)
    assert view.rgb.shape == frame.rgb.shape and (view.rgb == 200).all() and view.camera is not None
    assert window == (slice(12, 36), slice(16, 48))
    assert (view.camera.fx, view.camera.fy) == (2 * CAMERA.fx, 2 * CAMERA.fy)
    assert (view.camera.cx, view.camera.cy) == (31.5, 23.5)
    with pytest.raises(ValueError, match="no camera; the lens test needs one"):
        half_view(flat(3.0, camera=None))


def test_the_lens_test_tells_who_follows_the_lens() -> None:
    frame = flat(3.0)

    def follows(view: RGBDFrame) -> np.ndarray:
        return np.full(view.rgb.shape[:2], 3.0)

    def ignores(view: RGBDFrame) -> np.ndarray:
        assert view.camera is not None
        return np.full(view.rgb.shape[:2], 3.0 * view.camera.fx / CAMERA.fx)

    assert half_view_change(follows, frame, follows(frame)) == {"shift": 0, "change": 0}
    assert half_view_change(ignores, frame, ignores(frame)) == {"shift": 1, "change": 1}


def test_things_that_move_apart_are_no_shift() -> None:
    frame = flat(3.0)
    uneven = np.linspace(2.7, 3.3, 64, dtype=np.float32)[None].repeat(48, axis=0)
    change = half_view_change(lambda view: uneven, frame, np.full((48, 64), 3.0))
    assert abs(change["shift"]) < 0.01 and 0.04 < change["change"] < 0.06

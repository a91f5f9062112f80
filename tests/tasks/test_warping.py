"""Warping by depth: z-buffer, closed surfaces, what fills the holes; against scenes that are known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.tasks.config import GREY
from perception.tasks.geometry import Camera, back_project
from perception.tasks.poses import pose_of, translated
from perception.tasks.warping import fill_holes, warp, warp_depth

WIDE, WIDER = Camera(640, 480, 585.0, 585.0, 320.0, 240.0), Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
BASELINE = np.array([0.025, 0.0, 0.0])
CAMERA = Camera(96, 64, 80.0, 80.0, 47.5, 31.5)
RED, BLUE = (200, 30, 30), (30, 30, 200)


def plane(camera: Camera, normal: np.ndarray, offset: float) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    x, y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    return offset / (normal[0] * x + normal[1] * y + normal[2])


@settings(max_examples=15)
@given(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4), st.floats(1, 5))
def test_a_plane_stays_the_same_plane(a: float, b: float, metres: float) -> None:
    normal = np.array([a, b, 1.0])
    source, target = WIDE.resized(320, 240), WIDER.resized(320, 240)
    seen = warp_depth(plane(source, normal, metres), source, target, translated(BASELINE))
    expected = plane(target, normal, metres - normal @ BASELINE)
    known = np.isfinite(seen)
    # The source sees only the middle of the target's wider view, and there must be no hole in it.
    assert known[15:225, 22:285].mean() > 0.999
    assert np.abs(seen / expected - 1)[known].max() < 0.01


def test_the_same_camera_in_the_same_place_changes_nothing() -> None:
    depth = np.random.default_rng(0).uniform(0.5, 9, (48, 64))
    depth[3, 4] = np.nan
    camera = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
    np.testing.assert_array_equal(warp_depth(depth, camera, camera, np.eye(4)), depth.astype(np.float32))


def test_the_nearest_surface_hides_what_is_behind_it() -> None:
    """A post at 1 m before a wall at 4 m: seen from 9 cm to the right it moves left over the wall and leaves a gap."""
    camera = Camera(200, 40, 100.0, 100.0, 99.5, 19.5)
    depth = np.full((40, 200), 4.0)
    depth[:, 100:120] = 1.0
    seen = warp_depth(depth, camera, camera, translated((0.09, 0, 0)))
    assert (seen[:, 91:111] == 1.0).all()  # 100 px * 0.09 m / 1 m to the left, whole
    assert (seen[:, :91] == 4.0).all()  # the wall beside it
    assert np.isnan(seen[:, 111:117]).all()  # what the post hid from the first camera
    assert (seen[:, 118:197] == 4.0).all()


def test_moving_forward_shortens_depth() -> None:
    camera = Camera(20, 20, 10.0, 10.0, 9.5, 9.5)
    seen = warp_depth(np.full((20, 20), 3.0), camera, camera, translated((0, 0, 1.0)))
    assert np.nanmax(seen) == np.nanmin(seen) == 2.0
    assert np.isnan(warp_depth(np.full((20, 20), 0.5), camera, camera, translated((0, 0, 1.0)))).all()


def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth colours of points (x, y) in metres, uint8."""
    waves = [np.sin(6 * x + 1), np.cos(5 * y), np.sin(4 * x + 3 * y)]
    return np.rint(127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def wall(camera: Camera, pose: np.ndarray, metres: float) -> tuple[np.ndarray, np.ndarray]:
    """Image and depth of a wall in the plane z = metres of a frame in which the camera stands at `pose`."""
    columns, rows = camera.rays()
    rays = np.stack(np.broadcast_arrays(columns[None], rows[:, None], np.ones((1, 1))), axis=-1) @ pose[:3, :3].T
    depth = (metres - pose[2, 3]) / rays[..., 2]
    points = pose[:3, 3] + depth[..., None] * rays
    return pattern(points[..., 0], points[..., 1]), depth.astype(np.float32)


def shown(metres: np.ndarray, camera: Camera, pose: np.ndarray, source: Camera) -> np.ndarray:
    """Which pixels of a depth map, seen from `pose`, lie a pixel inside of the source's image."""
    points = back_project(metres, camera) @ pose[:3, :3].T + pose[:3, 3]
    u = points[..., 0] / points[..., 2] * source.fx + source.cx
    v = points[..., 1] / points[..., 2] * source.fy + source.cy
    return (u > 1) & (u < source.width - 2) & (v > 1) & (v < source.height - 2)


@pytest.mark.parametrize(
    "pose",
    [
        np.eye(4),
        translated((0.1, -0.05, 0.0)),
        translated((0.0, 0.0, 1.2)),  # so near that surfaces become 2.5 times larger
        translated((0.0, 0.0, -0.5)),
        pose_of((0.2, 0.1, 0.1), (0.02, -0.1, 0.03, 1)),
        pose_of((0, 0, 0), (0, 0, 0.4, 1)),  # a grid that is turned has gaps at once
    ],
)
@pytest.mark.parametrize("target", [CAMERA, CAMERA.resized(144, 96)])
def test_a_wall_looks_as_it_does_from_there(pose: np.ndarray, target: Camera) -> None:
    image, depth = wall(CAMERA, np.eye(4), 2.0)
    expected, metres = wall(target, pose, 2.0)
    view = warp(image, depth, CAMERA, target, pose)
    seen, should = np.isfinite(view.depth), shown(metres, target, pose, CAMERA)
    assert should.mean() > 0.3 and seen[should].all()
    assert np.abs(view.depth / metres - 1)[seen].max() < 0.01
    assert np.abs(view.image.astype(int) - expected)[should].max() < 12
    assert view.image.dtype == np.uint8 and view.depth.dtype == np.float32 and view.mask is None


def post() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A red post at 1 m before a blue wall at 4 m: image, depth and mask."""
    image, depth = np.full((64, 96, 3), BLUE, np.uint8), np.full((64, 96), 4.0, np.float32)
    image[:, 40:56], depth[:, 40:56] = RED, 1.0
    return image, depth, depth < 2


def test_the_wall_fills_what_the_post_hid() -> None:
    """From 10 cm to the right the post moves 8 pixels to the left and the wall 2."""
    view = warp(*post()[:2], CAMERA, CAMERA, translated((0.1, 0, 0)), post()[2])
    red = (view.image == RED).all(axis=2)
    assert red[:, 33:47].all() and not red[:, 49:].any() and not red[:, :31].any()
    assert view.mask is not None and (view.mask[:, 32:48] == red[:, 32:48]).all() and view.mask.sum() == 16 * 64
    assert np.isnan(view.depth[:, 48:54]).all() and (view.depth[:, 55:93] == 4).all()
    assert (view.image[:, 50:] == BLUE).all() and np.isnan(view.depth[:, 94:]).all()


def test_the_wall_does_not_shine_through_a_post_that_comes_nearer() -> None:
    view = warp(*post()[:2], CAMERA, CAMERA, translated((0, 0, 0.75)))  # four times as near
    assert (view.depth == np.float32(0.25)).sum(axis=1).tolist() == [64] * 64
    assert (view.image[:, 19:77] == RED).all()


def test_unknown_depth_is_that_of_what_is_behind() -> None:
    image, depth, _ = post()
    image[30:34, 36:40] = 250  # beside the post, and seen, but nobody measured how far away
    depth[30:34, 36:40] = (np.nan, np.inf, 0, -1)
    view = warp(image, depth, CAMERA, CAMERA, translated((-0.1, 0, 0)))
    assert (view.image[31:33, 39:41] == 250).all()  # it moves as the wall does, 2 pixels
    assert np.isnan(view.depth[30:34, 38:42]).all() and (view.depth[20, 30:41] == 4).all()


def test_of_nothing_known_nothing_is_seen() -> None:
    image, _, _ = post()
    view = warp(image, np.full((64, 96), np.nan, np.float32), CAMERA, CAMERA, np.eye(4))
    assert np.isnan(view.depth).all() and (view.image == GREY).all()
    behind = warp(*post()[:2], CAMERA, CAMERA, translated((0, 0, 5)))
    assert np.isnan(behind.depth).all() and (behind.image == GREY).all()


def test_holes_take_the_farther_side() -> None:
    depth = np.array([[1, 1, np.nan, np.nan, 5, 5]] * 3, np.float32)
    image = np.where(depth[..., None] == 1, RED, BLUE).astype(np.uint8)
    fill_holes(depth, image)
    assert (depth[:, 2:] == 5).all() and (image[:, 2:] == BLUE).all() and (image[:, :2] == RED).all()
    single = np.full((5, 7), np.nan, np.float32)
    single[1, 2] = 3
    fill_holes(single)
    assert np.allclose(single, 3)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.tuples(*[st.floats(-3, 3)] * 3), st.tuples(*[st.floats(-1, 1)] * 3))
def test_whatever_comes_a_view_comes_back(seed: int, place: tuple[float, ...], turn: tuple[float, ...]) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.01, 5, (24, 32)).astype(np.float32)
    depth[rng.random((24, 32)) < 0.2] = rng.choice([np.nan, np.inf, -np.inf, 0, -1, 1e-30, 1e30])
    image = rng.integers(0, 256, (24, 32, 3), np.uint8)
    view = warp(image, depth, CAMERA.resized(32, 24), CAMERA.resized(40, 20), pose_of(place, (*turn, 1)))
    assert view.image.shape == (20, 40, 3) and view.depth.shape == (20, 40)
    assert (np.isnan(view.depth) | (view.depth > 0)).all()


def test_what_does_not_fit_is_refused() -> None:
    image, depth, mask = post()
    for arrays in ((image[1:], depth, mask), (image, depth[1:], mask), (image, depth, mask[1:])):
        with pytest.raises(ValueError, match="96x64 pixels; image, depth, mask and camera must be of one size"):
            warp(*arrays[:2], CAMERA, CAMERA, np.eye(4), arrays[2])
    with pytest.raises(ValueError, match="finite"):
        warp(image, depth, CAMERA, CAMERA, np.full((4, 4), math.nan))

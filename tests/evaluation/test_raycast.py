"""Depth against planes known in closed form, and light that behaves as light does."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("embreex")

from perception.evaluation.raycast import Light, Scene
from perception.evaluation.room_parts import Assembly, Material
from perception.evaluation.room_views import camera_pose
from perception.tasks.geometry import Camera, back_project

CAMERA = Camera(80, 60, 65.0, 66.0, 39.5, 28.0)
GREY = np.full((8, 8, 3), 0.5, np.float32)


def scene(assembly: Assembly, *lights: Light, ambient: float = 0.0) -> Scene:
    return Scene(assembly.parts, lights, [GREY], np.full(3, ambient))


def wall(x: float = 3.0) -> Assembly:
    """A large wall whose near face is the plane with this x."""
    return Assembly().box((0.1, 60.0, 60.0), (x + 0.05, 0, 0), Material(0))


def lamp(x: float, y: float, z: float) -> Light:
    return Light(np.array([x, y, z]), np.array([0.01, 0, 0]), np.array([0, 0.01, 0]), np.ones(3))


def test_depth_of_a_facing_plane_is_along_z_not_along_the_ray():
    depth = scene(wall()).depth(CAMERA, camera_pose(0, 0, 0, 0))
    assert depth.dtype == np.float32 and depth.shape == (60, 80)
    np.testing.assert_allclose(depth, 3.0, rtol=1e-6)


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0.4, 0.2, 0.0), (-0.5, -0.3, 0.1), (0.05, -0.01, -0.4)])
def test_depth_of_an_oblique_plane(yaw, pitch, roll):
    pose = camera_pose(0.3, -0.2, 0.1, yaw, pitch, roll)
    rows, columns = np.mgrid[:60, :80]
    rays = np.stack([(columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy, np.ones_like(rows, float)], -1)
    expected = (3.0 - 0.3) / (rays @ pose[:3, :3].T)[..., 0]  # where x of origin + z * ray reaches the wall
    np.testing.assert_allclose(scene(wall()).depth(CAMERA, pose), expected, rtol=1e-5)


def test_a_back_projected_wall_is_planar_and_where_it_stands():
    pose = camera_pose(0.3, -0.2, 0.1, 0.4, 0.2, 0.1)
    points = back_project(scene(wall()).depth(CAMERA, pose), CAMERA).reshape(-1, 3)
    world = points @ pose[:3, :3].T + pose[:3, 3]
    assert np.abs(world[:, 0] - 3.0).max() < 3e-4  # 1e-4 of the depth


def test_nothing_in_view_is_nan():
    assert np.isnan(scene(wall()).depth(CAMERA, camera_pose(0, 0, 0, math.pi))).all()


def test_pose_axes_are_those_of_the_optical_frame():
    pose = camera_pose(1, 2, 3, 0.0)
    np.testing.assert_allclose(pose[:3, 0], [0, -1, 0], atol=1e-12)  # right of a camera that looks along x
    np.testing.assert_allclose(pose[:3, 1], [0, 0, -1], atol=1e-12)  # down
    np.testing.assert_allclose(pose[:3, 2], [1, 0, 0], atol=1e-12)
    turned = camera_pose(0, 0, 0, 0.7, -0.3, 0.2)[:3, :3]
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turned) == pytest.approx(1)


def test_light_falls_with_the_square_of_distance_and_the_cosine():
    camera, rng = Camera(9, 9, 400.0, 400.0, 4.0, 4.0), np.random.default_rng(0)
    pose = camera_pose(0, 0, 0, 0)
    near = scene(wall(), lamp(2.0, 0, 0)).radiance(camera, pose, rng)[4, 4, 0]
    far = scene(wall(), lamp(1.0, 0, 0)).radiance(camera, pose, rng)[4, 4, 0]
    aside = scene(wall(), lamp(2.0, 1.0, 0)).radiance(camera, pose, rng)[4, 4, 0]
    assert near / far == pytest.approx(4, rel=0.05)
    assert aside / near == pytest.approx(0.5 / math.sqrt(2), rel=0.05)


def test_a_box_before_the_lamp_throws_a_shadow():
    rng, pose = np.random.default_rng(0), camera_pose(0, 0, 0, 0)
    light = lamp(1.0, 3.0, 0)
    free = scene(wall(), light).radiance(CAMERA, pose, rng)
    shaded = scene(wall().box((0.4, 0.4, 5), (2.0, 1.5, 0), Material(0)), light).radiance(CAMERA, pose, rng)
    assert shaded[28, 40].max() < 0.1 * free[28, 40].max()  # the segment from lamp to wall passes through the box
    np.testing.assert_allclose(shaded[28, 75], free[28, 75], rtol=0.1)


def test_radiance_is_repeatable_by_seed():
    lit, pose = scene(wall(), lamp(1, 0, 0)), camera_pose(0, 0, 0, 0.2)
    first, again, other = (lit.radiance(CAMERA, pose, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)

"""The shipped clip: its images, depth and poses agree with each other."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.evaluation.rgbd_folder import RGBDFolder
from perception.tasks.geometry import back_project

CLIP = Path(__file__).parents[2] / "clip"


@pytest.fixture(scope="module")
def clip() -> RGBDFolder:
    return RGBDFolder(CLIP)


def test_it_is_small_free_and_says_which_command_made_it(clip):
    assert sum(path.stat().st_size for path in CLIP.rglob("*") if path.is_file()) <= 5 * 2**20
    assert clip.about["licence"] == "Apache-2.0"
    assert clip.about["command"].startswith("perception rooms --split clip")
    assert len(clip) >= 100 and len(clip.poses) == len(clip) and clip.fps == 30
    np.testing.assert_allclose(np.diff(clip.stamps), 1 / 30, atol=2e-6)


def test_frames_are_vga_with_depth_almost_everywhere(clip):
    for index in range(0, len(clip), 20):
        frame = clip[index]
        assert frame.rgb.shape == (480, 640, 3) and frame.depth.shape == (480, 640)
        assert np.isfinite(frame.depth).mean() > 0.85
        assert np.nanmin(frame.depth) > 0.3 and np.nanmax(frame.depth) < 10
        assert frame.rgb.std() > 20


def test_the_robot_moves_smoothly(clip):
    places, forward = clip.poses[:, :3, 3], clip.poses[:, :3, 2]
    assert np.linalg.norm(places[-1] - places[0]) > 0.5
    assert np.linalg.norm(np.diff(places, axis=0), axis=1).max() * clip.fps < 0.6  # metres a second
    turns = np.arccos(np.clip((forward[1:] * forward[:-1]).sum(axis=1), -1, 1))
    assert np.degrees(turns.max()) * clip.fps < 45  # degrees a second


@pytest.mark.parametrize("first", [0, 50, 85])
def test_a_frame_predicts_a_later_one_through_depth_and_pose(clip, first):
    here, later = clip[first], clip[first + 12]
    points = back_project(here.depth, here.camera).astype(np.float64)
    between = np.linalg.inv(later.pose) @ here.pose
    x, y, z = np.moveaxis(points @ between[:3, :3].T + between[:3, 3], -1, 0)
    camera = later.camera
    columns, rows = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
    seen = np.isfinite(z) & (columns > 1) & (rows > 1) & (columns < 638) & (rows < 478)
    maps = [np.where(seen, place, -9).astype(np.float32) for place in (columns, rows)]
    ratio = cv2.remap(later.depth, *maps, cv2.INTER_NEAREST)[seen] / z[seen]
    ratio = ratio[np.isfinite(ratio)]
    assert np.mean(np.abs(ratio - 1) < 0.01) > 0.85  # the rest is hidden from one of the two places
    difference = np.abs(cv2.remap(later.rgb, *maps, cv2.INTER_LINEAR)[seen].astype(float) - here.rgb[seen]).mean()
    assert difference < 0.8 * np.abs(later.rgb.astype(float) - here.rgb).mean()

"""Composed scenes: repeatable, their masks and poses right, and nothing shared between splits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("embreex")

from perception.evaluation.composed import ComposedViews
from perception.evaluation.compositions import NEAR, NEAR_VIEWS, VIEWS, Composition
from perception.evaluation.datasets import find_dataset
from perception.tasks.enhancement_metrics import psnr
from perception.tasks.poses import angle_of, check_pose, relative_pose
from perception.tasks.warping import warp


@pytest.fixture(scope="module", params=["train", "clip"])
def scene(request: pytest.FixtureRequest) -> Composition:
    return Composition(request.param, 3)


def test_cameras_stand_around_three_to_five_objects(scene: Composition) -> None:
    assert 3 <= len(scene.spans) <= 5 and len(scene.poses) == VIEWS
    angles = [angle_of(relative_pose(scene.poses[0], pose)) for pose in scene.poses]
    assert angles[0] == 0 and max(angles[1 : 1 + NEAR_VIEWS]) <= NEAR < max(angles[1 + NEAR_VIEWS :])
    camera = scene.camera(24, 24)
    for view, pose in enumerate(scene.poses):
        check_pose(pose)
        x, y, z = pose[:3, 3]
        assert scene.clearance(x, y, above=z) > 0.15 and z < 1.8
        assert (scene.photograph(view, camera, 1).mask > 0).mean() > 0.02


def test_a_view_is_the_same_each_time(scene: Composition) -> None:
    again = Composition(scene.draw.split, 3)
    camera = scene.camera(48, 64)
    first, second = (one.photograph(2, camera, 1) for one in (scene, again))
    assert all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("rgb", "depth", "mask", "pose"))
    assert first.rgb.dtype == np.uint8 and first.rgb.shape == (48, 64, 3) and first.depth.dtype == np.float32
    other = Composition(scene.draw.split, 4)
    assert not np.array_equal(other.poses[0], scene.poses[0]) and other.size != scene.size


def test_image_depth_mask_and_pose_belong_together(scene: Composition) -> None:
    """Warped by its depth and the poses, a view looks like a near one, its objects where they are there."""
    camera = scene.camera(64, 64)
    here, there = (scene.photograph(view, camera, 1) for view in (0, 1))
    view = warp(here.rgb, here.depth, camera, camera, relative_pose(here.pose, there.pose), here.mask > 0)
    seen = np.isfinite(view.depth)
    right = np.abs(view.depth / there.depth - 1)[seen] < 0.03
    assert right.mean() > 0.9
    assert psnr(view.image, there.rgb) > psnr(here.rgb, there.rgb) + 1
    assert (view.mask == (there.mask > 0))[seen].mean() > 0.9


def test_splits_share_no_texture_and_no_size() -> None:
    scenes = [Composition(split, 3) for split in ("train", "clip")]
    sizes = [{round(1000 * side) for side in one.size} for one in scenes]
    looks = [{hashlib.sha256(image.tobytes()).hexdigest() for image in one.stuff.textures} for one in scenes]
    assert not sizes[0] & sizes[1] and not looks[0] & looks[1]


def test_another_scene_stands_for_one_that_is_too_full(monkeypatch: pytest.MonkeyPatch) -> None:
    cameras = Composition._cameras

    def refusing(self: Composition) -> list[np.ndarray]:
        if self.number < 2_000_000:
            raise ValueError("no room")
        return cameras(self)

    monkeypatch.setattr(Composition, "_cameras", refusing)
    assert Composition.first("clip", 3, 5).number == 2_000_005
    assert ComposedViews(3, 2, side=8, samples=1)[0].rgb.shape == (8, 8, 3), "measured there, too"
    monkeypatch.setattr("perception.evaluation.compositions.OTHERS", 2)
    with pytest.raises(ValueError, match="no room"):
        Composition.first("clip", 3, 5)


def test_a_square_of_what_a_wider_image_shows() -> None:
    scene = Composition("clip", 3)
    squeezed, whole = scene.camera(24, 24, 4 / 3), scene.camera(24, 32)
    assert vars(squeezed) == pytest.approx(vars(whole.resized(24, 24)))


def test_the_data_set_has_all_views_but_the_first() -> None:
    views = ComposedViews(3, 2, side=24, samples=1)
    assert len(views) == 2 * (VIEWS - 1) and views.task == "view_synthesis" and views.files(0) == ()
    assert views.label(0) == "scene-0000 view 1" and views.label(len(views) - 1) == f"scene-0001 view {VIEWS - 1}"
    frame, other = views[2], views[3]
    assert np.array_equal(frame.rgb, other.rgb) and not np.array_equal(frame.target, other.target)
    scene = Composition("clip", 3)
    np.testing.assert_allclose(frame.pose, relative_pose(scene.poses[0], scene.poses[3]))
    assert frame.camera == frame.target_camera == scene.camera(24, 24)
    assert len(frame.truth()) == 6 and np.array_equal(frame.target_mask, scene.photograph(3, frame.camera, 1).mask)
    with pytest.raises(IndexError):
        views[len(views)]
    named = find_dataset("composed:2:7", Path("nowhere"))
    assert named.name == "composed:2:7" and len(named) == 7 * (VIEWS - 1)
    with pytest.raises(ValueError, match="composed:1:24"):
        find_dataset("composed:all", Path("nowhere"))

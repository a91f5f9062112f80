"""Scenes for novel views: kept, varied alike in all views, drawn as windows of smaller cameras, batched."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from scenes import NAMES, scene  # noqa: E402

from perception.models import model_config  # noqa: E402
from perception.tasks.geometry import Camera  # noqa: E402
from perception.tasks.poses import angle_of, pose_of, relative_pose  # noqa: E402
from perception.tasks.warping import warp  # noqa: E402
from perception.training import view_data  # noqa: E402
from perception.training.view_data import (  # noqa: E402
    DepthModel,
    KeptScenes,
    Targets,
    ViewAugmentation,
    choose_targets,
    view_batch,
)

SIZE = (32, 32)
CONFIG = model_config("nvist_compact", SIZE, depth=True, instances=True)
PLAIN = ViewAugmentation(light=0, unknown=0)


def batch(wanted: Targets, seed: int = 0, amount: ViewAugmentation = PLAIN, count: int = 1) -> dict[str, np.ndarray]:
    tensors = view_batch([scene(1)], np.random.default_rng(seed), count, wanted, CONFIG, amount)
    return dict(zip(NAMES, (tensor.numpy() for tensor in tensors), strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_a_target_is_what_its_pose_and_lens_say(seed: int) -> None:
    """Mirrored or not, and whichever window: warping the input by its depth gives it."""
    found = batch(Targets(1, 8, 2), seed)
    assert found["views"].shape == (1, 3, 16, 16) and found["depths"].shape == (1, 1, 8, 8)
    fx, fy, cx, cy = found["lens"][0] * 16
    camera, source = Camera(16, 16, fx, fy, cx - 0.5, cy - 0.5), found["camera"][0, :4] * 32
    own = Camera(32, 32, *source[:2], *(source[2:] - 0.5))
    pose = found["pose"][0].astype(np.float64)
    view = warp(found["image"][0].transpose(1, 2, 0), found["seen_depth"][0, 0], own, camera, pose)
    known = np.isfinite(view.depth)
    error = np.abs(view.image.transpose(2, 0, 1).astype(float) - found["views"][0])[:, known]
    assert known.mean() > 0.4 and error.mean() < 8
    apart = np.abs(
        np.median(view.depth.reshape(8, 2, 8, 2).swapaxes(1, 2).reshape(8, 8, 4), 2) / found["depths"][0, 0] - 1
    )
    assert np.nanmedian(apart) < 0.02
    assert set(np.unique(found["masks"])) <= {0, 0.25, 0.5, 0.75, 1}


@pytest.mark.parametrize("wanted", [Targets(1, 8, 2), Targets(1, 8, 2, coarse=True)])
def test_a_ray_has_the_depth_in_the_middle_of_its_pixels(wanted: Targets) -> None:
    ramp = np.broadcast_to(10 + np.arange(32, dtype=np.float32), (6, 32, 32))
    tensors = view_batch(
        [dataclasses.replace(scene(1), depths=ramp)], np.random.default_rng(0), 1, wanted, CONFIG, PLAIN
    )
    found = dict(zip(NAMES, (tensor.numpy() for tensor in tensors), strict=True))
    fx, _, cx, _ = found["lens"][0]
    # From shares of the drawn width to columns of the whole image, whose focal length is its width.
    centres = ((np.arange(8) + 0.5) / 8 - cx) / fx * 32 + 16
    expected = 10 + centres - 0.5
    rows = found["depths"][0, 0]
    assert any(np.allclose(rows, row, atol=1e-4) for row in (expected, 10 + 31 - (centres - 0.5)))


def test_a_coarse_target_is_all_of_a_view() -> None:
    found = batch(Targets(3, 8, 2, coarse=True), count=2)
    assert found["views"].shape == (6, 3, 8, 8) and found["image"].shape == (2, 3, 32, 32)
    np.testing.assert_allclose(found["lens"], np.repeat(found["camera"][:, :4], 3, 0), rtol=1e-6)
    assert found["camera"].shape == (2, 5) and (found["camera"][:, 4] > 1).all() and found["masks"].any()
    known = scene(1).images
    small = [cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).transpose(2, 0, 1) for image in known]
    drawn = {
        number for view in found["views"] for number, image in enumerate(small)
        if any(np.array_equal(view, seen) for seen in (image, image[:, :, ::-1]))
    }  # fmt: skip
    assert len(drawn) > 1, "each is all of some view"


def test_sometimes_the_network_is_told_nothing() -> None:
    found = batch(Targets(1, 8, 2), amount=dataclasses.replace(PLAIN, unknown=1))
    assert not found["seen_depth"].any() and not found["instances"].any() and found["camera"][0, 4] == 0
    seen = [batch(Targets(1, 8, 2), seed, ViewAugmentation(unknown=0.5)) for seen, seed in enumerate(range(24))]
    told = {(bool(each["seen_depth"].any()), bool(each["instances"].any())) for each in seen}
    assert told == {(True, True), (True, False), (False, True), (False, False)}


def test_what_a_model_finds_is_told_in_place_of_the_depth() -> None:
    known = scene(1)
    taught = dataclasses.replace(known, told=known.depths * 0 + 5)
    tensors = view_batch([taught], np.random.default_rng(0), 1, Targets(1, 8, 2), CONFIG, PLAIN)
    found = dict(zip(NAMES, tensors, strict=True))
    assert (found["seen_depth"] == 5).all() and found["camera"][0, 4] == 5 and (found["depths"] < 4).all()


def test_targets_are_near_their_input() -> None:
    poses = np.stack([pose_of((0, 0, 0), (0, np.sin(turn / 2), 0, np.cos(turn / 2))) for turn in (0, 0.2, 0.4, 1.5)])
    rng = np.random.default_rng(0)
    chosen = {place for _ in range(20) for place in choose_targets(poses, 0, 2, 30, rng)}
    assert chosen == {1, 2}
    assert sorted(choose_targets(poses, 0, 2, 30, rng)) == [1, 2], "no view twice where there are enough"
    assert choose_targets(poses, 3, 2, 30, rng) == [2, 2], "the nearest, where none is near"
    assert angle_of(relative_pose(poses[3], poses[2])) > 30


def test_scenes_are_rendered_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def render(self: KeptScenes, number: int) -> dict[str, np.ndarray]:
        asked.append(number)
        known = scene(number)
        return {"images": known.images, "depths": known.depths.astype(np.float16), "masks": known.masks,
                "poses": known.poses, "focal": np.array([0.8, 1.0])}  # fmt: skip

    monkeypatch.setattr(KeptScenes, "_render", render)
    for _ in range(2):
        kept = KeptScenes(tmp_path / "kept", 3, 5, 32)
        found = kept[2]
    assert asked == [2] and len(kept) == 5 and found.camera == Camera(32, 32, 0.8 * 32, 32, 15.5, 15.5)
    np.testing.assert_array_equal(found.images, scene(2).images)
    np.testing.assert_allclose(found.depths, scene(2).depths, rtol=1e-3)
    assert found.told is None
    KeptScenes(tmp_path / "kept", 4, 5, 32)[2]
    assert asked == [2, 2], "another seed has other scenes"


def test_a_model_s_depth_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = scene(0)
    monkeypatch.setattr(KeptScenes, "_render", lambda self, number: {
        "images": known.images[:2], "depths": known.depths[:2], "masks": known.masks[:2], "poses": known.poses[:2],
        "focal": np.array([0.8, 1.0])})  # fmt: skip
    model = DepthModel("fastdepth_mobilenet_v2")
    told = KeptScenes(tmp_path, 0, 1, 32, model)[0].told
    assert told is not None and told.shape == (2, 32, 32) and (told > 0).all()
    monkeypatch.setattr(view_data, "predict_depth", None)
    np.testing.assert_array_equal(KeptScenes(tmp_path, 0, 1, 32, model)[0].told, told)
    with pytest.raises(ValueError, match="ugdc_compact is for enhancement.*name a trained model for depth"):
        DepthModel("ugdc_compact")


def test_real_scenes(tmp_path: Path) -> None:
    pytest.importorskip("embreex", reason="embreex is not installed; scenes need the extra simulate")
    found = KeptScenes(tmp_path, 0, 1, 16)[0]
    assert found.images.shape == (6, 16, 16, 3) and found.depths.shape == found.masks.shape == (6, 16, 16)
    assert np.isfinite(found.depths).all() and found.masks.any() and found.images.std() > 5
    assert max(angle_of(relative_pose(found.poses[0], pose)) for pose in found.poses) <= 30.1
    assert cv2.mean(found.images[0])[0] > 20
    assert 1 < found.camera.fy / found.camera.fx < 16 / 9, "a square of what a wider image shows"

"""Novel views of recordings and of folders with poses: which pairs they are, and whose axes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.evaluation.datasets import data_hash, data_root, find_dataset, open_dataset
from perception.evaluation.frames import RGBDFrame
from perception.evaluation.posed_folder import TO_OPTICAL, PosedFolder
from perception.evaluation.rgbd_folder import RGBDWriter
from perception.evaluation.views import PairedViews, choose_pairs, view_of
from perception.tasks.geometry import Camera
from perception.tasks.poses import angle_of, distance_of, inverse, pose_of, quaternion_of, relative_pose, translated

CAMERA = Camera(32, 24, 30.0, 30.0, 15.5, 11.5)
LEGO, SCENE = data_root() / "nerf_lego", data_root() / "seven_scenes_redkitchen"


def test_pairs_are_near_enough_and_far_enough() -> None:
    poses = np.stack([translated((0.04 * number, 0, 0)) for number in range(30)])
    poses[7] = np.nan
    poses[20, :3, :3] = pose_of((0, 0, 0), (0, 1, 0, 1))[:3, :3]
    pairs = choose_pairs(poses)
    assert pairs == choose_pairs(poses) != choose_pairs(poses, seed=1)
    assert [source for source, _ in pairs] == [number for number in range(30) if number not in (7, 20)]
    for source, target in pairs:
        between = relative_pose(poses[source], poses[target])
        assert 0.1 <= distance_of(between) <= 0.3 and angle_of(between) <= 30
    assert choose_pairs(poses[:1]) == [] and choose_pairs(np.zeros((0, 4, 4))) == []


def write_recording(folder: Path) -> Path:
    writer = RGBDWriter(folder, CAMERA, 30, "Apache-2.0", "test")
    for number in range(6):
        image = np.full((24, 32, 3), 40 * number, np.uint8)
        writer.write_frame(image, np.full((24, 32), 2.0), pose_of((0.08 * number, 1, 2), (0.1, 0, 0, 1)))
    return folder


def test_frames_with_poses_become_views(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "walk")
    views = open_dataset(Path(f"{path}:views"))
    assert isinstance(views, PairedViews) and views.metric and views.name == "walk views" and not views.sequence
    assert isinstance(open_dataset(path, task="view_synthesis"), PairedViews) and open_dataset(path).task == "depth"
    assert find_dataset("walk:views", tmp_path).name == views.name and len(views) == 6
    source, target = views.pairs[0]
    frame = views[0]
    assert frame.name == views.label(0) == f"{source:06d} to {target:06d}"
    np.testing.assert_allclose(
        frame.pose[:3, 3], pose_of((0, 0, 0), (-0.1, 0, 0, 1))[:3, :3] @ [0.08 * target, 0, 0], atol=1e-5
    )
    assert abs(int(frame.target[0, 0, 0]) - 40 * target) < 3 and frame.depth is not None and frame.mask is None
    assert frame.camera == CAMERA and set(views.files(0)) >= {path / "rgb" / f"{target:06d}.jpg"}
    assert len(data_hash(views)) == 64
    assert len(find_dataset("clip:views", tmp_path)) > 50
    (path / "poses.txt").unlink()
    with pytest.raises(ValueError, match="walk has no two views 0.1 to 0.3 apart and turned by at most 30 degrees"):
        open_dataset(Path(f"{path}:views"))


def test_a_frame_without_a_pose_is_no_view() -> None:
    whole = RGBDFrame(np.zeros((24, 32, 3), np.uint8), None, CAMERA, np.eye(4), name="whole")
    with pytest.raises(ValueError, match="'half' has no camera or no pose"):
        view_of(whole, RGBDFrame(whole.rgb, None, CAMERA, name="half"), "pair")


def poses_around() -> list[np.ndarray]:
    """Cameras in an optical frame's axes that look at the origin from 4 m."""
    turns = [pose_of((0, 0, 0), (0, math.sin(turn / 2), 0, math.cos(turn / 2))) for turn in (0.0, 0.3, 0.6)]
    return [turn @ translated((0, 0, -4)) for turn in turns]


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(3):
        pixels = np.full((24, 32, 4), (10 * number, 20, 30, 255), np.uint8)
        pixels[:4, :, 3] = 0
        cv2.imwrite(str(folder / f"{number}.png"), pixels)


@pytest.mark.parametrize("intrinsics", [{"camera_angle_x": 2 * math.atan(16 / 30)}, {"fl_x": 60, "w": 64, "h": 48}])
def test_nerf_says_poses_with_other_axes(tmp_path: Path, intrinsics: dict[str, float]) -> None:
    write_images(tmp_path / "lego/val")
    frames = [
        {"file_path": f"./val/{number}", "transform_matrix": (pose @ TO_OPTICAL).tolist()}
        for number, pose in enumerate(poses_around())
    ]
    (tmp_path / "lego/transforms_val.json").write_text(json.dumps(intrinsics | {"frames": frames}))
    folder = PosedFolder(tmp_path / "lego")
    assert folder.name == "lego eval" and len(folder) == 3
    frame = folder[1]
    np.testing.assert_allclose(frame.pose, poses_around()[1], atol=1e-12)
    assert frame.camera == pytest.approx(CAMERA) and frame.depth is None
    assert (frame.rgb[:4] == 255).all() and frame.rgb[8, 0].tolist() == [30, 20, 10]
    views = open_dataset(tmp_path / "lego")
    assert isinstance(views, PairedViews) and not views.metric and len(views) == 3
    with pytest.raises(ValueError, match="lego has no split 'train'"):
        open_dataset(tmp_path / "lego", "train")


def test_colmap_says_where_the_world_is_from_the_camera(tmp_path: Path) -> None:
    write_images(tmp_path / "garden/images")
    folder = tmp_path / "garden/sparse/0"
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text("# cameras\n1 SIMPLE_PINHOLE 64 48 60 32 24\n")
    lines = ["# images"]
    for number, pose in enumerate(poses_around()):
        world = inverse(pose)
        x, y, z, w = quaternion_of(world[:3, :3])
        lines += [f"{number} {w} {x} {y} {z} {' '.join(map(str, world[:3, 3]))} 1 {number}.png", ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    views = open_dataset(tmp_path / "garden")
    frame = views.frames[2]
    np.testing.assert_allclose(frame.pose, poses_around()[2], atol=1e-9)
    assert frame.camera == pytest.approx(CAMERA)
    (folder / "cameras.txt").write_text("1 OPENCV 64 48 60 60 32 24 0.1 0 0 0\n")
    with pytest.raises(ValueError, match="do not say poses.*SIMPLE_PINHOLE, PINHOLE, as its image_undistorter"):
        open_dataset(tmp_path / "garden")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "does not say poses"),
        ('{"frames": [{"file_path": "a"}]}', "KeyError: 'transform_matrix'"),
        ('{"frames": [{"file_path": "a", "transform_matrix": [[1, 0], [0, 1]]}]}', "does not say poses"),
        ('{"frames": []}', "names no image"),
        (f'{{"k1": 1, "frames": [{{"file_path": "a", "transform_matrix": {np.eye(4).tolist()}}}]}}', "undistort"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "transforms.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path)


@pytest.mark.skipif(not LEGO.is_dir(), reason=f"NeRF's Lego is not at {LEGO}")
def test_the_real_lego_is_seen_from_around() -> None:
    views = open_dataset(LEGO, "train")
    frame = views[0]
    assert len(views.frames) == 100 and frame.rgb.shape == (200, 200, 3)
    assert frame.camera.fx == pytest.approx(277.8, abs=0.1) and angle_of(frame.pose) <= 30
    # All cameras look at the origin, which is 4 units ahead of them.
    ahead = views.frames[5].pose @ [0, 0, 1, 0] * 4.031
    np.testing.assert_allclose(views.frames[5].pose[:3, 3] + ahead[:3], 0, atol=0.01)


@pytest.mark.skipif(not SCENE.is_dir(), reason=f"7-Scenes is not at {SCENE}")
def test_views_of_the_real_kitchen() -> None:
    views = find_dataset("seven_scenes:views", data_root())
    between = [relative_pose(views.frames.poses[a], views.frames.poses[b]) for a, b in views.pairs]
    assert len(views) > 150 and all(0.1 <= distance_of(pose) <= 0.3 for pose in between)

"""The reader of 7-Scenes on frames made here and on the real ones."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.evaluation.seven_scenes import COLOR_CAMERA, SevenScenes
from perception.tasks.geometry import Camera

DATA = Path(os.environ.get("PERCEPTION_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SCENE = DATA / "seven_scenes_redkitchen"
DEPTH_CAMERA = Camera(640, 480, 585.0, 585.0, 320.0, 240.0)


def write_scene(folder: Path, count: int = 2) -> None:
    folder.mkdir()
    np.savetxt(folder / "camera-intrinsics.txt", DEPTH_CAMERA.matrix)
    for index in range(count):
        stem = folder / f"frame-{index:06d}"
        color = np.full((480, 640, 3), (30, 60, 200), np.uint8)
        codes = np.full((480, 640), 2000, np.uint16)
        codes[:100] = 65535
        codes[100:150] = 0
        cv2.imwrite(f"{stem}.color.png", color)
        cv2.imwrite(f"{stem}.depth.png", codes)
        pose = np.eye(4)
        pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
        pose[:3, 3] = index, 2, 3
        np.savetxt(f"{stem}.pose.txt", pose)


def test_frames_are_read_as_the_color_camera_sees_them(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene")
    scene = SevenScenes(tmp_path / "scene")
    assert len(scene) == 2 and scene.camera == COLOR_CAMERA and SevenScenes.is_at(tmp_path / "scene")
    frame = list(scene)[1]
    assert frame.rgb.shape == (480, 640, 3) and tuple(frame.rgb[5, 5]) == (200, 60, 30)
    assert frame.stamp == pytest.approx(1 / 30) and frame.name == "frame-000001"
    assert frame.depth is not None and frame.depth.dtype == np.float32
    assert np.isnan(frame.depth[:140]).all() and (frame.depth[200:440, 60:580] == 2.0).all()
    assert frame.pose is not None  # the colour camera stands 25 mm to the right, which is -y of the world here
    np.testing.assert_allclose(frame.pose[:3, 3], [1, 2 - 0.025, 3])


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene")
    (tmp_path / "scene" / "frame-000001.depth.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"frame-000001.color and .depth.png are not a pair"):
        SevenScenes(tmp_path / "scene")[1]
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no frames of 7-Scenes"):
        SevenScenes(tmp_path / "none")


@pytest.mark.skipif(not SCENE.is_dir(), reason=f"7-Scenes is not at {SCENE}")
def test_registration_puts_real_depth_edges_on_color_edges() -> None:
    """How steep the colours are where the depth jumps: as they come 22, registered 38 over the sequence."""
    scene = SevenScenes(SCENE)
    steepness = []
    for index in (0, 60, 120, 180):
        frame = scene[index]
        codes = cv2.imread(str(SCENE / f"frame-{index:06d}.depth.png"), cv2.IMREAD_UNCHANGED)
        raw = np.where(np.isin(codes, (0, 65535)), 0, codes / 1000).astype(np.float32)
        assert frame.depth is not None
        steepness.append([edge_steepness(frame.rgb, depth) for depth in (raw, np.nan_to_num(frame.depth))])
    before, after = np.mean(steepness, axis=0)
    assert after > 1.3 * before


def edge_steepness(rgb: np.ndarray, depth: np.ndarray) -> float:
    grey = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (0, 0), 1.5).astype(np.float32)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)).clip(max=60)
    depth = cv2.medianBlur(depth.astype(np.float32), 5)
    left, right = depth[:, :-1], depth[:, 1:]
    jumps = (np.minimum(left, right) > 0) & (np.abs(left - right) > 0.12 * np.minimum(left, right))
    return float(slope[:, 1:][jumps].mean())

"""What is written is read back, coarse depth is right where it is known, and bad folders are named."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.evaluation.datasets import open_dataset
from perception.evaluation.rgbd_folder import RGBDFolder, RGBDWriter, upsampled
from perception.tasks.geometry import Camera

CAMERA = Camera(64, 48, 51.9, 52.1, 31.5, 23.0)
RGB = np.broadcast_to(np.uint8([200, 100, 20]), (48, 64, 3))


def plane(camera: Camera, slant: tuple[float, float] = (0.2, 0.4)) -> np.ndarray:
    """Depth of a plane whose inverse depth grows with x / z and y / z."""
    columns, rows = camera.rays()
    return 1 / (0.5 + slant[0] * columns[None, :] + slant[1] * rows[:, None])


def write(folder: Path, depth: np.ndarray | None, count: int = 1) -> RGBDFolder:
    writer = RGBDWriter(folder, CAMERA, 25.0, "Apache-2.0", "a test", 95)
    for index in range(count):
        pose = np.eye(4)
        pose[0, 3] = 0.1 * index
        writer.write_frame(RGB, depth, pose)
    return RGBDFolder(folder)


def test_round_trip(tmp_path):
    depth = plane(CAMERA)
    depth[:5] = np.nan
    depth[5, 0], depth[5, 1] = np.inf, 70.0  # beyond 16 bit
    folder = write(tmp_path / "set", depth, 3)
    assert len(folder) == 3 and [frame.name for frame in folder] == ["000000", "000001", "000002"]
    frame = folder[2]
    assert frame.camera == CAMERA and frame.stamp == pytest.approx(0.08)
    assert frame.rgb.dtype == np.uint8 and np.abs(frame.rgb.astype(int) - RGB).max() < 6  # RGB, not BGR
    assert frame.pose[0, 3] == pytest.approx(0.2)
    assert frame.depth.dtype == np.float32 and np.isnan(frame.depth[:5]).all() and np.isnan(frame.depth[5, :2]).all()
    np.testing.assert_allclose(frame.depth[6:], depth[6:], atol=0.00051)
    assert folder[-1].stamp == frame.stamp


def test_camera_file_says_where_the_frames_come_from(tmp_path):
    write(tmp_path / "set", plane(CAMERA))
    about = json.loads((tmp_path / "set" / "camera.json").read_text())
    assert about == {
        "width": 64,
        "height": 48,
        "fx": 51.9,
        "fy": 52.1,
        "cx": 31.5,
        "cy": 23.0,
        "fps": 25.0,
        "depth_scale": 1000.0,
        "licence": "Apache-2.0",
        "command": "a test",
    }
    assert open_dataset(tmp_path / "set").name == "set"


@given(st.floats(-0.12, 0.12), st.floats(-0.12, 0.12), st.sampled_from((2, 4)))
@settings(max_examples=25)
def test_coarse_depth_of_a_plane_is_exact_at_full_size(across, down, k):
    coarse = plane(CAMERA.resized(64 // k, 48 // k), (across, down))
    fine = upsampled(coarse.astype(np.float32), k)
    known = np.isfinite(fine)
    assert known.mean() > 0.95
    np.testing.assert_allclose(fine[known], plane(CAMERA, (across, down))[known], rtol=1e-5)


def test_coarse_depth_is_unknown_at_edges_and_never_in_between(tmp_path):
    coarse = np.full((12, 16), 1.0)
    coarse[:, 8:], coarse[0, 0] = 3.0, np.nan
    depth = write(tmp_path / "set", coarse)[0].depth
    assert depth.shape == (48, 64)
    known = np.isfinite(depth)
    np.testing.assert_allclose(np.where(depth[known] < 2, 1.0, 3.0), depth[known], rtol=1e-6)
    assert not known[20, 32] and not known[0, 0] and known[20, :30].all() and known[20, 34:].all()


@pytest.mark.parametrize("shape", [(24, 64), (47, 64), (96, 128), (48, 64, 1), (0, 0)])
def test_depth_of_another_shape_is_refused(tmp_path, shape):
    writer = RGBDWriter(tmp_path / "set", CAMERA, 30, "", "")
    with pytest.raises(ValueError, match="no integer fraction"):
        writer.write_frame(RGB, np.ones(shape))


def test_rgb_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected \(48, 64, 3\)"):
        RGBDWriter(tmp_path / "set", CAMERA, 30, "", "").write_frame(RGB[:40], None)


def test_a_folder_with_frames_is_not_written_into(tmp_path):
    write(tmp_path / "set", None)
    with pytest.raises(FileExistsError, match="holds frames already"):
        RGBDWriter(tmp_path / "set", CAMERA, 30, "", "")


def test_plain_images(tmp_path):
    for name in ("b.png", "a.JPG"):
        cv2.imwrite(str(tmp_path / name), np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    folder = RGBDFolder(tmp_path)
    assert [frame.name for frame in folder] == ["a", "b"]
    frame = folder[1]
    assert frame.rgb.shape == (20, 30, 3) and frame.depth is None and frame.camera is None and frame.pose is None
    assert frame.stamp == pytest.approx(1 / 30)


def test_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        RGBDFolder(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="holds no image; accepted: .jpg"):
        RGBDFolder(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("camera.json", "{}", "needs width, height, fx, fy, cx, cy"),
        ("camera.json", "[1", "not a camera description"),
        ("camera.json", '{"width": 64, "height": 48, "fx": 0, "fy": 1, "cx": 1, "cy": 1}', "positive"),
        ("camera.json", '{"width": 32, "height": 24, "fx": 9, "fy": 9, "cx": 1, "cy": 1}', "64x48 but .* says 32x24"),
        ("poses.txt", "0 1 2 3\n", "a stamp and 16 numbers"),
        ("rgb/000000.jpg", "cut short", "not a readable image"),
        ("depth/000000.png", "cut short", "not a 16-bit single-channel PNG"),
    ],
)
def test_a_bad_file_is_named(tmp_path, file, text, message):
    write(tmp_path / "set", plane(CAMERA))
    (tmp_path / "set" / file).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        RGBDFolder(tmp_path / "set")[0]
    assert Path(file).name in str(error.value)

"""Data sets: what is on disk comes out in metres, with the right camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.evaluation.datasets import NYUDepth, open_dataset
from perception.evaluation.rgbd_folder import RGBDWriter
from perception.tasks.geometry import Camera


def make_nyu(root: Path) -> np.ndarray:
    """One frame whose depth code is its column modulo 200; the code map."""
    codes = np.broadcast_to(np.arange(640) % 200, (480, 640)).astype(np.uint8)
    for name, picture in (("rgb/0001.jpg", np.full((480, 640, 3), (30, 90, 200), np.uint8)), ("depth/0001.png", codes)):
        path = root / "eval" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture)
    return codes


def test_nyu_is_cut_and_metric(tmp_path: Path) -> None:
    codes = make_nyu(tmp_path)
    frames = open_dataset(tmp_path, "eval")
    assert isinstance(frames, NYUDepth) and len(frames) == 1
    frame = frames[0]
    assert frame.rgb.shape == (426, 561, 3) and frame.rgb[0, 0, 0] > 150, "RGB, not BGR"
    assert np.allclose(frame.depth, (codes[45:471, 40:601] + 0.5) / 25.5)
    assert frame.camera is not None and (frame.camera.width, frame.camera.height) == (561, 426)
    assert frame.camera.cx == pytest.approx(639 - 325.5824 - 40) and frame.camera.cy == pytest.approx(253.7362 - 45)


def test_rgbd_folder_is_recognised(tmp_path: Path) -> None:
    writer = RGBDWriter(tmp_path / "set", Camera(32, 24, 30, 30, 15.5, 11.5), 30, "Apache-2.0", "test")
    writer.write_frame(np.zeros((24, 32, 3), np.uint8), np.full((24, 32), 1.5))
    assert np.allclose(open_dataset(tmp_path / "set")[0].depth, 1.5)


def test_unknown_layout_names_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known data set.*camera.json"):
        open_dataset(tmp_path)


def test_damaged_frame_is_named(tmp_path: Path) -> None:
    make_nyu(tmp_path)
    (tmp_path / "eval" / "depth" / "0001.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="0001.jpg or its depth cannot be read"):
        open_dataset(tmp_path, "eval")[0]

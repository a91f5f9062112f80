"""Photographs that a network has labelled: cut to its camera's aspect, depth where the image is, broken ones told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.cli.main import main
from perception.evaluation.labels import find_photographs, label, training_camera
from perception.evaluation.rgbd_folder import RGBDFolder, RGBDWriter
from perception.tasks.config import ModelConfig, Output

CONFIG = ModelConfig(
    name="redness",
    task="depth",
    input_size=(24, 32),
    outputs=(Output("depth", (1, 1, 24, 32), "m"),),
    focal=(0.9, 1.2),
)


def redness(image: np.ndarray) -> dict[str, np.ndarray]:
    """Metres that an image's red says: 1 m and up."""
    return {"depth": 1 + image[None, ..., 0].astype(np.float32) / 50}


def photograph(path: Path, width: int, height: int) -> None:
    """Black, but for red in the right half."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :, 2] = 250  # BGR
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def test_photographs_of_any_shape_become_frames(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photograph(photos / "kitchen" / "wide.png", 128, 48)
    photograph(photos / "bath" / "tall.png", 64, 200)
    (photos / "bath" / "broken.jpg").write_bytes(b"no image")
    camera = training_camera(CONFIG, (24, 32))
    writer = RGBDWriter(tmp_path / "frames", camera, 1.0, "none", "test")
    broken = label(redness, CONFIG, find_photographs(photos), writer)

    assert [path.name for path in broken] == ["broken.jpg"]
    frames = RGBDFolder(tmp_path / "frames")
    assert len(frames) == 2
    for frame in frames:
        assert frame.depth is not None
        assert frame.camera is not None
        assert (frame.camera.fx / 32, frame.camera.fy / 24) == pytest.approx(CONFIG.focal)
        assert frame.depth[:, :14] == pytest.approx(1.0, abs=0.2)  # the cut is in the middle, whatever the shape
        assert frame.depth[:, 18:] == pytest.approx(6.0, abs=0.3)
        assert frame.rgb[12, 28, 0] > 200  # RGB, as networks see it


def test_only_a_model_that_says_its_camera_can_label() -> None:
    with pytest.raises(ValueError, match="redness cannot label photographs.*focal None"):
        training_camera(CONFIG.replace(focal=None), (24, 32))


def test_the_command_says_what_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", str(tmp_path), "--model", "fastdepth", "--out", str(tmp_path / "frames")]) == 1
    assert "holds no image" in capsys.readouterr().err
    photograph(tmp_path / "photo.png", 64, 48)
    assert main(["label", str(tmp_path), "--model", "no_such", "--out", str(tmp_path / "frames")]) == 1
    assert "no_such" in capsys.readouterr().err
    assert not (tmp_path / "frames").exists()

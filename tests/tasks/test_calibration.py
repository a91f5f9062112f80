"""Calibration files there and back, from every kind of URL, and those that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from perception.tasks.calibration import Calibration, load_calibration, resolve_url, save_calibration
from perception.tasks.geometry import Camera

CALIBRATION = Calibration(
    Camera(640, 480, 501.5, 502.5, 319.5, 241.0),
    "plumb_bob",
    (-0.25, 0.06, 0.001, -0.0005, 0.0),
    Camera(640, 480, 470.0, 480.0, 322.0, 240.0),
)

WRITTEN_BY_CAMERA_CALIBRATION = """
image_width: 320
image_height: 240
camera_name: narrow_stereo
camera_matrix:
  rows: 3
  cols: 3
  data: [250.5, 0.0, 160.25,   0.0, 251.5, 120.75,   0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.1, -0.2, 0.001, 0.002, 0.0]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
projection_matrix:
  rows: 3
  cols: 4
  data: [240.0, 0, 161, 0, 0, 245, 121, 0, 0, 0, 1, 0]
"""


def test_a_saved_calibration_is_the_same_when_loaded(tmp_path: Path) -> None:
    save_calibration(CALIBRATION, tmp_path / "camera.yaml")
    assert load_calibration(str(tmp_path / "camera.yaml")) == CALIBRATION


def test_the_file_of_camera_calibration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a b.yaml"
    path.write_text(WRITTEN_BY_CAMERA_CALIBRATION)
    expected = Calibration(
        Camera(320, 240, 250.5, 251.5, 160.25, 120.75),
        "plumb_bob",
        (0.1, -0.2, 0.001, 0.002, 0.0),
        Camera(320, 240, 240.0, 245.0, 161.0, 121.0),
    )
    assert load_calibration(f"file://{path}") == expected
    assert load_calibration(f"file://{str(path).replace(' ', '%20')}") == expected


def test_package_urls_look_in_every_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = tmp_path / "second" / "share" / "my_robot"
    share.mkdir(parents=True)
    save_calibration(CALIBRATION, share / "camera.yaml")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    assert load_calibration("package://my_robot/camera.yaml") == CALIBRATION
    with pytest.raises(ValueError, match=r"package 'other' of 'package://other/x.yaml' is not installed"):
        resolve_url("package://other/x.yaml")


def test_other_urls_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'http://robot/camera.yaml' is not supported; give a path, file:///path"):
        resolve_url("http://robot/camera.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a camera calibration"),
        ("image_width: 3", "KeyError: 'image_height'"),
        ("{unclosed", "not a camera calibration"),
        (WRITTEN_BY_CAMERA_CALIBRATION.replace("250.5", "0.0"), "fx=0.0"),
        (WRITTEN_BY_CAMERA_CALIBRATION.replace("250.5", ".nan"), "fx=nan"),
        (WRITTEN_BY_CAMERA_CALIBRATION.replace("plumb_bob", "fov"), "distortion model 'fov' is unknown"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"camera\.yaml") as caught:
        load_calibration(str(path))
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml"):
        load_calibration(str(tmp_path / "missing.yaml"))


def test_the_drivers_name_fisheye_is_equidistant(tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(WRITTEN_BY_CAMERA_CALIBRATION.replace("plumb_bob", "fisheye"))
    assert load_calibration(str(path)).model == "equidistant"

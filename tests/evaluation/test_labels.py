"""Photographs that a network has labelled: depth where the image is, boxes with names, broken ones told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from perception import engines
from perception.cli.main import main
from perception.engines import EngineError
from perception.evaluation.labels import find_photographs, label, label_boxes, training_camera, used_labels
from perception.evaluation.rgbd_folder import RGBDFolder, RGBDWriter
from perception.evaluation.yolo import YoloBoxes, YoloWriter
from perception.tasks.config import ModelConfig, Output
from perception.tasks.decoders import BoxDecoder
from perception.tasks.labels import UNUSED

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
    camera = training_camera(CONFIG)
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


BOXES = ModelConfig(
    name="boxes", task="detection", input_size=(24, 32), labels=("red", UNUSED, "black"),
    outputs=(Output("boxes", (1, 2, 4), "share"), Output("scores", (1, 2, 3), "score")),
    decoder=BoxDecoder(unit="share"),
)  # fmt: skip


def halves(image: np.ndarray) -> dict[str, np.ndarray]:
    """The two halves of an image: surely black, and perhaps red."""
    boxes = np.array([[[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]], np.float32)
    return {"boxes": boxes, "scores": np.array([[[0.0, 0.0, 0.9], [0.5, 0.0, 0.1]]], np.float32)}


def test_photographs_get_the_boxes_that_a_detector_finds(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photograph(photos / "a" / "1.png", 128, 48)
    photograph(photos / "b" / "1.png", 64, 200)
    (photos / "b" / "broken.jpg").write_bytes(b"no image")
    for score, names in ((0.4, ["black", "red"]), (0.6, ["black"])):
        writer = YoloWriter(tmp_path / str(score), ["red", "black"], "none", "test")
        broken = label_boxes(halves, BOXES, find_photographs(photos), writer, score)
        assert [path.name for path in broken] == ["broken.jpg"] and writer.count == 2
        frames = YoloBoxes(tmp_path / str(score), "train")
        assert [[frames.labels[place] for place in frame.labels] for frame in frames] == [names, names]
        assert [frame.rgb.shape for frame in frames] == [(48, 128, 3), (200, 64, 3)]
        assert frames[0].boxes[0] == pytest.approx([0, 0, 64, 48], abs=1e-3)
        assert frames[0].scores == pytest.approx([0.9, 0.5][: len(names)])
    with pytest.raises(ValueError, match="exists already"):
        YoloWriter(tmp_path / "0.4", ["red"], "none", "test")
    with pytest.raises(ValueError, match="redness cannot label photographs with boxes: its task is 'depth'"):
        used_labels(CONFIG)


def test_only_a_model_that_says_its_camera_can_label() -> None:
    with pytest.raises(ValueError, match="redness cannot label photographs.*focal None"):
        training_camera(CONFIG.replace(focal=None))


class Teacher:
    """An engine that says redness."""

    config, run, trained = CONFIG, staticmethod(redness), True

    def __init__(self, model: str, target: str, precision: str, *_: object) -> None:
        if model == "no_such" or precision != "fp32":
            raise EngineError(f"there is no {precision} {model}")

    def __enter__(self) -> Teacher:
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...


def test_the_command_labels_as_many_as_asked_and_names_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "load_whole", Teacher)
    photos, out = tmp_path / "photos", tmp_path / "frames"
    for number in range(4):
        photograph(photos / f"{number}.png", 64, 48)
    teacher = ["--model", "redness.onnx", "--licence", "mine"]
    assert main(["label", str(photos), *teacher, "--out", str(out), "--limit", "3"]) == 0
    assert "wrote 3 frames of 3 photographs" in capsys.readouterr().out
    frames = RGBDFolder(out)
    assert len(frames) == 3 and frames.about["licence"] == "mine" and frames[0].rgb.shape == (24, 32, 3)

    # frames can be labelled anew: their depth is no photograph
    (out / "rgb" / "000001.jpg").write_bytes(b"broken")
    assert main(["label", str(out), *teacher, "--out", str(tmp_path / "again")]) == 0
    said = capsys.readouterr().out
    assert "not readable, left out" in said and "000001.jpg" in said and "wrote 2 frames of 3" in said


def test_the_command_asks_a_detector_for_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(Teacher, "config", BOXES)
    monkeypatch.setattr(Teacher, "run", staticmethod(halves))
    monkeypatch.setattr(engines, "load_whole", Teacher)
    photograph(tmp_path / "photos/1.png", 128, 48)
    out = tmp_path / "boxes"
    command = ["label", str(tmp_path / "photos"), "--model", "boxes.onnx", "--out", str(out)]
    assert main([*command, "--score", "0.6", "--licence", "mine"]) == 0
    assert "wrote 1 frames of 1 photographs" in capsys.readouterr().out
    frames = YoloBoxes(out, "train")
    assert [frames.labels[place] for place in frames[0].labels] == ["black"]
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "0"], "--limit is 0; give at least 1"),
        (["--model", "no_such"], "there is no fp32 no_such"),
        (["--out", "frames"], "none of the 1 photographs can be read; remove "),
    ],
)
def test_what_cannot_be_labelled_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    def cannot_build(*_: object, **__: object) -> None:
        raise EngineError("there is no fp32 no_such")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engines, "load_whole", Teacher)
    monkeypatch.setattr(engines, "build", cannot_build, raising=False)
    monkeypatch.setattr(engines, "part_names", lambda model, **_: [""])
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "broken.jpg").write_bytes(b"no image")
    assert main(["label", str(photos), "--model", "redness.onnx", "--out", "frames", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_a_folder_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image; accepted: .jpg"):
        find_photographs(tmp_path)
    with pytest.raises(ValueError, match="absent is not a folder; give a folder of photographs"):
        find_photographs(tmp_path / "absent")

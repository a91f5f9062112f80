"""`perception engines` from the outside."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from perception.cli.main import main
from perception.evaluation.rgbd_folder import RGBDWriter
from perception.tasks.geometry import Camera


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "rgb"
    folder.mkdir()
    for index, image in enumerate(np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)):
        cv2.imwrite(str(folder / f"{index:02}.png"), image)
    return folder


@pytest.fixture
def truth(tmp_path: Path) -> str:
    """Three frames of a wall at 9 m: far from all that random weights answer, so that int8's rounding moves no pixel
    over the edge of 1.25 and no accuracy is lost by chance."""
    camera = Camera(width=32, height=32, fx=32, fy=32, cx=16, cy=16)
    writer = RGBDWriter(tmp_path / "truth", camera, fps=10, licence="CC0", command="test")
    for image in np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8):
        writer.write_frame(image, np.full((32, 32), 9.0))
    return str(tmp_path / "truth")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("PERCEPTION_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """FastDepth with random weights in a file: a registered model without weights is random anew in each process."""
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    torch.manual_seed(0)
    assert main(["engines", "export", "fastdepth_pruned", str(path), "--size", "32x32"]) == 0
    return str(path)


def test_build_then_list_then_no_need(model: str, frames: Path, truth: str, capsys) -> None:
    command = ["engines", "build", model, "--target", "openvino", "--precision", "fp32", "--frames", str(frames)]
    command += ["--data", truth]
    assert main(command) == 0
    assert "parity" in (built := capsys.readouterr().out)
    assert "openvino-fp32.json" in built
    assert main([*command, "--if-needed"]) == 0
    assert "small.onnx" not in (again := capsys.readouterr().out)
    assert "fastdepth_pruned is built: openvino" in again
    assert main(["engines", "list"]) == 0
    listed = capsys.readouterr().out
    assert "fastdepth: depth, rgb 224x224, code Apache-2.0" in listed
    assert "small-32x32-openvino-fp32: key " in listed and ", fresh" in listed


def test_what_was_built_by_name_is_no_choice(model: str, frames: Path, truth: str, capsys) -> None:
    """Somebody who has compared engines, slow ones among them, still gets the fastest."""
    command = ["engines", "build", model, "--frames", str(frames), "--data", truth]
    assert main([*command, "--target", "onnxruntime", "--precision", "fp32"]) == 0
    assert main([*command, "--if-needed"]) == 0
    assert "auto has not chosen between them yet" in capsys.readouterr().out
    assert main([*command, "--if-needed"]) == 0
    assert "fastdepth_pruned is built: " in capsys.readouterr().out


def test_bench_names_threads_baseline_and_winner(model: str, frames: Path, capsys) -> None:
    command = ["engines", "bench", model, "--precision", "fp32", "--threads", "1", "--frames", str(frames)]
    assert main(command) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("[")]
    assert lines[0].startswith("fastdepth_pruned 32x32 on ") and lines[0].endswith("1 threads")
    assert lines[2].split()[:2] == ["plain", "fp32"]
    assert {line.split()[0] for line in lines[3:-1]} == {"openvino", "onnxruntime"}
    assert lines[-1].startswith("fastest that passes parity: ")


def test_build_measures_accuracy_and_keeps_layers_in_float(model: str, frames: Path, truth: str, capsys) -> None:
    command = ["engines", "build", model, "--target", "onnxruntime", "--precision", "int8", "--frames", str(frames)]
    assert main([*command, "--data", truth, "--keep", "head.0"]) == 0
    built = capsys.readouterr().out
    assert "measuring the float32 definition's accuracy on truth (3 frames, " in built
    assert "in float32 stay head.0" in built
    assert main([*command, "--data", "nowhere"]) == 1
    assert "no data set 'nowhere'" in capsys.readouterr().err


def test_what_was_exported_can_be_checked(model: str, capsys) -> None:
    assert main(["engines", "check", model]) == 0
    assert capsys.readouterr().out.count("TensorRT 10.3 parses every operator") == 3


def test_mistakes_are_one_sentence(tmp_path: Path, capsys) -> None:
    assert main(["engines", "build", "fastdepht", "--frames", str(tmp_path)]) == 1
    assert "unknown model 'fastdepht'" in capsys.readouterr().err
    assert main(["engines", "build", "fastdepth", "--frames", str(tmp_path)]) == 1
    assert "has 0 images" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["engines", "check", "fastdepth", "--size", "big"])
    assert "write height x width, as in 224x224" in capsys.readouterr().err
    assert main(["engines", "build", "fastdepth", "--precision", "fp16", "--keep", "head"]) == 1
    assert "are about int8, and --precision is fp16" in capsys.readouterr().err
    assert main(["engines", "build", "fastdepth", "--keep-float", "-1"]) == 1
    assert "--keep-float is -1; accepted" in capsys.readouterr().err

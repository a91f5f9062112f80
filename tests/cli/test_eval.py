"""`perception eval` compares engines on a data set; `perception measure` knows its scenarios."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from perception import engines
from perception.cli import eval as command
from perception.cli.main import main
from perception.engines import EngineError
from perception.evaluation.rgbd_folder import RGBDWriter
from perception.tasks.config import ModelConfig, Output
from perception.tasks.decoders import BoxDecoder
from perception.tasks.geometry import Camera


class Says:
    """An engine that says the same metres everywhere; openvino's int8 engine says half a metre more."""

    config = ModelConfig(
        name="says_two",
        task="depth",
        input_size=(32, 32),
        outputs=(Output("depth", (1, 1, 32, 32), "m"),),
    )
    runs = 0
    trained = True

    def __init__(self, model: str, target: str, precision: str, threads: int, directory: Path | None = None) -> None:
        if target == "tensorrt":
            raise EngineError("tensorrt is not installed")
        self.metres = 2.5 if precision == "int8" else 2.0
        self.info = {"model": model, "target": target, "runtime": f"{target} 1.0", "precision": precision, "key": "1"}

    def __enter__(self) -> Says:
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    @property
    def parts(self) -> tuple[Says, ...]:
        return (self,)

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        Says.runs += 1
        return {"depth": np.full((1, 1, 32, 32), self.metres, np.float32)}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two good samples and one without depth."""

    def cannot_build(*_: object, **__: object) -> None:
        raise EngineError("tensorrt is not installed")

    monkeypatch.setenv("PERCEPTION_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setattr(engines, "load_whole", Says)
    monkeypatch.setattr(engines, "build", cannot_build, raising=False)
    monkeypatch.setattr(engines, "part_names", lambda model, **_: [""])
    monkeypatch.setattr(command, "_cost", lambda model: (3_960_930, 736_700_000))
    writer = RGBDWriter(tmp_path / "set", Camera(64, 48, 60, 60, 31.5, 23.5), 30, "Apache-2.0", "test")
    for depth in (2.0, None, 4.0):
        writer.write_frame(np.zeros((48, 64, 3), np.uint8), None if depth is None else np.full((48, 64), depth))
    return str(tmp_path / "set")


def test_engines_are_compared(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# x\n<!-- results depth -->\n<!-- /results depth -->\n")
    arguments = ["eval", "says_two", "--data", data, "--out", str(tmp_path / "out"), "--readme", str(readme)]
    arguments += ["--engine", "torch:fp32", "openvino:int8", "--engine", "tensorrt"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "failed: 1 of 3: 000001 (frame '000001' has no true depth" in told and "tensorrt is not installed" in told
    folder = tmp_path / "out" / "set"
    report = json.loads((folder / "report.json").read_text())
    first, second, third = report["entries"]
    assert first["summary"]["metrics"]["rmse"] == pytest.approx(1.0) and first["summary"]["metrics"]["delta1"] == 0.5
    assert second["difference"]["rmse"] == pytest.approx((0.5 + 1.5) / 2 - 1.0) and third["problem"]
    assert first["facts"]["key"] == "1" and len(report["data"]["sha256"]) == 64 and report["machine"]["cpu"]
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.md"} | {
        f"says_two-{name}.{suffix}" for name in ("torch-fp32", "openvino-int8") for suffix in ("jsonl", "png")
    }
    assert "| says_two | set, 3 | 0.500 ± 0.980 |" in readme.read_text() and "torch 1.0 fp32" in readme.read_text()

    runs = Says.runs
    assert main(arguments) == 0
    again = json.loads((folder / "report.json").read_text())
    assert [entry["summary"] for entry in again["entries"]] == [entry["summary"] for entry in report["entries"]]
    assert Says.runs == runs + 2 * (1 + 2), "a warm-up and the two pictures of each engine; nothing is measured again"
    assert "goes on after 3 samples" in capsys.readouterr().out
    assert main([*arguments, "--cap", "0.5:10"]) == 0
    assert "starts anew: options changed" in capsys.readouterr().out


def test_frames_are_for_engines_that_are_built(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built: dict[str, Any] = {}

    def load(model: str, target: str, precision: str, *rest: Any) -> Says:
        if precision == "int8" and not built:
            raise EngineError("no such engine")
        return Says(model, target, precision, *rest)

    monkeypatch.setattr(engines, "load_whole", load)
    monkeypatch.setattr(engines, "build", lambda *_, **given: built.update(given))
    arguments = ["eval", "says_two", "--data", data, "--out", str(tmp_path / "out"), "--frames", str(tmp_path)]
    assert main([*arguments, "--engine", "openvino:fp32", "openvino:int8"]) == 0
    assert built["frames"] == tmp_path
    told = capsys.readouterr().out
    assert f"says_two on openvino was built before: {tmp_path} is not used for it" in told and "building" in told


def test_nothing_measured_is_an_error(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["eval", "says_two", "--data", data, "--out", str(tmp_path / "out")]
    assert main([*arguments, "--engine", "tensorrt"]) == 1
    assert "no engine could be measured: tensorrt is not installed" in capsys.readouterr().err
    assert main([*arguments, "--crop", "eigen"]) == 1
    assert "all 3 samples of set are broken; the first: crop 'eigen' does not fit" in capsys.readouterr().err
    assert main([*arguments, "--limit", "0"]) == 1
    assert "nothing to measure" in capsys.readouterr().err
    (tmp_path / "plain.md").write_text("no markers")
    assert main([*arguments, "--readme", str(tmp_path / "plain.md")]) == 1
    assert "no lines <!-- results depth -->" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--cap", "ten"])
    assert "write metres as MIN:MAX" in capsys.readouterr().err


def test_a_model_without_weights_is_not_measured(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Says, "trained", False)
    assert main(["eval", "says_two", "--data", data, "--out", str(tmp_path / "out")]) == 1
    assert "says_two has no weights yet, so there is nothing to measure" in capsys.readouterr().err


def test_two_real_engines_on_the_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From building on: the torch reference and ONNX Runtime agree to the last thousandth."""
    pytest.importorskip("torch", reason="torch is not installed (extra `train`)")
    monkeypatch.setenv("PERCEPTION_ENGINES", str(tmp_path / "engines"))
    model, out = "fastdepth_mobilenet_v2", str(tmp_path / "out")
    arguments = ["eval", model, "--data", "clip", "--limit", "3", "--half-view", "--out", out]
    assert main([*arguments, "--engine", "torch:fp32", "onnxruntime:fp32"]) == 0
    assert not (tmp_path / "engines").exists(), "the robot's own store is left alone"
    report = json.loads((tmp_path / "out" / "clip" / "report.json").read_text())
    reference, other = report["entries"]
    assert abs(other["difference"]["delta1"]) < 1e-3 and abs(other["difference"]["rmse"]) < 1e-3
    for entry in (reference, other):
        assert entry["summary"]["failed"] == [] and entry["summary"]["latency_ms"]["p50"] > 0
        assert entry["facts"]["bytes"] > 1e5 and len(entry["facts"]["key"]) == 64 and all(entry["cost"])
        assert entry["summary"]["half_view"]["frames"] == 3 and entry["summary"]["stability"]["pairs"] == 2
        assert (tmp_path / "out" / "clip" / entry["sheet"]).stat().st_size > 10_000


def test_missing_data_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "fastdepth", "--data", str(tmp_path / "absent")]) == 1
    assert "no data set" in capsys.readouterr().err


def test_unknown_scenario_names_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed; the node cannot be measured without")
    assert main(["measure", "speed"]) == 1
    assert "unknown scenarios: speed; accepted: overhead, throughput" in capsys.readouterr().err


class Marks(Says):
    """An engine that finds a dog in the left half of every image."""

    config = ModelConfig(
        name="marks",
        task="detection",
        input_size=(32, 32),
        outputs=(Output("boxes", (1, 1, 4), "share"), Output("scores", (1, 1, 2), "score")),
        labels=("dog", "bat"),
        decoder=BoxDecoder(unit="share"),
        weights="marks",
    )

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        Says.runs += 1
        boxes, scores = np.array([[[0, 0, 0.5, 1]]], np.float32), np.array([[[0.5, 0]]], np.float32)
        return {"boxes": boxes, "scores": scores}


@pytest.fixture
def boxes(tmp_path: Path) -> str:
    """Two images in YOLO's form: a dog in the left half, and one in the right half."""
    for folder in ("rgb", "label"):
        (tmp_path / "dogs" / "eval" / folder).mkdir(parents=True)
    (tmp_path / "dogs" / "labels.txt").write_text("cat\ndog\n")
    for name, x in (("a", 0.25), ("b", 0.75)):
        cv2.imwrite(str(tmp_path / "dogs" / "eval" / "rgb" / f"{name}.png"), np.zeros((48, 64, 3), np.uint8))
        (tmp_path / "dogs" / "eval" / "label" / f"{name}.txt").write_text(f"1 {x} 0.5 0.5 1\n")
    return str(tmp_path / "dogs")


def test_detectors_are_compared(
    data: str, boxes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `eval`)")
    readme = tmp_path / "README.md"
    blocks = (f"<!-- results {task} -->\nkept\n<!-- /results {task} -->\n" for task in ("depth", "detection"))
    readme.write_text("".join(blocks))
    arguments = ["eval", "marks", "--data", boxes, "--out", str(tmp_path / "out"), "--readme", str(readme)]
    monkeypatch.setattr(engines, "load_whole", Marks)
    assert main([*arguments, "--engine", "torch:fp32", "openvino:int8"]) == 0
    folder = tmp_path / "out" / "dogs-eval"
    first, second = json.loads((folder / "report.json").read_text())["entries"]
    assert first["summary"]["metrics"]["AP50"] == pytest.approx(51 / 101, abs=1e-4), "one of two is found, at first"
    assert second["difference"]["mAP"] == 0 and "not looked for: bat" in first["remarks"][1]
    assert {f"marks-torch-fp32{end}" for end in (".jsonl", ".png", "-curves.png")} < {p.name for p in folder.iterdir()}
    table = readme.read_text()
    assert (
        table.count("kept") == 1 and "| marks | dogs eval, 2 | 0.50" in table and "By class" in capsys.readouterr().out
    )
    runs = Says.runs
    assert main([*arguments, "--engine", "torch:fp32"]) == 0
    assert Says.runs == runs + 1 + 2, "a warm-up and the pictures"
    assert main([*arguments, "--engine", "torch:fp32", "--score-threshold", "0.6"]) == 0
    assert "starts anew: options changed" in capsys.readouterr().out


def test_models_need_data_of_their_task(
    data: str, boxes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `eval`)")
    assert main(["eval", "says_two", "--data", boxes, "--out", str(tmp_path / "out")]) == 1
    assert "says_two is for depth, and dogs eval is for detection; name other data" in capsys.readouterr().err
    monkeypatch.setattr(engines, "load_whole", Marks)
    assert main(["eval", "marks", "--data", data, "--out", str(tmp_path / "out")]) == 1
    assert "marks is for detection, and set is for depth" in capsys.readouterr().err


class Brightens(Says):
    """An enhancement that doubles intensities."""

    config = ModelConfig(
        name="brightens",
        task="enhancement",
        input_size=(32, 32),
        outputs=(Output("enhanced", (1, 3, 32, 32), "intensity"),),
    )

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return {"enhanced": np.minimum(image.transpose(0, 3, 1, 2) * np.float32(2 / 255), 1)}


def load_of_two_tasks(model: str, *rest: Any) -> Says:
    if model == "absent":
        raise EngineError("no engine")
    return Brightens(model, *rest) if model == "brightens" else Says(model, *rest)


def test_a_model_is_measured_in_the_dark_with_and_without_enhancement(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "load_whole", load_of_two_tasks)
    arguments = ["eval", "says_two", "--data", data, "--out", str(tmp_path / "out"), "--engine", "torch:fp32"]
    assert main([*arguments, "--darken", "0.1", "--enhance", "brightens"]) == 0
    folder = tmp_path / "out" / "set"
    report = json.loads((folder / "report.json").read_text())
    names = [entry["model"] for entry in report["entries"]]
    assert names == ["says_two", "says_two (10 % of the light)", "says_two (10 % of the light, brightens)"]
    assert all(entry["summary"]["metrics"]["rmse"] == pytest.approx(1.0) for entry in report["entries"])
    told = capsys.readouterr().out
    assert "- says_two (10 % of the light, brightens): milliseconds are those of the model alone" in told
    assert len(list(folder.glob("says_two*.png"))) == 3
    assert main([*arguments, "--darken", "0.1", "--enhance", "says_three"]) == 1
    assert "says_three is for depth; --enhance takes models for enhancement" in capsys.readouterr().err
    assert main([*arguments, "--enhance", "absent", "brightens"]) == 0, "one that cannot be had leaves the others"
    one, two, three = json.loads((folder / "report.json").read_text())["entries"]
    assert not one["problem"] and not three["problem"] and three["summary"]
    assert (two["model"], two["problem"]) == ("says_two (absent)", "tensorrt is not installed")
    assert main([*arguments, "--darken", "2"]) == 1
    assert "exposure 2.0 is not possible" in capsys.readouterr().err


def test_real_pairs_ask_whether_a_model_still_finds_in_the_dark_what_it_found(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "load_whole", load_of_two_tasks)
    monkeypatch.setattr(command, "_task", lambda model: "depth")
    for kind in ("low", "high"):
        (tmp_path / "night" / "eval" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "night" / "eval" / kind / "a.png"), np.full((48, 64, 3), 9, np.uint8))
    arguments = ["eval", "says_two", "--data", str(tmp_path / "night"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--engine", "torch:fp32", "openvino:int8", "--enhance", "brightens"]) == 0
    report = json.loads((tmp_path / "out" / "night-eval-as-seen-bright" / "report.json").read_text())
    assert [(entry["model"], entry["summary"]["metrics"]["rmse"]) for entry in report["entries"]] == [
        (f"says_two (really dark{more})", apart) for apart in (0, 0.5) for more in ("", ", brightens")
    ]
    assert main(["eval", "says_two", "another", *arguments[2:]]) == 1
    assert "of which each model sees its own truth; name one model" in capsys.readouterr().err

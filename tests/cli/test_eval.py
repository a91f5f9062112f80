"""`perception eval` scores an engine on a data set; `perception measure` knows its scenarios."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perception import engines
from perception.cli.main import main
from perception.evaluation.rgbd_folder import RGBDWriter
from perception.tasks.config import ModelConfig, Output
from perception.tasks.geometry import Camera


class TwoMetres:
    """An engine that says two metres everywhere."""

    config = ModelConfig(
        name="two_metres", task="depth", input_size=(32, 32), outputs=(Output("depth", (1, 1, 32, 32), "m"),)
    )
    info = {"model": "two_metres", "key": "1"}

    def __enter__(self) -> TwoMetres:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return {"depth": np.full((1, 1, 32, 32), 2.0, np.float32)}


def test_scores_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "load", lambda *_: TwoMetres())
    writer = RGBDWriter(tmp_path / "set", Camera(64, 48, 60, 60, 31.5, 23.5), 30, "Apache-2.0", "test")
    for depth in (2.0, 4.0):
        writer.write_frame(np.zeros((48, 64, 3), np.uint8), np.full((48, 64), depth))
    assert main(["eval", "two_metres", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "two_metres.json").read_text())
    assert result["scores"]["rmse"] == pytest.approx(1.0) and result["scores"]["delta1"] == 0.5
    assert result["scores"]["frames"] == 2 and result["engine"]["key"] == "1"


def test_missing_data_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "fastdepth", "--data", str(tmp_path / "absent")]) == 1
    assert "no known data set" in capsys.readouterr().err


def test_unknown_scenario_names_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed; the node cannot be measured without")
    assert main(["measure", "speed"]) == 1
    assert "unknown scenarios: speed; accepted: overhead, throughput" in capsys.readouterr().err

"""The report finds the layer that 8 bits harm, and leaving that one in float32 helps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from mobile import CONFIG, mobile_graph
from onnx import numpy_helper
from tiny import random_frames

from perception.cli.main import main
from perception.engines.quantize import calibrate, layers
from perception.engines.rewrites import simplify
from perception.engines.runtimes import Quantization
from perception.engines.sensitivity import Bench, Layer, Report

SCHEME = Quantization("int8")


def _fragile_graph() -> onnx.ModelProto:
    """Channel 0 of the depthwise layer's result is a thousand times larger than the others, and multiplied by 0.

    One scale for all channels then has no steps left for the seven that count.
    """
    model = simplify(mobile_graph())
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    up = numpy_helper.to_array(weights["up5x5.weight"]).copy()
    merge = numpy_helper.to_array(weights["merge5x5.weight"]).copy()
    up[0] = np.abs(up[0]) * 1000
    merge[0] = 0
    weights["up5x5.weight"].CopyFrom(numpy_helper.from_array(up, "up5x5.weight"))
    weights["merge5x5.weight"].CopyFrom(numpy_helper.from_array(merge, "merge5x5.weight"))
    return model


def _bench(model: onnx.ModelProto) -> Bench:
    return Bench(model, calibrate(model, random_frames(8)), SCHEME, random_frames(4, seed=1), CONFIG)


def test_the_worst_layers_are_those_of_the_fragile_tensor() -> None:
    bench = _bench(_fragile_graph())
    report = bench.report()
    assert {layer.name for layer in report.layers} == set(layers(bench.model))
    assert {layer.name for layer in report.layers[:3]} == {"up", "skipped", "merge5x5"}
    assert [layer.harm for layer in report.layers] == sorted((layer.harm for layer in report.layers), reverse=True)
    assert report.layers[2].harm > 5 * report.layers[3].harm
    assert report.kept[0] > 5 * report.kept[4]


def test_nothing_quantised_disagrees_about_nothing() -> None:
    bench = _bench(simplify(mobile_graph()))
    assert max(bench.disagreements(bench.layers)) == pytest.approx(0, abs=1e-6)
    assert min(bench.disagreements([])) > 1e-4


def _report(kept: dict[int, float]) -> Report:
    found = (Layer("a", "Conv", 0.03), Layer("b", "Add", 0.01))
    return Report("tiny", str(SCHEME), 4, 0.05, found, kept)


def test_the_report_says_what_to_do() -> None:
    text = _report({0: 0.09, 1: 0.04}).to_markdown()
    assert "| a | Conv | 0.03000 | 75% |\n| b | Add | 0.01000 | 100% |" in text
    assert "| 0 | 0.0900 |\n| 1 | 0.0400 |" in text
    assert text.endswith("Build with --keep-float 1: that is the least tried that meets the bound of 0.05.")
    assert "none needs float32" in _report({0: 0.05}).advice()
    assert "Train with quantisation" in _report({0: 0.09, 1: 0.08}).advice()
    assert json.loads(_report({0: 0.09, 1: 0.04}).to_json())["enough"] == 1


def test_the_command_prints_and_writes_the_same(model: str, frames: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "report"
    command = ["engines", "sensitivity", model, "--target", "onnxruntime", "--frames", str(frames), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert (out / "tiny-onnxruntime.md").read_text().strip() in printed
    report = json.loads((out / "tiny-onnxruntime.json").read_text())
    assert {layer["name"] for layer in report["layers"]} == {"stem", "depthwise", "point", "x6", "head"}
    assert list(report["kept"]) == ["0", "1", "2", "4"]

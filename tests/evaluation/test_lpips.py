"""LPIPS as somebody's ONNX file: what it is given, what is refused, and that views are measured by it."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from perception.evaluation.lpips import Lpips
from perception.evaluation.view_synthesis import ViewAssessment


def write_network(path: Path, side: object = "side", inputs: int = 2) -> Path:
    """The mean of the squared differences of two images, (1, 1, 1, 1), in place of a trained network."""
    shape = [1, 3, side, side]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "ab"[:inputs]]
    nodes = [
        helper.make_node("Sub", ["a", "ab"[inputs - 1]], ["apart"]),
        helper.make_node("Mul", ["apart", "apart"], ["squared"]),
        helper.make_node("ReduceMean", ["squared"], ["distance"], keepdims=1),
    ]
    found = [helper.make_tensor_value_info("distance", TensorProto.FLOAT, [1, 1, 1, 1])]
    graph = helper.make_graph(nodes, "lpips", given, found)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_images_are_given_as_the_network_has_them(tmp_path: Path) -> None:
    measure = Lpips(write_network(tmp_path / "lpips.onnx"))
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 256, (20, 20, 3)).astype(np.uint8) for _ in range(2))
    expected = np.mean((one / 127.5 - other / 127.5) ** 2)
    assert measure(one, other) == pytest.approx(expected, rel=1e-5) and measure(one, one) == 0
    assert measure(one[:9, :9], other[:9, :9]) > 0, "of any size"


@pytest.mark.parametrize("fields", [{"side": 64}, {"inputs": 1}])
def test_another_network_is_refused(tmp_path: Path, fields: dict) -> None:
    with pytest.raises(ValueError, match="is no LPIPS: its inputs are .*It is made by torch.onnx.export"):
        Lpips(write_network(tmp_path / "other.onnx", **fields))
    with pytest.raises(ValueError, match="absent.onnx does not exist; --lpips names"):
        Lpips(tmp_path / "absent.onnx")


def test_the_report_says_whether_it_was_measured(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    ViewAssessment.add_arguments(parser.add_argument_group())
    without = ViewAssessment.from_arguments(parser.parse_args([]))
    path = write_network(tmp_path / "lpips.onnx")
    given = ViewAssessment.from_arguments(parser.parse_args(["--lpips", str(path)]))
    assert "LPIPS: not measured, as no weights were given (--lpips)" in without.conditions(without.options(), False)
    assert given.lpips and f"SHA-256 {given.lpips.sha256[:12]}" in given.conditions(given.options(), False)

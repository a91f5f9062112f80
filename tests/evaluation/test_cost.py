"""Parameters and multiply-accumulates, worked out by hand on a small graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perception.evaluation.cost import graph_cost


def write(path: Path) -> Path:
    """A depthwise 3x3 convolution of stride 2 with bias, a 1x1 convolution, and a matrix product."""
    shapes = {"w": (4, 1, 3, 3), "b": (4,), "p": (8, 4, 1, 1), "m": (5, 6)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"], group=4, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["y", "p"], ["z"]),
        helper.make_node("MatMul", ["z", "m"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 10, 10))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 8, 5, 6))],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in shapes.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def test_a_graph_is_counted(tmp_path: Path) -> None:
    parameters, macs = graph_cost(write(tmp_path / "g.onnx"))
    assert parameters == 36 + 4 + 32 + 30
    assert macs == 5 * 5 * 4 * 9 + 5 * 5 * 8 * 4 + 8 * 5 * 6 * 5


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(ValueError, match="x.onnx is not a readable ONNX file"):
        graph_cost(tmp_path / "x.onnx")

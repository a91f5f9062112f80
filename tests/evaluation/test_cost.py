"""Parameters and multiply-accumulates, worked out by hand on a small graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perception.engines.precision import pack
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


def test_packed_weights_are_counted_alike(tmp_path: Path) -> None:
    plain, packed = write(tmp_path / "g.onnx"), tmp_path / "packed.onnx"
    onnx.save(pack(onnx.load(plain)), packed)
    assert graph_cost(packed) == graph_cost(plain)


def test_transposed_convolutions_are_counted(tmp_path: Path) -> None:
    """Every pixel of the input is multiplied with the whole kernel of each output of its group."""
    graph = helper.make_graph(
        [helper.make_node("ConvTranspose", ["x", "w", "b"], ["out"], strides=[2, 2], group=2)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 8, 5, 6))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 4, 10, 12))],
        [
            numpy_helper.from_array(np.zeros(shape, np.float32), name)
            for name, shape in {"w": (8, 2, 2, 2), "b": (4,)}.items()
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "t.onnx")
    assert graph_cost(tmp_path / "t.onnx") == (8 * 2 * 4 + 4, 8 * 5 * 6 * 2 * 4)


def test_attention_and_normalisation_are_counted(tmp_path: Path) -> None:
    """Tokens times tokens has no weight; a weight that two nodes share is counted once, a running mean not at all."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "s", "b"], ["n"]),
        helper.make_node("MatMul", ["n", "w"], ["q"]),
        helper.make_node("MatMul", ["n", "w"], ["k"]),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "g", "g2", "mean", "var"], ["c"]),
        helper.make_node("Reshape", ["c", "shape"], ["flat"]),
        helper.make_node("Constant", [], ["w2"], value=numpy_helper.from_array(np.zeros((7, 3), np.float32))),
        helper.make_node("Gemm", ["flat", "w2"], ["out"], transA=1),
    ]
    sizes = {"s": (8,), "b": (8,), "w": (8, 6), "g": (7,), "g2": (7,), "mean": (7,), "var": (7,)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 7, 8))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (7, 3))],
        [numpy_helper.from_array(np.zeros(size, np.float32), name) for name, size in sizes.items()]
        + [numpy_helper.from_array(np.array([7, 7]), "shape")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "a.onnx")
    parameters, macs = graph_cost(tmp_path / "a.onnx")
    assert parameters == 8 + 8 + 8 * 6 + 7 + 7 + 7 * 3
    assert macs == 2 * 7 * 6 * 8 + 7 * 7 * 6 + 7 * 3 * 7


def test_a_graph_without_fixed_shapes_says_what_to_do(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["out"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 4))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ("batch", 2))],
        [numpy_helper.from_array(np.zeros((4, 2), np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "d.onnx")
    with pytest.raises(ValueError, match="MatMul .* is unknown or not fixed; counted are"):
        graph_cost(tmp_path / "d.onnx")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(ValueError, match="x.onnx is not a readable ONNX file"):
        graph_cost(tmp_path / "x.onnx")

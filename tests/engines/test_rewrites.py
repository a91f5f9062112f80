"""Rewrites keep the numbers and do what they are for."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny import CONFIG, random_frames, tiny_graph

from perception.engines.quantize import quantize
from perception.engines.rewrites import broadcast_skips, sink_resizes
from perception.engines.runtimes import Quantization


def _run(model: onnx.ModelProto, frame: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, {"image": frame})[0]


def test_upsampling_sinks_below_the_head_and_nothing_changes() -> None:
    before, after = tiny_graph(), sink_resizes(tiny_graph())
    assert [node.op_type for node in after.graph.node][-3:] == ["Conv", "Relu", "Resize"]
    onnx.checker.check_model(after, full_check=True)
    for frame in random_frames(3):
        np.testing.assert_allclose(_run(after, frame), _run(before, frame), rtol=1e-6)


def test_upsampling_stays_above_a_larger_kernel() -> None:
    model = tiny_graph()
    head = next(node for node in model.graph.node if "head" in node.input)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "head")
    weights.CopyFrom(onnx.numpy_helper.from_array(np.ones((1, 8, 3, 3), np.float32), "head"))
    head.attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    assert [node.op_type for node in sink_resizes(model).graph.node][-3:] == ["Resize", "Conv", "Relu"]


ASYMMETRIC = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
HALF_PIXEL = {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"}


def _skip_graph(
    swapped: bool = False, exposed: bool = False, read_twice: bool = False, **resize: str
) -> onnx.ModelProto:
    """A convolution at full size, one at half of it, and the second brought up and added to the first."""
    model = tiny_graph()
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    random = np.random.default_rng(1)
    weights |= {
        "full": random.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "half": random.normal(0, 0.3, (8, 8, 3, 3)).astype(np.float32),
    }
    pads = [1, 1, 1, 1]
    addends = ["skip", "up"] if swapped else ["up", "skip"]
    nodes = [
        *list(model.graph.node)[:3],
        helper.make_node("Conv", ["x0", "full"], ["f"], pads=pads),
        helper.make_node("Relu", ["f"], ["skip"]),
        helper.make_node("Conv", ["skip", "half"], ["h"], pads=pads, strides=[2, 2]),
        helper.make_node("Relu", ["h"], ["small"]),
        helper.make_node("Resize", ["small", "", "scales"], ["up"], **(ASYMMETRIC | resize)),
        helper.make_node("Add", addends, ["sum"]),
        helper.make_node("Mul", ["sum", "up" if read_twice else "skip"], ["product"]),
        helper.make_node("Conv", ["product", "head", "head_bias"], ["s"]),
        helper.make_node("Relu", ["s"], ["depth"]),
    ]
    outputs = list(model.graph.output)
    if exposed:
        outputs.append(helper.make_tensor_value_info("up", TensorProto.FLOAT, (1, 8, *CONFIG.input_size)))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "skip",
        list(model.graph.input),
        outputs,
        [numpy_helper.from_array(value, name) for name, value in weights.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


@pytest.mark.parametrize("options", [{}, {"swapped": True}, HALF_PIXEL], ids=["up + skip", "skip + up", "half pixel"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_skip_broadcasts_and_nothing_changes(options: dict, precision: str) -> None:
    def make() -> onnx.ModelProto:
        graph = _skip_graph(**options)
        return graph if precision == "fp32" else quantize(graph, random_frames(8), Quantization("uint8"))

    before, after = make(), broadcast_skips(make())
    onnx.checker.check_model(after, full_check=True)
    assert "Resize" in {node.op_type for node in before.graph.node}
    assert "Resize" not in {node.op_type for node in after.graph.node}
    for frame in random_frames(3):
        np.testing.assert_allclose(_run(after, frame), _run(before, frame), rtol=1e-6)


OTHERS = {
    "linear": {"mode": "linear"},
    "aligned corners": {"coordinate_transformation_mode": "align_corners"},
    "rounded up": {"nearest_mode": "ceil"},
    "an output": {"exposed": True},
    "read twice": {"read_twice": True},
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS.keys())
def test_other_upsampling_stays(options: dict) -> None:
    before, after = _skip_graph(**options), broadcast_skips(_skip_graph(**options))
    assert [node.op_type for node in after.graph.node] == [node.op_type for node in before.graph.node]

"""Rewrites keep the numbers and do what they are for."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from mobile import mobile_graph
from onnx import TensorProto, helper, numpy_helper
from tiny import CONFIG, random_frames, tiny_graph

from perception.engines.quantize import quantize
from perception.engines.rewrites import broadcast_skips, fold_pads, simplify, sink_resizes
from perception.engines.runtimes import Quantization
from perception.engines.trt_support import unsupported


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


def _kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_same_padding_moves_into_the_convolutions_and_nothing_changes(precision: str) -> None:
    before, after = mobile_graph(), fold_pads(mobile_graph())
    assert _kinds(before).count("Pad") == 2 and "Pad" not in _kinds(after)
    onnx.checker.check_model(after, full_check=True)
    tolerance = 1e-6
    if precision == "int8":
        before, after = (quantize(model, random_frames(8), Quantization("uint8")) for model in (before, after))
        tolerance = 0.03  # on the left the padded map gets its scale, on the right the map itself
    for frame in random_frames(3):
        np.testing.assert_allclose(_run(after, frame), _run(before, frame), rtol=tolerance)


def test_padding_adds_to_what_the_convolution_pads_itself() -> None:
    model = mobile_graph()
    stem = next(node for node in model.graph.node if node.output[0] == "stem")
    stem.attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    folded = next(node for node in fold_pads(model).graph.node if node.output[0] == "stem")
    pads = next(attribute for attribute in folded.attribute if attribute.name == "pads")
    assert list(pads.ints) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("name", "value"), [("zero", np.float32(1)), ("same", [0, 1, 0, 0, 0, 0, 1, 1]), ("same", [0] * 6 + [-1, 1])]
)
def test_other_padding_stays(name: str, value) -> None:
    model = mobile_graph()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    kind = np.float32 if name == "zero" else np.int64
    tensor.CopyFrom(numpy_helper.from_array(np.array(value, kind), name))
    stem = next(node for node in fold_pads(model).graph.node if node.output[0] == "stem")
    assert stem.input[0] == "padded"


@pytest.mark.parametrize("change", ["mode", "auto_pad", "reader"])
def test_padding_that_others_read_or_that_is_not_zeros_stays(change: str) -> None:
    model = mobile_graph()
    nodes = {node.output[0]: node for node in model.graph.node}
    if change == "mode":
        nodes["padded"].attribute.append(helper.make_attribute("mode", "edge"))
    elif change == "auto_pad":
        nodes["stem"].attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))
    else:
        model.graph.output.append(helper.make_tensor_value_info("padded", TensorProto.FLOAT, (1, 3, 33, 33)))
    assert next(node for node in fold_pads(model).graph.node if node.output[0] == "stem").input[0] == "padded"


def test_a_mobile_network_is_simplified_quantised_and_broadcast() -> None:
    plain, simple = mobile_graph(), simplify(mobile_graph())
    assert unsupported(simple) == []
    for scheme in (Quantization("int8"), Quantization("uint8")):
        quantised = quantize(simple, random_frames(8), scheme)
        broadcast = broadcast_skips(onnx.ModelProto.FromString(quantised.SerializeToString()))
        assert "Resize" in _kinds(quantised) and "Resize" not in _kinds(broadcast)
        for frame in random_frames(3, seed=1):
            np.testing.assert_allclose(_run(broadcast, frame), _run(quantised, frame), rtol=1e-5)
            np.testing.assert_allclose(_run(quantised, frame), _run(plain, frame), rtol=0.1)
    assert unsupported(quantize(simple, random_frames(8), Quantization("int8"))) == []

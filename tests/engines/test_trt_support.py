"""Which graphs TensorRT 10.3's parser takes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from tiny import bytes_graph, random_frames, tiny_graph

from perception.engines.errors import EngineError
from perception.engines.quantize import quantize
from perception.engines.runtimes import Quantization
from perception.engines.source import OnnxSource
from perception.engines.trt_support import check_precisions, unsupported


def _with(kind: str, output_type: int = TensorProto.FLOAT, domain: str = "", **attributes) -> onnx.ModelProto:
    """The tiny graph with one more operator on its output."""
    model = tiny_graph()
    model.graph.node.append(helper.make_node(kind, ["depth"], ["more"], name="extra", domain=domain, **attributes))
    model.graph.output.append(helper.make_empty_tensor_value_info("more"))
    model.graph.output[-1].type.tensor_type.elem_type = output_type
    return model


def test_the_tiny_model_is_taken_in_every_precision(model: str) -> None:
    assert check_precisions(OnnxSource(Path(model))) == {"fp32": [], "fp16": [], "int8": []}


def test_an_unknown_operator_is_named() -> None:
    assert unsupported(_with("Det")) == ["Det 'extra': this operator is not supported"]


def test_a_type_that_an_operator_does_not_take() -> None:
    model = _with("IsInf", TensorProto.BOOL)
    model.graph.node[-1].op_type, model.graph.node[-1].input[0] = "Not", "image"
    model.graph.node[-1].op_type = "Relu"
    model.graph.output[-1].type.tensor_type.elem_type = TensorProto.UINT8
    model.opset_import[0].version = 18
    with pytest.raises(EngineError, match="does not fit together"):  # ONNX itself knows no Relu of bytes
        unsupported(model)
    transpose = tiny_graph()
    transpose.graph.node.append(helper.make_node("Transpose", ["image"], ["more"], name="early", perm=[0, 3, 1, 2]))
    assert unsupported(transpose) == [
        "Transpose 'early': its input is UINT8, accepted are FLOAT, FLOAT16, BFLOAT16, INT32, INT64, BOOL"
    ]


def test_pooling_with_dilations_and_three_dimensions() -> None:
    assert unsupported(_with("MaxPool", kernel_shape=[2, 2], dilations=[2, 2])) == [
        "MaxPool 'extra': its dilations must be 1"
    ]


def test_resize_modes() -> None:
    model = tiny_graph()
    resize = next(node for node in model.graph.node if node.op_type == "Resize")
    next(attribute for attribute in resize.attribute if attribute.name == "mode").s = b"cubic"
    assert unsupported(model) == ["Resize '': mode is 'cubic', accepted are 'nearest', 'linear'"]


def test_unsigned_activations_are_refused() -> None:
    problems = unsupported(quantize(tiny_graph(), random_frames(2), Quantization("uint8")))
    assert any("its zero point is uint8, accepted is int8" in problem for problem in problems)


def test_bytes_come_of_floats_alone() -> None:
    model = bytes_graph()
    assert unsupported(model) == []
    rounded = helper.make_node("Cast", ["depth"], ["whole"], name="whole", to=TensorProto.INT64)
    model.graph.node.insert(len(model.graph.node) - 1, rounded)
    model.graph.node[-1].input[0] = "whole"
    assert unsupported(model) == ["Cast 'to_bytes': bytes are cast from and to FLOAT and FLOAT16 only"]


def test_opset() -> None:
    model = tiny_graph()
    model.opset_import[0].version = 21
    assert unsupported(model) == ["opset 21 is outside of 9 to 20"]


def test_operators_of_other_domains() -> None:
    model = _with("Gelu", domain="com.microsoft")
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert unsupported(model) == [
        "Gelu 'extra': it belongs to 'com.microsoft', and only ONNX's own operators are known"
    ]

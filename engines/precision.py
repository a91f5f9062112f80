"""Half precision as part of the graph: strongly typed, so that no runtime has to decide anything."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.engines.errors import EngineError

FLOAT_INPUTS = {"Resize": (1, 2)}
"""Inputs that the operator's definition wants in float32 whatever the data is: regions and scales of Resize."""
LARGEST = float(np.finfo(np.float16).max)
STORED = "_stored"
"""Ends the names of packed weights."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float32 graph whose weights and arithmetic are float16, inputs and outputs keeping their types.

    Raises:
        EngineError: a weight lies outside of float16's range.
    """
    half = onnx.ModelProto.FromString(model.SerializeToString())
    graph = half.graph
    kept = {node.input[i] for node in graph.node for i in FLOAT_INPUTS.get(node.op_type, ()) if i < len(node.input)}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            tensor.CopyFrom(numpy_helper.from_array(_half(tensor), tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            _cast_input(graph, value.name)
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            _cast_output(graph, value.name)
    del graph.value_info[:]
    return half


def _half(tensor: onnx.TensorProto) -> np.ndarray:
    if _reach(tensor) > LARGEST:
        raise EngineError(
            f"weight {tensor.name!r} reaches {_reach(tensor):.3g}, and float16 ends at {LARGEST:.0f}; use --precision "
            "fp32 or int8"
        )
    return numpy_helper.to_array(tensor).astype(np.float16)


def _reach(tensor: onnx.TensorProto) -> float:
    return float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))


def _cast_input(graph: onnx.GraphProto, given: str) -> None:
    """Cast an input, and let its readers take that."""
    inner = f"{given}_fp16"
    for node in graph.node:
        node.input[:] = [inner if name == given else name for name in node.input]
    graph.node.insert(0, helper.make_node("Cast", [given], [inner], name=f"{given}_to_fp16", to=TensorProto.FLOAT16))


def _cast_output(graph: onnx.GraphProto, output: str) -> None:
    """Let the nodes around an output use a half-precision tensor, and cast that to the output."""
    inner = f"{output}_fp16"
    for node in graph.node:
        node.output[:] = [inner if name == output else name for name in node.output]
        node.input[:] = [inner if name == output else name for name in node.input]
    graph.node.append(helper.make_node("Cast", [inner], [output], name=f"{output}_to_fp32", to=TensorProto.FLOAT))


def pack(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store weights as float16, each cast to float32 before it is read: half the file, arithmetic in float32 as before.

    Changes the model in place and returns it. Values are rounded to float16; tensors beyond its range stay as they are.
    """
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or _reach(tensor) > LARGEST:
            continue
        name, stored = tensor.name, f"{tensor.name}{STORED}"
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}_unpacked", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def unpack(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make a float32 definition of what `pack` stored; other graphs stay as they are. In place, too."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.name.endswith(STORED)}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]:
        tensor = stored[node.input[0]]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), node.output[0]))
        graph.node.remove(node)
    return model


def is_float32(model: onnx.ModelProto) -> bool:
    """Whether a graph is a float32 definition: without 8-bit and without half-precision arithmetic."""
    quantized = any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)
    halves = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return not quantized and not any(tensor.data_type in halves for tensor in model.graph.initializer)

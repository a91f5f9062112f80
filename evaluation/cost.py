"""What a network costs, counted in its ONNX graph."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = (*CONVOLUTIONS, "Gemm", "MatMul")
NORMALIZATIONS = ("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization")


def graph_cost(path: Path) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of one inference, of a float32 graph.

    Counted are Conv, ConvTranspose, Gemm and MatMul, those of attention too, and the parameters of normalisations.
    BatchNorm is folded in the graphs that we export, which so have a few parameters less than their definition.

    Raises:
        ValueError: not an ONNX file, or one whose shapes are not fixed.
    """
    import onnx

    from perception.engines.precision import unpack

    try:
        model = onnx.shape_inference.infer_shapes(unpack(onnx.load(path)), data_prop=True)
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise ValueError(f"{path} is not a readable ONNX file: {error}") from error
    graph = model.graph
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            weights[node.output[0]] = list(attribute.t.dims)
    shapes = weights | {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    held: set[str] = set()  # a weight that two nodes share is one
    macs = 0
    for node in graph.node:
        if node.op_type not in (*PRODUCTS, *NORMALIZATIONS):
            continue
        learnt = node.input[1:3] if node.op_type in NORMALIZATIONS else node.input  # not running mean and variance
        held.update(name for name in learnt if name in weights)
        if node.op_type in NORMALIZATIONS:
            continue
        first, second, output = (shapes.get(name, [0]) for name in (*node.input[:2], node.output[0]))
        if not all((*first, *second, *output)) or (node.op_type in CONVOLUTIONS and node.input[1] not in weights):
            raise ValueError(
                f"{path}: the shape or weight of {node.op_type} {node.name!r} is unknown or not fixed; counted are "
                "float32 graphs of a fixed input size"
            )
        # A transposed convolution is one whose input and output have changed places.
        results = first if node.op_type == "ConvTranspose" else output
        macs += math.prod(results) * _terms(node, first, second)
    return sum(math.prod(weights[name]) for name in held), macs


def _terms(node: Any, first: list[int], second: list[int]) -> int:
    """Products that each element of the output sums, from the shapes of both inputs."""
    if node.op_type in CONVOLUTIONS:
        return math.prod(second[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return first[0] if transposed else first[-1]

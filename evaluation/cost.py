"""What a network costs, counted in its ONNX graph."""

from __future__ import annotations

import math
from pathlib import Path


def graph_cost(path: Path) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of one inference, of a float32 graph: convolutions and matrix products.

    BatchNorm is folded in exported graphs, so that there are a few parameters less than in the definition.

    Raises:
        ValueError: not an ONNX file, or one whose shapes are not fixed.
    """
    import onnx

    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise ValueError(f"{path} is not a readable ONNX file: {error}") from error
    graph = model.graph
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    parameters, macs = 0, 0
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        kept = [weights[name] for name in node.input[1:] if name in weights]
        output = shapes.get(node.output[0], [0])
        if not kept or not all(output):
            raise ValueError(f"{path}: {node.op_type} {node.name!r} has no fixed weight or output shape")
        parameters += sum(math.prod(shape) for shape in kept)
        # Each output element sums over the weight of one output channel.
        channels = kept[0][0] if node.op_type == "Conv" else output[-1]
        macs += math.prod(output) * math.prod(kept[0]) // channels
    return parameters, macs

"""What the ONNX parser of TensorRT 10.3 (JetPack 6) takes, so that a graph can be refused before it reaches a Jetson.

Facts from docs/operators.md of github.com/onnx/onnx-tensorrt at its release 10.1; releases add to that list and take
nothing away. Control flow, sequences, strings and random numbers are left out on purpose: no model here needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto

from perception.engines.errors import EngineError
from perception.engines.graph import attributes, constants
from perception.engines.precision import to_fp16
from perception.engines.quantize import quantize
from perception.engines.runtimes import Quantization
from perception.engines.source import Source, complete

OPSETS = range(9, 21)
MAX_RANK = 8

_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16")
_NUMBERS = (*_FLOATS, "INT32", "INT64")
_ANY = (*_NUMBERS, "BOOL")
_TYPES: dict[tuple[str, ...], str] = {
    _NUMBERS: (
        "Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual Less LessOrEqual Max Mean Min "
        "Mod Mul Neg Pad Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
        "ReduceProd ReduceSum ReduceSumSquare Relu ScatterElements ScatterND Sign SpaceToDepth Sub Sum TopK"
    ),
    _FLOATS: (
        "Acos Asin Atan AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos CumSum Dropout "
        "Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization "
        "HardSigmoid HardSwish InstanceNormalization IsInf LRN LSTM LayerNormalization LeakyRelu Log LogSoftmax "
        "LpNormalization LpPool MatMul MaxPool PRelu Pow QuantizeLinear RNN Reciprocal Resize Round Selu Sigmoid "
        "Sin Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu"
    ),
    _ANY: (
        "Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity OneHot "
        "Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where"
    ),
    ("FLOAT", "FLOAT16"): "DeformConv GridSample Mish NonMaxSuppression NonZero RoiAlign",
    (*_ANY, "UINT8"): "Cast CastLike",
    ("BOOL",): "And Not Or Xor",
    ("INT8",): "DequantizeLinear",
}
OPERATORS: Mapping[str, tuple[str, ...]] = {name: types for types, names in _TYPES.items() for name in names.split()}
"""Operator -> accepted element types of its first input."""

CONSTANT_INPUTS = {"CumSum": 1, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1} | dict.fromkeys(
    ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"), 1
)
"""Operator -> the input that must be an initialiser."""
RESIZE = {
    "mode": ("nearest", "linear"),
    "coordinate_transformation_mode": (
        *("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"),
    ),
    "nearest_mode": ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
    "keep_aspect_ratio_policy": ("stretch",),
    "antialias": (0,),
}


def unsupported(model: onnx.ModelProto) -> list[str]:
    """One sentence for everything that the parser would refuse; empty if it takes the graph.

    Raises:
        EngineError: shapes and types of the graph do not fit together.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    problems = [f"opset {opsets.get('', 0)} is outside of {OPSETS[0]} to {OPSETS[-1]}"]
    problems = problems if opsets.get("", 0) not in OPSETS else []
    known = _Known(model)
    for node in model.graph.node:
        problems += [f"{node.op_type} {node.name!r}: {problem}" for problem in _node_problems(node, known)]
    return problems


class _Known:
    """Types, ranks and constants of a graph's tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        try:
            graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
        except onnx.shape_inference.InferenceError as error:
            raise EngineError(f"the graph does not fit together: {error}") from error
        self.constants = constants(model)
        values = (*graph.value_info, *graph.input, *graph.output)
        self.types = {value.name: TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values}
        self.ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
        for tensor in graph.initializer:
            self.types[tensor.name] = TensorProto.DataType.Name(tensor.data_type)
            self.ranks[tensor.name] = len(tensor.dims)


def _node_problems(node: onnx.NodeProto, known: _Known) -> list[str]:
    if node.domain not in ("", "ai.onnx"):
        return [f"it belongs to {node.domain!r}, and only ONNX's own operators are known"]
    if node.op_type not in OPERATORS:
        return ["this operator is not supported"]
    accepted = OPERATORS[node.op_type]
    problems = []
    if node.input and known.types.get(node.input[0]) not in accepted:
        problems.append(f"its input is {known.types.get(node.input[0])}, accepted are {', '.join(accepted)}")
    if any(known.ranks.get(name, 0) > MAX_RANK for name in (*node.input, *node.output)):
        problems.append(f"it has a tensor of more than {MAX_RANK} dimensions")
    fixed = CONSTANT_INPUTS.get(node.op_type)
    if fixed is not None and len(node.input) > fixed and node.input[fixed] not in known.constants:
        problems.append(f"its input {fixed} must be an initialiser")
    if node.op_type in _RULES:
        problems += _RULES[node.op_type](node, known)
    return problems


def _spatial(node: onnx.NodeProto, known: _Known) -> list[str]:
    rank = known.ranks.get(node.input[0], 0)
    return [] if rank in (4, 5) else [f"its input has {rank} dimensions; accepted are 4 and 5 (2D and 3D)"]


def _pool(node: onnx.NodeProto, known: _Known) -> list[str]:
    problems = _spatial(node, known)
    if set(attributes(node).get("dilations", [1])) != {1}:
        problems.append("its dilations must be 1")
    if len(node.output) > 1:
        problems.append("it gives indices, which is not supported")
    return problems


def _resize(node: onnx.NodeProto, known: _Known) -> list[str]:
    values = attributes(node)
    return [
        f"{name} is {values[name]!r}, accepted are {', '.join(map(repr, accepted))}"
        for name, accepted in RESIZE.items()
        if name in values and values[name] not in accepted
    ]


def _quantized(node: onnx.NodeProto, known: _Known) -> list[str]:
    if len(node.input) < 3 or node.input[2] not in known.constants:
        return ["its zero point must be an int8 initialiser"]
    zero = known.constants[node.input[2]]
    problems = [] if zero.dtype == np.int8 else [f"its zero point is {zero.dtype}, accepted is int8"]
    return problems + ([] if not zero.any() else ["its zero point must be 0 (symmetric quantisation)"])


def _cast(node: onnx.NodeProto, known: _Known) -> list[str]:
    kinds = {known.types.get(name) for name in (*node.input, *node.output)}
    if "UINT8" not in kinds or kinds & {"FLOAT", "FLOAT16"}:
        return []
    return ["bytes are cast from and to FLOAT and FLOAT16 only"]


def _grid(node: onnx.NodeProto, known: _Known) -> list[str]:
    return [] if known.ranks.get(node.input[0]) == 4 else ["its input must have 4 dimensions"]


_RULES: Mapping[str, Callable[[onnx.NodeProto, _Known], list[str]]] = {
    "Cast": _cast,
    "Conv": _spatial,
    "ConvTranspose": _spatial,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "Resize": _resize,
    "QuantizeLinear": _quantized,
    "DequantizeLinear": _quantized,
    "GridSample": _grid,
}


def check_precisions(source: Source) -> dict[str, list[str]]:
    """`unsupported` for the graphs of every precision. Scales do not matter here, so noise calibrates the int8 one."""
    model = source.graph()
    noise = np.random.default_rng(0).integers(0, 256, (1, *source.config.input_size, 3), np.uint8)
    frames = complete(source, [noise])
    graphs = {"fp32": model, "fp16": to_fp16(model), "int8": quantize(model, frames, Quantization("int8"))}
    return {precision: unsupported(graph) for precision, graph in graphs.items()}

"""Rewrites of ONNX graphs that keep the result and save time. They change the model in place and return it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from perception.engines.graph import attributes, constants, drop_unused

REPEATING = {
    "asymmetric": ("floor", "round_prefer_floor"),
    "half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
    "pytorch_half_pixel": ("round_prefer_floor", "round_prefer_ceil"),
}
"""Conventions of coordinates and of rounding by which nearest 2x upsampling repeats every pixel twice."""
POINTWISE = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Exp")


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """The rewrites that every engine is built with."""
    return sink_resizes(fold_pads(model))


def fold_pads(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let convolutions pad for themselves where a Pad writes zeros around what they alone read.

    TensorFlow's SAME padding of a stride of 2 is such a Pad: one more row or column at the end than at the start. As an
    operator of its own it is a pass over memory, and it would come between a convolution and its 8-bit input.
    """
    nodes = list(model.graph.node)
    weights = constants(model)
    outputs = {value.name for value in model.graph.output}
    for pad in [node for node in nodes if node.op_type == "Pad"]:
        around = _zeros_around(pad, weights)
        readers = [node for node in nodes if pad.output[0] in node.input]
        if around is None or pad.output[0] in outputs or not readers:
            continue
        if not all(node.op_type == "Conv" and _pads_itself(node) for node in readers):
            continue
        for convolution in readers:
            convolution.input[0] = pad.input[0]
            own = attributes(convolution).get("pads", [0] * len(around))
            kept = [attribute for attribute in convolution.attribute if attribute.name != "pads"]
            del convolution.attribute[:]
            pads = [inner + outer for inner, outer in zip(own, around, strict=True)]
            convolution.attribute.extend([*kept, helper.make_attribute("pads", pads)])
        nodes.remove(pad)
    model = _with_nodes(model, nodes)
    drop_unused(model)
    return model


def _pads_itself(convolution: onnx.NodeProto) -> bool:
    return bool(attributes(convolution).get("auto_pad", "NOTSET") == "NOTSET")


def _zeros_around(pad: onnx.NodeProto, weights: Mapping[str, np.ndarray]) -> list[int] | None:
    """Rows and columns of zeros at start and end, as Conv's `pads` has them; None if the Pad does anything else."""
    amounts = weights.get(pad.input[1])
    value = weights.get(pad.input[2], np.ones(1)) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
    if attributes(pad).get("mode", "constant") != "constant" or amounts is None or value.any():
        return None
    if len(pad.input) > 3 and pad.input[3]:  # axes of its own
        return None
    starts, ends = np.split(amounts, 2)
    if (amounts < 0).any() or starts[:2].any() or ends[:2].any():
        return None
    return [int(amount) for amount in (*starts[2:], *ends[2:])]


def sink_resizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move nearest upsampling below the 1x1 convolutions and activations that follow it.

    Both orders give the same numbers, because nearest upsampling only repeats pixels; afterwards the convolution works
    on a quarter of them. FastDepth's last layers are such a case.
    """
    nodes = list(model.graph.node)
    weights = constants(model)
    outputs = {value.name for value in model.graph.output}
    while pair := _resize_above_pointwise(nodes, weights, outputs):
        resize, follower = pair
        above, below = nodes.index(resize), nodes.index(follower)
        first, between, last = resize.input[0], resize.output[0], follower.output[0]
        follower.input[0], follower.output[0] = first, between
        resize.input[0], resize.output[0] = between, last
        nodes[above], nodes[below] = follower, resize
    return _with_nodes(model, nodes)


def _resize_above_pointwise(
    nodes: list[onnx.NodeProto], weights: Mapping[str, np.ndarray], outputs: set[str]
) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    for resize in nodes:
        if not _is_nearest_upsampling(resize, weights) or resize.output[0] in outputs:
            continue
        readers = [node for node in nodes if resize.output[0] in node.input]
        if len(readers) == 1 and _is_pointwise(readers[0], weights):
            return resize, readers[0]
    return None


def _is_nearest_upsampling(node: onnx.NodeProto, weights: Mapping[str, np.ndarray]) -> bool:
    if node.op_type != "Resize" or attributes(node).get("mode", "nearest") != "nearest" or len(node.input) != 3:
        return False
    scales = weights.get(node.input[2])
    return scales is not None and bool((scales >= 1).all())


def _is_pointwise(node: onnx.NodeProto, weights: Mapping[str, np.ndarray]) -> bool:
    if node.op_type in POINTWISE:
        return True
    values = attributes(node)
    return (
        node.op_type == "Conv"
        and weights[node.input[1]].shape[2:] == (1, 1)
        and set(values.get("strides", [1])) == {1}
        and set(values.get("pads", [0])) == {0}
    )


def broadcast_skips(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a skip connection's addition repeat the pixels that nearest 2x upsampling would have written out for it.

    `Resize(x) + skip` becomes an addition of x as (h, 1, w, 1, c) to the skip as (h, 2, w, 2, c), which broadcasts. For
    runtimes that keep channels last: there the transpositions are views, and a pass over memory is saved. The Resize's
    Quantize/Dequantize pair goes with it.
    """
    nodes = list(model.graph.node)
    shapes = _shapes(model)
    weights = constants(model)
    outputs = {value.name for value in model.graph.output}
    for addition in [node for node in nodes if node.op_type == "Add"]:
        for upsampled, skip in (addition.input, addition.input[::-1]):
            chain = _double_upsampling(nodes, upsampled, weights, shapes)
            visible = outputs.intersection(name for node in chain for name in node.output)
            if not chain or visible or shapes.get(upsampled) != shapes.get(skip):
                continue
            _broadcast(model, nodes, addition, chain[0].input[0], skip, shapes[skip], outputs)
            for node in chain:
                nodes.remove(node)
            break
    return _with_nodes(model, nodes)


def _double_upsampling(
    nodes: list[onnx.NodeProto], tensor: str, weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> list[onnx.NodeProto]:
    """The Resize by 2 that gives `tensor` to one reader alone, and the pair behind it; empty if it is none."""
    producers = {name: node for node in nodes for name in node.output}
    chain: list[onnx.NodeProto] = []
    name = tensor
    for operator in ("DequantizeLinear", "QuantizeLinear", "Resize"):
        node = producers.get(name)
        if node is None or sum(name in reader.input for reader in nodes) != 1:
            return []
        if node.op_type == operator:
            chain.insert(0, node)
            name = node.input[0]
    if len(chain) not in (1, 3) or not _is_nearest_upsampling(chain[0], weights):
        return []
    values = attributes(chain[0])
    rounding = REPEATING.get(values.get("coordinate_transformation_mode", "half_pixel"), ())
    if values.get("nearest_mode", "round_prefer_floor") not in rounding:
        return []
    sizes = shapes.get(name, ())
    doubled = (*sizes[:2], *(2 * size for size in sizes[2:]))
    return chain if len(sizes) == 4 and sizes[0] == 1 and doubled == shapes.get(tensor) else []


def _broadcast(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    addition: onnx.NodeProto,
    small: str,
    skip: str,
    shape: tuple[int, ...],
    outputs: set[str],
) -> None:
    """Replace the inputs of `addition`, and give its sum the `shape` (1, c, h, w) that its readers expect."""
    _, channels, height, width = shape
    base = addition.output[0]

    def sizes_of(name: str, *sizes: int) -> str:
        model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), f"{name}_sizes"))
        return f"{name}_sizes"

    above = []
    for index, (part, tensor, repeated) in enumerate([("small", small, 1), ("skip", skip, 2)]):
        name = f"{base}_{part}"
        sizes = sizes_of(name, height // 2, repeated, width // 2, repeated, channels)
        above.append(helper.make_node("Transpose", [tensor], [f"{name}_last"], f"{name}_last", perm=[0, 2, 3, 1]))
        above.append(helper.make_node("Reshape", [f"{name}_last", sizes], [name], name))
        addition.input[index] = name
    nodes[nodes.index(addition) : nodes.index(addition)] = above
    # A pair behind the sum stays with it, so that both are one kernel.
    end = addition
    for operator in ("QuantizeLinear", "DequantizeLinear"):
        readers = [node for node in nodes if end.output[0] in node.input]
        if len(readers) == 1 and readers[0].op_type == operator and end.output[0] not in outputs:
            end = readers[0]
    name, result = f"{base}_sum", end.output[0]
    end.output[0] = name
    sizes = sizes_of(name, 1, height, width, channels)
    nodes[nodes.index(end) + 1 : nodes.index(end) + 1] = [
        helper.make_node("Reshape", [name, sizes], [f"{name}_last"], f"{name}_last"),
        helper.make_node("Transpose", [f"{name}_last"], [result], f"{name}_first", perm=[0, 3, 1, 2]),
    ]


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    found = shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*found.value_info, *found.input, *found.output)
    }


def _with_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(ordered)
    return model

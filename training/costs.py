"""What a frame costs a network, by the shapes of its convolutions, so that widths are tried without a network."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from onnx import helper, numpy_helper
from torch import nn

from perception.engines.graph import IR_VERSION, OPSET, to_bytes
from perception.engines.store import write_atomically
from perception.training.channels import ChannelGroup

RUNS = 20
"""Timed runs of a layer."""


@dataclass(frozen=True)
class LayerShape:
    """A convolution at work; `height` and `width` are its output's."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    groups: int
    height: int
    width: int


Shapes = Mapping[str, LayerShape]
"""Of all convolutions of a network, by name."""
Cost = Callable[[Shapes], float]
"""What a frame costs, in the unit of `Pruning.budget`."""


def layer_shapes(model: nn.Module, size: tuple[int, int]) -> dict[str, LayerShape]:
    """The convolutions of a network that is given an image of size = (height, width)."""
    shapes: dict[str, LayerShape] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(layer: nn.Conv2d, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            shapes[name] = LayerShape(
                layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0], layer.groups,
                *output.shape[-2:],
            )  # fmt: skip

        return hook

    hooks = [
        layer.register_forward_hook(record(name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, *size, device=next(model.parameters()).device))
    model.train(training)
    for handle in hooks:
        handle.remove()
    return shapes


def narrowed(shapes: Shapes, group: ChannelGroup, width: int) -> dict[str, LayerShape]:
    """The same network with `width` channels in a group."""
    changed = dict(shapes)
    for name in group.producers:
        changed[name] = dataclasses.replace(changed[name], outputs=width)
    for name in set(group.followers) & set(shapes):
        changed[name] = dataclasses.replace(changed[name], inputs=width, outputs=width, groups=width)
    for name in group.readers:
        changed[name] = dataclasses.replace(changed[name], inputs=width)
    return changed


def gigamacs(shapes: Shapes) -> float:
    """Multiply-accumulates, in units of 1e9, as `perception.models.count_macs` counts them."""
    return sum(_macs(shape) for shape in shapes.values()) / 1e9


def _macs(shape: LayerShape) -> int:
    return shape.outputs * shape.inputs // shape.groups * shape.kernel**2 * shape.height * shape.width


class Latency:
    """Milliseconds on this machine's CPU: the sum of what ONNX Runtime takes for every convolution alone.

    A table of layers is how NetAdapt estimates latency. Sums and upsampling are left out: in whole graphs
    they take a small part. Every shape is timed once, so that a search does not see two times of the same layer.

    Args:
        table: JSON file that keeps the times for the next run, which then takes the same decisions.
        threads: of ONNX Runtime; 0: all cores.
    """

    def __init__(self, table: Path, threads: int = 0) -> None:
        self._path, self._threads = table, threads
        self._times: dict[str, float] = json.loads(table.read_text()) if table.is_file() else {}

    def __call__(self, shapes: Shapes) -> float:
        new = {shape for shape in shapes.values() if repr(shape) not in self._times}
        for shape in sorted(new, key=repr):
            self._times[repr(shape)] = time_layer(shape, self._threads)
        if new:
            write_atomically(self._path, json.dumps(self._times, indent=0).encode())
        return sum(self._times[repr(shape)] for shape in shapes.values())


def time_layer(shape: LayerShape, threads: int) -> float:
    """Milliseconds of a convolution with ReLU: the fastest of some runs, since other work can only slow them down."""
    import onnxruntime  # only who prunes by latency needs it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_graph(shape), options, providers=["CPUExecutionProvider"])
    image = np.ones((1, shape.inputs, shape.height * shape.stride, shape.width * shape.stride), np.float32)
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        session.run(None, {"x": image})
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def _graph(shape: LayerShape) -> bytes:
    """ONNX: the convolution, then ReLU, on "x" of shape (1, inputs, height * stride, width * stride)."""
    weight = np.ones((shape.outputs, shape.inputs // shape.groups, shape.kernel, shape.kernel), np.float32)
    strides = [shape.stride] * 2
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["y"], strides=strides, group=shape.groups, auto_pad="SAME_UPPER"),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    size = [1, shape.inputs, shape.height * shape.stride, shape.width * shape.stride]
    image, output = helper.make_tensor_value_info("x", 1, size), helper.make_tensor_value_info("z", 1, None)
    graph = helper.make_graph(nodes, "layer", [image], [output], [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return to_bytes(model)

"""int8 as explicit Quantize/Dequantize pairs with scales from real frames (post-training, static).

Following Nagel et al., A White Paper on Neural Network Quantization (2021): activation ranges and weight scales that
minimise the squared error (section 3.1), and the mean shift that quantised weights cause taken back through the bias
(section 3.3). What carries the result of the network, the last layer's output, stays in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from perception.engines.errors import EngineError
from perception.engines.graph import constants, drop_unused
from perception.engines.runtimes import Frame, Progress, Quantization, by_name

WEIGHTED = ("Conv",)
"""Operators whose weights become int8."""
PASSING = ("Add", "Concat", "MaxPool", "Resize")
"""Operators that stay in 8 bits between two of the others."""
BINS = 2048
WEIGHT_STEPS = np.concatenate([np.linspace(0.6, 1.0, 17), 127 / np.arange(126, 62, -1)])
"""Tried multiples of the largest weight / 127: up to 1 large weights are clipped, beyond it the largest is a whole
number of steps from 126 to 63. Weights that were rounded in training therefore find their own steps again."""
RANGE_CLIPS = np.linspace(0.2, 1.0, 81)


@dataclass
class Statistics:
    """What calibration keeps of one tensor."""

    low: float = 0.0
    high: float = 0.0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    """Counts of |x| in equal bins from 0 to max(-low, high)."""
    channel_sums: np.ndarray = field(default_factory=lambda: np.zeros(1))
    pixels: int = 0

    @property
    def largest(self) -> float:
        """Largest absolute value seen; never 0."""
        return max(-self.low, self.high, 1e-6)

    @property
    def channel_means(self) -> np.ndarray:
        """Mean of each channel."""
        return self.channel_sums / max(self.pixels, 1)

    def widen(self, values: np.ndarray) -> None:
        """Take the range and the channels' means of (batch, channels, height, width) into account."""
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.channel_sums = self.channel_sums + values.sum(axis=(0, 2, 3), dtype=np.float64)
        self.pixels += values.size // values.shape[1]

    def count(self, values: np.ndarray) -> None:
        """Fill the histogram, once the range is known."""
        self.histogram += np.histogram(np.abs(values), BINS, (0, self.largest))[0]


def quantize(
    model: onnx.ModelProto, frames: Sequence[Frame], scheme: Quantization, progress: Progress = lambda line: None
) -> onnx.ModelProto:
    """A copy of a float32 graph in which convolutions and what lies between them are quantised.

    Args:
        frames: for calibration, of the scenes that the robot will see.

    Raises:
        EngineError: no frames.
    """
    return place_pairs(model, calibrate(model, frames, progress), scheme)


def place_pairs(
    model: onnx.ModelProto, statistics: Mapping[str, Statistics], scheme: Quantization, keep: Collection[str] = ()
) -> onnx.ModelProto:
    """`quantize` with what `calibrate` found; layers named in `keep` read and multiply float32.

    Raises:
        EngineError: a name in `keep` is no layer of the graph.
    """
    if unknown := sorted(set(keep) - set(layers(model))):
        raise EngineError(
            f"the graph has no quantised layer called {', '.join(unknown)}; it has {', '.join(layers(model))}"
        )
    model = onnx.ModelProto.FromString(model.SerializeToString())
    chosen = [node for node in _quantized_nodes(model) if layer_name(node) not in keep]
    tensors = _activations(model, chosen)
    _quantize_weights(model, chosen, statistics, scheme)
    _quantize_activations(model, chosen, tensors, statistics, scheme)
    del model.graph.value_info[:]
    return model


def layers(model: onnx.ModelProto) -> list[str]:
    """Names of what int8 covers, in the graph's order."""
    return [layer_name(node) for node in _quantized_nodes(model)]


def layer_name(node: onnx.NodeProto) -> str:
    """A convolution is called as its module is in PyTorch, anything else as its result."""
    if node.op_type in WEIGHTED:
        return str(node.input[1]).removeprefix("model.").removesuffix(".weight")
    return str(node.output[0])


def _quantized_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The convolutions, and the passing operators above at least one of them.

    Adding a constant is the normalisation of the image, which 8 bits before and after it would harm twice.
    """
    fixed = {tensor.name for tensor in model.graph.initializer}
    chosen: list[onnx.NodeProto] = []
    needed: set[str] = set()  # tensors that some chosen node reads
    for node in reversed(model.graph.node):
        passing = node.op_type in PASSING and not (node.op_type == "Add" and fixed.intersection(node.input))
        if node.op_type in WEIGHTED or (passing and needed.intersection(node.output)):
            chosen.append(node)
            needed.update(node.input)
    return chosen[::-1]


def _activations(model: onnx.ModelProto, chosen: Sequence[onnx.NodeProto]) -> list[str]:
    """Tensors to quantise: what the chosen nodes read, apart from weights, in order."""
    fixed = constants(model)
    inputs = itertools.chain.from_iterable(node.input for node in chosen)
    return [name for name in dict.fromkeys(inputs) if name and name not in fixed]


def calibrate(
    model: onnx.ModelProto, frames: Sequence[Frame], progress: Progress = lambda line: None
) -> dict[str, Statistics]:
    """Run `frames` twice through the float32 graph: ranges of what may be quantised first, then histograms within them.

    Raises:
        EngineError: no frames, or nothing that may be quantised.
    """
    import onnxruntime as ort

    if not frames:
        raise EngineError(
            "int8 needs calibration frames and none were given; name a folder of images with --calibration"
        )
    tensors = _activations(model, _quantized_nodes(model))
    if not tensors:
        raise EngineError("the graph has no convolution, and int8 is for those; take another precision")
    probe = onnx.ModelProto.FromString(model.SerializeToString())
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    statistics = {name: Statistics() for name in tensors}
    for step, frame in enumerate(itertools.chain(frames, frames)):
        if step % 8 == 0:
            progress(f"calibrating on frame {step % len(frames) + 1} of {len(frames)}")
        for name, values in zip(tensors, session.run(None, dict(by_name(frame))), strict=True):
            if step < len(frames):
                statistics[name].widen(values)
            else:
                statistics[name].count(values)
    return statistics


def activation_scale(found: Statistics, scheme: Quantization) -> tuple[float, int]:
    """(scale, zero point) with the least squared error over the histogram."""
    unsigned = scheme.activations == "uint8"
    levels, zero = (255, 0) if unsigned and found.low >= 0 else (127, 128 if unsigned else 0)
    centres = (np.arange(BINS) + 0.5) / BINS * found.largest
    scales = RANGE_CLIPS * found.largest / levels
    rounded = np.minimum(np.round(centres / scales[:, None]), levels) * scales[:, None]
    errors = ((rounded - centres) ** 2 * found.histogram).sum(axis=1)
    return float(scales[errors.argmin()]), zero


def quantize_weights(weights: np.ndarray, scheme: Quantization) -> tuple[np.ndarray, np.ndarray]:
    """(int8 weights, one float32 scale for each output channel), symmetric, with the least squared error.

    Args:
        weights: float32 (outputs, inputs / groups, kernel height, kernel width).
    """
    rows = weights.reshape(len(weights), -1)
    step = np.maximum(np.abs(rows).max(axis=1), 1e-12) / 127
    best = np.full(len(rows), np.inf)
    integers, scales = np.zeros_like(weights, np.int8), step.astype(np.float32)
    for factor in WEIGHT_STEPS:
        scale = (step * factor).astype(np.float32)
        column = scale.reshape(-1, *[1] * (weights.ndim - 1))
        rounded = np.clip(np.round(weights / column), -127, 127)
        error = ((rounded * column - weights) ** 2).reshape(len(rows), -1).sum(axis=1)
        better = (error < best) & (~_overflows(rounded) if scheme.saturates else True)
        best[better], scales[better], integers[better] = error[better], scale[better], rounded[better]
    return integers, scales


def _overflows(integers: np.ndarray) -> np.ndarray:
    """Which output channels can leave 16 bits where products with two neighbouring inputs of up to 255 are added.

    Kernels pair the inputs 0 and 1, 2 and 3, ... of each tap, and multiply depthwise layers in 32 bits. An odd number
    of inputs is padded by some and not by others, so any two weights may meet there.
    """
    inputs = integers.shape[1]
    if inputs == 1:
        return np.zeros(len(integers), bool)
    pairs = 2 * np.abs(integers) if inputs % 2 else np.abs(integers[:, 0::2] + integers[:, 1::2])
    overflows: np.ndarray = pairs.reshape(len(integers), -1).max(axis=1) * 255 > 32767
    return overflows


def _quantize_weights(
    model: onnx.ModelProto,
    chosen: Sequence[onnx.NodeProto],
    statistics: Mapping[str, Statistics],
    scheme: Quantization,
) -> None:
    fixed = constants(model)
    for node in [node for node in chosen if node.op_type in WEIGHTED]:
        name = node.input[1]
        weights = fixed[name]
        integers, scales = quantize_weights(weights, scheme)
        column = scales.reshape(-1, *[1] * (weights.ndim - 1))
        bias = fixed[node.input[2]] if len(node.input) > 2 else np.zeros(len(weights), np.float32)
        bias = bias - _mean_shift(integers * column - weights, statistics[node.input[0]].channel_means)
        parts = {"int8": integers, "scale": scales, "zero": np.zeros(len(weights), np.int8)}
        model.graph.initializer.extend(numpy_helper.from_array(v, f"{name}_{k}") for k, v in parts.items())
        model.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}_bias_int8"))
        inputs = [f"{name}_{part}" for part in parts]
        dequantize = helper.make_node("DequantizeLinear", inputs, [f"{name}_dq"], name=f"{name}_dq", axis=0)
        model.graph.node.insert(0, dequantize)
        node.input[:] = [node.input[0], f"{name}_dq", f"{name}_bias_int8"]
    drop_unused(model)


def _mean_shift(error: np.ndarray, means: np.ndarray) -> np.ndarray:
    """What an error of the weights (out, in / groups, kh, kw) adds to the mean of each output channel."""
    outputs, inputs = error.shape[:2]
    groups = len(means) // inputs
    grouped = means.reshape(groups, 1, inputs)
    summed = error.sum(axis=tuple(range(2, error.ndim))).reshape(groups, outputs // groups, inputs)
    shift: np.ndarray = (summed * grouped).sum(axis=2).reshape(outputs)
    return shift


def _quantize_activations(
    model: onnx.ModelProto,
    chosen: Sequence[onnx.NodeProto],
    tensors: Sequence[str],
    statistics: Mapping[str, Statistics],
    scheme: Quantization,
) -> None:
    """One pair for each tensor, right behind its producer; the chosen nodes read the pair's output."""
    pairs: dict[str, list[onnx.NodeProto]] = {}
    for name in tensors:
        scale, zero = activation_scale(statistics[name], scheme)
        parts = (np.float32(scale), np.dtype(scheme.activations).type(zero))
        names = [f"{name}_scale", f"{name}_zero"]
        model.graph.initializer.extend(
            numpy_helper.from_array(np.array(v), n) for v, n in zip(parts, names, strict=True)
        )
        pairs[name] = [
            helper.make_node("QuantizeLinear", [name, *names], [f"{name}_q"], name=f"{name}_q"),
            helper.make_node("DequantizeLinear", [f"{name}_q", *names], [f"{name}_dq"], name=f"{name}_dq"),
        ]
    for node in chosen:
        node.input[:] = [f"{name}_dq" if name in pairs else name for name in node.input]
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        for name in node.output:
            nodes.extend(pairs.get(name, ()))
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(ordered)

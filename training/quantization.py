"""Quantisation-aware training: the 8-bit arithmetic of `perception.engines.quantize` inside a PyTorch model.

`prepare` before the fine-tuning, `finish` after it; the loop between them need not know. Rounding passes gradients
straight through, and the step of every activation is learned (LSQ, Esser et al., ICLR 2020), from the start that the
engines' own calibration gives. BatchNorm is folded in place, with fixed statistics, so that the trained weights are the
ones that an engine rounds. `finish` rounds them for good: an engine's post-training quantisation then finds the very
same integers, and calibrates the activations again, which have learned to bear it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from perception.engines.quantize import Statistics, activation_scale, quantize_weights
from perception.engines.runtimes import Quantization

STRICTEST = Quantization("int8", saturates=True)
"""Signed activations and 7-bit weights: whatever multiplies them, TensorRT or an x86 without VNNI, adds no harm."""
NAME = "quantizer"
"""Of the submodule that holds the learned steps while a model is prepared."""

WEIGHTED = (torch.conv2d, functional.conv2d)
ADDING = (torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__iadd__)
PASSING = (*ADDING, torch.cat, functional.interpolate, functional.max_pool2d)
"""What stays in 8 bits between two convolutions, as in the engines."""
NORMALIZING = (functional.batch_norm, torch.batch_norm)


class _Round(torch.autograd.Function):
    """Round to `levels` = (low, high) steps of a learned size; gradients as in LSQ, equations 3 and 5."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, step: torch.Tensor, low: int, high: int) -> torch.Tensor:
        rounded = (x / step).round_().clamp_(low, high).mul_(step)
        ctx.save_for_backward(x, rounded, step)
        ctx.levels = low, high
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, rounded, step = ctx.saved_tensors
        low, high = ctx.levels
        inside = (x >= low * step) & (x <= high * step)
        passed = gradient * inside
        # Normalised by the root of (elements * levels), so that a step is no louder than a weight.
        loud = 1 / np.sqrt(x.numel() * high)
        of_step = (gradient * (rounded - x * inside)).sum() / step * loud
        return passed, of_step.reshape(step.shape), None, None


def round_weights(weights: torch.Tensor, step: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """Weights (out, in / groups, kh, kw) in whole steps, at most so many; both are (out, 1, 1, 1)."""
    steps = torch.maximum(torch.minimum(weights / step, most), -most)
    return (steps + (steps.round() - steps).detach()) * step


@dataclass
class _Call:
    """A call of interest during the traced forward pass."""

    function: Callable[..., Any]
    inputs: list[torch.Tensor]
    versions: list[int]
    output: torch.Tensor


class Quantizer(nn.Module):
    """Rounds what convolutions and the operations between them read, while the model that it belongs to runs."""

    def __init__(
        self, model: nn.Module, scheme: Quantization, points: list[dict[int, int]], found: list[Statistics]
    ) -> None:
        super().__init__()
        self.points = points
        for index, layer in enumerate(_convolutions(model)):
            integers, steps = quantize_weights(layer.weight.detach().cpu().numpy(), scheme)
            most = np.abs(integers.astype(np.float32)).max(axis=(1, 2, 3), initial=1)
            self.register_buffer(f"step{index}", torch.from_numpy(steps).reshape(-1, 1, 1, 1))
            self.register_buffer(f"most{index}", torch.from_numpy(most).reshape(-1, 1, 1, 1))
        scales = [activation_scale(statistics, scheme) for statistics in found]
        self.log_steps = nn.ParameterList(nn.Parameter(torch.tensor(float(np.log(scale)))) for scale, _ in scales)
        unsigned = scheme.activations == "uint8"
        self.levels = [(0, 255) if unsigned and not zero else (-128 if unsigned else -127, 127) for _, zero in scales]
        self.place = 0
        self._layers: dict[int, int] = {}
        self._mode: TorchFunctionMode | None = None

    def start(self, model: nn.Module, inputs: Any) -> None:
        """Before the model's forward pass."""
        self.place = 0
        self._layers = {id(layer.weight): index for index, layer in enumerate(_convolutions(model))}
        self._mode = _Rounding(self)
        self._mode.__enter__()

    def stop(self, model: nn.Module, inputs: Any, output: Any) -> None:
        """After it, also after a failed one."""
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None

    def round_input(self, place: int, index: int, x: torch.Tensor) -> torch.Tensor:
        """Input `index` of call `place`, rounded if the engines round it."""
        point = self.points[place].get(index)
        if point is None:
            return x
        rounded: torch.Tensor = _Round.apply(x, self.log_steps[point].exp(), *self.levels[point])  # type: ignore[no-untyped-call]
        return rounded

    def round_weights(self, weights: torch.Tensor, index: int | None = None) -> torch.Tensor:
        """The weights of a convolution on the grid that the engines found when the training began."""
        index = self._layers[id(weights)] if index is None else index
        return round_weights(weights, getattr(self, f"step{index}"), getattr(self, f"most{index}"))

    def ranges(self) -> list[tuple[float, float]]:
        """Smallest and largest value of every tensor that is rounded, in the order of the forward pass."""
        steps = [float(step.detach().exp()) for step in self.log_steps]
        return [(low * step, high * step) for step, (low, high) in zip(steps, self.levels, strict=True)]


class _Rounding(TorchFunctionMode):
    """Sees every call of a forward pass and rounds the inputs of those that the engines quantise."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in NORMALIZING:
            return _with_fixed_statistics(function, args, kwargs)
        inputs = _inputs(function, args)
        if not inputs:
            return function(*args, **kwargs)
        place = self.quantizer.place
        self.quantizer.place += 1
        inputs = [self.quantizer.round_input(place, i, x) for i, x in enumerate(inputs)]
        if function in ADDING:  # a sum in place would overwrite the rounded copy, which the gradient needs
            return torch.add(*inputs, **kwargs)
        if function is torch.cat:
            return torch.cat(inputs, *args[1:], **kwargs)
        if function in WEIGHTED:
            args = (args[0], self.quantizer.round_weights(args[1]), *args[2:])
        return function(inputs[0], *args[1:], **kwargs)


class _Tracing(TorchFunctionMode):
    """Notes the calls of a forward pass, and with `watch` what tensors they read."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.padded: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.watch: Callable[[int, int, torch.Tensor], None] = lambda place, index, x: None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in NORMALIZING:
            return _with_fixed_statistics(function, args, kwargs)
        if function is functional.pad:  # engines fold it into the convolution, which then reads what was padded
            padded = function(*args, **kwargs)
            self.padded[id(padded)] = padded, args[0]
            return padded
        inputs = [self.padded.get(id(x), (x, x))[1] for x in _inputs(function, args)]
        if not inputs:
            return function(*args, **kwargs)
        versions = [x._version for x in inputs]
        for index, x in enumerate(inputs):
            self.watch(len(self.calls), index, x)
        output = function(*args, **kwargs)
        self.calls.append(_Call(function, inputs, versions, output))
        return output


def _inputs(function: Any, args: Any) -> list[torch.Tensor]:
    """The activations that a call reads; none if engines quantise no such call, as the addition of a constant."""
    if function in ADDING:
        pair = [x for x in args[:2] if isinstance(x, torch.Tensor)]
        return pair if len(pair) == 2 and pair[0].ndim == 4 and pair[0].shape == pair[1].shape else []
    if function is torch.cat:
        return list(args[0])
    return [args[0]] if function in WEIGHTED + PASSING else []


def _with_fixed_statistics(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """A call of BatchNorm whose sixth argument, `training`, is False."""
    if len(args) > 5:
        return function(*args[:5], False, *args[6:], **kwargs)
    return function(*args, **(kwargs | {"training": False}))


def prepare(model: nn.Module, images: torch.Tensor, scheme: Quantization = STRICTEST) -> None:
    """Fold BatchNorm and insert the rounding of `scheme`, in place.

    The parameters of the rounding's steps are in `model.quantizer` from now on: make the optimiser after this call.

    Args:
        images: normalised float32 (batch, 3, height, width), at least a few dozen of the training set; they set the
            first step of every activation.

    Raises:
        ValueError: prepared already, or a BatchNorm that follows no convolution.
    """
    if hasattr(model, NAME):
        raise ValueError("this model is prepared for quantisation already; call finish first")
    training = model.training
    model.eval()
    with torch.no_grad():
        fold_norms(model, images[:1])
        points, found = _observe(model, images)
    quantizer = Quantizer(model, scheme, points, found).to(images.device)
    model.add_module(NAME, quantizer)
    model.register_forward_pre_hook(quantizer.start)
    model.register_forward_hook(quantizer.stop, always_call=True)
    model.train(training)


def finish(model: nn.Module) -> list[tuple[float, float]]:
    """Take the rounding out again, in place, and leave the weights rounded.

    Returns:
        The learned ranges (low, high) of the activations, in the order in which a forward pass first reads them. The
        build of an engine needs none of it.

    Raises:
        ValueError: the model is not prepared.
    """
    quantizer = getattr(model, NAME, None)
    if not isinstance(quantizer, Quantizer):
        raise ValueError("this model is not prepared for quantisation; call prepare first")
    with torch.no_grad():
        for index, layer in enumerate(_convolutions(model)):
            layer.weight.copy_(quantizer.round_weights(layer.weight, index))
    for hooks in (model._forward_pre_hooks, model._forward_hooks):
        for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is quantizer]:
            del hooks[key]
    delattr(model, NAME)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.requires_grad_(True)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.requires_grad_(True)
    return quantizer.ranges()


def _convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]


def fold_norms(model: nn.Module, image: torch.Tensor) -> None:
    """Move every BatchNorm's scale into the convolution before it; what stays of the norm is its bias.

    Raises:
        ValueError: a BatchNorm that follows no convolution.
    """
    for convolution, norm in _pairs(model, image).items():
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        before = convolution.bias if convolution.bias is not None else torch.zeros_like(norm.running_mean)
        norm.bias.copy_(norm.bias + (before - norm.running_mean) * scale)
        convolution.weight.mul_(scale.reshape(-1, 1, 1, 1))
        if convolution.bias is not None:
            convolution.bias.zero_().requires_grad_(False)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        norm.weight.fill_(1).requires_grad_(False)


def _pairs(model: nn.Module, image: torch.Tensor) -> Mapping[nn.Conv2d, nn.BatchNorm2d]:
    """Every BatchNorm behind the convolution whose result it reads, as one forward pass shows them."""
    results: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}
    pairs: dict[nn.Conv2d, nn.BatchNorm2d] = {}

    def note(layer: nn.Conv2d, _inputs: Any, output: torch.Tensor) -> None:
        results[id(output)] = layer, output

    def match(layer: nn.BatchNorm2d, inputs: tuple[torch.Tensor, ...]) -> None:
        if id(inputs[0]) not in results:
            raise ValueError(
                f"a BatchNorm of {layer.num_features} channels follows no convolution, so it cannot be folded"
            )
        pairs[results[id(inputs[0])][0]] = layer

    layers = list(model.modules())
    hooks = [layer.register_forward_hook(note) for layer in layers if isinstance(layer, nn.Conv2d)]
    hooks += [layer.register_forward_pre_hook(match) for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return pairs


def _observe(model: nn.Module, images: torch.Tensor) -> tuple[list[dict[int, int]], list[Statistics]]:
    """Which inputs of which calls are rounded, as (input's index -> tensor's number), and every tensor's statistics."""
    with _Tracing() as trace:
        model(images[:1])
    points, count = _points(trace.calls)
    found = [Statistics() for _ in range(count)]
    for step in ("widen", "count"):
        for image in images:
            seen: set[int] = set()

            def watch(place: int, index: int, x: torch.Tensor, seen: set[int] = seen, step: str = step) -> None:
                number = points[place].get(index)
                if number is not None and number not in seen:
                    seen.add(number)
                    getattr(found[number], step)(x.detach().cpu().numpy())

            with _Tracing() as trace:
                trace.watch = watch
                model(image[None])
    return points, found


def _points(calls: list[_Call]) -> tuple[list[dict[int, int]], int]:
    """As the engines choose: convolutions, and passing operations above at least one of those that are chosen."""
    needed: set[int] = set()
    chosen = [False] * len(calls)
    for place in reversed(range(len(calls))):
        call = calls[place]
        if call.function in WEIGHTED or id(call.output) in needed:
            chosen[place] = True
            needed.update(id(x) for x in call.inputs)
    numbers: dict[tuple[int, int], int] = {}
    points: list[dict[int, int]] = []
    for call, is_chosen in zip(calls, chosen, strict=True):
        keys = [(id(x), version) for x, version in zip(call.inputs, call.versions, strict=True)]
        points.append({i: numbers.setdefault(key, len(numbers)) for i, key in enumerate(keys)} if is_chosen else {})
    return points, len(numbers)

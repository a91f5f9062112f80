"""Gradients of depthwise convolutions in float32, where bfloat16 would be slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_GRADIENTS = torch.ops.aten.convolution_backward.default


class FloatDepthwiseGradients(TorchDispatchMode):
    """Within it, a CPU computes gradients of depthwise convolutions in float32 where bfloat16 is slow.

    That is with a stride, and for kernels over 3x3: oneDNN takes 5 to 25 times as long for them as in float32, two
    thirds of a step of EfficientNet-Lite0. All else is as fast or faster in bfloat16 and is left alone.
    """

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator of PyTorch, as every operator comes by here."""
        if func is _GRADIENTS:
            output, inputs, weight, *rest = args
            depthwise = weight.shape[1] == 1 < weight.shape[0]
            slow = depthwise and (weight.shape[-1] > 3 or max(args[4]) > 1)
            if slow and output.dtype is torch.bfloat16 and output.device.type == "cpu":
                gradients = func(output.float(), inputs.float(), weight.float(), *rest, **(kwargs or {}))
                return tuple(gradient if gradient is None else gradient.bfloat16() for gradient in gradients)
        return func(*args, **(kwargs or {}))

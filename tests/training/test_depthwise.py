from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from perception.training.depthwise import FloatDepthwiseGradients


class _Seen(TorchDispatchMode):
    """What arithmetic gradients of convolutions are computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.dtypes.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def _gradients(layer: nn.Conv2d, images: torch.Tensor, dtype: torch.dtype, mode: bool) -> tuple[list[Any], list[Any]]:
    """Of the layer's parameters and its input, and in what arithmetic each was computed."""
    layer.zero_grad()
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        loss = layer(images).float().square().sum()
    seen = _Seen()
    with seen:
        if mode:
            with FloatDepthwiseGradients():
                loss.backward()
        else:
            loss.backward()
    return [images.grad, *(parameter.grad for parameter in layer.parameters())], seen.dtypes


@pytest.mark.parametrize(("kernel", "stride", "bias"), [(3, 2, True), (5, 1, False)])
def test_depthwise_gradients_are_computed_in_float32_and_are_right(kernel: int, stride: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=8, bias=bias)
    images = torch.randn(2, 8, 12, 12)
    exact, _ = _gradients(layer, images, torch.float32, False)
    found, dtypes = _gradients(layer, images, torch.bfloat16, True)
    assert dtypes == [torch.float32]
    assert _gradients(layer, images, torch.bfloat16, False)[1] == [torch.bfloat16]
    for mine, theirs in zip(found, exact, strict=True):
        assert mine.dtype is torch.float32
        torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.02 * float(theirs.abs().max()))


@pytest.mark.parametrize(("groups", "stride"), [(1, 2), (2, 2), (8, 1)])
def test_other_convolutions_keep_bfloat16(groups: int, stride: int) -> None:
    layer = nn.Conv2d(8, 8, 3, stride, 1, groups=groups)
    _, dtypes = _gradients(layer, torch.randn(2, 8, 12, 12), torch.bfloat16, True)
    assert dtypes == [torch.bfloat16]


def test_a_layer_that_needs_no_gradient_of_its_input_gets_none() -> None:
    layer = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = layer(torch.randn(2, 8, 12, 12)).float().sum()
    with FloatDepthwiseGradients():
        loss.backward()
    assert layer.weight.grad is not None

"""Layers that several families are built from."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images, RGB in [0, 1], which many networks take their images to have."""
Padding = Literal["symmetric", "same"]
"""How a convolution of stride 2 is padded: alike on both sides (PyTorch), or as TensorFlow's SAME does, where an even
size gets its odd column and row on the right and below. Weights trained with one lose accuracy with the other."""


class SameConv2d(nn.Conv2d):
    """A convolution padded with zeros as TensorFlow's SAME; the output's size is the input's / stride, rounded up."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = (
            max((-(-size // stride) - 1) * stride + kernel - size, 0)
            for size, stride, kernel in zip(x.shape[-2:], self.stride, self.kernel_size, strict=True)
        )
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    activation: type[nn.Module] | None,
    stride: int = 1,
    groups: int = 1,
    padding: Padding = "symmetric",
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> nn.Sequential:
    """Convolution without bias, BatchNorm and, if any, activation.

    Args:
        momentum: of BatchNorm, in PyTorch's sense: 1 - the decay that TensorFlow speaks of.
    """
    # With stride 1 the two paddings are the same, and the plain layer is the faster one.
    kind = SameConv2d if padding == "same" and stride > 1 else nn.Conv2d
    layers: list[nn.Module] = [
        kind(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps, momentum),
    ]
    if activation:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


def separable(
    inputs: int,
    outputs: int,
    kernel: int,
    activation: type[nn.Module],
    stride: int = 1,
    padding: Padding = "symmetric",
) -> nn.Sequential:
    """Depthwise kernel x kernel convolution, then a 1x1 convolution, each with BatchNorm and activation."""
    return nn.Sequential(
        convolution(inputs, inputs, kernel, activation, stride, inputs, padding),
        convolution(inputs, outputs, 1, activation),
    )


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): in training, leaves out all of a sample with this chance, and scales
    the others so that the mean stays."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.chance:
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.chance
        return x * kept / (1 - self.chance)


def initialize(module: nn.Module) -> None:
    """Convolution weights N(0, sqrt(2 / (k k outputs))), as FastDepth and MobileNetV2 start."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, 0.0, (2.0 / fan_out) ** 0.5)

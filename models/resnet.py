"""Residual networks without their classifiers: ResNet (He et al., CVPR 2016) and the slimmer ones that FFNet stands on.

Three families, told apart by a number of blocks and a suffix (Mehta et al., Simple and Efficient Architectures for
Semantic Segmentation, CVPR workshops 2022):

18, 34, ...     ResNet's own stem and widths; 50 and 101 have bottlenecks, the others two 3x3 convolutions a block.
22s, 30s, ...   slim: a stem of two small convolutions, fewer channels.
46n, 46ns, ...  narrow, and narrow and slim: a deeper stem that is the first level itself, then three stages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from perception.models.layers import convolution, initialize


class Family(NamedTuple):
    """What networks of a suffix share: output channels and stride of the stem's 3x3 layers (none: ResNet's 7x7 layer
    with pooling), and the widths of the stages."""

    stem: tuple[tuple[int, int], ...]
    widths: tuple[int, ...]


_NARROW = ((64, 2), (64, 2), (64, 1))
FAMILIES: Mapping[str, Family] = {
    "": Family((), (64, 128, 256, 512)),
    "s": Family(((32, 2), (64, 2)), (64, 128, 192, 320)),
    "n": Family(_NARROW, (96, 160, 320)),
    "ns": Family(_NARROW, (64, 128, 256)),
}
BLOCKS: Mapping[str, tuple[int, ...]] = {
    "18": (2, 2, 2, 2), "34": (3, 4, 6, 3), "56": (4, 8, 12, 3), "86": (8, 12, 16, 6), "134": (8, 18, 28, 12),
    "150": (16, 18, 28, 12), "50": (3, 4, 6, 3), "101": (3, 4, 23, 3),
    "22s": (2, 3, 3, 2), "30s": (3, 4, 4, 3), "40s": (4, 5, 6, 4), "54s": (5, 8, 8, 5), "78s": (6, 12, 12, 8),
    "86s": (8, 12, 16, 6), "150s": (16, 18, 28, 12),
    "46n": (6, 8, 8), "74n": (8, 12, 16), "122n": (16, 24, 20),
    "46ns": (6, 8, 8), "74ns": (8, 12, 16), "122ns": (16, 24, 20),
}  # fmt: skip
"""Blocks of each stage."""
BOTTLENECKS = ("50", "101")
LEVELS = 4
"""Of features."""
EXPANSION = 4
"""Of a bottleneck: its output over its width."""


class Residual(nn.Module):
    """A block: (N, inputs, H, W) to (N, outputs, H / stride, W / stride), rounded up."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        self.outputs = outputs = width * EXPANSION if bottleneck else width
        if bottleneck:
            self.layers = nn.Sequential(
                convolution(inputs, width, 1, nn.ReLU),
                convolution(width, width, 3, nn.ReLU, stride),
                convolution(width, outputs, 1, None),
            )
        else:
            self.layers = nn.Sequential(
                convolution(inputs, width, 3, nn.ReLU, stride), convolution(width, outputs, 3, None)
            )
        changes = stride > 1 or inputs != outputs
        self.shortcut = convolution(inputs, outputs, 1, None, stride) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.layers(x) + self.shortcut(x)).relu()


class ResNet(nn.Module):
    """The network called `name` (see the module) with random weights.

    Args:
        deeper: the first stage, too, halves the resolution.

    Shapes: (N, 3, H, W) to four features with `channels` channels, of stride 4, 8, 16 and 32, or twice that if
    `deeper`; sizes rounded up.

    Raises:
        ValueError: no such network.
    """

    def __init__(self, name: str, deeper: bool = False) -> None:
        super().__init__()
        suffix = re.sub(r"\d+", "", name)
        if name not in BLOCKS:
            raise ValueError(f"no residual network is called {name!r}; accepted: {', '.join(BLOCKS)}")
        if deeper and len(BLOCKS[name]) < LEVELS:
            raise ValueError(f"the narrow network {name} has no deeper form; its first level is the stem's")
        family, bottleneck = FAMILIES[suffix], name in BOTTLENECKS
        self.stem, inputs = _stem(family.stem)
        channels = [inputs] if len(family.widths) < LEVELS else []
        strides = [2] * len(family.widths)
        if not channels and not deeper:
            strides[0] = 1
        self.stages = nn.ModuleList()
        for width, blocks, stride in zip(family.widths, BLOCKS[name], strides, strict=True):
            first = Residual(inputs, width, stride, bottleneck)
            inputs = first.outputs
            others = (Residual(inputs, width, 1, bottleneck) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(first, *others))
            channels.append(inputs)
        self.channels = tuple(channels)
        initialize(self)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = [self.stem(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return tuple(features[-LEVELS:])


def _stem(layers: Sequence[tuple[int, int]]) -> tuple[nn.Sequential, int]:
    """What comes before the stages, and its output channels."""
    if not layers:
        return nn.Sequential(convolution(3, 64, 7, nn.ReLU, 2), nn.MaxPool2d(3, 2, 1)), 64
    stem, inputs = nn.Sequential(), 3
    for outputs, stride in layers:
        stem.append(convolution(inputs, outputs, 3, nn.ReLU, stride))
        inputs = outputs
    return stem, inputs

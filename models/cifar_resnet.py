"""Residual networks for images of 32x32 (He et al., CVPR 2016, section 4.2): small, accurate classifiers of CIFAR-10,
and teachers of networks that learn slower than convolutions do.

Three stages of as many blocks of two 3x3 convolutions; a network is called by its number of layers, 6 blocks + 2. Where
a stage halves the resolution, the shortcut takes every second pixel and fills up with zeros (option A of the paper).
"""

from __future__ import annotations

import functools

import torch
from torch import nn
from torch.nn import functional as F

from perception.models.classifier import register_classifier
from perception.models.layers import IMAGENET_MEAN, IMAGENET_STD, convolution, initialize
from perception.models.registry import EncoderEntry

WIDTHS = (16, 32, 64)
LAYERS = (20, 32, 44, 56, 110)
"""Those of the paper's table 6."""


class CifarBlock(nn.Module):
    """(N, inputs, H, W) to (N, outputs, H / stride, W / stride), rounded up; without parameters in the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, outputs - inputs
        self.layers = nn.Sequential(
            convolution(inputs, outputs, 3, nn.ReLU, stride), convolution(outputs, outputs, 3, None)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        before = self.added // 2  # the paper does not say where the zeros go; the trained networks in use have them so
        return (self.layers(x) + F.pad(shortcut, (0, 0, 0, 0, before, self.added - before))).relu()


class CifarResNet(nn.Module):
    """Shapes: (N, 3, H, W) to three features of stride 1, 2 and 4, with `channels` channels.

    Args:
        blocks: of each stage.
    """

    channels = WIDTHS

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem, inputs = convolution(3, WIDTHS[0], 3, nn.ReLU), WIDTHS[0]
        self.stages = nn.ModuleList()
        for width in WIDTHS:
            first = CifarBlock(inputs, width, 1 if width == inputs else 2)
            self.stages.append(nn.Sequential(first, *(CifarBlock(width, width, 1) for _ in range(blocks - 1))))
            inputs = width
        initialize(self)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = [self.stem(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return tuple(features[1:])


for layers in LAYERS:
    build = functools.partial(CifarResNet, (layers - 2) // 6)
    register_classifier(f"resnet{layers}", (32, 32), EncoderEntry(build, IMAGENET_MEAN, IMAGENET_STD))

"""MobileNetV1 without its classifier (Howard et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from perception.models.layers import Padding, convolution, separable
from perception.models.registry import register_encoder

STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
TAPS = (1, 3, 5, 11, 13)
"""Layers after which the features of stride 2, 4, 8, 16 and 32 are complete."""
WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)


@register_encoder("mobilenet_v1")
class MobileNetV1(nn.Sequential):
    """A full convolution and 13 depthwise-separable ones.

    Args:
        widths: of the 14 layers.

    Shapes: (N, 3, H, W) to features of stride 2, 4, 8, 16 and 32 with `channels` channels.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, padding: Padding = "symmetric") -> None:
        first = convolution(3, widths[0], 3, nn.ReLU6, STRIDES[0], padding=padding)
        rest = zip(widths, widths[1:], STRIDES[1:], strict=False)
        super().__init__(first, *(separable(i, o, 3, nn.ReLU6, stride, padding) for i, o, stride in rest))

    @property
    def widths(self) -> list[int]:
        """Output channels of the 14 layers: what makes a network of the same widths."""
        return [layer.out_channels for layer in self.modules() if isinstance(layer, nn.Conv2d) and layer.groups == 1]

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the features."""
        return tuple(self.widths[tap] for tap in TAPS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = []
        for index, layer in enumerate(self):
            x = layer(x)
            if index in TAPS:
                features.append(x)
        return tuple(features)

"""FastDepth: monocular metric depth on embedded systems (Wofk et al., ICRA 2019), MobileNet-NNConv5(dw, skip-add).

A MobileNetV1 encoder without its classifier; a decoder of five depthwise-separable blocks with 5x5 kernels, each
followed by x2 nearest upsampling, to which the encoder's features of the same size are added; a last 1x1 layer.
Widths are data: the pruned network (found by NetAdapt in the paper) differs from the full one in nothing else.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from perception.models.registry import register_model
from perception.tasks.config import ModelConfig, Output

ENCODER_STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
SKIPS = {1: 5, 2: 3, 3: 1}
"""Decoder block -> encoder layer whose output is added after that block's upsampling."""


def _conv(
    inputs: int, outputs: int, kernel: int, activation: type[nn.Module], stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        activation(inplace=True),
    )


def _separable(inputs: int, outputs: int, kernel: int, activation: type[nn.Module], stride: int = 1) -> nn.Sequential:
    """Depthwise kernel x kernel convolution, then a 1x1 convolution, each with BatchNorm and activation."""
    return nn.Sequential(
        _conv(inputs, inputs, kernel, activation, stride, groups=inputs), _conv(inputs, outputs, 1, activation)
    )


class FastDepth(nn.Module):
    """The network.

    Args:
        encoder: widths of conv0..conv13.
        decoder: widths of decode_conv1..decode_conv5. Those named in SKIPS must equal their encoder layer's.

    Shapes: (N, 3, H, W) RGB in [0, 1] to (N, 1, H, W) metres >= 0; H and W multiples of 32.
    """

    def __init__(self, encoder: tuple[int, ...], decoder: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder_widths = encoder
        first, *separable = zip((3, *encoder), encoder, ENCODER_STRIDES, strict=False)
        self.encoder = nn.ModuleList([_conv(first[0], first[1], 3, nn.ReLU6, stride=first[2])])
        self.encoder.extend(_separable(inputs, outputs, 3, nn.ReLU6, stride) for inputs, outputs, stride in separable)
        widths = zip((encoder[-1], *decoder), decoder, strict=False)
        self.decoder = nn.ModuleList(_separable(inputs, outputs, 5, nn.ReLU) for inputs, outputs in widths)
        self.head = _conv(decoder[-1], 1, 1, nn.ReLU)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = []
        for layer in self.encoder:
            x = layer(x)
            features.append(x)
        for block, layer in enumerate(self.decoder):
            x = F.interpolate(layer(x), scale_factor=2.0, mode="nearest")
            if block in SKIPS:
                x = x + features[SKIPS[block]]
        return self.head(x)


def _config(name: str) -> ModelConfig:
    return ModelConfig(
        name=name,
        task="depth",
        input_size=(224, 224),
        outputs=(Output("depth", (1, 1, 224, 224), "m"),),
        interpolation="area",
        size_divisor=32,
    )


@register_model(_config("fastdepth"))
def fastdepth() -> FastDepth:
    """Full width: 3,960,930 parameters, 0.7367 GMAC at 224x224."""
    encoder = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    return FastDepth(encoder, (512, 256, 128, 64, 32))


@register_model(_config("fastdepth_pruned"))
def fastdepth_pruned() -> FastDepth:
    """The paper's NetAdapt widths: 1,360,786 parameters, 0.3664 GMAC at 224x224."""
    encoder = (16, 56, 88, 120, 144, 256, 408, 376, 272, 288, 296, 328, 480, 512)
    return FastDepth(encoder, (200, 256, 120, 56, 16))

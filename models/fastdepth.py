"""FastDepth: monocular metric depth on embedded systems (Wofk et al., ICRA 2019), NNConv5(dw, skip-add) on any encoder.

A decoder of five depthwise-separable blocks with 5x5 kernels; after each comes x2 nearest upsampling, and then the
encoder's features of the same size are added. Two forms of it:

published   Skips of stride 8, 4 and 2 are added as they are, so that the decoder has their widths; a 1x1 layer with
            ReLU gives metres at the input's resolution.
lateral     All four skips come through a 1x1 convolution, so that the decoder's widths are free; a 1x1 layer gives
            the logarithm of depth at half the input's resolution.

Widths are data: a pruned network differs from the full one in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import nn
from torch.nn import functional as F

from perception.models.layers import convolution
from perception.models.registry import find_encoder, register_model
from perception.models.skip_decoder import START_METRES, SkipDecoder
from perception.tasks.config import ModelConfig, Output


class Widths(TypedDict):
    """Every width that can be chosen freely."""

    encoder: Any
    """As the encoder's own `widths`."""
    decoder: list[int]


class MetresHead(nn.Sequential):
    """(N, C, H, W) to (N, 1, 2 H, 2 W) metres >= 0."""

    def __init__(self, inputs: int) -> None:
        super().__init__(*convolution(inputs, 1, 1, nn.ReLU))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class LogHead(nn.Sequential):
    """(N, C, H, W) to (N, 1, H, W) metres > 0. An error of a logarithm is in proportion to depth, at any depth."""

    def __init__(self, inputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).exp()


class FastDepth(SkipDecoder):
    """The network.

    Args:
        encoder: anything registered as an encoder.
        decoder: widths of the five blocks.
        lateral: the form; see the module.

    Shapes: (N, 3, H, W) as the encoder wants it normalised, to (N, 1, H, W) metres >= 0, or (N, 1, H / 2, W / 2) in the
    lateral form; H and W multiples of 32.
    """

    def __init__(self, encoder: nn.Module, decoder: Sequence[int], lateral: bool) -> None:
        super().__init__(encoder.channels, decoder, lateral)  # type: ignore[arg-type]
        self.encoder = encoder
        self.head = LogHead(decoder[-1]) if lateral else MetresHead(decoder[-1])
        self._start_head()

    def _start_head(self) -> None:
        layer = self.head[0]
        nn.init.normal_(layer.weight, 0.0, 0.02 if self.lateral else 2.0**0.5)  # type: ignore[arg-type]
        if self.lateral:
            nn.init.constant_(layer.bias, math.log(START_METRES))  # type: ignore[arg-type]
        else:
            nn.init.constant_(self.head[1].bias, START_METRES)  # type: ignore[arg-type]

    @property
    def widths(self) -> Widths:
        """What makes a network of the same widths."""
        decoder = [block[1][0].out_channels for block in self.decoder]  # type: ignore[index, union-attr]
        return Widths(encoder=self.encoder.widths, decoder=decoder)  # type: ignore[typeddict-item]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.decode(self.encoder(x)))


def _register(
    name: str, encoder: str, decoder: Sequence[int], size: tuple[int, int], lateral: bool, **encoder_options: Any
) -> None:
    """Register a network under `name`; its builder takes `widths` and `padding`."""
    entry = find_encoder(encoder)
    config = ModelConfig(
        name=name,
        task="depth",
        input_size=size,
        outputs=(),
        mean=entry.mean,
        std=entry.std,
        interpolation="area",
        size_divisor=32,
    )

    def configure(config: ModelConfig, _options: Mapping[str, Any]) -> ModelConfig:
        height, width = (side // 2 if lateral else side for side in config.input_size)
        return config.replace(outputs=(Output("depth", (1, 1, height, width), "m"),))

    def build(widths: Widths | None = None, **options: Any) -> FastDepth:
        if widths:
            options["widths"] = widths["encoder"]
        built = entry.build(**encoder_options | options)
        return FastDepth(built, widths["decoder"] if widths else decoder, lateral)

    register_model(config, configure)(build)


# As published: 3,960,930 and 1,360,786 parameters, 0.7367 and 0.3664 GMAC at 224x224; NetAdapt found the pruned widths.
_register("fastdepth", "mobilenet_v1", (512, 256, 128, 64, 32), (224, 224), lateral=False)
_register(
    "fastdepth_pruned", "mobilenet_v1", (200, 256, 120, 56, 16), (224, 224), lateral=False,
    widths=(16, 56, 88, 120, 144, 256, 408, 376, 272, 288, 296, 328, 480, 512),
)  # fmt: skip
# On newer encoders, lateral, and at the aspect of most cameras.
_register("fastdepth_mobilenet_v2", "mobilenet_v2", (192, 128, 96, 64, 32), (192, 256), lateral=True)
_register("fastdepth_mobilenet_v2_050", "mobilenet_v2", (128, 96, 64, 48, 24), (192, 256), lateral=True, width=0.5)
_register("fastdepth_mobilenet_v2_035", "mobilenet_v2", (96, 64, 48, 32, 16), (192, 256), lateral=True, width=0.35)
_register("fastdepth_efficientnet_lite0", "efficientnet_lite0", (160, 96, 64, 48, 24), (192, 256), lateral=True)

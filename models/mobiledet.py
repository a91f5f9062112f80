"""MobileDets without their heads (Xiong et al., CVPR 2021): four encoders found by search, each for a kind of chip.

They are made of inverted residuals, and of regular convolutions where those are the faster ones on the chip: fused
residuals and Tucker blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from torch import nn

from perception.models.layers import convolution
from perception.models.registry import register_encoder

EPS, MOMENTUM = 0.01, 0.01
"""Of the encoders' BatchNorm."""


class Block(NamedTuple):
    """A row of the tables: `outputs` channels, `kernel`, expansion or, for "tucker", its two ratios, stride."""

    kind: Literal["plain", "ibn", "fused", "tucker"]
    outputs: int
    expansion: float | tuple[float, float] = 1.0
    kernel: int = 3
    stride: int = 1
    residual: bool = True


class Widths(TypedDict):
    """Every width that can be chosen freely: of the first convolution, and those of each block's convolutions."""

    stem: int
    blocks: list[list[int]]


def _ibn(outputs: int, expansion: int, kernel: int = 3, stride: int = 1, residual: bool = True) -> Block:
    return Block("ibn", outputs, expansion, kernel, stride, residual and stride == 1)


def _fused(outputs: int, expansion: int, kernel: int = 3, stride: int = 1, residual: bool = True) -> Block:
    return Block("fused", outputs, expansion, kernel, stride, residual and stride == 1)


def _tucker(outputs: int, first: float, second: float, residual: bool = True) -> Block:
    return Block("tucker", outputs, (first, second), residual=residual)


def _plain(outputs: int) -> Block:
    return Block("plain", outputs, residual=False)


# Each tuple is what comes at one stride: 2, 4, 8, 16, 32.
CPU = (
    (_plain(8),),
    (_ibn(16, 4, stride=2),),
    (_ibn(32, 8, stride=2), *(_ibn(32, 4) for _ in range(3))),
    (
        _ibn(72, 8, 5, stride=2), _ibn(72, 8), _ibn(72, 4, 5), _ibn(72, 4), _ibn(72, 8, residual=False),
        *(_ibn(72, 8) for _ in range(3)),
    ),
    (_ibn(104, 8, 5, stride=2), _ibn(104, 4, 5), _ibn(104, 4, 5), _ibn(104, 4), _ibn(144, 8, residual=False)),
)  # fmt: skip
EDGETPU = (
    (_tucker(16, 0.25, 0.75, residual=False),),
    (_fused(16, 8, stride=2), _fused(16, 4), _fused(16, 8), _fused(16, 4)),
    (_fused(40, 8, 5, stride=2), *(_fused(40, 4) for _ in range(3))),
    (
        _ibn(72, 8, stride=2), _ibn(72, 8), _fused(72, 4), _fused(72, 4),
        _ibn(96, 8, 5, residual=False), _ibn(96, 8, 5), _ibn(96, 8), _ibn(96, 8),
    ),
    (_ibn(120, 8, 5, stride=2), _ibn(120, 8), _ibn(120, 4, 5), _ibn(120, 8), _ibn(384, 8, 5, residual=False)),
)  # fmt: skip
DSP = (
    (_plain(24),),
    (_fused(32, 4, stride=2), _fused(32, 4), _ibn(32, 4), _tucker(32, 0.25, 0.75)),
    (_fused(64, 8, stride=2), _ibn(64, 4), _fused(64, 4), _fused(64, 4)),
    (
        _fused(120, 8, stride=2), _ibn(120, 4), _ibn(120, 8), _ibn(120, 8),
        _fused(144, 8, residual=False), *(_ibn(144, 8) for _ in range(3)),
    ),
    (_ibn(160, 4, stride=2), _ibn(160, 4), _fused(160, 4), _tucker(160, 0.75, 0.75), _ibn(240, 8, residual=False)),
)  # fmt: skip
GPU = (
    (_tucker(16, 0.25, 0.25, residual=False),),
    (_fused(32, 8, stride=2), *(_tucker(32, 0.25, 0.25) for _ in range(3))),
    (_fused(64, 8, stride=2), _fused(64, 8), _fused(64, 8), _fused(64, 4)),
    (
        _fused(128, 8, stride=2), *(_fused(128, 4) for _ in range(3)),
        _fused(128, 8, residual=False), *(_fused(128, 8) for _ in range(3)),
    ),
    (_fused(128, 4, stride=2), *(_fused(128, 4) for _ in range(3)), _ibn(384, 8, residual=False)),
)  # fmt: skip


def round8(width: float) -> int:
    """The nearest multiple of 8, halves upwards, 8 at least."""
    return max(8, math.floor(width / 8 + 0.5) * 8)


def table_widths(stages: Sequence[Sequence[Block]], stem: int) -> Widths:
    """The widths of a table."""
    blocks, inputs = [], stem
    for block in (block for stage in stages for block in stage):
        if isinstance(block.expansion, tuple):
            ratios = zip(block.expansion, (inputs, block.outputs), strict=True)
            hidden = [round8(ratio * width) for ratio, width in ratios]
        else:
            hidden = [] if block.kind == "plain" else [round8(inputs * block.expansion)]
        blocks.append([*hidden, block.outputs])
        inputs = block.outputs
    return Widths(stem=stem, blocks=blocks)


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole map holds (Hu et al., CVPR 2018).

    Shapes: (N, C, H, W) to the same.
    """

    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        hidden = round8(0.25 * channels)
        self.gate = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), activation(inplace=True), nn.Conv2d(hidden, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x.mean((2, 3), keepdim=True))


class MobileDetBlock(nn.Module):
    """Any of the blocks: what widens or narrows, what looks at neighbours, and a linear 1x1 projection.

    Args:
        widths: outputs of the block's convolutions; a depthwise one keeps its inputs.

    Shapes: (N, inputs, H, W) to (N, widths[-1], H / stride, W / stride), rounded up.
    """

    def __init__(
        self, block: Block, inputs: int, widths: Sequence[int], activation: type[nn.Module], excite: bool
    ) -> None:
        super().__init__()
        self.residual = block.residual
        unit = partial(convolution, activation=activation, padding="same", eps=EPS, momentum=MOMENTUM)
        hidden = widths[0] if block.kind != "plain" else inputs
        if block.kind == "fused":
            layers = [unit(inputs, hidden, block.kernel, stride=block.stride)]
        elif block.kind == "tucker":
            layers = [unit(inputs, hidden, 1), unit(hidden, widths[1], block.kernel, stride=block.stride)]
            hidden = widths[1]
        else:
            layers = [unit(inputs, hidden, 1)] if block.kind == "ibn" else []
            layers.append(unit(hidden, hidden, block.kernel, stride=block.stride, groups=hidden))
        if excite and block.kind != "tucker":
            layers.append(SqueezeExcite(hidden, activation))  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers, convolution(hidden, widths[-1], 1, None, eps=EPS, momentum=MOMENTUM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileDet(nn.Module):
    """An encoder of one of the tables.

    Args:
        widths: of every layer; `table_widths` gives the paper's.
        excite: whether blocks weight their channels, which only the CPU's do.

    Shapes: (N, 3, H, W) to features of stride 2, 4, 8, 16 and 32 with `channels` channels, sizes rounded up.
    """

    def __init__(
        self, stages: Sequence[Sequence[Block]], widths: Widths, activation: type[nn.Module], excite: bool
    ) -> None:
        super().__init__()
        inputs = widths["stem"]
        self.stem = convolution(3, inputs, 3, activation, 2, padding="same", eps=EPS, momentum=MOMENTUM)
        self.stages = nn.ModuleList()
        rest = iter(widths["blocks"])
        for stage in stages:
            blocks = []
            for block in stage:
                own = next(rest)
                blocks.append(MobileDetBlock(block, inputs, own, activation, excite))
                inputs = own[-1]
            self.stages.append(nn.Sequential(*blocks))
        self.apply(_start)

    @property
    def features(self) -> nn.Sequential:
        """The stem and all blocks, in order."""
        return nn.Sequential(self.stem, *(block for stage in self.stages for block in stage))  # type: ignore[attr-defined]

    @property
    def widths(self) -> Widths:
        """What makes a network of the same widths."""
        blocks = [
            [unit[0].out_channels for unit in block.layers if isinstance(unit, nn.Sequential) and unit[0].groups == 1]
            for stage in self.stages
            for block in stage  # type: ignore[attr-defined]
        ]
        return Widths(stem=self.stem[0].out_channels, blocks=blocks)  # type: ignore[typeddict-item]

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the features."""
        return tuple(stage[-1].layers[-1][0].out_channels for stage in self.stages)  # type: ignore[index, union-attr]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return tuple(features)


def _start(layer: nn.Module) -> None:
    """He's initialisation (ICCV 2015); depthwise weights from a normal distribution cut at twice its width, which makes
    it narrower by 0.8796."""
    if not isinstance(layer, nn.Conv2d):
        return
    if layer.groups == layer.in_channels and layer.groups > 1:
        width = (2 / math.prod(layer.kernel_size)) ** 0.5 / 0.8796
        nn.init.trunc_normal_(layer.weight, 0.0, width, -2 * width, 2 * width)
    else:
        nn.init.kaiming_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _register(name: str, stages: Sequence[Sequence[Block]], stem: int, for_cpu: bool = False) -> None:
    activation = nn.Hardswish if for_cpu else nn.ReLU6

    def build(widths: Widths | None = None, **_options: Any) -> MobileDet:
        return MobileDet(stages, widths or table_widths(stages, stem), activation, excite=for_cpu)

    register_encoder(name, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))(build)


_register("mobiledet_cpu", CPU, 16, for_cpu=True)
_register("mobiledet_edgetpu", EDGETPU, 32)
_register("mobiledet_dsp", DSP, 32)
_register("mobiledet_gpu", GPU, 32)

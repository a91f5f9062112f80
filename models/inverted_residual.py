"""Networks of inverted residual blocks with linear bottlenecks (Sandler et al., CVPR 2018), told by a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import nn

from perception.models.layers import Padding, convolution, initialize


class Stage(NamedTuple):
    """A row of the papers' tables: blocks of equal width, of which the first has the stride."""

    expansion: int
    outputs: int
    repeats: int
    stride: int
    kernel: int = 3


class Widths(TypedDict):
    """Every width that can be chosen freely: of the first convolution, and of each block (expanded, outputs)."""

    stem: int
    blocks: list[list[int]]


def round_width(width: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor` that is not more than a tenth below `width`."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


def table_widths(stages: Sequence[Stage], stem: int, width: float = 1.0) -> Widths:
    """The widths of a table whose channels are multiplied by `width`."""
    inputs = stem = round_width(stem * width)
    blocks = []
    for stage in stages:
        outputs = round_width(stage.outputs * width)
        for _ in range(stage.repeats):
            blocks.append([inputs * stage.expansion, outputs])
            inputs = outputs
    return Widths(stem=stem, blocks=blocks)


class InvertedResidual(nn.Module):
    """1x1 expansion (left out where it would not expand), depthwise convolution, linear 1x1 projection.

    Shapes: (N, inputs, H, W) to (N, outputs, H / stride, W / stride).
    """

    def __init__(
        self, inputs: int, expanded: int, outputs: int, stage: Stage, stride: int, residual: bool,
        padding: Padding, eps: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.residual = residual
        expansion = [convolution(inputs, expanded, 1, nn.ReLU6, eps=eps)] if stage.expansion > 1 else []
        depthwise = convolution(expanded, expanded, stage.kernel, nn.ReLU6, stride, expanded, padding, eps)
        self.conv = nn.Sequential(*expansion, depthwise, *convolution(expanded, outputs, 1, None, eps=eps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class InvertedResidualEncoder(nn.Module):
    """The network without its classifier. Parameters are named as torchvision names MobileNetV2's.

    Args:
        stages: the paper's table.
        widths: of every layer; `table_widths` gives the paper's.

    Shapes: (N, 3, H, W) to features of stride 2, 4, 8, 16 and 32 with `channels` channels.
    """

    def __init__(self, stages: Sequence[Stage], widths: Widths, padding: Padding = "same", eps: float = 1e-5) -> None:
        super().__init__()
        inputs = widths["stem"]
        layers: list[nn.Module] = [convolution(3, inputs, 3, nn.ReLU6, 2, padding=padding, eps=eps)]
        rows = [(stage, repeat) for stage in stages for repeat in range(stage.repeats)]
        self.taps: list[int] = []
        for (stage, repeat), (expanded, outputs) in zip(rows, widths["blocks"], strict=True):
            stride = stage.stride if repeat == 0 else 1
            if stride == 2:
                self.taps.append(len(layers) - 1)
            # Only widths that the table gives make a block residual, not two that pruning has made equal.
            layers.append(InvertedResidual(inputs, expanded, outputs, stage, stride, repeat > 0, padding, eps))
            inputs = outputs
        self.taps.append(len(layers) - 1)
        self.features = nn.ModuleList(layers)
        initialize(self)

    def shallow(self, levels: int) -> InvertedResidualEncoder:
        """This network without what comes behind its first so many features."""
        del self.taps[levels:]
        del self.features[self.taps[-1] + 1 :]
        return self

    @property
    def widths(self) -> Widths:
        """What makes a network of the same widths."""
        stem, *blocks = ([m for m in layer.modules() if isinstance(m, nn.Conv2d)] for layer in self.features)
        return Widths(stem=stem[0].out_channels, blocks=[[b[-1].in_channels, b[-1].out_channels] for b in blocks])

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the features."""
        outputs = [self.widths["stem"], *(outputs for _, outputs in self.widths["blocks"])]
        return tuple(outputs[tap] for tap in self.taps)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                features.append(x)
        return tuple(features)


class ImageClassifier(nn.Module):
    """An encoder with the papers' head: 1x1 convolution, mean over the image, linear layer.

    Shapes: (N, 3, H, W) to logits (N, classes).
    """

    def __init__(self, encoder: InvertedResidualEncoder, hidden: int = 1280, classes: int = 1000) -> None:
        super().__init__()
        eps = encoder.features[0][1].eps  # type: ignore[index, union-attr]
        self.features = nn.Sequential(
            *encoder.features, convolution(encoder.channels[-1], hidden, 1, nn.ReLU6, eps=eps)
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(hidden, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))

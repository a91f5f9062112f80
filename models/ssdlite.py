"""SSDLite: single-shot detection (Liu et al., ECCV 2016) with depthwise-separable heads (Sandler et al., CVPR 2018).

The head stands on an encoder's features of stride 16 and 32 and on four smaller maps of its own. Widths, anchors and
box code are those that MobileDet was published with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from perception.models.layers import convolution
from perception.models.registry import find_encoder, register_model
from perception.tasks.anchors import ssd_grids, ssd_shapes
from perception.tasks.config import ModelConfig, Output
from perception.tasks.decoders import SsdDecoder
from perception.tasks.labels import FOD_LABELS, coco_slots

EXTRA = (512, 256, 256, 128)
"""Channels of the maps behind the encoder's."""
RARE = -4.6
"""What class outputs say at first: almost nothing is an object (the sigmoid of it is 0.01)."""
SHAPES = ssd_shapes()
unit = partial(convolution, activation=nn.ReLU6, padding="same", eps=0.001, momentum=0.03)
"""The head's convolutions; its BatchNorm is another one than the encoder's."""


class ExtraMap(nn.Sequential):
    """(N, C, H, W) to (N, outputs, H / 2, W / 2), rounded up."""

    def __init__(self, inputs: int, outputs: int) -> None:
        half = outputs // 2
        super().__init__(unit(inputs, half, 1), unit(half, half, 3, stride=2, groups=half), unit(half, outputs, 1))


class Predictor(nn.Module):
    """(N, C, H, W) to (N, H * W * anchors, values): rows, columns, a place's anchors, in this order."""

    def __init__(self, inputs: int, anchors: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.layers = nn.Sequential(unit(inputs, inputs, 3, groups=inputs), nn.Conv2d(inputs, anchors * values, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.values)


class SSDLite(nn.Module):
    """The network.

    Args:
        encoder: anything registered as an encoder.
        classes: of objects; each anchor has one output more, the first, for "nothing here".

    Shapes: (N, 3, H, W) as the encoder wants it normalised, to box codes (N, A, 4) and class logits
    (N, A, classes + 1), for the A anchors of `perception.tasks.anchors`.
    """

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        channels = (*encoder.channels[-2:], *EXTRA)  # type: ignore[index]
        self.extra = nn.ModuleList(
            ExtraMap(inputs, outputs) for inputs, outputs in zip(channels[1:], EXTRA, strict=False)
        )
        anchors = [len(layer) for layer in SHAPES]
        self.boxes = nn.ModuleList(Predictor(c, a, 4) for c, a in zip(channels, anchors, strict=True))
        self.scores = nn.ModuleList(Predictor(c, a, classes + 1) for c, a in zip(channels, anchors, strict=True))
        self._start()

    def _start(self) -> None:
        for layer in (layer for part in (self.extra, self.boxes, self.scores) for layer in part.modules()):
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.03)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for layer in self.extra.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, 0.0, 0.03, -0.06, 0.06)
        for predictor in self.scores:
            nn.init.constant_(predictor.layers[-1].bias, RARE)  # type: ignore[union-attr, index]

    @property
    def class_layers(self) -> list[nn.Module]:
        """What tells the classes apart, and means nothing to a detector of other classes."""
        return [predictor.layers[-1] for predictor in self.scores]  # type: ignore[union-attr, index, misc]

    @property
    def widths(self) -> dict[str, Any]:
        """What makes a network of the same widths."""
        return {"encoder": self.encoder.widths}

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = list(self.encoder(x)[-2:])
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        boxes, scores = (
            torch.cat([predictor(features) for predictor, features in zip(predictors, maps, strict=True)], 1)
            for predictors in (self.boxes, self.scores)
        )
        return boxes, scores


def _register(name: str, encoder: str, size: tuple[int, int], labels: Sequence[str], **encoder_options: Any) -> None:
    """Register a network under `name`; its builder takes `labels`, names of classes, and `widths`."""
    entry = find_encoder(encoder)
    config = ModelConfig(
        name=name, task="detection", input_size=size, outputs=(), mean=entry.mean, std=entry.std, labels=tuple(labels)
    )

    def configure(config: ModelConfig, options: Mapping[str, Any]) -> ModelConfig:
        config = config.replace(labels=tuple(options.get("labels", config.labels)))
        grids = ssd_grids(config.input_size)
        anchors = sum(rows * columns * len(layer) for (rows, columns), layer in zip(grids, SHAPES, strict=True))
        outputs = (
            Output("boxes", (1, anchors, 4), "code"),
            Output("scores", (1, anchors, len(config.labels) + 1), "logit"),
        )
        return config.replace(outputs=outputs, decoder=SsdDecoder(grids, SHAPES))

    def build(labels: Sequence[str] = labels, widths: Mapping[str, Any] | None = None) -> SSDLite:
        options = encoder_options | ({"widths": widths["encoder"]} if widths else {})
        return SSDLite(entry.build(**options), len(labels))

    register_model(config, configure)(build)


# As published: 4,205,423, 4,196,095, 7,159,343 and 13,109,151 parameters with BatchNorm's statistics.
for _chip in ("cpu", "edgetpu", "dsp", "gpu"):
    _register(f"mobiledet_{_chip}", f"mobiledet_{_chip}", (320, 320), coco_slots())
_register("ssdlite_mobilenet_v2", "mobilenet_v2", (320, 320), coco_slots())
# What these tell apart goes with their weights.
_register("ssdlite_mobilenet_v2_robot", "mobilenet_v2", (320, 320), coco_slots())
_register("ssdlite_efficientnet_lite0_fod", "efficientnet_lite0", (320, 320), FOD_LABELS)

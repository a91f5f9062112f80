"""Vision transformers (Dosovitskiy et al., ICLR 2021), and slices of them with fewer heads, as ED-ViT cuts them for
several devices (arXiv 2410.11650).

A network's width follows from its heads, 64 channels each: with k heads embeddings have 64 k channels and the layers
between 256 k. So a slice of a network is the same definition with fewer heads. Positions are learned, so that a network
belongs to one input size. `vit_compact` is ours, for small images, of which there are few: as many heads as ViT-Small
has, half as wide, and behind more convolutions, which learn sooner than attention does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from perception.models.layers import IMAGENET_MEAN, IMAGENET_STD, DropPath, convolution, initialize
from perception.models.registry import register_model
from perception.tasks.config import ModelConfig, Output
from perception.tasks.labels import CIFAR10_LABELS

HEAD = 64
"""Channels of a published network's head."""
EXPANSION = 4
"""Hidden channels of a block's second half over those of the embedding."""
PATCH, DEPTH = 16, 12
MANY = 0.2
"""Share, of the images that lack workers in training, of those that may lack more than two: links lose bursts."""
DROPPED = 0.2
"""Share of a fusion network's hidden values that a step of training does without."""
STEMS = ("patches", "convolutions", "more convolutions")
DEEP = ((1, 1), (2, 2), (2, 1), (4, 2), (6, 1))
"""Of the layers of a stem of more convolutions, for patches of 4: sixths of the width, and stride."""
Size = tuple[int, int]


class Shape(NamedTuple):
    """What tells networks apart: heads and channels of each, and what their builders take unless they are told."""

    heads: int
    channels: int = HEAD
    input_size: Size = (224, 224)
    patch: int = PATCH
    depth: int = DEPTH
    stem: str = STEMS[0]


SHAPES: Mapping[str, Shape] = {
    "vit_tiny": Shape(3),
    "vit_small": Shape(6),
    "vit_base": Shape(12),
    "vit_compact": Shape(6, 32, (32, 32), 4, 3, "more convolutions"),
}


class Attention(nn.Module):
    """Self-attention of heads that part the channels; shapes (N, L, width) to (N, asked, width), the first tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.channels = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, asked: int) -> torch.Tensor:
        # As products of matrices, so that their cost is counted and every runtime knows them.
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, self.channels)).permute(2, 0, 3, 1, 4)
        seen = ((q[:, :, :asked] * self.channels**-0.5) @ k.transpose(2, 3)).softmax(3) @ v
        return self.mix(seen.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two layers for each token by itself, each behind a norm and beside a way round.

    Args:
        drop: chance of going round in training.
        last: gives the first token only, all that is asked of a network's last block. Of the others it takes keys and
            values; what came of them beyond that, three quarters of a block's arithmetic, nobody would see.
    """

    def __init__(self, width: int, heads: int, drop: float, last: bool = False) -> None:
        super().__init__()
        self.last = last
        self.norm_1 = nn.LayerNorm(width, 1e-6)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width, 1e-6)
        self.widen = nn.Linear(width, EXPANSION * width)
        self.narrow = nn.Linear(EXPANSION * width, width)
        self.drop = DropPath(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        asked = x[:, :1] if self.last else x
        x = asked + self.drop(self.attention(self.norm_1(x), asked.shape[1]))
        return x + self.drop(self.narrow(F.gelu(self.widen(self.norm_2(x)))))


def stem_layers(stem: str, width: int, patch: int) -> list[tuple[int, int]]:
    """Channels and stride of each 3x3 convolution of a stem, down to one pixel a patch; none of patches.

    Those of a deep one are multiples of 4, which runtimes compute at once; what that gives a slice beyond its share it
    needs, as its stem is narrow.

    Raises:
        ValueError: an unknown stem, or patches that it does not make.
    """
    if stem not in STEMS:
        raise ValueError(f"stem {stem!r} is unknown; accepted: {', '.join(STEMS)}")
    if stem == STEMS[0]:
        return []
    halvings, deep = int(math.log2(patch)), stem == STEMS[2]
    if patch < 2 or 2**halvings != patch or (deep and patch != 4):
        accepted = "4 for more convolutions" if deep else "2, 4, 8, 16, ..."
        raise ValueError(f"patch is {patch}; convolutions halve an image: accepted: {accepted}")
    if deep:
        return [(4 * math.ceil(width * sixths / 24), stride) for sixths, stride in DEEP]
    return [(width >> (halvings - 1 - step), 2) for step in range(halvings)]


def convolutional_stem(width: int, layers: Sequence[tuple[int, int]]) -> nn.Sequential:
    """Convolutions in place of a layer that sees each patch by itself (Xiao et al., Early Convolutions Help
    Transformers See Better, NeurIPS 2021): they learn from fewer images.

    Args:
        layers: see `stem_layers`.
    """
    stem, inputs = nn.Sequential(), 3
    for outputs, stride in layers:
        stem.append(convolution(inputs, outputs, 3, nn.ReLU, stride))
        inputs = outputs
    stem.append(nn.Conv2d(inputs, width, 1))
    initialize(stem)
    return stem


class ViT(nn.Module):
    """Tokens of patches and one of the class, `depth` blocks, a norm, and a layer that tells classes apart.

    Args:
        heads, channels: of each block, and of each head; embeddings have as many channels as all heads together.
        input_size: (height, width) of the images, multiples of `patch`.
        classes: 0 for a worker, which gives features in place of logits.
        stem: one of STEMS.
        drop: chance of going round the last block in training (see `DropPath`); of the others it grows with depth.

    Shapes: (N, 3, *input_size), normalised, to logits (N, classes), or features (N, heads * channels).
    """

    def __init__(
        self,
        heads: int,
        channels: int,
        input_size: Size,
        classes: int,
        patch: int,
        depth: int,
        stem: str,
        drop: float,
    ) -> None:
        super().__init__()
        width = heads * channels
        self.stem, self.patch = stem, patch
        tokens = 1 + (input_size[0] // patch) * (input_size[1] // patch)
        layers = stem_layers(stem, width, patch)
        self.embed = convolutional_stem(width, layers) if layers else nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, tokens, width))
        chances = [drop * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.Sequential(*(Block(width, heads, chance, i == depth - 1) for i, chance in enumerate(chances)))
        self.norm = nn.LayerNorm(width, 1e-6)
        self.classify = nn.Linear(width, classes) if classes else nn.Identity()
        for parameter in (self.token, self.places):
            nn.init.trunc_normal_(parameter, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    @property
    def levels(self) -> list[nn.Sequential]:
        """The last layers of a deep stem of stride 2 and 4, whose features are those of an encoder; else none."""
        return [self.embed[2], self.embed[4]] if self.stem == STEMS[2] else []  # type: ignore[index, list-item]

    @property
    def class_layers(self) -> list[nn.Module]:
        """What tells the classes apart, and means nothing to a network of other classes."""
        return [self.classify]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The class's token behind the last norm."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.norm(self.blocks(x)[:, 0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(x))


class FusedViT(nn.Module):
    """Workers, whose features in a row are the input of a network that tells the classes (`fuse`): layers with ReLU.

    In training some workers' features are zeros, as where a device does not answer.

    Args:
        hidden: widths of the layers before the last.
        missing: share of images in training that lack workers: mostly one or two, of `MANY` of them any number; one at
            least is left.
        tuned: whether the workers are trained too.

    Shapes: (N, 3, H, W), normalised, to logits (N, classes).
    """

    def __init__(
        self, workers: Sequence[ViT], classes: int, hidden: Sequence[int], missing: float = 0.0, tuned: bool = True
    ) -> None:
        super().__init__()
        self.workers = nn.ModuleList(workers)
        self.missing, self.tuned = missing, tuned
        widths = [sum(worker.norm.normalized_shape[0] for worker in workers), *hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(DROPPED)]
        self.fuse = nn.Sequential(*layers, nn.Linear(widths[-1], classes))
        if not tuned:
            self.workers.requires_grad_(False)

    def train(self, mode: bool = True) -> FusedViT:
        super().train(mode)
        self.workers.train(mode and self.tuned)
        return self

    @property
    def layers(self) -> list[nn.Linear]:
        """Those of `fuse` that have parameters."""
        return [layer for layer in self.fuse if isinstance(layer, nn.Linear)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [worker.features(x) for worker in self.workers]  # type: ignore[operator]
        if self.training and self.missing:
            there = self._there(len(x), x.device).to(features[0].dtype)
            features = [part * there[:, number, None] for number, part in enumerate(features)]
        return self.fuse(torch.cat(features, 1))

    def _there(self, count: int, device: torch.device) -> torch.Tensor:
        """Which workers each of so many images has, bool (count, workers)."""
        workers = len(self.workers)
        few, many = torch.randint(1, 3, (count, 1)), torch.randint(1, max(2, workers), (count, 1))
        lacking = torch.where(torch.rand(count, 1) < MANY, many, few).clamp(max=workers - 1)
        lacking = (torch.rand(count, 1) < self.missing) * lacking
        ranks = torch.rand(count, workers).argsort(1).argsort(1)
        return (ranks >= lacking).to(device)


def _configure(config: ModelConfig, options: Mapping[str, Any]) -> ModelConfig:
    labels, shape = tuple(options.get("labels", config.labels)), SHAPES[config.name]
    output = Output("logits", (1, len(labels)), "logit")
    if not options.get("classifies", True):
        output = Output("features", (1, shape.channels * options.get("heads", shape.heads)), "feature")
    return config.replace(outputs=(output,), labels=labels, size_divisor=options.get("patch", shape.patch))


def _register(name: str, listed: bool = False) -> None:
    """Register a network; its builder takes `labels`, names of classes, and of a slice `heads`, which of all there are
    are left; a worker that `classifies` not gives features. Others than the published `patch`, `depth` and `stem` suit
    small images.
    """

    shape = SHAPES[name]

    def build(
        input_size: Size = shape.input_size,
        labels: Sequence[str] = CIFAR10_LABELS,
        heads: int = shape.heads,
        patch: int = shape.patch,
        depth: int = shape.depth,
        stem: str = shape.stem,
        drop: float = 0.0,
        classifies: bool = True,
    ) -> ViT:
        if not 1 <= heads <= shape.heads:
            raise ValueError(f"{heads} heads of {name!r} are not possible; accepted: 1 to {shape.heads}")
        return ViT(heads, shape.channels, input_size, len(labels) if classifies else 0, patch, depth, stem, drop)

    config = ModelConfig(
        name=name,
        task="classification",
        input_size=shape.input_size,
        outputs=(),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        interpolation="area",
        labels=CIFAR10_LABELS,
    )
    register_model(config, _configure, sized=True, listed=listed)(build)


_register("vit_tiny")
_register("vit_small", listed=True)  # stands for all in lists
_register("vit_base")
_register("vit_compact", listed=True)

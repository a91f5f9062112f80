"""UGDC: a U-Net with Global Dynamic Convolution that brightens dark images (Troublemaker Learning, TML).

Three networks of one kind have roles. The troublemaker (TM) makes dark images of bright ones, for training. On a robot
the predicting network (PM) makes a coarse bright image, and the enhancing one (EM), of half the width, says what is
still wrong with it: final = coarse - EM(coarse).

Dynamic kernels are taken from a grid of patches, so that a network belongs to one input size: height and width are
multiples of 80, for the maps of stride 4, 8 and 16 to consist of whole patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from perception.models.layers import IMAGENET_MEAN, IMAGENET_STD, DropPath, convolution
from perception.models.registry import register_model
from perception.tasks.config import ModelConfig, Output

PATCH = 5
"""Side of the patches, in pixels of a map, that each give one kernel."""
DROPPED = 0.2
"""How often a sample goes round a dynamic convolution in training."""
GREY, MOST = 0.18, 256.0
"""Mean light of an exposed image before training, that of middle grey; and by how much light grows at most."""
Size = tuple[int, int]


class GlobalDynamicConvolution(nn.Module):
    """Adds to x what it looks like through 1x1 kernels that are made of x itself, one of every patch of the map.

    Args:
        channels: C of the input.
        size: (h, w) of the input, multiples of PATCH.

    Shapes: (N, C, h, w) to the same. With n patches it has 81 C + 2 n C + 1 parameters and n C h w multiply-accumulates
    of its own kernels, which grow with the square of the pixels.
    """

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        grid = size[0] // PATCH, size[1] // PATCH
        self.patches = nn.Conv2d(channels, channels, PATCH, PATCH, groups=channels)
        self.places = nn.Parameter(torch.randn(1, channels, *grid))
        """What tells a patch's kernel by its place."""
        self.norm = nn.LayerNorm(channels, 1e-6)
        self.unused_norm = nn.LayerNorm(channels, 1e-6)
        """Published checkpoints, and the published numbers of parameters, have it; nothing passes through it."""
        self.keys = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.bias = nn.Parameter(torch.zeros(1))
        self.mix = nn.Conv2d(grid[0] * grid[1], channels, 1)
        self.drop = DropPath(DROPPED)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernels = (self.patches(x) + self.places).flatten(2).transpose(1, 2)  # (N, n, C)
        kernels = F.gelu(self.norm(kernels))
        seen = kernels @ self.keys(x).flatten(2) + self.bias
        return x + self.drop(self.mix(seen.unflatten(2, x.shape[2:])))


def double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Twice 3x3, BatchNorm and ReLU."""
    return nn.Sequential(convolution(inputs, outputs, 3, nn.ReLU), convolution(outputs, outputs, 3, nn.ReLU))


def dynamic_convolution(inputs: int, outputs: int, size: Size) -> nn.Sequential:
    """The same with a dynamic convolution in the first one's place."""
    return nn.Sequential(
        GlobalDynamicConvolution(inputs, size),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        convolution(inputs, outputs, 3, nn.ReLU),
    )


class UGDC(nn.Module):
    """The U-Net: four times half the size and back, dynamic convolutions where the map is small.

    Args:
        width: channels at full size.
        size: (height, width) of the images, multiples of 80.

    Shapes: (N, 3, *size), normalised, to the same.
    """

    def __init__(self, width: int, size: Size) -> None:
        super().__init__()
        quarter, eighth, sixteenth = ((size[0] // stride, size[1] // stride) for stride in (4, 8, 16))
        self.first = double_convolution(3, width)
        self.down = nn.ModuleList(
            [
                double_convolution(width, 2 * width),
                double_convolution(2 * width, 4 * width),
                dynamic_convolution(4 * width, 8 * width, eighth),
                dynamic_convolution(8 * width, 16 * width, sixteenth),
            ]
        )
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(factor * width, factor * width // 2, 2, 2) for factor in (16, 8, 4, 2)
        )
        self.up = nn.ModuleList(
            [
                dynamic_convolution(16 * width, 8 * width, eighth),
                dynamic_convolution(8 * width, 4 * width, quarter),
                double_convolution(4 * width, 2 * width),
                double_convolution(2 * width, width),
            ]
        )
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.first(x)]
        for block in self.down:
            features.append(block(F.max_pool2d(features[-1], 2)))
        x = features.pop()
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            x = block(torch.cat([features.pop(), enlarge(x)], 1))
        return self.last(x)


class Exposure(nn.Module):
    """An automatic exposure: all light of an image grows by one factor, to a mean that is learned, clipped at white.

    Shapes: an image (N, 3, H, W) in [0, 1], in sRGB, to the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.light = nn.Parameter(torch.tensor(GREY))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        light = torch.where(image < 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
        gain = self.light / light.mean((1, 2, 3), keepdim=True).clamp(min=1e-5)
        light = (light * gain.clamp(1.0, MOST)).clamp(max=1.0)
        curve = 1.055 * light.clamp(min=1e-6) ** (1 / 2.4) - 0.055
        return torch.where(light < 0.0031308, 12.92 * light, curve)


class Enhancer(nn.Module):
    """What is registered: a predicting network and, behind it, an enhancing one of half the width; or the first alone.

    With `exposes` the predicting network sees the image after an `Exposure`, and says what is to be added to that.

    Shapes: (N, 3, H, W), normalised, to the image (N, 3, H, W) in [0, 1]; in train mode to all `steps`.
    """

    def __init__(self, width: int, size: Size, refines: bool = True, exposes: bool = False) -> None:
        super().__init__()
        self.width = width
        self.expose = Exposure() if exposes else None
        self.predict = UGDC(width, size)
        self.enhance = UGDC(width // 2, size) if refines else None
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1), persistent=False)

    def steps(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The coarse image and, with an enhancing network, the final one: normalised as x is, and not clamped."""
        if self.expose is None:
            coarse = self.predict(x)
        else:
            exposed = (self.expose((x * self.std + self.mean).clamp(0.0, 1.0)) - self.mean) / self.std
            coarse = exposed + self.predict(exposed)
        return (coarse,) if self.enhance is None else (coarse, coarse - self.enhance(coarse))

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        steps = self.steps(x)
        return steps if self.training else (steps[-1] * self.std + self.mean).clamp(0, 1)


def _register(name: str, width: int, size: Size, exposes: bool = False) -> None:
    """Register a network under `name`; its builder takes the size that it is for, `width`, `refines`, without which it
    has the predicting network alone, and `exposes`. A troublemaker is built without both."""
    config = ModelConfig(
        name=name, task="enhancement", input_size=size, outputs=(), mean=IMAGENET_MEAN, std=IMAGENET_STD,
        interpolation="area", size_divisor=16 * PATCH,
    )  # fmt: skip

    def configure(config: ModelConfig, _options: Mapping[str, Any]) -> ModelConfig:
        return config.replace(outputs=(Output("enhanced", (1, 3, *config.input_size), "intensity"),))

    def build(input_size: Size, width: int = width, refines: bool = True, exposes: bool = exposes) -> Enhancer:
        return Enhancer(width, input_size, refines, exposes)

    register_model(config, configure, sized=True)(build)


# As published: 17,584,711 and 4,722,983 parameters of PM and EM.
_register("ugdc", 64, (400, 640))
# For robots: what a camera sees beyond this size comes back from its own image, see `perception.tasks.enhancement`.
_register("ugdc_compact", 16, (160, 240), exposes=True)

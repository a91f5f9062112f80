"""NViST: novel views from one image by transformers (Jang and Agapito, CVPR 2024), whole and compact.

Two parts, which become engines of their own. `field`: patches of the image become tokens, out of which a decoder, told
about the camera, makes a field of three planes and three lines around the scene. `view`: rays of any camera are
rendered through the field. Poses are relative to the input camera; there is no other frame.

Of MOVIS (Lu et al., CVPR 2025) two options are taken over: depth and instances of the input as further inputs that mean
nothing at the start, and a mask of the objects as a further output.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from perception.models.layers import IMAGENET_MEAN, IMAGENET_STD
from perception.models.registry import register_model
from perception.models.rendering import (
    FREQUENCIES,
    BoxSpace,
    Canvas,
    Drawing,
    Rays,
    Refiner,
    Renderer,
    Size,
    ViewSpace,
    encode,
    project,
)
from perception.models.vit import EXPANSION, HEAD, Block
from perception.tasks.config import Input, ModelConfig, Output, Part

FEATURES = 8
"""Channels beside the colour that a ray of a refined view brings along."""
NEAREST = 0.1
"""Metres; what is nearer is taken to be there."""
INSTANCES = 8.0
"""Number of objects that is 1 to the network."""


class Encoder(nn.Module):
    """A vision transformer's tokens, the class's first, as a masked autoencoder leaves them: before the last norm.

    Args:
        structures: channels beside the image; their weights start at zero.

    Shapes: (N, 3, *size), normalised, and (N, structures, *size), to (N, 1 + tokens, 64 heads).
    """

    def __init__(self, size: Size, patch: int, heads: int, depth: int, structures: int) -> None:
        super().__init__()
        width = heads * HEAD
        self.tokens = (size[0] // patch) * (size[1] // patch)
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.structure = nn.Conv2d(structures, width, patch, patch, bias=False) if structures else None
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, 1 + self.tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads, 0.0) for _ in range(depth)))
        self.unused_norm = nn.LayerNorm(width, 1e-6)
        """Checkpoints of masked autoencoders, and the published number of parameters, have it."""

    def forward(self, x: torch.Tensor, structure: torch.Tensor | None = None) -> torch.Tensor:
        x = self.embed(x)
        if self.structure is not None and structure is not None:
            x = x + self.structure(structure)
        x = x.flatten(2).transpose(1, 2)
        return self.blocks(torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places)


class AdaptiveBlock(nn.Module):
    """Attention to other tokens or among its own, then two layers, each behind a norm that the camera shifts and
    scales, and gated by it (AdaLN; Peebles and Xie, ICCV 2023).

    Shapes: x (N, L, width), the camera's c (N, 1, width) and, for attention to others, those (N, M, width), to the
    shape of x.
    """

    def __init__(self, width: int, heads: int, crosses: bool) -> None:
        super().__init__()
        self.heads, self.crosses = heads, crosses
        self.modulate = nn.Linear(width, 6 * width)
        self.norm_1 = nn.LayerNorm(width, 1e-6, elementwise_affine=False)
        self.norm_2 = nn.LayerNorm(width, 1e-6, elementwise_affine=False)
        self.q, self.k, self.v, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.widen = nn.Linear(width, EXPANSION * width)
        self.narrow = nn.Linear(EXPANSION * width, width)
        if crosses:
            self.norm_k, self.norm_v = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        else:  # every published block has them
            self.unused_norm_k, self.unused_norm_v = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)

    def forward(self, x: torch.Tensor, c: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulate(F.silu(c)).chunk(6, 2)
        own = self.norm_1(x) * (1 + scale_1) + shift_1
        k, v = (self.norm_k(others), self.norm_v(others)) if self.crosses else (own, own)
        x = x + gate_1 * self.attend(own, k, v)
        own = self.norm_2(x) * (1 + scale_2) + shift_2
        return x + gate_2 * self.narrow(F.gelu(self.widen(own)))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Of queries (N, L, width) to keys and values (N, M, width)."""
        parts = ((self.q, q), (self.k, k), (self.v, v))
        q, k, v = (layer(x).unflatten(2, (self.heads, HEAD)).transpose(1, 2) for layer, x in parts)
        seen = ((q * HEAD**-0.5) @ k.transpose(2, 3)).softmax(3) @ v
        return self.mix(seen.transpose(1, 2).flatten(2))


def waves(width: int, rows: int, columns: int) -> torch.Tensor:
    """Sines and cosines of places in a grid, (rows x columns, width): a quarter of the channels each."""
    speeds = 10000 ** -(torch.arange(width // 4) / (width // 4))
    grid = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    turns = [places.reshape(-1, 1) * speeds for places in grid]
    return torch.cat([wave(turn) for turn in turns[::-1] for wave in (torch.sin, torch.cos)], 1)


class Decoder(nn.Module):
    """Learned tokens of a field's pieces, which ask the image's tokens and one another in turn.

    Args:
        seen: tokens of the image.
        grid, piece: pieces along a plane's side, and pixels along a piece's.
        channels: of planes and lines.

    Shapes: (N, 1 + seen, 64 heads) and the camera's [distance, focal / height] (N, 2) to planes (N, 3, channels, P, P)
    and lines (N, 3, channels, P, 1), P being grid x piece.
    """

    def __init__(self, heads: int, depth: int, seen: int, grid: int, piece: int, channels: int) -> None:
        super().__init__()
        width = heads * HEAD
        self.grid, self.piece = grid, piece
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        places = waves(width, 3 * grid, grid + 1).unflatten(0, (3 * grid, grid + 1))  # lines are a column more
        fixed = torch.cat([torch.zeros(1, width), places[:, :grid].flatten(0, 1), places[:, grid]])
        self.fixed_places = nn.Parameter(fixed[None], requires_grad=False)
        self.places = nn.Parameter(torch.zeros(1, seen, width))
        self.camera = nn.Sequential(nn.Linear(2 * (1 + 2 * FREQUENCIES), width), nn.ReLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(AdaptiveBlock(width, heads, place % 2 == 0) for place in range(depth))
        self.plane_norm, self.line_norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.to_planes = nn.ModuleList(nn.Linear(width, piece * piece * channels) for _ in range(3))
        self.to_lines = nn.ModuleList(nn.Linear(width, piece * channels) for _ in range(3))

    def forward(self, seen: torch.Tensor, camera: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.token.expand(len(seen), self.fixed_places.shape[1] - 1, -1)
        x = torch.cat([seen[:, :1], tokens], 1) + self.fixed_places
        others = seen[:, 1:] + self.places
        c = self.camera(encode(camera))[:, None]
        for block in self.blocks:
            x = block(x, c, others)
        count = self.grid * self.grid
        planes, lines = F.gelu(self.plane_norm(x[:, 1 : 1 + 3 * count])), F.gelu(self.line_norm(x[:, 1 + 3 * count :]))
        return (
            torch.stack([self.lay(layer(x)) for layer, x in zip(self.to_planes, planes.chunk(3, 1), strict=True)], 1),
            torch.stack([self.lay(layer(x)) for layer, x in zip(self.to_lines, lines.chunk(3, 1), strict=True)], 1),
        )

    def lay(self, x: torch.Tensor) -> torch.Tensor:
        """Pieces (N, pieces, values) side by side: (N, channels, P, P), or (N, channels, P, 1)."""
        g, p = self.grid, self.piece
        columns, wide = (g, p) if x.shape[1] > g else (1, 1)
        x = x.reshape(len(x), g, columns, p, wide, -1).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(len(x), -1, g * p, columns * wide)


@dataclass(frozen=True)
class Shape:
    """The numbers of a network, as published where nothing else is said."""

    patch: int = 5
    heads: int = 12
    encoder_depth: int = 12
    decoder_depth: int = 12
    grid: int = 16
    """Pieces along a plane's side, a token each."""
    piece: int = 3
    """Pixels along a piece's side."""
    density: int = 8
    color: int = 24
    """Channels of planes and lines that tell density, and colour."""
    width: int = 64
    """Channels between the renderer's layers."""
    relu: bool = False
    """Whether negative values are simply zero between them."""
    samples: int = 48
    looks: int = 0
    """Samples of a ray whose colour counts; 0: all. See `Renderer`."""
    near: float = 0.0
    far: float = 1.5
    """Where rays begin and end, metres of depth (or of what unit poses have)."""
    half: float = 0.8
    """Half the side of the cube that the field fills; see `BoxSpace`."""
    margin: float = 0.0
    """Other than 0: the field fills what the camera sees instead; see `ViewSpace`."""
    stride: int = 1
    """Pixels of a view, along each axis, that a ray is cast for."""
    refines: bool = False
    """Whether the rendered view gets its details from the input's pixels; see `Refiner`."""
    depth: bool = False
    instances: bool = False
    """Whether the field is made with the input's depth and objects too."""
    mask: bool = False
    """Whether a view comes with the chance of each pixel to show an object."""

    @property
    def structures(self) -> list[str]:
        """Names of the inputs that MOVIS adds."""
        return [name for name, taken in (("seen_depth", self.depth), ("instances", self.instances)) if taken]

    def space(self) -> BoxSpace | ViewSpace:
        """Where the field is."""
        if self.margin:
            return ViewSpace(self.near, self.far, self.samples, self.margin)
        return BoxSpace(self.half, self.near, self.far, self.samples)


class NViST(nn.Module):
    """Both parts.

    Args:
        size: (height, width) of image and view, multiples of the shape's `patch` and `stride`.
    """

    def __init__(self, size: Size, shape: Shape) -> None:
        super().__init__()
        self.size, self.shape = size, shape
        self.encoder = Encoder(size, shape.patch, shape.heads, shape.encoder_depth, len(shape.structures))
        channels = shape.density + shape.color
        self.decoder = Decoder(shape.heads, shape.decoder_depth, self.encoder.tokens, shape.grid, shape.piece, channels)
        values = 3 + shape.mask + (FEATURES if shape.refines else 0)
        activation = nn.ReLU if shape.relu else nn.GELU
        channels_of = shape.density, shape.color, shape.width, values
        self.renderer = Renderer(shape.space(), *channels_of, activation, shape.looks)
        self.canvas = Canvas(size, shape.stride)
        self.refiner = Refiner(values) if shape.refines else None
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1), persistent=False)
        self._start()

    def _start(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        for parameter in (self.encoder.token, self.encoder.places, self.decoder.token, self.decoder.places):
            nn.init.normal_(parameter, std=0.02)
        if self.encoder.structure is not None:
            nn.init.zeros_(self.encoder.structure.weight)
        if self.refiner is not None:
            for parameter in self.refiner.last.parameters():
                nn.init.zeros_(parameter)

    def field(self, x: torch.Tensor, camera: torch.Tensor, *structures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Planes and lines of an image.

        Args:
            x: (N, 3, H, W), normalised.
            camera: of the image, (N, 5): fx / width, fy / height, (cx + 0.5) / width, (cy + 0.5) / height, and metres
                from it to the middle of the scene, the median of its depth; 0 where nobody knows it.
            structures: metres of depth, 0 where unknown, and numbers of objects, 0 being none: (N, 1, H, W) each, as
                far as the network takes them.
        """
        told = list(structures)
        if self.shape.depth:
            told[0] = (told[0] > 0).to(x) / told[0].clamp(min=NEAREST)
        if self.shape.instances:
            told[-1] = told[-1] / INSTANCES
        seen = self.encoder(x, torch.cat(told, 1) if told else None)
        return self.decoder(seen, torch.cat([camera[:, 4:], camera[:, 1:2]], 1))

    def draw(self, canvas: Canvas, *given: torch.Tensor) -> Drawing:
        """A view on a canvas of a camera that stands at `pose` (N, 4, 4) in the input camera's frame and has the lens
        `target` (N, 4): the first four numbers of a `camera`.

        Args:
            given: the image as `field` takes it if the view is refined; then planes, lines, camera, pose and target.
        """
        *image, planes, lines, camera, pose, target = given
        rendered = self.renderer(planes, lines, canvas.cast(pose, target), camera)
        values, depth = canvas.enlarge(rendered.values), canvas.enlarge(rendered.depth)
        view = values[:, :3]
        if self.refiner is not None:
            rays = canvas.pixels(pose, target)
            pixels = self.pixels_along(rays, image[0], depth.flatten(2), camera).unflatten(2, canvas.size)
            view = self.refiner(values, pixels)
        return Drawing(view, values, depth, rendered)

    def view(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The view (N, 3, H, W) in [0, 1], depth (N, 1, H, W) in metres, and the mask (N, 1, H, W), if it has one.

        Args:
            given: see `draw`.
        """
        view, values, depth, _ = self.draw(self.canvas, *given)
        view = view.clamp(0, 1) if self.refiner is not None and not self.training else view
        return (view, depth, values[:, 3:4]) if self.shape.mask else (view, depth)

    def pixels_along(self, rays: Rays, x: torch.Tensor, depth: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
        """The input's pixels, (N, 3, R) in [0, 1], that show what rays meet at this depth (N, 1, R)."""
        points = rays.points(depth)
        where = torch.stack(project(points, 1 / points.z.clamp(min=NEAREST), camera), -1)
        return F.grid_sample(x * self.std + self.mean, where, padding_mode="border", align_corners=False)[:, :, 0]

    def forward(self, x: torch.Tensor, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """A field and a view of it, all that both give: planes, lines, view, depth and mask.

        Args:
            given: `camera`, the structures that `field` takes, `pose` and `target`.
        """
        camera, *structures, pose, target = given
        field = self.field(x, camera, *structures)
        image = () if self.refiner is None else (x,)
        return (*field, *self.view(*image, *field, camera, pose, target))


def _configure(config: ModelConfig, shape: Shape) -> ModelConfig:
    size, side, channels = config.input_size, shape.grid * shape.piece, shape.density + shape.color
    camera, lens = Input("camera", (1, 5), "share, share, share, share, m"), Input("target", (1, 4), "share")
    structures = [Input(name, (1, 1, *size), {"seen_depth": "m"}.get(name, "")) for name in shape.structures]
    field = Output("planes", (1, 3, channels, side, side), ""), Output("lines", (1, 3, channels, side, 1), "")
    view = [Output("view", (1, 3, *size), "intensity"), Output("depth", (1, 1, *size), "m")]
    view += [Output("mask", (1, 1, *size), "share")] if shape.mask else []
    image = ("image",) if shape.refines else ()
    given, made = tuple(output.name for output in field), tuple(output.name for output in view)
    return config.replace(
        outputs=(*field, *view),
        more_inputs=(camera, *structures, Input("pose", (1, 4, 4), "m"), lens),
        parts=(
            Part("field", ("image", "camera", *shape.structures), given),
            Part("view", (*image, *given, "camera", "pose", "target"), made),
        ),
    )


def _register(name: str, size: Size, shape: Shape, listed: bool = False) -> None:
    """Register a network; its builder takes, beside its size, fields of `Shape`."""
    config = ModelConfig(
        name=name, task="view_synthesis", input_size=size, outputs=(), mean=IMAGENET_MEAN, std=IMAGENET_STD,
        interpolation="area", size_divisor=math.lcm(shape.patch, shape.stride),
    )  # fmt: skip

    def configure(config: ModelConfig, options: Mapping[str, Any]) -> ModelConfig:
        return _configure(config, dataclasses.replace(shape, **options))

    def build(input_size: Size = size, **options: Any) -> NViST:
        return NViST(input_size, dataclasses.replace(shape, **options))

    register_model(config, configure, sized=True, listed=listed)(build)


_register("nvist", (160, 90), Shape())
# For robots, in rooms: a view's details come from the image, what is hidden in it from the field.
_register(
    "nvist_compact",
    (128, 128),
    Shape(
        patch=8,
        heads=3,
        encoder_depth=5,
        decoder_depth=4,
        grid=12,
        piece=4,
        density=4,
        color=12,
        width=32,
        relu=True,
        samples=32,
        looks=8,
        near=0.5,
        far=10.0,
        margin=1.25,
        stride=2,
        refines=True,
    ),
    listed=True,
)

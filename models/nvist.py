"""NViST: novel views from one image by transformers (Jang and Agapito, CVPR 2024), whole and compact.

Two parts, which become engines of their own. `field`: patches of the image become tokens, out of which a decoder, told
about the camera, makes a field of three planes and three lines around the scene. `view`: rays of any camera are
rendered through the field. The compact one's tokens come from convolutions, which also say where the surface is that
the image shows. Poses are relative to the input camera; there is no other frame.

Of MOVIS (Lu et al., CVPR 2025) two options are taken over: depth and instances of the input as further inputs that mean
nothing at the start, and a mask of the objects as a further output.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from perception.models.field import Decoder, Encoder
from perception.models.layers import IMAGENET_MEAN, IMAGENET_STD
from perception.models.registry import find_encoder, register_model
from perception.models.rendering import (
    BoxSpace,
    Canvas,
    Drawing,
    Rays,
    Refiner,
    Renderer,
    Size,
    ViewSpace,
    project,
)
from perception.models.surface import COARSEST, STRIDE, ConvolutionalPatches, SurfaceHead, held_back
from perception.models.vit import HEAD
from perception.tasks.config import Input, ModelConfig, Output, Part

FEATURES = 8
"""Channels beside the colour that a ray of a refined view brings along."""
NEAREST = 0.1
"""Metres; what is nearer is taken to be there."""
INSTANCES = 8.0
"""Number of objects that is 1 to the network."""


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
    convolutions: str = ""
    """The encoder whose features become the tokens of the patches; empty: a layer that sees each patch by itself."""
    surface: bool = False
    """Whether a field comes with the surface that the input shows; see `SurfaceHead`."""
    depth: bool = False
    instances: bool = False
    """Whether the field is made with the input's depth and objects too."""
    mask: bool = False
    """Whether a view comes with the chance of each pixel to show an object."""

    @property
    def structures(self) -> list[str]:
        """Names of the inputs that MOVIS adds."""
        return [name for name, taken in (("seen_depth", self.depth), ("instances", self.instances)) if taken]

    @property
    def normalization(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation that images are to have."""
        if not self.convolutions:
            return IMAGENET_MEAN, IMAGENET_STD
        encoder = find_encoder(self.convolutions)
        return encoder.mean, encoder.std

    def space(self) -> BoxSpace | ViewSpace:
        """Where the field is."""
        if self.margin:
            return ViewSpace(self.near, self.far, self.samples, self.margin)
        return BoxSpace(self.half, self.near, self.far, self.samples)


class NViST(nn.Module):
    """Both parts.

    Args:
        size: (height, width) of image and view, multiples of the shape's `patch` and `stride`.

    Raises:
        ValueError: a surface without convolutions that could tell where it is, or in a space that is no camera's.
    """

    def __init__(self, size: Size, shape: Shape) -> None:
        super().__init__()
        self.size, self.shape = size, shape
        structures = len(shape.structures)
        self.encoder = Encoder(size, shape.patch, shape.heads, shape.encoder_depth, structures, shape.convolutions)
        channels = shape.density + shape.color
        self.decoder = Decoder(shape.heads, shape.decoder_depth, self.encoder.tokens, shape.grid, shape.piece, channels)
        values = 3 + shape.mask + (FEATURES if shape.refines else 0)
        activation = nn.ReLU if shape.relu else nn.GELU
        channels_of = shape.density, shape.color, shape.width, values
        self.renderer = Renderer(shape.space(), *channels_of, activation, shape.looks)
        self.surface: SurfaceHead | None = None
        if shape.surface:
            if not isinstance(self.encoder.embed, ConvolutionalPatches) or not shape.margin:
                raise ValueError("surface needs `convolutions`, which tell it, and a `margin`: the space of a camera")
            self.surface = SurfaceHead(shape.heads * HEAD, self.encoder.embed.channels[:2], structures)
        self.canvas = Canvas(size, shape.stride)
        self.refiner = Refiner(values) if shape.refines else None
        self.mean: torch.Tensor
        self.std: torch.Tensor
        for name, share in zip(("mean", "std"), shape.normalization, strict=True):
            self.register_buffer(name, torch.tensor(share).reshape(1, 3, 1, 1), persistent=False)
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
        """Planes and lines of an image, and the surface that it shows, if there is one.

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
        structure = torch.cat(told, 1) if told else None
        seen, shallow = self.encoder(x, structure)
        field: tuple[torch.Tensor, ...] = self.decoder(seen, torch.cat([camera[:, 4:], camera[:, 1:2]], 1))
        if self.surface is not None:
            rows = x.shape[2] // self.shape.patch
            tokens = seen[:, 1:].transpose(1, 2).unflatten(2, (rows, -1))
            field += (self.surface(tokens, shallow, camera, structure),)
        return field

    def draw(self, canvas: Canvas, *given: torch.Tensor) -> Drawing:
        """A view on a canvas of a camera that stands at `pose` (N, 4, 4) in the input camera's frame and has the lens
        `target` (N, 4): the first four numbers of a `camera`.

        Args:
            given: the image as `field` takes it if the view is refined; then what that gives, camera, pose and target.
        """
        *made, camera, pose, target = given
        image = made[: self.refiner is not None]
        planes, lines, *surface = made[len(image) :]
        space, solid = self.renderer.space, None
        if surface:
            assert isinstance(space, ViewSpace)
            solid = functools.partial(held_back, surface[0], space)
        rendered = self.renderer(planes, lines, canvas.cast(pose, target), camera, solid)
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
        """A field and a view of it, all that both give: planes, lines, surface, view, depth and mask.

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
    field = [Output("planes", (1, 3, channels, side, side), ""), Output("lines", (1, 3, channels, side, 1), "")]
    field += [Output("surface", (1, 2, size[0] // STRIDE, size[1] // STRIDE), "")] if shape.surface else []
    mean, std = shape.normalization
    view = [Output("view", (1, 3, *size), "intensity"), Output("depth", (1, 1, *size), "m")]
    view += [Output("mask", (1, 1, *size), "share")] if shape.mask else []
    image = ("image",) if shape.refines else ()
    given, made = tuple(output.name for output in field), tuple(output.name for output in view)
    return config.replace(
        mean=mean,
        std=std,
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
        interpolation="area", size_divisor=math.lcm(shape.patch, shape.stride, COARSEST if shape.convolutions else 1),
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
        heads=2,
        encoder_depth=2,
        decoder_depth=3,
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
        convolutions="mobilenet_v2",
        surface=True,
    ),
    listed=True,
)

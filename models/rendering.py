"""Volume rendering of a field of planes and lines (vector-matrix, VM; TensoRF, Chen et al., ECCV 2022).

Everything is a product of matrices, a 1x1 convolution, an elementwise operation or a bilinear look-up, so that every
runtime takes it and knows it well. Points are in the input camera's optical frame; cameras are told by numbers that
hold at every resolution: fx / width, fy / height, (cx + 0.5) / width, (cy + 0.5) / height. Rays are the last axis, and
a ray's samples the one before: runtimes work along the last axis, and there are many more rays than samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

FREQUENCIES = 4
"""Of numbers that are told to a network: themselves, and sine and cosine of 1, 2, 4 and 8 half turns."""
BEHIND = 1e3
"""Metres from the last sample of a closed space to whatever ends it."""
EMPTY = 4.0
"""By which a density is less where a field says nothing: there exp(-4) / m are in the way."""
OPAQUE = 30.0
"""Of light exp(-30) is nothing, and half precision can sum up as much for every sample."""
REFINED = 24
"""Channels of the layer that refines a view."""
ACROSS, ALONG = ((0, 1), (2, 0), (1, 2)), ((None, 2), (None, 1), (None, 0))
"""Which two of a place's coordinates are columns and rows of each plane; and of each line, which has one column."""
Size = tuple[int, int]


def encode(numbers: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Numbers along an axis, and their sines and cosines: 1 + 2 FREQUENCIES times as many."""
    turns = [numbers * (2**power * math.pi) for power in range(FREQUENCIES)]
    return torch.cat([numbers, *(wave(turn) for turn in turns for wave in (torch.sin, torch.cos))], axis)


class Points(NamedTuple):
    """Coordinates, a tensor each, so that nothing is taken apart or put together for every sample of every ray."""

    x: torch.Tensor
    y: torch.Tensor
    z: torch.Tensor


class Rays(NamedTuple):
    """One ray for each pixel; `origins` (N, 3, 1) and `directions` (N, 3, R), whose length is that of one metre of the
    target camera's Z."""

    origins: torch.Tensor
    directions: torch.Tensor

    def points(self, depths: torch.Tensor) -> Points:
        """(N, S, R) each, at `depths` along the target's Z: (S, 1), or (N, S, R)."""
        ends = (self.origins.split(1, 1), self.directions.split(1, 1))
        return Points(*(origin + direction * depths for origin, direction in zip(*ends, strict=True)))


class PixelGrid(nn.Module):
    """The rays of a camera through the middles of the pixels of an image of (height, width)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        rows, columns = ((torch.arange(side) + 0.5) / side for side in size)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1])
        self.places: torch.Tensor
        self.register_buffer("places", grid.reshape(1, 2, -1), persistent=False)

    def forward(self, pose: torch.Tensor, lens: torch.Tensor) -> Rays:
        """Rays in the input camera's frame of a camera that stands at `pose` (N, 4, 4), with `lens` (N, 4)."""
        flat = (self.places - lens[:, 2:4, None]) / lens[:, :2, None]
        ahead = torch.cat([flat, torch.ones_like(flat[:, :1])], 1)
        return Rays(pose[:, :3, 3:], pose[:, :3, :3] @ ahead)


class Canvas(nn.Module):
    """Where a view is drawn: an image of (height, width), and one ray for every `stride` pixels of it along each axis.

    The network's own is as large as its images; training draws on smaller ones, too.
    """

    def __init__(self, size: Size, stride: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.pixels = PixelGrid(size)
        self.cast = PixelGrid((size[0] // stride, size[1] // stride))

    def enlarge(self, values: torch.Tensor) -> torch.Tensor:
        """Values (N, V, R) of the rays as an image (N, V, H, W)."""
        values = values.unflatten(2, (self.size[0] // self.stride, self.size[1] // self.stride))
        if self.stride == 1:
            return values
        return F.interpolate(values, scale_factor=float(self.stride), mode="bilinear", align_corners=False)


class BoxSpace(nn.Module):
    """A cube around the middle of the scene, which is `distance` ahead of the input camera (NViST).

    Args:
        half: of the cube's side, metres (or whatever unit poses are in).
        near, far: between which rays are sampled evenly.
    """

    closed = False

    def __init__(self, half: float, near: float, far: float, samples: int) -> None:
        super().__init__()
        self.reach = half
        self.edges: torch.Tensor
        self.register_buffer("edges", torch.linspace(near, far, samples + 1), persistent=False)

    def forward(self, points: Points, camera: torch.Tensor) -> Points:
        """Where points are in a field, -1 to 1 inside; `camera` is the input's, (N, 5)."""
        ahead = camera[:, 4, None, None]
        return Points(points.x / self.reach, points.y / self.reach, (points.z - ahead) / self.reach)


class ViewSpace(nn.Module):
    """What the input camera sees, and a margin around: two coordinates are a point's place in the image, the third is
    its disparity. A field's first plane then is an image, and rooms need no bounds.

    Args:
        near, far: metres; between them rays are sampled evenly in disparity.
        margin: how many times as wide as the image the field is.
    """

    closed = True

    def __init__(self, near: float, far: float, samples: int, margin: float) -> None:
        super().__init__()
        self.near, self.far, self.margin = near, far, margin
        self.edges: torch.Tensor
        self.register_buffer("edges", 1 / torch.linspace(1 / near, 1 / far, samples + 1), persistent=False)

    def forward(self, points: Points, camera: torch.Tensor) -> Points:
        """See `BoxSpace.forward`."""
        disparity = 1 / points.z.clamp(min=0.1 * self.near)
        x, y = project(points, disparity, camera)
        return Points(x / self.margin, y / self.margin, self.along(disparity))

    def along(self, disparity: torch.Tensor) -> torch.Tensor:
        """The third coordinate, of a disparity."""
        return (1 / self.near - disparity) * (2 / (1 / self.near - 1 / self.far)) - 1

    def in_image(self, places: Points) -> torch.Tensor:
        """Where the input image, or a map of it, has places in the field: for `grid_sample`, (N, S, R, 2)."""
        return torch.stack([places.x, places.y], -1) * self.margin


def project(points: Points, disparity: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where points of this disparity are in the image of a camera (N, 4 or more): -1 to 1 from edge to edge."""
    fx, fy, cx, cy = (lens[:, place, None, None] for place in range(4))
    return points.x * disparity * (2 * fx) + (2 * cx - 1), points.y * disparity * (2 * fy) + (2 * cy - 1)


def grid_of(places: Points, choice: Sequence[tuple[int | None, int | None]]) -> torch.Tensor:
    """Places for `grid_sample`, (3 N, S, R, 2): for each of three look-ups two of the coordinates; None: zero."""
    nothing = torch.zeros_like(places.x)
    chosen = torch.stack([nothing if place is None else places[place] for pair in choice for place in pair], 1)
    return chosen.unflatten(1, (-1, 2)).movedim(2, -1).flatten(0, 1)


class Rendered(NamedTuple):
    """What rays meet. N images of R rays with S samples each."""

    values: torch.Tensor
    """(N, V, R): colour first, then whatever else the renderer was built to give."""
    depth: torch.Tensor
    """(N, 1, R), metres along the target's Z."""
    weights: torch.Tensor
    """(N, S, R): the share of each sample in the ray."""


class Drawing(NamedTuple):
    """A view on a canvas."""

    view: torch.Tensor
    """(N, 3, H, W), about [0, 1]."""
    values: torch.Tensor
    """(N, V, H, W), those of the rays between them."""
    depth: torch.Tensor
    """(N, 1, H, W), metres."""
    rendered: Rendered


def largest(weights: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares, 1 in sum, and places (N, count, R) of the samples with the largest weights (N, S > count, R).

    Each counts for what it has more than the first that is left out: so rounding, which may choose another of two that
    are nearly equal, does not matter.
    """
    most, places = weights.topk(count + 1, 1)
    more = most[:, :-1] - most[:, -1:]
    return more / more.sum(1, keepdim=True).clamp(min=1e-4), places[:, :-1]


class Renderer(nn.Module):
    """Looks a field up along rays, and sums what it says: density in `density` channels, the others are colour.

    Args:
        width: channels between its layers.
        values: channels that it gives for a ray, three of them colour.
        activation: between its layers.
        looks: how many samples of a ray are looked at for colour, those with the largest shares; 0: all. Most of a ray
            is empty, or hidden, and colour takes most of the time.

    With 8 and 24 channels, a width of 64 and 3 values it has the published 10,755 parameters.
    """

    def __init__(
        self,
        space: BoxSpace | ViewSpace,
        density: int,
        color: int,
        width: int,
        values: int = 3,
        activation: type[nn.Module] = nn.GELU,
        looks: int = 0,
    ) -> None:
        super().__init__()
        self.space = space
        self.activate = activation()
        self.channels, self.looks = (density, color), looks
        self.mix = nn.Conv2d(3 * color, width, 1)
        self.look = nn.Conv2d(width, width, 1)
        self.direct = nn.Conv2d(3 * (1 + 2 * FREQUENCIES), width, 1, bias=False)  # once a ray, not once a sample
        self.tell = nn.Conv2d(width, values, 1)
        samples = len(space.edges) - 1
        self.before: torch.Tensor
        self.register_buffer("before", torch.ones(samples, samples).tril(-1), persistent=False)

    def forward(
        self,
        planes: torch.Tensor,
        lines: torch.Tensor,
        rays: Rays,
        camera: torch.Tensor,
        solid: Callable[[Points], torch.Tensor] | None = None,
    ) -> Rendered:
        """Render N x R rays.

        Args:
            planes, lines: (N, 3, C, P, P) and (N, 3, C, P, 1).
            camera: of the input, (N, 5).
            solid: how much light is held back beside what the field says, (N, S, R), of the edges of samples in the
                field, (N, S + 1, R).
        """
        edges = self.edges()
        depths = (edges[1:] + edges[:-1])[:, None] / 2
        (thick, color), (thick_lines, color_lines) = (field.split(self.channels, 2) for field in (planes, lines))
        density = self.look_up(thick, thick_lines, self.space(rays.points(depths), camera)).sum((1, 2))
        lengths = rays.directions.square().sum(1, keepdim=True).sqrt()
        more = solid(self.space(rays.points(edges[:, None]), camera)) if solid else None
        weights = self.weigh(density, (edges[1:] - edges[:-1])[:, None] * lengths, more)
        depth = depths.T @ weights
        shares, looked = weights, depths
        if self.looks:
            shares, places = largest(weights, self.looks)
            looked = depths.flatten()[places]
        seen = self.look_up(color, color_lines, self.space(rays.points(looked), camera)).flatten(1, 2)
        values = self.tell_values(seen, rays.directions / lengths)
        return Rendered((values * shares[:, None]).sum(2), depth, weights)

    def edges(self) -> torch.Tensor:
        """Between samples, (S + 1,); in training somewhere else each time."""
        edges = self.space.edges
        if not self.training:
            return edges
        share = torch.rand(len(edges) - 1, device=edges.device)
        return torch.cat([edges[:-1] + share * (edges[1:] - edges[:-1]), edges[-1:]])

    def look_up(self, planes: torch.Tensor, lines: torch.Tensor, places: Points) -> torch.Tensor:
        """Channels (N, 3, C, S, R) at places in a field: each plane's value times that of the line across it, zero
        outside."""
        across, along = (
            F.grid_sample(field.flatten(0, 1), grid_of(places, choice), align_corners=False)
            for field, choice in ((planes, ACROSS), (lines, ALONG))
        )
        return (across * along).unflatten(0, (-1, 3))

    def weigh(self, density: torch.Tensor, lengths: torch.Tensor, solid: torch.Tensor | None = None) -> torch.Tensor:
        """Each sample's share in its ray, (N, S, R): what it holds back of the light that those before it let pass."""
        if self.space.closed:
            density = F.softplus(density - EMPTY)
            lengths = torch.cat([lengths[:, :-1], torch.full_like(lengths[:, :1], BEHIND)], 1)
        else:
            density = F.relu(density)
        held = density * lengths
        held = (held if solid is None else held + solid).clamp(max=OPAQUE)
        return torch.exp(-(self.before @ held)) * (1 - torch.exp(-held))

    def tell_values(self, color: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        """(N, V, S, R) in [0, 1] of colour channels, and of the directions (N, 3, R) they are seen from."""
        mixed = self.activate(self.mix(self.activate(color)))
        seen = self.direct(encode(directions, 1)[:, :, None])
        return self.tell(self.activate(self.look(mixed) + seen)).sigmoid()


class Refiner(nn.Module):
    """Makes a view of what was rendered at a part of its size, and of the input image's own pixels where the rendered
    depth says they are: how much of them is to be taken, and what is to be added.

    Shapes: rendered values (N, V, H, W), of which the first three are colour, and pixels (N, 3, H, W), both in [0, 1],
    to the view (N, 3, H, W).
    """

    def __init__(self, values: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(values + 3, REFINED, 3, padding=1)
        self.last = nn.Conv2d(REFINED, 4, 3, padding=1)

    def forward(self, values: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        trust, more = self.last(F.relu(self.first(torch.cat([values, pixels], 1)))).split((1, 3), 1)
        trust = trust.sigmoid()
        return trust * pixels + (1 - trust) * values[:, :3] + more

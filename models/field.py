"""What makes a field of an image, by transformers (NViST, Jang and Agapito, CVPR 2024): an encoder of its patches, and
a decoder that is told about the camera and gives three planes and three lines.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from perception.models.rendering import FREQUENCIES, Size, encode
from perception.models.surface import ConvolutionalPatches
from perception.models.vit import EXPANSION, HEAD, Block


class Encoder(nn.Module):
    """A vision transformer's tokens, the class's first, as a masked autoencoder leaves them: before the last norm.

    Args:
        structures: channels beside the image; their weights start at zero.
        convolutions: name of an encoder whose features become the patches' tokens (see `ConvolutionalPatches`); empty:
            a layer that sees each patch by itself.

    Shapes: (N, 3, *size), normalised, and (N, structures, *size), to (N, 1 + tokens, 64 heads), and the features of
    stride 2 and 4 of such an encoder, if there is one.
    """

    def __init__(
        self, size: Size, patch: int, heads: int, depth: int, structures: int, convolutions: str = ""
    ) -> None:  # fmt: skip
        super().__init__()
        width = heads * HEAD
        self.tokens = (size[0] // patch) * (size[1] // patch)
        self.embed: nn.Module = (
            ConvolutionalPatches(convolutions, patch, width) if convolutions else nn.Conv2d(3, width, patch, patch)
        )
        self.structure = nn.Conv2d(structures, width, patch, patch, bias=False) if structures else None
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, 1 + self.tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads, 0.0) for _ in range(depth)))
        self.unused_norm = nn.LayerNorm(width, 1e-6)
        """Checkpoints of masked autoencoders, and the published number of parameters, have it."""

    def forward(
        self, x: torch.Tensor, structure: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        tokens = self.embed(x)
        x, *shallow = tokens if isinstance(tokens, tuple) else (tokens,)
        if self.structure is not None and structure is not None:
            x = x + self.structure(structure)
        x = x.flatten(2).transpose(1, 2)
        return self.blocks(torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places), tuple(shallow)


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

"""The surface that the input camera sees, as a map beside a field's planes and lines.

A field of few channels can hardly say of every pixel how far away it is, and a small network that begins with nothing
takes long to find out. So convolutions, which may have learned depth before, say it: how far each place of the image
is, and how solid. Rendering adds that to the field's own density, which is left with what the image does not show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from perception.models.inverted_residual import InvertedResidualEncoder
from perception.models.layers import separable
from perception.models.registry import find_encoder
from perception.models.rendering import Points, ViewSpace
from perception.models.skip_decoder import START_METRES, SkipDecoder

LEVELS = 4
"""Of an encoder's features, of stride 2, 4, 8 and 16, that are used."""
STRIDE, COARSEST = 2, 2**LEVELS
"""Pixels of the image, along each axis, for a place of the map; and for one of the coarsest features."""
WIDTHS = (48, 32, 24)
"""Of the layers that make the map, up to half of the image's size."""
SOLID = 3.0
"""The logit of how much of the light a surface holds back at the start."""
MOST_SOLID = 0.999
"""Of the light, that a surface may hold back: so much less than all that half precision has a logarithm of the rest."""
REACH = 1.0
"""How far a surface reaches before and behind, in samples of a ray: two of them at least are in it."""


class ConvolutionalPatches(nn.Module):
    """Tokens of patches of 8x8, out of the features of an encoder of convolutions.

    Args:
        encoder: registered name of one that can be `shallow`; what comes behind stride 16 is left out.

    Shapes: (N, 3, H, W), normalised as the encoder wants it, to tokens (N, width, H / 8, W / 8) and the encoder's
    features of stride 2 and 4.

    Raises:
        ValueError: no such encoder, one that has no shallow part, or patches of another size.
    """

    def __init__(self, encoder: str, patch: int, width: int) -> None:
        super().__init__()
        if patch != 8:
            raise ValueError(f"patch is {patch}; patches of convolutions are 8 pixels wide")
        built = find_encoder(encoder).build()
        if not isinstance(built, InvertedResidualEncoder):
            raise ValueError(f"{encoder} cannot make tokens; accepted are networks of inverted residual blocks")
        self.encoder = built.shallow(LEVELS)
        self.channels = self.encoder.channels
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in self.channels[2:])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *shallow, fine, coarse = self.encoder(x)
        fine, coarse = (lateral(values) for lateral, values in zip(self.laterals, (fine, coarse), strict=True))
        return fine + F.interpolate(coarse, scale_factor=2.0, mode="nearest"), *shallow


class SurfaceHead(nn.Module):
    """What says where the surface is.

    Args:
        width: of tokens.
        shallow: channels of the encoder's features of stride 2 and 4.
        structures: channels beside the image; they mean nothing at the start.

    Shapes: tokens (N, width, h / 4, w / 4), features (N, C, h, w) and (N, C, h / 2, w / 2), the input camera's (N, 5)
    and, if there are `structures`, those, (N, structures, 2 h, 2 w), to the surface (N, 2, h, w): disparity in 1 / m,
    and the logit of how much of the light it holds back.
    """

    def __init__(self, width: int, shallow: Sequence[int], structures: int) -> None:
        super().__init__()
        self.decoder = SkipDecoder((*shallow, width), WIDTHS, lateral=True)
        self.mix = separable(WIDTHS[-1] + structures, WIDTHS[-1], 5, nn.ReLU)
        self.tell = nn.Conv2d(WIDTHS[-1], 2, 1)
        nn.init.zeros_(self.mix[1][0].weight[:, WIDTHS[-1] :])  # type: ignore[index]
        nn.init.normal_(self.tell.weight, 0.0, 0.02)
        with torch.no_grad():
            self.tell.bias.copy_(torch.tensor([math.log(START_METRES), SOLID]))  # type: ignore[union-attr]

    def forward(
        self,
        tokens: torch.Tensor,
        shallow: Sequence[torch.Tensor],
        camera: torch.Tensor,
        structures: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = self.decoder.decode((*shallow, tokens))
        if structures is not None:
            x = torch.cat([x, F.avg_pool2d(structures, STRIDE)], 1)
        metres, solid = self.tell(self.mix(x)).split(1, 1)
        # What an image shows is as large as focal length over depth, so that this is what it can tell.
        metres = metres + camera[:, 1, None, None, None].log()
        return torch.cat([torch.exp(-metres), solid], 1)


def held_back(surface: torch.Tensor, space: ViewSpace, edges: Points) -> torch.Tensor:
    """How much light a surface holds back between edges of a ray's samples in a field, (N, S + 1, R): (N, S, R).

    What passes becomes less evenly from `REACH` samples before the surface to as many behind it, so that a ray ends
    where the surface is in the mean (as in NeuS, Wang et al., NeurIPS 2021). A ray that leaves it at its back, where an
    object in front ends, is held back by nothing.
    """
    reach = REACH * 2 / (len(space.edges) - 1)
    # What is nearer or farther than rays reach ends them where they begin, or end.
    along = space.along(surface[:, :1]).clamp(2 * reach - 1, 1 - reach)
    seen = F.grid_sample(
        torch.cat([along, surface[:, 1:]], 1), space.in_image(edges), padding_mode="border", align_corners=False
    )
    there, solid = seen.unbind(1)
    behind = ((edges.z - there) / (2 * reach) + 0.5).clamp(0, 1)
    passed = (1 - solid.sigmoid() * MOST_SOLID * behind).log()
    return F.relu(passed[:, :-1] - passed[:, 1:])

"""The decoder of FastDepth (Wofk et al., ICRA 2019), NNConv5(dw, skip-add): depthwise-separable blocks with 5x5
kernels, after each of which comes x2 nearest upsampling, and then features of the same size are added."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from perception.models.layers import convolution, initialize, separable

START_METRES = 2.7
"""What an untrained network says everywhere: a room. FastDepth's last ReLU thereby starts out open."""


class SkipDecoder(nn.Module):
    """Blocks on the coarsest of some features, which the finer ones are added to one by one.

    Args:
        channels: of the features, the finest first.
        decoder: widths of the blocks.
        lateral: whether all features come through a 1x1 convolution; if not, they are added as they are, but for the
            first.
    """

    def __init__(self, channels: Sequence[int], decoder: Sequence[int], lateral: bool) -> None:
        super().__init__()
        *shallow, deepest = channels
        self.decoder = nn.ModuleList(
            separable(inputs, outputs, 5, nn.ReLU)
            for inputs, outputs in zip((deepest, *decoder), decoder, strict=False)
        )
        self.laterals = nn.ModuleList()
        """What the features, but for the coarsest, pass before they are added, the coarsest of them first."""
        for features, outputs in zip(reversed(shallow), decoder, strict=False):
            self.laterals.append(convolution(features, outputs, 1, None) if lateral else nn.Identity())
        self.lateral = lateral
        initialize(self.decoder)
        initialize(self.laterals)

    def decode(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Of features as fine as `channels` says, (N, width of the last block, H, W), as large as the finest."""
        *shallow, x = features
        for scale, (block, lateral) in enumerate(zip(self.decoder, self.laterals, strict=False)):
            x = F.interpolate(block(x), scale_factor=2.0, mode="nearest")
            if self.lateral or scale > 0:
                x = x + lateral(shallow[-1 - scale])
        return self.decoder[-1](x)

"""MobileNetV2 without its classifier (Sandler et al., CVPR 2018, table 2)."""

from __future__ import annotations

from perception.models.inverted_residual import InvertedResidualEncoder, Stage, Widths, table_widths
from perception.models.layers import Padding
from perception.models.registry import register_encoder

STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


@register_encoder("mobilenet_v2", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
def mobilenet_v2(
    width: float = 1.0, padding: Padding = "same", widths: Widths | None = None
) -> InvertedResidualEncoder:
    """MobileNetV2; `width` multiplies the table's channels, `widths` gives every one of them."""
    return InvertedResidualEncoder(STAGES, widths or table_widths(STAGES, 32, width), padding)

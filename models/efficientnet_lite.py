"""EfficientNet-Lite0 without its classifier: EfficientNet-B0 (Tan and Le, ICML 2019, table 1) for 8-bit processors.

Squeeze-and-excitation is left out and Swish is ReLU6, as TensorFlow's `efficientnet/lite` has it.
"""

from __future__ import annotations

from perception.models.inverted_residual import InvertedResidualEncoder, Stage, Widths, table_widths
from perception.models.layers import Padding
from perception.models.registry import register_encoder

STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)


@register_encoder("efficientnet_lite0", mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
def efficientnet_lite0(padding: Padding = "same", widths: Widths | None = None) -> InvertedResidualEncoder:
    """EfficientNet-Lite0; `widths` gives other widths of every layer."""
    return InvertedResidualEncoder(STAGES, widths or table_widths(STAGES, 32), padding, eps=1e-3)

"""EfficientNet-Lite0 and 2 without classifiers: EfficientNet-B0 and B2 (Tan and Le, ICML 2019) for 8-bit processors.

Squeeze-and-excitation is left out and Swish is ReLU6, and the first and last layers are not made wider or deeper, as
TensorFlow's `efficientnet/lite` has it.
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
STAGES_2 = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 3, 2, 3),
    Stage(6, 48, 3, 2, 5),
    Stage(6, 88, 4, 2, 3),
    Stage(6, 120, 4, 1, 5),
    Stage(6, 208, 5, 2, 5),
    Stage(6, 352, 1, 1, 3),
)
"""1.1 times as wide, 1.2 times as deep."""
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


@register_encoder("efficientnet_lite0", mean=MEAN, std=STD)
def efficientnet_lite0(padding: Padding = "same", widths: Widths | None = None) -> InvertedResidualEncoder:
    """EfficientNet-Lite0; `widths` gives other widths of every layer."""
    return InvertedResidualEncoder(STAGES, widths or table_widths(STAGES, 32), padding, eps=1e-3)


@register_encoder("efficientnet_lite2", mean=MEAN, std=STD)
def efficientnet_lite2(padding: Padding = "same", widths: Widths | None = None) -> InvertedResidualEncoder:
    """EfficientNet-Lite2; `widths` gives other widths of every layer."""
    return InvertedResidualEncoder(STAGES_2, widths or table_widths(STAGES_2, 32), padding, eps=1e-3)

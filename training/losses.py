"""Losses of metric depth."""

from __future__ import annotations

import torch
from torch.nn import functional as F

NEAREST = 0.05
"""Metres; predictions are held above it before their logarithm is taken."""


def log_depth_loss(
    prediction: torch.Tensor, target: torch.Tensor, gradient: float = 0.5, scales: int = 4
) -> torch.Tensor:
    """Mean |log prediction - log target|, plus `gradient` times the same of its spatial differences at some scales.

    The logarithm makes an error count in proportion to the depth, as REL and delta1 do; the differences sharpen edges
    (Li and Snavely, CVPR 2018, equation 4).

    Args:
        prediction, target: metres, (N, 1, H, W). Only pixels with target > 0 count. A smaller prediction is brought to
            the target's size as the node brings it to the image's.
    """
    if prediction.shape != target.shape:
        prediction = F.interpolate(prediction, target.shape[-2:], mode="bilinear", align_corners=False)
    mask = target > 0
    error = torch.where(mask, prediction.clamp_min(NEAREST).log() - target.clamp_min(NEAREST).log(), 0.0)
    # Linear term below NEAREST: a clamped logarithm has no slope to lead such a pixel back.
    low = torch.where(mask, (NEAREST - prediction).clamp_min(0.0), 0.0)
    loss = (error.abs().sum() + low.sum()) / mask.sum().clamp_min(1)
    valid = mask.float()
    for _ in range(scales):
        loss = loss + gradient / scales * (_difference(error, valid, 2) + _difference(error, valid, 3))
        error = F.avg_pool2d(error * valid, 2) / F.avg_pool2d(valid, 2).clamp_min(1e-6)
        valid = (F.avg_pool2d(valid, 2) > 0).float()
    return loss


def _difference(error: torch.Tensor, valid: torch.Tensor, axis: int) -> torch.Tensor:
    """Mean |difference| of neighbours along `axis` where both are valid."""
    size = error.shape[axis] - 1
    both = valid.narrow(axis, 1, size) * valid.narrow(axis, 0, size)
    change = (error.narrow(axis, 1, size) - error.narrow(axis, 0, size)).abs() * both
    return change.sum() / both.sum().clamp_min(1)

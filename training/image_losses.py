"""Losses of images: how unlike its target an enhanced one is to the eye, in colour, and to a trained network."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from perception.tasks.enhancement_metrics import C1, C2, SIGMA, WINDOW
from perception.training.imitation import EncoderTeacher
from perception.training.losses import feature_loss


def ssim_loss(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 - SSIM, as `enhancement_metrics.ssim` has it (Zhao et al., IEEE Transactions on Computational Imaging, 2017).

    Args:
        images, targets: (N, C, H, W) in [0, 1], of at least 11 pixels each way.
    """
    x, y = images, targets
    mean_x, mean_y, xx, yy, xy = (_blurred(values) for values in (x, y, x * x, y * y, x * y))
    variances = xx - mean_x**2 + yy - mean_y**2
    covariance = xy - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return 1 - (likeness / ((mean_x**2 + mean_y**2 + C1) * (variances + C2))).mean()


def _blurred(values: torch.Tensor) -> torch.Tensor:
    channels = values.shape[1]
    offsets = torch.arange(WINDOW, device=values.device, dtype=values.dtype) - WINDOW // 2
    line = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = (line / line.sum()).expand(channels, 1, 1, WINDOW)
    return F.conv2d(F.conv2d(values, kernel, groups=channels), kernel.transpose(2, 3), groups=channels)


def color_loss(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cosine between the colours of pixels: hue and saturation count, brightness does not (after Wang et
    al., CVPR 2019, who sum angles). Pixels count by the target's brightness, since black has no colour.

    Args:
        images, targets: (N, 3, H, W) in [0, 1].
    """
    apart = 1 - F.cosine_similarity(images, targets, dim=1, eps=1e-3)
    weights = targets.mean(dim=1)
    return (apart * weights).sum() / weights.sum().clamp(min=1e-6)


class PerceptualLoss:
    """How unlike a trained encoder's features of an image are to those of its target (Johnson et al., ECCV 2016): the
    mean over strides of `feature_loss`. With the encoder of a network that is to run behind the enhancement, what that
    network needs is learned.

    Args:
        model: registered, or a .safetensors file, with an encoder.
    """

    def __init__(self, model: str) -> None:
        self._teacher = EncoderTeacher(model)

    def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of images and targets, (N, 3, H, W) in [0, 1]."""
        pairs = zip(self._teacher.features(images), self._teacher(targets), strict=True)
        return torch.stack([feature_loss(mine.float(), theirs.float()) for mine, theirs in pairs]).mean()

"""Losses: of metric depth, of depth up to scale and shift, and of features."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional as F

from perception.tasks.config import GREY

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
    prediction = _resized(prediction, target)
    mask = target > 0
    error = torch.where(mask, prediction.clamp_min(NEAREST).log() - target.clamp_min(NEAREST).log(), 0.0)
    # Linear term below NEAREST: a clamped logarithm has no slope to lead such a pixel back.
    low = torch.where(mask, (NEAREST - prediction).clamp_min(0.0), 0.0)
    loss = (error.abs().sum() + low.sum()) / mask.sum().clamp_min(1)
    return loss + gradient * _gradient_loss(error, mask, scales)


def squared_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error in square metres, where the target is known: what RMSE measures.

    Where depth is uncertain, `log_depth_loss` leads to its median, and this to its mean, which lies farther away.

    Args:
        prediction, target: metres, (N, 1, H, W), as for `log_depth_loss`.
    """
    mask = target > 0
    error = torch.where(mask, _resized(prediction, target) - target, 0.0)
    return error.square().sum() / mask.sum().clamp_min(1)


def lens_loss(
    predict: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    prediction: torch.Tensor,
    corner: tuple[int, int],
    pad: bool = False,
) -> torch.Tensor:
    """How far depth moves when half the view is seen: mean |log ratio| of two predictions of the same pixels.

    Behind a lens of twice the focal length everything looks twice as near (`Fit.depth_scale`), whatever it is: no true
    depth is needed. What the whole view says is the target, since it is seen in context. Grey around views that were
    narrow before does not count.

    Args:
        images: (N, 3, H, W), as `predict` takes them.
        prediction: metres of them, (N, 1, H / k, W / k).
        corner: row and column of the window's top left corner in the prediction, at most half its height and width.
        pad: whether the half view is laid into a grey image, and so seen as large as before; it is stretched otherwise.
    """
    height, width = (length // 2 for length in prediction.shape[-2:])
    step = images.shape[-1] // prediction.shape[-1]
    y, x = corner
    window = images[:, :, step * y : step * (y + height), step * x : step * (x + width)]
    whole = _log(prediction[:, :, y : y + height, x : x + width].detach())
    if pad:
        rows, columns = (length // 4 for length in images.shape[-2:])
        narrow = _log(predict(F.pad(window, (columns, columns, rows, rows), value=GREY / 255)))
        narrow = narrow[:, :, height // 2 : height // 2 + height, width // 2 : width // 2 + width]
    else:
        narrow = _log(predict(F.interpolate(window, images.shape[-2:], mode="bilinear", align_corners=False)))
        narrow = F.avg_pool2d(narrow, 2) + math.log(2)
    known = shown(window, (height, width))
    return ((narrow - whole).abs() * known).sum() / known.sum().clamp_min(1)


def shown(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Where images (N, 3, H, W) in [0, 1] show something, float (N, 1, *size): 0 in the grey around padded views."""
    return F.adaptive_max_pool2d((images != GREY / 255).any(dim=1, keepdim=True).float(), size)


def _log(metres: torch.Tensor) -> torch.Tensor:
    return metres.clamp_min(NEAREST).log()


def _gradient_loss(error: torch.Tensor, mask: torch.Tensor, scales: int) -> torch.Tensor:
    """Mean |difference| of neighbouring errors, both axes together, averaged over scales of half the size each."""
    loss = error.new_zeros(())
    valid = mask.float()
    for scale in range(scales):
        if scale:
            error = F.avg_pool2d(error * valid, 2) / F.avg_pool2d(valid, 2).clamp_min(1e-6)
            valid = (F.avg_pool2d(valid, 2) > 0).float()
        loss = loss + (_difference(error, valid, 2) + _difference(error, valid, 3)) / scales
    return loss


def _difference(error: torch.Tensor, valid: torch.Tensor, axis: int) -> torch.Tensor:
    """Mean |difference| of neighbours along `axis` where both are valid."""
    size = error.shape[axis] - 1
    both = valid.narrow(axis, 1, size) * valid.narrow(axis, 0, size)
    change = (error.narrow(axis, 1, size) - error.narrow(axis, 0, size)).abs() * both
    return change.sum() / both.sum().clamp_min(1)


def output_loss(prediction: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean |log prediction - log teacher| over the pixels where the teacher says a distance.

    Args:
        prediction, teacher: metres behind the same camera, (N, 1, H, W), sizes may differ. Pixels at which the teacher
            is not finite and positive do not count.
    """
    known = torch.where(torch.isfinite(teacher), teacher, 0.0)
    return log_depth_loss(prediction, known, gradient=0.0, scales=0)


def feature_loss(features: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cosine between a student's and a teacher's features at each place (hints as in FitNets, Romero et
    al., ICLR 2015, but of unit length: which channels speak counts, not how loud a teacher's layer happens to be).

    Args:
        features: (N, C, H, W), after an adaptor to the teacher's channels.
        teacher: (N, C, H', W'), averaged or repeated to the student's size.
    """
    if teacher.shape[-2:] != features.shape[-2:]:
        teacher = F.interpolate(teacher, features.shape[-2:], mode="area")
    return (1 - F.cosine_similarity(features, teacher, dim=1, eps=1e-6)).mean()


Alignment = Literal["median", "least_squares"]


def affine_invariant_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    alignment: Alignment = "median",
    trim: float = 0.2,
    gradient: float = 0.5,
    scales: int = 4,
) -> torch.Tensor:
    """Difference of inverse depths of which one is known up to scale and shift (Ranftl et al., TPAMI 2020, section 5).

    The target is brought to median 0 and mean absolute deviation 1, image by image, and the prediction likewise
    ("median", equations 5 and 6: a prediction that falls where the target rises stays wrong) or by its least-squares
    scale and shift to the target ("least_squares", equation 4). Then the mean |difference| without the largest ones
    (equation 7), and `gradient` times the same of spatial differences at some scales (equation 11).

    Args:
        prediction, target: inverse depth, (N, 1, H, W); a prediction of another size is brought to the target's.
        mask: bool (N, 1, H, W), where the target is known. Images without any such pixel do not count.
        trim: share of an image's pixels, those with the largest differences, that is left out.
    """
    used = mask.flatten(1).any(dim=1)
    if not used.any():
        return prediction.sum() * 0.0
    prediction, target, mask = _resized(prediction, target)[used], target[used], mask[used]
    target = _standardised(target, mask)
    prediction = _standardised(prediction, mask) if alignment == "median" else _least_squares(prediction, target, mask)
    error = torch.where(mask, prediction - target, 0.0)
    magnitude = error.abs()
    largest = _known(magnitude.detach(), mask).nanquantile(1 - trim, dim=1).view(-1, 1, 1, 1)
    loss = _mean(torch.where(magnitude <= largest, magnitude, 0.0), mask).mean()
    return loss + gradient * _gradient_loss(error, mask, scales)


def _resized(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if prediction.shape[-2:] == target.shape[-2:]:
        return prediction
    return F.interpolate(prediction, target.shape[-2:], mode="bilinear", align_corners=False)


def _known(maps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(N, H * W), NaN where unknown."""
    return torch.where(mask, maps, torch.nan).flatten(1)


def _mean(maps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(N, 1, 1, 1), over the known pixels of each map."""
    return (maps * mask).sum((1, 2, 3), keepdim=True) / mask.sum((1, 2, 3), keepdim=True)


def _standardised(maps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Median 0 and mean absolute deviation 1 over the known pixels of each map."""
    centre = _known(maps, mask).nanmedian(dim=1).values.view(-1, 1, 1, 1)
    spread = _mean((maps - centre).abs(), mask)
    # A flat map has no scale. It stays flat instead of becoming its own rounding, and gradients stay finite.
    return (maps - centre) / torch.maximum(spread, 1e-3 * centre.abs() + 1e-6)


def _least_squares(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """s * prediction + t with the scale and shift of each image that come closest to the target."""
    mean, target_mean = _mean(prediction, mask), _mean(target, mask)
    deviation = prediction - mean
    variance = _mean(deviation.square(), mask)
    scale = _mean(deviation * (target - target_mean), mask) / (variance + (1e-4 * mean).square() + 1e-12)
    return scale * deviation + target_mean

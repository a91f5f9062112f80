"""Losses of masks: cross-entropy, also of the hardest pixels only, intersection over union, and what a teacher says."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from perception.tasks.labels import UNLABELED


def class_weights(pixels: np.ndarray, balance: float) -> torch.Tensor:
    """What a pixel of each class weighs, float32 (classes,): 1 for the average pixel.

    At a balance of 1 all classes weigh the same together (median frequency balancing, Eigen and Fergus, ICCV 2015, but
    for a factor), at 0 all pixels. Classes without pixels weigh 0.

    Args:
        pixels: how often each class occurs, (classes,).
    """
    shares = pixels / pixels.sum()
    weights = np.where(shares > 0, np.maximum(shares, 1e-9) ** -balance, 0.0)
    return torch.from_numpy(weights / (weights * shares).sum()).float()


def cross_entropy(
    logits: torch.Tensor, classes: torch.Tensor, weights: torch.Tensor | None = None, hardest: float = 1.0
) -> torch.Tensor:
    """Mean cross-entropy over the pixels that have a class.

    Args:
        logits: (N, C, H, W).
        classes: int64 (N, H, W), `UNLABELED` where there is none.
        weights: of the classes, float (C,).
        hardest: the share of the pixels, those of largest loss, that counts (bootstrapping: Wu et al., 2016).
    """
    losses = F.cross_entropy(logits, classes, weights, ignore_index=UNLABELED, reduction="none")
    known = classes != UNLABELED
    if hardest < 1:
        losses = losses[known]
        return losses.topk(max(1, int(hardest * len(losses)))).values.mean() if len(losses) else logits.sum() * 0.0
    return losses.sum() / known.sum().clamp_min(1)


def jaccard_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """1 - the mean intersection over union of probabilities and classes over all pixels of a batch (Rahman and Wang,
    ISVC 2016), of the classes that it shows: a pole counts as much as a road.

    Args:
        logits, classes: as for `cross_entropy`.
    """
    known = classes != UNLABELED
    chances = logits.softmax(1) * known.unsqueeze(1)
    count = logits.shape[1]
    places = classes[known]
    own = chances.gather(1, classes.where(known, 0).unsqueeze(1))[:, 0][known]
    common = chances.new_zeros(count).index_add(0, places, own)
    owed = torch.bincount(places, minlength=count)
    shown = owed > 0
    union = chances.sum((0, 2, 3)) + owed - common
    return 1 - (common[shown] / union[shown]).mean() if shown.any() else logits.sum() * 0.0


def teacher_loss(
    logits: torch.Tensor, teacher: torch.Tensor, shown: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Mean divergence of the classes' chances from a teacher's (Hinton et al., 2015), pixel by pixel.

    Args:
        logits: (N, C, H, W).
        teacher: logits of the same classes, (N, C, h, w); interpolated where their size is another one.
        shown: (N, 1, H, W), 1 where the image shows something and 0 where it does not.
        temperature: by which both are divided; the loss is multiplied by its square.
    """
    if teacher.shape[-2:] != logits.shape[-2:]:
        teacher = F.interpolate(teacher, logits.shape[-2:], mode="bilinear", align_corners=False)
    mine, theirs = (F.log_softmax(side / temperature, 1) for side in (logits, teacher))
    apart = (theirs.exp() * (theirs - mine)).sum(1, keepdim=True)
    return temperature**2 * (apart * shown).sum() / shown.sum().clamp_min(1)

"""What detectors with anchors are trained on: which anchor answers for which object, and what its answer costs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

IGNORED = -1
"""Label of an object that need not be found; where it lies, finding something is no mistake."""
NOTHING = -2
"""Label of what only fills up the list of an image with fewer objects than others."""
COVERED = 0.5
"""An anchor of which this share lies within an ignored object teaches nothing."""


def assign(
    boxes: torch.Tensor, labels: torch.Tensor, anchors: torch.Tensor, least: float = 0.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """The object that each anchor answers for: the one that it overlaps most, if by `least` or more (IoU).

    The anchor that an object overlaps most answers for it in any case, so that none is without; where it is several
    objects' best, the one that it overlaps most has it, and of equals the first (Liu et al., ECCV 2016, section 2.2).

    Args:
        boxes: (N, M, 4), x1, y1, x2, y2.
        labels: int64 (N, M): a class, `IGNORED` or `NOTHING`.
        anchors: (A, 4), x1, y1, x2, y2 in the same unit.

    Returns:
        objects, int64 (N, A), places in M, -1 where the anchor shows background; counted, bool (N, A), False where what
        it shows is an ignored object.
    """
    low = torch.maximum(boxes[:, :, None, :2], anchors[:, :2])
    high = torch.minimum(boxes[:, :, None, 2:], anchors[:, 2:])
    common = (high - low).clamp_min(0).prod(-1)
    sizes = (anchors[:, 2:] - anchors[:, :2]).prod(-1)
    union = (boxes[..., 2:] - boxes[..., :2]).prod(-1)[..., None] + sizes - common
    overlaps = torch.where(labels[..., None] >= 0, common / union.clamp_min(1e-12), 0.0)
    if not overlaps.shape[1]:
        shape = len(boxes), len(anchors)
        return boxes.new_full(shape, -1, dtype=torch.int64), boxes.new_ones(shape, dtype=torch.bool)
    most, best = overlaps.max(2, keepdim=True)
    forced = torch.zeros_like(overlaps, dtype=torch.bool).scatter_(2, best, most > 0)
    highest, objects = torch.where(forced, overlaps + 2, overlaps).max(1)
    objects = torch.where(highest >= least, objects, -1)
    ignored = ((labels[..., None] == IGNORED) & (common >= COVERED * sizes)).any(1)
    return objects, (objects >= 0) | ~ignored


def encode(boxes: torch.Tensor, anchors: torch.Tensor, coder: Sequence[float]) -> torch.Tensor:
    """Codes (K, 4) of corner boxes (K, 4) relative to anchors (K, 4): see `perception.tasks.anchors.encode`."""
    sizes, anchor_sizes = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    shift = ((boxes[:, :2] + boxes[:, 2:]) - (anchors[:, :2] + anchors[:, 2:])) / 2 / anchor_sizes
    growth = (sizes / anchor_sizes).log()
    return torch.stack([shift[:, 1], shift[:, 0], growth[:, 1], growth[:, 0]], 1) * boxes.new_tensor(coder)


def focal_loss(logits: torch.Tensor, targets: torch.Tensor, alpha: float = 0.75, gamma: float = 2.0) -> torch.Tensor:
    """Binary cross-entropy in which what is easy counts little (Lin et al., ICCV 2017, equation 5), element by element.

    Targets between 0 and 1 are met as such (Li et al., NeurIPS 2020, equation 2).

    Args:
        alpha: what a target of 1 weighs; one of 0 weighs 1 - alpha.
        gamma: how much less an answer counts the better it is.
    """
    cost = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wrong = (targets - logits.sigmoid()).abs()
    return (alpha * targets + (1 - alpha) * (1 - targets)) * wrong**gamma * cost


def detection_losses(
    codes: torch.Tensor,
    logits: torch.Tensor,
    boxes: torch.Tensor,
    labels: torch.Tensor,
    scores: torch.Tensor,
    anchors: torch.Tensor,
    coder: Sequence[float],
    first: int = 0,
    alpha: float = 0.75,
    gamma: float = 2.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of boxes and of classes, both a sum over anchors divided by how many answer for an object, where an
    object of which a teacher was not sure counts by its score.

    Args:
        codes: (N, A, 4), as `encode` makes them; smooth L1, a mean over the four.
        logits: (N, A, C).
        boxes, labels, anchors: as for `assign`.
        scores: (N, M), what the class of each object is to score: 1, or less where a teacher was not sure.
        first: the column of class 0; those before it are trained towards scores of 0.
    """
    objects, counted = assign(boxes, labels, anchors)
    image, anchor = torch.nonzero(objects >= 0, as_tuple=True)
    chosen = objects[image, anchor]
    sure = scores[image, chosen]
    count = sure.sum().clamp_min(1)
    wanted = encode(boxes[image, chosen], anchors[anchor], coder)
    box = (F.smooth_l1_loss(codes[image, anchor], wanted, reduction="none").mean(1) * sure).sum() / count
    targets = torch.zeros_like(logits)
    targets[image, anchor, labels[image, chosen] + first] = sure
    return box, (focal_loss(logits, targets, alpha, gamma) * counted[..., None]).sum() / count

"""BatchNorm's statistics: held as they came, or taken anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def fix_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    """Let BatchNorms use their running statistics and leave them as they are; returns those that did not before."""
    fixed = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d) and norm.training]
    for norm in fixed:
        norm.eval()
    return fixed


@contextmanager
def fixed_norms(module: nn.Module) -> Iterator[None]:
    """Within it, BatchNorms use their running statistics and leave them as they are."""
    fixed = fix_norms(module)
    try:
        yield
    finally:
        for norm in fixed:
            norm.train()


@torch.no_grad()
def refresh_norms(model: nn.Module, images: torch.Tensor) -> None:
    """Give every BatchNorm the statistics of `images`, a normalised batch (N, 3, H, W).

    What was removed took part in all that comes behind it, whose statistics of before are then wrong.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    training = model.training
    for norm in norms:
        norm.momentum = 1.0
    model.train()(images)
    model.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum

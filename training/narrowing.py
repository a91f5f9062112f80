"""Pruning as a part of a recipe: what NetAdapt scores and fine-tunes with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from perception.models import model_config
from perception.training.data import Normalize, to_unit
from perception.training.depth import DepthRecipe
from perception.training.depth_data import STILL, Mixture, augment, to_tensors
from perception.training.losses import log_depth_loss
from perception.training.norms import fix_norms
from perception.training.pruning import prune

SETTLING = 40
"""Batches from which a narrowed network's statistics are averaged in the end."""


def narrow(trained: nn.Module, recipe: DepthRecipe, mixture: Mixture, out: Path) -> nn.Module:
    """The network narrowed as `recipe.pruning` says, with what it leaves behind in `out`; see `prune`.

    BatchNorm's statistics are taken anew whenever channels have gone; short-term fine-tuning holds them where the
    recipe does (`frozen_norms`). The last frames of the first source, whole and in their own colours, are scored, and
    not used in short-term fine-tuning. The images have the size of the recipe's first stage; the cost is that of the
    model's own.

    Raises:
        ValueError: the first source has no depth in metres, or too few frames.
    """
    pruning = recipe.pruning
    assert pruning is not None
    device = next(trained.parameters()).device
    first = mixture.sources[0]
    if recipe.sources[0].relative or len(first) <= pruning.held_out:
        raise ValueError(
            f"pruning scores {pruning.held_out} frames with depth in metres, kept back from the first source "
            f"{recipe.sources[0].path!r}, which has {len(first)} frames; name a larger metric source first"
        )
    held_out, rest = mixture.kept_back(pruning.held_out)
    config, size = model_config(recipe.model), recipe.stages[0].size
    normalize = Normalize(config).to(device)

    def batch(step: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, depths = rest.batch(step, recipe.seed, count, size, recipe.focal, recipe.augmentation)
        return normalize(to_unit(images.to(device))), depths.to(device)

    rng = np.random.default_rng(recipe.seed)  # for mirroring, all that is left of augmentation
    kept_back = to_tensors([augment(frame, size, recipe.focal, STILL, rng) for frame in held_out])
    scored = normalize(kept_back[0].to(device)), kept_back[1].to(device)

    @torch.no_grad()
    def score(network: nn.Module) -> float:
        return -float(log_depth_loss(network.eval()(scored[0]).float(), scored[1]))

    def tune(model: nn.Module, *, first: int) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=pruning.rate)
        model.train()
        if recipe.frozen_norms:
            fix_norms(model)
        for step in range(first, first + pruning.tune_steps):
            images, depths = batch(step, pruning.batch)
            loss = log_depth_loss(model(images), depths)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()

    images, _ = batch(0, pruning.held_out)
    narrowed = prune(trained, pruning, config.input_size, images, score, tune, out).train()
    with torch.no_grad():  # for BatchNorm, whose statistics are those of a few images so far
        for step in range(SETTLING):
            narrowed(batch(step, recipe.stages[0].batch)[0])
    return narrowed.eval()

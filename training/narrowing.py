"""Pruning as a part of a recipe: what NetAdapt scores and fine-tunes with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from perception.models import model_config
from perception.training.channels import refresh_norms
from perception.training.data import STILL, Mixture, Normalize
from perception.training.losses import log_depth_loss
from perception.training.pruning import prune
from perception.training.recipe import Recipe


def narrow(trained: nn.Module, recipe: Recipe, mixture: Mixture, out: Path) -> nn.Module:
    """The network narrowed as `recipe.pruning` says, with what it leaves behind in `out`; see `prune`.

    The last frames of the first source, whole and unaltered, are scored, and not used in short-term fine-tuning. The
    images have the size of the recipe's first stage; the cost is that of the model's own.
    """
    pruning = recipe.pruning
    assert pruning is not None
    device = next(trained.parameters()).device
    first, *others = mixture.sources
    kept_back = Mixture([first[-pruning.held_out :]], [1.0])
    rest = Mixture([first[: -pruning.held_out], *others], mixture.shares)
    config, size = model_config(recipe.model), recipe.stages[0].size
    normalize = Normalize(config).to(device)

    def batch(frames: Mixture, step: int, count: int, still: bool) -> tuple[torch.Tensor, torch.Tensor]:
        amount = STILL if still else recipe.augmentation
        images, depths = frames.batch(step, recipe.seed, count, size, recipe.focal, amount)
        return normalize(images.to(device)), depths.to(device)

    scored = batch(kept_back, 0, pruning.held_out, still=True)

    @torch.no_grad()
    def score(network: nn.Module) -> float:
        return -float(log_depth_loss(network.eval()(scored[0]).float(), scored[1]))

    def tune(model: nn.Module, *, first: int) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=pruning.rate)
        model.train()
        for step in range(first, first + pruning.tune_steps):
            images, depths = batch(rest, step, pruning.batch, still=False)
            loss = log_depth_loss(model(images), depths)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()

    images, _ = batch(rest, 0, pruning.held_out, still=False)
    refresh_norms(trained, images)  # they may be those of images of another size, which would count as a loss
    return prune(trained, pruning, config.input_size, images, score, tune, out)

"""Training the network that makes one answer of a split's features, and the workers with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from perception.engines.acceptance import Predict
from perception.models import create_model
from perception.models.vit import FusedViT, ViT
from perception.tasks.config import ModelConfig
from perception.training.classification import ClassificationLesson, ClassificationRecipe


@dataclass(frozen=True)
class Fusing:
    """What is fused, and how; see `FusedViT`."""

    workers: tuple[str, ...]
    """Weights of each, with classifiers, which are dropped."""
    hidden: tuple[int, ...] = (256,)
    missing: float = 0.5
    tuned: bool = True


class FusionLesson(ClassificationLesson):
    """The lesson of a fusion network. The recipe's model and network are those of the whole that was split."""

    fusing: Fusing

    @classmethod
    def of(cls, recipe: ClassificationRecipe, fusing: Fusing, out: Path) -> FusionLesson:
        """The lesson of a recipe whose paths are absolute; raises as `open` does."""
        lesson = cls.open(recipe, Path(), out)
        assert isinstance(lesson, cls)
        lesson.fusing = fusing
        return lesson

    def build(self) -> FusedViT:
        workers = []
        for path in self.fusing.workers:
            worker = create_model(path)
            assert isinstance(worker, ViT)
            worker.classify = nn.Identity()
            workers.append(worker)
        return FusedViT(
            workers, len(self.recipe.labels), self.fusing.hidden, self.fusing.missing, self.fusing.tuned
        )  # fmt: skip

    def measure(self, predict: Predict, config: ModelConfig) -> dict[str, float]:
        """Nothing: the split is measured by its graphs, as nodes run it."""
        return {}

    def entry(self, model: nn.Module) -> dict[str, Any]:
        """No entry of a model: these weights are the workers' and the fusion network's."""
        return {"workers": len(self.fusing.workers)}


def fusion_layers(fused: FusedViT) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """Weight and bias of each layer, as `save_fusion` takes them."""
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in fused.layers]

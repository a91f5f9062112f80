"""Depth as a lesson: metric frames and relative ones, losses of metres, teachers, the lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from perception.engines.acceptance import Predict
from perception.evaluation.datasets import Dataset, open_dataset
from perception.evaluation.depth import evaluate_depth
from perception.evaluation.frames import RGBDFrame
from perception.evaluation.rgbd_folder import RGBDFolder
from perception.tasks.config import ModelConfig
from perception.training.depth_data import Augmentation, Mixture, evened
from perception.training.distillation import Distillation, Distiller, RelativeFrames, RelativeTeacher
from perception.training.lesson import Forward, Lesson
from perception.training.losses import lens_loss, log_depth_loss, squared_loss
from perception.training.norms import fixed_norms
from perception.training.pruning import Pruning
from perception.training.recipe import Recipe, Source, Stage


@dataclass(frozen=True)
class DepthSource(Source):
    """Frames with depth, or images to which a teacher gives relative depth."""

    relative: bool = False
    """A folder of images whose depth, up to scale and shift, is what the recipe's `relative_teacher` says."""
    even: float = 0.0
    """How equally often near and far scenes come: 0 leaves all frames alike, 1 all bands of depth; see `evened`."""

    def __post_init__(self) -> None:
        if not 0 <= self.even <= 1 or (self.even and self.relative):
            raise ValueError(
                f"source {self.path}: even is {self.even}; it must lie between 0 and 1, and be 0 where depth is "
                "relative, which has no bands"
            )


@dataclass(frozen=True)
class DepthStage(Stage):
    """A part of the run."""

    lens: float = 0.0
    """Weight of `lens_loss`, for which half of the batch is seen a second time: whole and half views must agree, on
    images without true depth too."""


@dataclass(frozen=True, kw_only=True)
class DepthRecipe(Recipe):
    """How a depth model is trained."""

    sources: tuple[DepthSource, ...]
    stages: tuple[DepthStage, ...]
    focal: tuple[float, float]
    """Canonical camera, (fx / width, fy / height); goes into the model's config."""
    augmentation: Augmentation = Augmentation()
    squared: float = 0.0
    """Weight of `squared_loss` beside that of the logarithm."""
    distillation: Distillation = Distillation()
    """What teachers add to the loss of true depth."""
    pruning: Pruning | None = None
    """How the network that the recipe goes on from is narrowed, before the stages fine-tune it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pruning and not self.weights:
            raise ValueError("it prunes, which needs a trained network to begin with: name it as `weights`")

    @property
    def pads_narrow_views(self) -> bool:
        """What the trained model's config will say."""
        return self.augmentation.pad > 0


class DepthLesson(Lesson[DepthRecipe]):
    """What a depth recipe asks for.

    Args:
        mixture: the training frames.
        evaluation: what is measured in the end; None leaves `measure` out.
    """

    recipe_class = DepthRecipe
    distiller: Distiller

    def __init__(self, recipe: DepthRecipe, mixture: Mixture, evaluation: Dataset | None = None) -> None:
        super().__init__(recipe)
        self.mixture, self.evaluation = mixture, evaluation

    @classmethod
    def open(cls, recipe: DepthRecipe, data: Path, out: Path) -> DepthLesson:
        evaluation = open_dataset(data / recipe.evaluate, "eval", task="depth")
        return cls(recipe, _mixture(recipe, data, out), evaluation)

    def batch(self, step: int) -> tuple[torch.Tensor, ...]:
        """Images, and depths float (N, 1, H, W) in canonical metres."""
        recipe, stage = self.recipe, self.recipe.stage_at(step)
        return self.mixture.batch(step, recipe.seed, stage.batch, stage.size, recipe.focal, recipe.augmentation)

    def sample(self, size: tuple[int, int]) -> torch.Tensor:
        recipe = self.recipe
        return self.mixture.batch(0, recipe.seed, 32, size, recipe.focal, recipe.augmentation)[0]

    def loss(
        self, step: int, model: nn.Module, forward: Forward, images: torch.Tensor, *truth: torch.Tensor
    ) -> torch.Tensor:
        (depths,) = truth
        recipe, stage = self.recipe, self.recipe.stage_at(step)
        assert isinstance(stage, DepthStage)
        prediction = forward(images)
        loss = log_depth_loss(prediction, depths) + self.distiller(images, depths, prediction)
        if recipe.squared:
            loss = loss + recipe.squared * squared_loss(prediction, depths)
        if stage.lens:
            count = (len(images) + 1) // 2
            rng = np.random.default_rng((recipe.seed, step))
            height, width = prediction.shape[-2:]
            corner = int(rng.integers(0, height // 2 + 1)), int(rng.integers(0, width // 2 + 1))
            with fixed_norms(model):  # half views by themselves have other statistics than what a robot sees
                loss = loss + stage.lens * lens_loss(
                    forward, images[:count], prediction[:count], corner, recipe.pads_narrow_views
                )
        return loss

    def teach(self, model: nn.Module) -> nn.Module:
        self.distiller = Distiller(model, self.recipe.distillation, self.recipe.focal)
        return self.distiller

    def narrow(self, model: nn.Module, out: Path) -> nn.Module:
        from perception.training.narrowing import narrow  # it reads DepthRecipe

        return narrow(model, self.recipe, self.mixture, out) if self.recipe.pruning else model

    def config(self) -> ModelConfig:
        recipe = self.recipe
        return super().config().replace(focal=recipe.focal, pads_narrow_views=recipe.pads_narrow_views)

    def entry(self, model: nn.Module) -> dict[str, Any]:
        entry = {"focal": self.recipe.focal, "pads_narrow_views": self.recipe.pads_narrow_views}
        # What the recipe went on from may be narrower than the model is by itself; others need not know widths.
        if self.recipe.weights and model.widths != self.build().widths:
            entry["options"] = {"widths": model.widths}  # type: ignore[assignment]
        return entry

    def measure(self, predict: Predict, config: ModelConfig) -> dict[str, float]:
        assert self.evaluation is not None
        return evaluate_depth(predict, config, tqdm(self.evaluation, desc="evaluate"))


LESSON = DepthLesson


def _mixture(recipe: DepthRecipe, data: Path, out: Path) -> Mixture:
    """The recipe's frames: in memory, but for those of a relative teacher, which are too many."""
    teach = recipe.distillation
    sources: list[Sequence[RGBDFrame]] = []
    for source in recipe.sources:
        if source.relative:
            teacher = RelativeTeacher(data / teach.relative_teacher, teach.relative_form)
            sources.append(RelativeFrames(RGBDFolder(data / source.path), teacher, out / "relative"))
            continue
        frames = list(open_dataset(data / source.path, source.split, task="depth"))
        useless = [frame.name for frame in frames if frame.depth is None or frame.camera is None]
        if useless:
            raise ValueError(
                f"{data / source.path}: frame {useless[0]!r} lacks depth or camera, and training needs both"
            )
        sources.append(frames)
    chances = [
        evened(frames, recipe.focal, source.even) if source.even else None
        for frames, source in zip(sources, recipe.sources, strict=True)
    ]
    return Mixture(sources, [source.share for source in recipe.sources], chances)

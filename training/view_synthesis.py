"""Novel views as a lesson: composed scenes, of which one view is the input and others are drawn.

Losses are NViST's, squared errors of colours and how far samples of a ray lie apart, with what a simulation knows
beside: depth, and where objects are (MOVIS's further output). Coarse stages draw whole views with few rays, so that
placement comes before detail; this is in place of the noise levels by which MOVIS orders its steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from perception.engines.acceptance import Predict
from perception.evaluation.datasets import find_dataset
from perception.evaluation.frames import Dataset, ViewFrame
from perception.evaluation.view_synthesis import TRUE, ViewAssessment
from perception.models.rendering import Canvas
from perception.models.surface import ConvolutionalPatches
from perception.tasks.config import ModelConfig
from perception.training.data import Normalize, to_unit
from perception.training.image_losses import PerceptualLoss
from perception.training.lesson import Forward, Lesson
from perception.training.recipe import SizedRecipe, Source, Stage
from perception.training.view_data import DepthModel, KeptScenes, Scene, Targets, ViewAugmentation, view_batch


@dataclass(frozen=True)
class ViewSource(Source):
    """Composed scenes of the split "train"; `path` is the folder where they are kept, and rendered into as far as they
    are not there."""

    seed: int = 0
    scenes: int = 1000


@dataclass(frozen=True)
class ViewStage(Stage):
    """A part of the run; its batch counts scenes."""

    views: int = 2
    """Views of a scene that are drawn."""
    rays: int = 64
    """Rays along either side of what is drawn of a view."""
    coarse: bool = False
    """Whether all of a view is drawn with these, and not refined; otherwise a window of it as a robot has it."""


@dataclass(frozen=True, kw_only=True)
class ViewRecipe(SizedRecipe):
    """How a network for novel views is trained."""

    sources: tuple[ViewSource, ...]
    stages: tuple[ViewStage, ...]
    network: dict[str, Any] | None = None
    """What the model's builder is given beside its defaults: `depth`, `instances`, `mask`, `grid`, ..."""
    augmentation: ViewAugmentation = ViewAugmentation()
    told_depth: str = ""
    """The trained model for depth whose answers the network is told; empty: the true depth."""
    rendered: float = 0.5
    """Weight of the squared error of what is rendered, beside that of the refined view."""
    depth: float = 0.1
    """Weight of the mean error of disparity, 1 / m."""
    surface: float = 1.0
    """Weight of the mean error of the surface's disparity, 1 / m, where a network says where that is."""
    mask: float = 0.05
    """Weight of the cross-entropy of the mask."""
    distortion: float = 0.001
    """Weight of `distortion_loss`."""
    perceive: str = ""
    """The trained network whose encoder's features `PerceptualLoss` compares; empty: it is left out."""
    perceptual: float = 0.1
    """Weight of that loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.sources) != 1:
            raise ValueError(f"it has {len(self.sources)} sources; scenes come from one")
        if self.size[0] != self.size[1]:
            raise ValueError(f"its images are {self.size[0]}x{self.size[1]}, and those of scenes are square")
        if any(stage.views < 1 or stage.rays < 1 for stage in self.stages):
            raise ValueError("views and rays of a stage must be 1 or more")


def distortion_loss(weights: torch.Tensor) -> torch.Tensor:
    """How far the samples that make up a ray lie apart (Barron et al., CVPR 2022), mean over rays; samples being evenly
    spaced from 0 to 1.

    Args:
        weights: (N, S, R), the share of each sample in its ray.
    """
    count = weights.shape[1]
    places = (torch.arange(count, device=weights.device) + 0.5) / count
    apart = (places[:, None] - places).abs()
    between = ((apart @ weights) * weights).sum(1)
    return (between + weights.square().sum(1) / (3 * count)).mean()


def disparity_loss(depth: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean of |1 / depth - 1 / truth|, 1 / m, over what is known.

    Args:
        depth, truth: metres, of one shape; the truth is not finite or not positive where unknown.
    """
    known = torch.isfinite(truth) & (truth > 0)
    error = (1 / depth.clamp(min=0.01) - 1 / torch.where(known, truth, torch.ones_like(truth))).abs()
    return (error * known).sum() / known.sum().clamp(min=1)


class ViewLesson(Lesson[ViewRecipe]):
    """What a recipe for novel views asks for.

    Args:
        scenes: to train on.
        evaluation: what is measured in the end; None leaves `measure` out.

    Raises:
        ValueError: a stage whose windows are larger than the network's image.
    """

    recipe_class = ViewRecipe
    workers = 2
    forks = True
    """A model for depth has one thread there, and needs no other."""

    def __init__(
        self,
        recipe: ViewRecipe,
        scenes: Sequence[Scene],
        evaluation: Dataset[ViewFrame] | None = None,
        depth: DepthModel | None = None,
    ) -> None:
        super().__init__(recipe)
        self.scenes, self.evaluation, self._depth = scenes, evaluation, depth
        with torch.device("meta"):
            self.stride = int(self.build().canvas.stride)  # type: ignore[union-attr, arg-type]
            """Pixels of a view, along each axis, for a ray."""
        self._config = self.config()
        self.normalize = Normalize(self._config)
        self.perceptual = PerceptualLoss(recipe.perceive) if recipe.perceive else None
        for stage in recipe.stages:
            side = stage.rays * (1 if stage.coarse else self.stride)
            if side > min(recipe.size):
                raise ValueError(
                    f"{stage.rays} rays of {self.stride} pixels make a window of {side}, and images are of "
                    f"{recipe.size[0]}x{recipe.size[1]}; at most {min(recipe.size) // self.stride} rays"
                )
            if stage.coarse and recipe.size[0] % stage.rays:
                raise ValueError(f"{stage.rays} rays do not part a side of {recipe.size[0]} pixels evenly")

    @classmethod
    def open(cls, recipe: ViewRecipe, data: Path, out: Path) -> ViewLesson:
        (source,) = recipe.sources
        depth = DepthModel(recipe.told_depth) if recipe.told_depth else None
        scenes = KeptScenes(data / source.path, source.seed, source.scenes, recipe.size[0], depth)
        evaluation = find_dataset(recipe.evaluate, data, task="view_synthesis")
        return cls(recipe, scenes, evaluation, depth)

    def targets(self, step: int) -> Targets:
        """What is drawn in a step."""
        stage = self.recipe.stage_at(step)
        assert isinstance(stage, ViewStage)
        return Targets(stage.views, stage.rays, self.stride, stage.coarse)

    def batch(self, step: int) -> tuple[torch.Tensor, ...]:
        """See `view_batch`."""
        recipe, stage = self.recipe, self.recipe.stage_at(step)
        rng = np.random.default_rng((recipe.seed, step))
        return view_batch(self.scenes, rng, stage.batch, self.targets(step), self._config, recipe.augmentation)

    def sample(self, size: tuple[int, int]) -> torch.Tensor:
        return self.batch(0)[0]

    def loss(
        self, step: int, model: nn.Module, forward: Forward, images: torch.Tensor, *truth: torch.Tensor
    ) -> torch.Tensor:
        """`forward` runs a network of one image alone, so that it is left out."""
        recipe, targets = self.recipe, self.targets(step)
        *told, seen, pose, lens, views, depths, masks = truth
        views = to_unit(views)
        x = self.normalize.to(images.device)(images)
        with self.autocast(images.device):
            field = model.field(x, *told)  # type: ignore[operator]
        rows = targets.rays if targets.coarse else targets.rays * self.stride
        canvas = Canvas((rows, rows), 1 if targets.coarse else self.stride).to(images.device)
        given = [tensor.float().repeat_interleave(targets.views, 0) for tensor in (x, *field, told[0])]
        drawing = model.draw(canvas, *given[0 if model.refiner is not None else 1 :], pose, lens)  # type: ignore[operator]
        rays = (targets.rays, targets.rays)
        values, depth = (tensor.unflatten(2, rays) for tensor in drawing.rendered[:2])
        rendered = F.mse_loss(values[:, :3], F.adaptive_avg_pool2d(views, rays))
        loss = rendered if targets.coarse else F.mse_loss(drawing.view, views) + recipe.rendered * rendered
        loss = loss + recipe.depth * disparity_loss(depth, depths)
        loss = loss + recipe.distortion * distortion_loss(drawing.rendered.weights)
        if model.surface is not None:
            loss = loss + recipe.surface * disparity_loss(1 / field[2][:, :1].float(), seen)
        if model.shape.mask:  # type: ignore[union-attr]
            loss = loss + recipe.mask * F.binary_cross_entropy(values[:, 3:4].clamp(1e-4, 1 - 1e-4), masks)
        if self.perceptual and not targets.coarse:
            with self.autocast(images.device):
                loss = loss + recipe.perceptual * self.perceptual(drawing.view, views)
        return loss

    def options(self) -> dict[str, Any]:
        return self.recipe.network or {}

    def encoder(self, model: nn.Module) -> nn.Module:
        """See `Lesson`: that of convolutions, where there is one."""
        patches = model.encoder.embed  # type: ignore[union-attr]
        return patches.encoder if isinstance(patches, ConvolutionalPatches) else super().encoder(model)

    @property
    def size(self) -> tuple[int, int]:
        return self.recipe.size

    def measure(self, predict: Predict, config: ModelConfig) -> dict[str, float]:
        """As `perception eval` does, the network being told what it was told in training."""
        assert self.evaluation is not None
        find, assessment = self._depth, ViewAssessment()
        if self.recipe.augmentation.unknown < 1:
            assessment = ViewAssessment(
                depth=self.recipe.told_depth or TRUE,
                instances="instances" in {tensor.name for tensor in config.more_inputs},
                find_depth=None if find is None else lambda frame: find(frame.rgb, frame.camera),
            )
        frames = tqdm(self.evaluation, desc="evaluate")
        scores = assessment.score(predict, config, self.evaluation, frames)
        return {name: value for name, value in scores.items() if math.isfinite(value)}


LESSON = ViewLesson

"""Segmentation as a lesson: frames with masks, losses of pixels and of whole classes, teachers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from perception.engines.acceptance import Predict
from perception.evaluation.datasets import as_masks, open_dataset
from perception.evaluation.masks import MaskDataset
from perception.evaluation.segmentation import SegmentationAssessment
from perception.tasks.config import ModelConfig
from perception.tasks.labels import UNLABELED
from perception.training.classes import ClassTeacher, Selection, TaughtLesson, TaughtRecipe, open_sources
from perception.training.data import MEMORY
from perception.training.lesson import Forward
from perception.training.losses import shown
from perception.training.mask_data import Frames, MaskAugmentation, MaskMixture
from perception.training.mask_losses import class_weights, cross_entropy, jaccard_loss, teacher_loss


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(TaughtRecipe):
    """How a segmentation network is trained. Its stages' sizes are those of crops."""

    size: tuple[int, int]
    """(height, width) of the trained network's image, over which a whole frame is stretched; goes into its config."""
    augmentation: MaskAugmentation = MaskAugmentation()
    pasted: tuple[str, ...] = ()
    """Names of the classes that the augmentation's `paste` is about: things that stand on their own."""
    every: int = 2
    """The loss is of every so many-th row and column of the labels, to which the logits are interpolated: other ones in
    each step. Edges are where classes meet, and a network tells them at a quarter of the size."""
    balance: float = 0.0
    """How much more a pixel of a rare class weighs; see `class_weights`."""
    hardest: float = 1.0
    """The share of pixels, those of the largest loss, that counts in cross-entropy."""
    jaccard: float = 0.0
    """Weight of `jaccard_loss` beside cross-entropy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.balance <= 1 or not 0 < self.hardest <= 1:
            raise ValueError(f"balance is {self.balance} and hardest {self.hardest}; they must lie between 0 and 1")
        if self.every < 1:
            raise ValueError(f"every is {self.every}; accepted: 1 or more")
        if strangers := [name for name in self.pasted if name not in self.labels]:
            raise ValueError(f"pasted names {', '.join(strangers)}, which are not among the labels")
        if bool(self.augmentation.paste) != bool(self.pasted):
            raise ValueError("augmentation's paste and the names in pasted belong together; give both or neither")


class Teacher(ClassTeacher):
    """A trained segmentation network; it teaches in the pixels that have no label, too."""

    task = "segmentation"

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.network.logits(self.prepare(images)).float()  # type: ignore[operator, union-attr, no-any-return]


class SegmentationLesson(TaughtLesson[SegmentationRecipe]):
    """What a segmentation recipe asks for.

    Args:
        mixture: the training frames.
        evaluation: what is measured in the end; None leaves `measure` out.
    """

    recipe_class = SegmentationRecipe
    workers = 2
    forks = True

    def __init__(
        self, recipe: SegmentationRecipe, mixture: MaskMixture, evaluation: Selection[MaskDataset] | None = None
    ) -> None:
        super().__init__(recipe)
        self.mixture, self.evaluation = mixture, evaluation

    @classmethod
    def open(cls, recipe: SegmentationRecipe, data: Path, out: Path) -> SegmentationLesson:
        Teacher.check(recipe.teacher, recipe.labels)
        selections, evaluation = open_sources(recipe, data, _open, UNLABELED)
        sources, memory = [], MEMORY
        for one in selections:
            sources.append(Frames(one.dataset, one.chosen, one.places, len(recipe.labels), memory))
            memory = sources[-1].spare
        pasted = [recipe.labels.index(name) for name in recipe.pasted]
        mixture = MaskMixture(sources, [source.share for source in recipe.sources], pasted)
        return cls(recipe, mixture, evaluation)

    def batch(self, step: int) -> tuple[torch.Tensor, ...]:
        """Images and masks: see `MaskMixture.batch`."""
        recipe, stage = self.recipe, self.recipe.stage_at(step)
        return self.mixture.batch(step, recipe.seed, stage.batch, stage.size, recipe.size, recipe.augmentation)

    def sample(self, size: tuple[int, int]) -> torch.Tensor:
        recipe = self.recipe
        return self.mixture.batch(0, recipe.seed, 32, size, recipe.size, recipe.augmentation)[0]

    def loss(
        self, step: int, model: nn.Module, forward: Forward, images: torch.Tensor, *truth: torch.Tensor
    ) -> torch.Tensor:
        recipe, every = self.recipe, self.recipe.every
        coarse = forward(images)
        classes = truth[0][:, step % every :: every, step // every % every :: every].long()
        logits = F.interpolate(coarse, classes.shape[-2:], mode="bilinear", align_corners=False)
        weights = self._weights.to(images.device) if recipe.balance else None
        loss = cross_entropy(logits, classes, weights, recipe.hardest) + self.imitation_loss(images)
        if recipe.jaccard:
            loss = loss + recipe.jaccard * jaccard_loss(logits, classes)
        if recipe.teacher:
            with self.autocast(images.device):
                theirs = self._teacher(images)
            seen = shown(images, (coarse.shape[2], coarse.shape[3]))
            loss = loss + recipe.taught * teacher_loss(coarse, theirs, seen, recipe.temperature)
        return loss

    @cached_property
    def _weights(self) -> torch.Tensor:
        return class_weights(np.asarray(self.mixture.pixels), self.recipe.balance)

    @cached_property
    def _teacher(self) -> Teacher:
        return Teacher(self.recipe.teacher, self.recipe.labels)

    @property
    def size(self) -> tuple[int, int]:
        return self.recipe.size

    def measure(self, predict: Predict, config: ModelConfig) -> dict[str, float]:
        """On the evaluation split; where frames are held out, on those, and then the metrics' names say so."""
        assert self.evaluation is not None
        dataset = self.evaluation.dataset
        frames = (dataset[index] for index in tqdm(self.evaluation.chosen, desc="evaluate"))
        assessment = SegmentationAssessment(shared_classes=self.recipe.others == "leave_out")
        return self.told(assessment.score(predict, config, dataset, frames))


def _open(path: Path, split: str) -> MaskDataset:
    return as_masks(open_dataset(path, split, task="segmentation"))


LESSON = SegmentationLesson

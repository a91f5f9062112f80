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
from perception.models import create_model, model_config
from perception.tasks.config import ModelConfig
from perception.tasks.labels import UNLABELED
from perception.training.classes import ClassLesson, ClassRecipe, check_apart, place_classes
from perception.training.imitation import TeacherInput
from perception.training.lesson import Forward
from perception.training.losses import shown
from perception.training.mask_data import MEMORY, Frames, MaskAugmentation, MaskMixture, hold_out
from perception.training.mask_losses import class_weights, cross_entropy, jaccard_loss, teacher_loss


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(ClassRecipe):
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
    teacher: str = ""
    """A trained network for the same classes, registered or a .safetensors file as training writes it, whose chances of
    the classes are learned beside the labels, in the pixels that have none too."""
    taught: float = 1.0
    """Weight of their loss."""
    temperature: float = 1.0
    """See `teacher_loss`."""
    hold_out: int = 0
    """For choosing between recipes without looking at the evaluation split: one of so many parts of the training frames
    of the first source is not trained on, and measured in the end instead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.balance <= 1 or not 0 < self.hardest <= 1:
            raise ValueError(f"balance is {self.balance} and hardest {self.hardest}; they must lie between 0 and 1")
        if self.every < 1 or self.hold_out < 0 or self.hold_out == 1:
            raise ValueError(
                f"every is {self.every} and hold_out {self.hold_out}; accepted: 1 or more; 0 for nothing, or 2 or more"
            )
        if strangers := [name for name in self.pasted if name not in self.labels]:
            raise ValueError(f"pasted names {', '.join(strangers)}, which are not among the labels")
        if bool(self.augmentation.paste) != bool(self.pasted):
            raise ValueError("augmentation's paste and the names in pasted belong together; give both or neither")


def check_teacher(model: str, labels: tuple[str, ...]) -> ModelConfig:
    """The config of a network that can teach.

    Raises:
        ValueError: no segmentation network, one without weights, or one for other classes.
    """
    config = model_config(model)
    if config.task != "segmentation" or not config.weights or config.labels != labels:
        raise ValueError(
            f"{model} cannot teach: it is for {config.task}, weights {config.weights!r}, classes "
            f"{', '.join(config.labels)}; name a trained segmentation network with the recipe's labels"
        )
    return config


class Teacher:
    """A trained segmentation network, frozen, in eval mode, with its own normalisation; see `check_teacher`."""

    def __init__(self, model: str, labels: tuple[str, ...]) -> None:
        self.normalize = TeacherInput(check_teacher(model, labels))
        self.network = create_model(model).requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images, RGB in [0, 1], (N, 3, H, W)."""
        inputs = self.normalize.to(images.device)(images)
        return self.network.to(images.device).logits(inputs).float()  # type: ignore[operator, union-attr, no-any-return]


class SegmentationLesson(ClassLesson[SegmentationRecipe]):
    """What a segmentation recipe asks for.

    Args:
        mixture: the training frames.
        evaluation: what is measured in the end, and which of its frames (None: all); None leaves `measure` out.
    """

    recipe_class = SegmentationRecipe
    workers = 2
    forks = True

    def __init__(
        self,
        recipe: SegmentationRecipe,
        mixture: MaskMixture,
        evaluation: MaskDataset | None = None,
        measured: list[int] | None = None,
    ) -> None:
        super().__init__(recipe)
        self.mixture, self.evaluation, self.measured = mixture, evaluation, measured

    @classmethod
    def open(cls, recipe: SegmentationRecipe, data: Path, out: Path) -> SegmentationLesson:
        final = as_masks(open_dataset(data / recipe.evaluate, "eval", task="segmentation"))
        place_classes(final, recipe, UNLABELED)
        evaluation, measured = final, None
        if recipe.teacher:
            check_teacher(recipe.teacher, recipe.labels)
        sources, memory = [], MEMORY
        for number, source in enumerate(recipe.sources):
            dataset = as_masks(open_dataset(data / source.path, source.split, task="segmentation"))
            places = place_classes(dataset, recipe, UNLABELED)
            check_apart(dataset, final)
            chosen = list(range(len(dataset)))
            if recipe.hold_out and not number:
                chosen, measured = hold_out(len(dataset), recipe.hold_out)
                evaluation = dataset
            elif measured is not None:
                check_apart(dataset, evaluation, measured)
            sources.append(Frames(dataset, chosen, places, len(recipe.labels), memory))
            memory = sources[-1].spare
        pasted = [recipe.labels.index(name) for name in recipe.pasted]
        mixture = MaskMixture(sources, [source.share for source in recipe.sources], pasted)
        return cls(recipe, mixture, evaluation, measured)

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
        chosen = range(len(self.evaluation)) if self.measured is None else self.measured
        frames = (self.evaluation[index] for index in tqdm(chosen, desc="evaluate"))
        assessment = SegmentationAssessment(shared_classes=self.recipe.others == "leave_out")
        scores = assessment.score(predict, config, self.evaluation, frames)
        return scores if self.measured is None else {f"held_out_{name}": value for name, value in scores.items()}


LESSON = SegmentationLesson

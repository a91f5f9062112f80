"""Detection as a lesson: frames with boxes, and the losses of anchors that answer for objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from perception.engines.acceptance import Predict
from perception.evaluation.boxes import BoxDataset
from perception.evaluation.confidence import Confidence, judge_boxes
from perception.evaluation.datasets import as_boxes, open_dataset
from perception.evaluation.detection import DetectionAssessment, average_precision
from perception.models import model_config
from perception.tasks.anchors import corners
from perception.tasks.config import ModelConfig
from perception.tasks.decoders import SsdDecoder
from perception.training.box_data import LEFT_OUT, BoxAugmentation, BoxMixture, evened
from perception.training.box_losses import detection_losses
from perception.training.classes import ClassLesson, ClassRecipe, check_apart, place_classes
from perception.training.lesson import Forward
from perception.training.recipe import Source


@dataclass(frozen=True)
class DetectionSource(Source):
    """Images with boxes."""

    even: float = 0.0
    """How equally often classes come: 0 leaves all frames alike, 1 all classes; see `evened`."""

    def __post_init__(self) -> None:
        if not 0 <= self.even <= 1:
            raise ValueError(f"source {self.path}: even is {self.even}; it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(ClassRecipe):
    """How a detector is trained. Its config gets the input size of the last stage, to which its anchors belong."""

    sources: tuple[DetectionSource, ...]
    augmentation: BoxAugmentation = BoxAugmentation()
    box: float = 1.0
    """Weight of the boxes' loss beside that of the classes."""
    alpha: float = 0.75
    """What an anchor with an object weighs in the classes' loss; one without weighs 1 - alpha. See `focal_loss`."""
    gamma: float = 2.0
    """How much less an answer counts the better it is."""
    calibrate: str = ""
    """Data set by whose training split the trained network's scores become chances that a box is right. The order of
    boxes, and with it all average precision, stays; a score of 0.5 then means about the same as of another detector.
    The chances are too good by as much as the network does better where it was trained."""


class DetectionLesson(ClassLesson[DetectionRecipe]):
    """What a detection recipe asks for.

    Args:
        mixture: the training frames.
        evaluation: what is measured in the end; None leaves `measure` out.
        calibration: frames with true boxes, where the recipe calibrates.

    Raises:
        ValueError: a model whose boxes are not relative to anchors.
    """

    recipe_class = DetectionRecipe
    workers = 2
    forks = True

    def __init__(
        self,
        recipe: DetectionRecipe,
        mixture: BoxMixture,
        evaluation: BoxDataset | None = None,
        calibration: BoxDataset | None = None,
    ) -> None:
        super().__init__(recipe)
        self.mixture, self.evaluation, self.calibration = mixture, evaluation, calibration
        self._decoder = cache(self._find_decoder)
        self._decoder(recipe.stages[0].size)

    @classmethod
    def open(cls, recipe: DetectionRecipe, data: Path, out: Path) -> DetectionLesson:
        average_precision()  # what is measured with in the end
        evaluation = _open(data / recipe.evaluate, "eval")
        place_classes(evaluation, recipe, LEFT_OUT)
        datasets = [_open(data / source.path, source.split) for source in recipe.sources]
        for dataset in datasets:
            check_apart(dataset, evaluation)
        places = [place_classes(dataset, recipe, LEFT_OUT) for dataset in datasets]
        chances = [
            evened([_known(names[dataset.annotation(index).labels]) for index in range(len(dataset))], source.even)
            if source.even
            else None
            for dataset, source, names in zip(datasets, recipe.sources, places, strict=True)
        ]
        mixture = BoxMixture(datasets, [source.share for source in recipe.sources], chances, places)
        calibration = _open(data / recipe.calibrate, "train") if recipe.calibrate else None
        if calibration and (place_classes(calibration, recipe, LEFT_OUT) == LEFT_OUT).all():
            raise ValueError(f"calibrate: {recipe.calibrate} has none of the classes of the recipe's labels")
        return cls(recipe, mixture, evaluation, calibration)

    def batch(self, step: int) -> tuple[torch.Tensor, ...]:
        """Images, boxes, labels and scores: see `BoxMixture.batch`."""
        stage = self.recipe.stage_at(step)
        return self.mixture.batch(step, self.recipe.seed, stage.batch, stage.size, self.recipe.augmentation)

    def sample(self, size: tuple[int, int]) -> torch.Tensor:
        return self.mixture.batch(0, self.recipe.seed, 32, size, self.recipe.augmentation)[0]

    def loss(
        self, step: int, model: nn.Module, forward: Forward, images: torch.Tensor, *truth: torch.Tensor
    ) -> torch.Tensor:
        recipe, (boxes, labels, scores) = self.recipe, truth
        codes, logits = forward(images)
        decoder = self._decoder((images.shape[2], images.shape[3]))
        anchors = torch.from_numpy(corners(decoder.anchors)).to(images.device)
        of_boxes, of_classes = detection_losses(
            codes, logits, boxes, labels, scores, anchors, decoder.coder, int(decoder.background), recipe.alpha,
            recipe.gamma,
        )  # fmt: skip
        return recipe.box * of_boxes + of_classes + self.imitation_loss(images)

    @property
    def size(self) -> tuple[int, int]:
        return self.recipe.stages[-1].size

    @torch.no_grad()
    def finish(self, model: nn.Module, predict: Predict) -> None:
        """Calibrates what the network says of classes; see `DetectionRecipe.calibrate`."""
        if self.calibration is None:
            return
        scores, right = judge_boxes(predict, self.config(), self.calibration)
        scores = scores.clip(1e-6, 1 - 1e-6)  # float32 has a sigmoid of 1
        try:
            confidence = Confidence.fit(np.log(scores / (1 - scores)), right)
        except ValueError as error:
            tqdm.write(f"scores stay as they are: {error}")
            return
        for layer in model.class_layers:  # type: ignore[union-attr]
            layer.weight *= confidence.slope
            layer.bias.sub_(confidence.middle).mul_(confidence.slope)

    def measure(self, predict: Predict, config: ModelConfig) -> dict[str, float]:
        assert self.evaluation is not None
        frames = tqdm(self.evaluation, desc="evaluate")
        assessment = DetectionAssessment(shared_classes=self.recipe.others == "leave_out")
        return assessment.score(predict, config, self.evaluation, frames)

    def _find_decoder(self, size: tuple[int, int]) -> SsdDecoder:
        """Of the model for images of this size."""
        decoder = model_config(self.recipe.model, size, **self.options()).decoder
        if not isinstance(decoder, SsdDecoder):
            raise ValueError(f"{self.recipe.model!r} cannot be trained: only detectors with anchors (ssd) can be yet")
        return decoder


LESSON = DetectionLesson


def _known(labels: np.ndarray) -> np.ndarray:
    return labels[labels != LEFT_OUT]


def _open(path: Path, split: str) -> BoxDataset:
    return as_boxes(open_dataset(path, split, task="detection"))

"""What lessons of networks that tell classes apart have in common: their labels, a start from other classes, features
that a trained encoder teaches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from perception.evaluation.boxes import BoxDataset
from perception.evaluation.class_folder import ClassDataset
from perception.evaluation.frames import Dataset
from perception.evaluation.masks import MaskDataset
from perception.models import create_model, model_config
from perception.tasks.labels import NAMED_LABELS
from perception.training.data import hold_out
from perception.training.imitation import EncoderTeacher, Imitation, Teacher
from perception.training.lesson import Lesson
from perception.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class ClassRecipe(Recipe):
    """How a network that tells classes apart is trained."""

    OTHERS: ClassVar[tuple[str, ...]] = ("refuse", "leave_out")
    labels: tuple[str, ...]
    """Names of the classes that the network tells apart; a recipe may name a list of `NAMED_LABELS` instead."""
    others: str = "refuse"
    """What becomes of data whose classes are not among the labels: "refuse" it, or "leave_out" what is of them: their
    boxes, so that things of such classes are background; of masks their pixels, which then have no class."""
    imitate: str = ""
    """A trained network, registered or a .safetensors file as training writes it, whose encoder's features are learned
    beside what labels teach: those of a network that has seen more than that."""
    features: float = 1.0
    """Weight of their loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.labels, str):
            if self.labels not in NAMED_LABELS:
                known = ", ".join(NAMED_LABELS)
                raise ValueError(f"labels is {self.labels!r}; give a list of names, or one of: {known}")
            object.__setattr__(self, "labels", NAMED_LABELS[self.labels])
        if self.others not in self.OTHERS:
            raise ValueError(f"others is {self.others!r}; accepted: {', '.join(self.OTHERS)}")


@dataclass(frozen=True, kw_only=True)
class TaughtRecipe(ClassRecipe):
    """How a network is trained that learns the chances of classes from another one, too."""

    teacher: str = ""
    """A trained network of the same task, registered or a .safetensors file as training writes it, whose chances of the
    classes are learned beside the labels; it sees the same images."""
    taught: float = 1.0
    """Weight of their loss."""
    temperature: float = 1.0
    """By which logits are divided before they become chances that teach; the loss is multiplied by its square."""
    hold_out: int = 0
    """For choosing between recipes without looking at the evaluation split: one of so many parts of the training images
    of the first source is not trained on, and measured in the end instead."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hold_out < 0 or self.hold_out == 1:
            raise ValueError(f"hold_out is {self.hold_out}; accepted: 0 for nothing, or 2 or more")


class ClassTeacher(Teacher):
    """A trained network whose chances of classes are learned.

    Args:
        labels: of the network that learns.

    Raises:
        ValueError: see `check`.
    """

    task: ClassVar[str]

    def __init__(self, model: str, labels: Sequence[str]) -> None:
        self.check(model, labels)
        super().__init__(model)

    @classmethod
    def check(cls, model: str, labels: Sequence[str]) -> None:
        """Refuse a network of another task, one without weights, and one with other classes; no name is no teacher."""
        if not model:
            return
        config = model_config(model)
        if config.task != cls.task or not config.weights or not cls.knows(config.labels, labels):
            raise ValueError(
                f"{model} cannot teach: it is for {config.task}, weights {config.weights!r}, classes "
                f"{', '.join(config.labels)}; name a trained network for {cls.task} with the recipe's labels"
            )

    @staticmethod
    def knows(own: Sequence[str], labels: Sequence[str]) -> bool:
        """Whether a network with its own labels can teach others."""
        return tuple(own) == tuple(labels)


AnyRecipe = TypeVar("AnyRecipe", bound=ClassRecipe)
AnyDataset = TypeVar("AnyDataset", bound=BoxDataset | ClassDataset | MaskDataset)


class ClassLesson(Lesson[AnyRecipe]):
    """Of a network whose `class_layers` tell the classes apart, and whose builder takes `labels`."""

    recipe_class: ClassVar[type[Recipe]]
    teacher: EncoderTeacher
    imitation: Imitation

    def options(self) -> dict[str, Any]:
        return {"labels": self.recipe.labels}

    def go_on(self, weights: str) -> nn.Module:
        """The trained network; of one for other classes, all but what tells classes apart."""
        begun = create_model(weights)
        if model_config(weights).labels == self.recipe.labels:
            return begun
        model = self.build()
        anew = {parameter for layer in model.class_layers for parameter in layer.parameters()}  # type: ignore[union-attr]
        own, theirs = model.state_dict(keep_vars=True), begun.state_dict()
        for name, tensor in own.items():
            if tensor in anew:
                continue
            if name not in theirs or theirs[name].shape != tensor.shape:
                raise ValueError(f"{weights!r} is of another network than {self.recipe.model!r}: {name} differs")
            tensor.data.copy_(theirs[name])
        return model

    def teach(self, model: nn.Module) -> nn.Module:
        if not self.recipe.imitate:
            return super().teach(model)
        self.teacher = EncoderTeacher(self.recipe.imitate)
        self.imitation = Imitation(model, self.teacher.channels)
        return self.imitation

    def imitation_loss(self, images: torch.Tensor) -> torch.Tensor:
        """The weighted loss of features, right after the network has seen the images; 0 where none are learned."""
        if not self.recipe.imitate:
            return images.new_zeros(())
        with self.autocast(images.device):
            features = self.teacher(images)
        return self.recipe.features * self.imitation(features)


AnyTaught = TypeVar("AnyTaught", bound=TaughtRecipe)


class TaughtLesson(ClassLesson[AnyTaught]):
    """Of a recipe with a teacher, or with images that are held out."""

    def told(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Metrics under names that say so where they are of images that are held out."""
        return {f"held_out_{name}" if self.recipe.hold_out else name: value for name, value in scores.items()}


def place_classes(dataset: BoxDataset | ClassDataset | MaskDataset, recipe: ClassRecipe, left_out: int) -> np.ndarray:
    """The network's class of each of a data set's, int64 (labels,); `left_out` where it is not to learn it.

    Raises:
        ValueError: classes that are not among the recipe's labels, and that it does not leave out.
    """
    unknown = [name for name in dataset.labels if name not in recipe.labels]
    if unknown and recipe.others == "refuse":
        raise ValueError(
            f"{dataset.name} has classes that the recipe's labels lack: {', '.join(unknown)}; add them, choose other "
            "data, or leave them out with others: leave_out"
        )
    numbers = {name: place for place, name in enumerate(recipe.labels)}
    return np.array([numbers.get(name, left_out) for name in dataset.labels], np.int64)


@dataclass(frozen=True)
class Selection(Generic[AnyDataset]):
    """What a recipe takes of a data set: the samples with these numbers, and as classes their `place_classes`."""

    dataset: AnyDataset
    chosen: Sequence[int]
    places: np.ndarray


def open_sources(
    recipe: TaughtRecipe, data: Path, opened: Callable[[Path, str], AnyDataset], left_out: int
) -> tuple[list[Selection[AnyDataset]], Selection[AnyDataset]]:
    """What a recipe trains on, and what is measured in the end.

    Args:
        data: to which its paths are relative.
        opened: the data set at a path, and which split of it.

    Raises:
        ValueError: what is trained on is measured, or classes are not the recipe's.
    """

    def whole(path: str, split: str) -> Selection[AnyDataset]:
        dataset = opened(data / path, split)
        return Selection(dataset, range(len(dataset)), place_classes(dataset, recipe, left_out))

    final = whole(recipe.evaluate, "eval")
    first, *others = (whole(source.path, source.split) for source in recipe.sources)
    for other in (first, *others):
        check_apart(other.dataset, final.dataset)
    if not recipe.hold_out:
        return [first, *others], final
    kept, held = hold_out(len(first.dataset), recipe.hold_out)
    for other in others:
        check_apart(other.dataset, first.dataset, held)
    return [replace(first, chosen=kept), *others], replace(first, chosen=held)


def check_apart(dataset: Dataset[Any], evaluation: Dataset[Any], chosen: Sequence[int] | None = None) -> None:
    """Refuse to train on what is measured: all that evaluation has, or the chosen ones of it."""
    places = range(len(evaluation)) if chosen is None else chosen
    measured = {path.resolve() for index in places for path in evaluation.files(index)[:1]}
    seen = (path.resolve() for index in range(len(dataset)) for path in dataset.files(index)[:1])
    if any(path in measured for path in seen):
        what = "is measured in the end; give the folder splits"
        if chosen is not None:
            what = f"has images of {evaluation.name} that are held out; leave this source out, or hold_out"
        raise ValueError(f"{dataset.name} would be trained on, and {what}")

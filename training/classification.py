"""Classification as a lesson: images of classes, some mixed of two, a teacher, classes that are one to a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from perception.engines.acceptance import Predict
from perception.evaluation.class_folder import ClassDataset
from perception.evaluation.classification import ClassificationAssessment
from perception.evaluation.datasets import as_classes, open_dataset
from perception.tasks.config import ModelConfig
from perception.training.class_data import ClassAugmentation, ClassMixture, Images, Relabelled
from perception.training.classes import ClassTeacher, TaughtLesson, TaughtRecipe, open_sources
from perception.training.data import MEMORY
from perception.training.lesson import Forward
from perception.training.remembered import remembered_logits

OTHER = "other"
"""Name of the class that others are gathered in."""


@dataclass(frozen=True, kw_only=True)
class ClassificationRecipe(TaughtRecipe):
    """How a classifier is trained. Its stages are all of the size that the trained network's images have."""

    OTHERS: ClassVar[tuple[str, ...]] = ("refuse", "leave_out", "gather")
    """"leave_out" leaves out images of such classes; "gather" makes them one class, the label "other"."""
    network: dict[str, Any] | None = None
    """What the model's builder is given beside its defaults: `patch`, `depth`, `stem`, `heads`, `drop` of a ViT."""
    augmentation: ClassAugmentation = ClassAugmentation()
    smoothing: float = 0.1
    """Share of the truth that is spread over all classes (Szegedy et al., CVPR 2016)."""
    gathered: float = 0.5
    """Share of the images drawn that are of gathered classes; 0: as many as there are."""
    knows: float = 0.0
    """Weight of the loss of a layer that tells all of the teacher's classes by the network's features, and is dropped
    in the end: so the features of a network with gathered classes are good for telling these, too."""

    remembered: bool = False
    """Whether the teacher is asked once of each image, and of its mirror image, and not of every variation: for small
    networks on a CPU, beside whose steps the teacher's take long. Of an image mixed of two it says what it says of
    either, by their shares."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remembered and not self.teacher:
            raise ValueError("remembered is about what a teacher says; name a teacher")
        if len({stage.size for stage in self.stages}) > 1:
            raise ValueError("stages are of several sizes; a classifier trains at the size that it runs at")
        if not 0 <= self.smoothing < 1 or not 0 <= self.gathered < 1:
            raise ValueError(f"smoothing is {self.smoothing} and gathered {self.gathered}; accepted: 0 to less than 1")
        if (self.others == "gather") != (OTHER in self.labels):
            raise ValueError(f"others: gather needs a label {OTHER!r}, and only that; give both or neither")
        if self.knows and not self.teacher:
            raise ValueError("knows is about the teacher's classes; name a teacher")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's image."""
        return self.stages[0].size


class Teacher(ClassTeacher):
    """A trained classifier, which knows all of the labels, and sees images at its own size.

    `places` is float32 (its classes, labels): 1 where one of its classes is among the labels, or gathered there.
    """

    task = "classification"

    def __init__(self, model: str, labels: Sequence[str]) -> None:
        super().__init__(model, labels)
        self.places = torch.zeros(len(self.config.labels), len(labels))
        for number, name in enumerate(self.config.labels):
            place = name if name in labels else OTHER
            if place in labels:
                self.places[number, labels.index(place)] = 1

    @staticmethod
    def knows(own: Sequence[str], labels: Sequence[str]) -> bool:
        return not set(labels) - set(own) - {OTHER}

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.network(self.prepare(self.resize(images))).float()  # type: ignore[no-any-return]


def chances_loss(logits: torch.Tensor, chances: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Mean divergence of a network's chances from others (Hinton et al., 2015).

    Args:
        logits: (N, C).
        chances: (N, C), at the same temperature; where they do not sum to 1, their images count for less.
        temperature: by which logits are divided; the loss is multiplied by its square.
    """
    mine = F.log_softmax(logits / temperature, 1)
    return temperature**2 * F.kl_div(mine, chances, reduction="batchmean")


class Probe(nn.Module):
    """A layer that tells classes by the features that a network's own last layer has seen."""

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        own: nn.Linear = model.class_layers[0]  # type: ignore[assignment, index]
        self.layer = nn.Linear(own.in_features, classes)
        self._seen: list[torch.Tensor] = []
        own.register_forward_pre_hook(self._keep)

    def _keep(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._seen[:] = inputs

    def forward(self) -> torch.Tensor:
        """Logits (N, classes) of the images that the network saw last."""
        return self.layer(self._seen[0].float())


class ClassificationLesson(TaughtLesson[ClassificationRecipe]):
    """What a classification recipe asks for.

    Args:
        mixture: the training images.
        evaluation: what is measured in the end; None leaves `measure` out.
        folder: where what a teacher says is kept, for other runs with the same images, too.
    """

    recipe_class = ClassificationRecipe
    workers = 2
    forks = True

    def __init__(
        self,
        recipe: ClassificationRecipe,
        mixture: ClassMixture,
        evaluation: ClassDataset | None = None,
        folder: Path = Path(),
    ) -> None:
        super().__init__(recipe)
        self.mixture, self.evaluation, self.folder = mixture, evaluation, folder
        self._remembered: torch.Tensor | None = None
        self.teacher_network = Teacher(recipe.teacher, recipe.labels) if recipe.teacher else None

    @classmethod
    def open(cls, recipe: ClassificationRecipe, data: Path, out: Path) -> ClassificationLesson:
        Teacher.check(recipe.teacher, recipe.labels)
        gathered = recipe.labels.index(OTHER) if recipe.others == "gather" else None
        selections, final = open_sources(recipe, data, _open, -1 if gathered is None else gathered)
        sources, memory = [], MEMORY
        for one in selections:
            sources.append(Images(one.dataset, one.chosen, one.places, memory))
            memory = sources[-1].spare
        shares = [source.share for source in recipe.sources]
        mixture = ClassMixture(sources, shares, len(recipe.labels), gathered, recipe.gathered)
        evaluation = Relabelled(final.dataset, recipe.labels, final.places, final.chosen)
        return cls(recipe, mixture, evaluation, out.parent)

    def batch(self, step: int) -> tuple[torch.Tensor, ...]:
        """See `ClassMixture.batch`."""
        recipe, stage = self.recipe, self.recipe.stage_at(step)
        return self.mixture.batch(step, recipe.seed, stage.batch, stage.size, recipe.augmentation)

    def sample(self, size: tuple[int, int]) -> torch.Tensor:
        return self.mixture.batch(0, self.recipe.seed, 32, size, self.recipe.augmentation)[0]

    def loss(
        self, step: int, model: nn.Module, forward: Forward, images: torch.Tensor, *truth: torch.Tensor
    ) -> torch.Tensor:
        recipe = self.recipe
        logits = forward(images)
        first, second, share, which = truth
        targets = share[:, None] * F.one_hot(first, logits.shape[1])
        targets = targets + (1 - share)[:, None] * F.one_hot(second, logits.shape[1])
        loss = F.cross_entropy(logits, targets, label_smoothing=recipe.smoothing) + self.imitation_loss(images)
        if self.teacher_network:
            chances = self._chances(self.teacher_network, images, share, which)
            places = self.teacher_network.places.to(images.device)
            loss = loss + recipe.taught * chances_loss(logits, chances @ places, recipe.temperature)
            if recipe.knows:
                loss = loss + recipe.knows * chances_loss(self.probe(), chances, recipe.temperature)
        return loss

    def _chances(
        self, teacher: Teacher, images: torch.Tensor, share: torch.Tensor, which: torch.Tensor
    ) -> torch.Tensor:
        """Of the teacher's classes, (N, its classes), at the recipe's temperature."""
        if not self.recipe.remembered:
            with self.autocast(images.device):
                return (teacher(images) / self.recipe.temperature).softmax(1)
        if self._remembered is None:
            asked = [remembered_logits(teacher, one, self.folder, images.device) for one in self.mixture.sources]
            self._remembered = torch.cat(asked).flatten(0, 1).to(images.device)
        chances = (self._remembered[which] / self.recipe.temperature).softmax(1)
        return share[:, None] * chances + (1 - share)[:, None] * chances.roll(-1, 0)

    def teach(self, model: nn.Module) -> nn.Module:
        parts = nn.ModuleList([super().teach(model)])
        if self.recipe.knows:
            assert self.teacher_network is not None
            self.probe = Probe(model, len(self.teacher_network.config.labels))
            parts.append(self.probe)
        return parts

    def options(self) -> dict[str, Any]:
        return super().options() | (self.recipe.network or {})

    @property
    def size(self) -> tuple[int, int]:
        return self.recipe.size

    def measure(self, predict: Predict, config: ModelConfig) -> dict[str, float]:
        """On the evaluation split; where images are held out, on those, and then the metrics' names say so."""
        assert self.evaluation is not None
        frames = (self.evaluation[index] for index in tqdm(range(len(self.evaluation)), desc="evaluate"))
        return self.told(ClassificationAssessment().score(predict, config, self.evaluation, frames))


def _open(path: Path, split: str) -> ClassDataset:
    return as_classes(open_dataset(path, split, task="classification"))


LESSON = ClassificationLesson

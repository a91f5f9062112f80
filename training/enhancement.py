"""Enhancement as a lesson: pairs, photographs that are darkened, and Troublemaker Learning (TML) in its two steps.

Step 1 trains the troublemaker, which makes dark images of bright ones, on a few pairs (`darkens`). Step 2 trains the
enhancer on bright photographs, which the frozen troublemaker darkens. Real pairs may be among them, or be all there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from perception.engines.acceptance import Predict
from perception.evaluation.datasets import open_dataset
from perception.evaluation.enhancement import EnhancementAssessment
from perception.evaluation.frames import PairFrame
from perception.evaluation.pairs import PairDataset
from perception.models import create_model, model_config
from perception.models.ugdc import Enhancer
from perception.tasks.config import ModelConfig
from perception.training.data import Normalize, to_unit
from perception.training.image_losses import PerceptualLoss, color_loss, ssim_loss
from perception.training.lesson import Forward, Lesson
from perception.training.pair_data import PairAugmentation, PairMixture, PairSource, Photographs
from perception.training.recipe import SizedRecipe, Source


@dataclass(frozen=True)
class EnhancementSource(Source):
    """Pairs of dark and bright images, or photographs that are made dark."""

    photographs: bool = False
    """Whether it is a folder of photographs in good light; `split` says nothing then."""
    exposure: tuple[float, float] | None = None
    """Smallest and largest exposure to which photographs are darkened (see `tasks.darkening`); None leaves that to the
    recipe's troublemaker."""

    def __post_init__(self) -> None:
        if self.exposure and not (self.photographs and len(self.exposure) == 2):
            raise ValueError(f"source {self.path}: exposure is for photographs, and two numbers: [0.005, 0.1]")
        if self.exposure and not 0 < self.exposure[0] <= self.exposure[1] <= 1:
            raise ValueError(
                f"source {self.path}: exposure {list(self.exposure)} is not possible; accepted: smallest and largest "
                "share of the light, over 0 and up to 1, as in [0.005, 0.1]"
            )


@dataclass(frozen=True, kw_only=True)
class EnhancementRecipe(SizedRecipe):
    """How an enhancer, or a troublemaker, is trained."""

    sources: tuple[EnhancementSource, ...]
    augmentation: PairAugmentation = PairAugmentation()
    width: int = 0
    """Channels at full size; 0: as the model has them."""
    darkens: bool = False
    """Whether bright images are made dark, by a predicting network alone: step 1 of TML."""
    troublemaker: str = ""
    """The trained network that darkens photographs: a .safetensors file that training wrote, whose path is relative to
    the working directory. It is of the size of the stages."""
    ssim: float = 0.0
    """Weight of `ssim_loss` beside smooth L1 on all that the network returns."""
    color: float = 0.0
    """Weight of `color_loss`."""
    perceive: str = ""
    """The trained network whose encoder's features `PerceptualLoss` compares: registered, or a .safetensors file."""
    perceptual: float = 0.1
    """Weight of that loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        undone = [source.path for source in self.sources if source.photographs and not source.exposure]
        if undone and not self.troublemaker:
            raise ValueError(f"source {undone[0]}: nothing darkens its photographs; give exposure, or a troublemaker")
        if self.darkens and any(source.photographs for source in self.sources):
            raise ValueError("it darkens, which is learned from pairs; leave the photographs to the enhancer's recipe")


class EnhancementLesson(Lesson[EnhancementRecipe]):
    """What an enhancement recipe asks for.

    Args:
        mixture: the training frames.
        evaluation: what is measured in the end; None leaves `measure` out.

    Raises:
        ValueError: a troublemaker that is not trained, or for images of another size.
    """

    recipe_class = EnhancementRecipe
    workers = 2
    forks = True

    def __init__(self, recipe: EnhancementRecipe, mixture: PairMixture, evaluation: PairDataset | None = None) -> None:
        super().__init__(recipe)
        self.mixture, self.evaluation = mixture, evaluation
        self.normalize = Normalize(self.config())
        self.troublemaker = Troublemaker(recipe.troublemaker, recipe.size) if recipe.troublemaker else None
        self.perceptual = PerceptualLoss(recipe.perceive) if recipe.perceive else None

    @classmethod
    def open(cls, recipe: EnhancementRecipe, data: Path, out: Path) -> EnhancementLesson:
        evaluation = _pairs(data / recipe.evaluate, "eval")
        sources = [
            PairSource(Photographs(data / source.path), source.share, False, source.exposure)
            if source.photographs
            else PairSource(list(_pairs(data / source.path, source.split)), source.share)  # in memory
            for source in recipe.sources
        ]
        return cls(recipe, PairMixture(sources), evaluation)

    def batch(self, step: int) -> tuple[torch.Tensor, ...]:
        """Images, what is to be made of them, and which images still have to be darkened: see `PairMixture.batch`."""
        stage = self.recipe.stage_at(step)
        dark, bright, undone = self.mixture.batch(
            step, self.recipe.seed, stage.batch, stage.size, self.recipe.augmentation
        )
        return (bright, dark, undone) if self.recipe.darkens else (dark, bright, undone)

    def sample(self, size: tuple[int, int]) -> torch.Tensor:
        dark, bright, _ = self.mixture.batch(0, self.recipe.seed, 32, size, self.recipe.augmentation)
        return bright if self.recipe.darkens else dark

    def loss(
        self, step: int, model: nn.Module, forward: Forward, images: torch.Tensor, *truth: torch.Tensor
    ) -> torch.Tensor:
        recipe, (targets, undone) = self.recipe, truth
        targets = to_unit(targets)
        if self.troublemaker and undone.any():
            images = images.clone()
            images[undone] = self.troublemaker(targets[undone])
        normalize = self.normalize.to(images.device)
        outputs = forward(images)
        wanted = normalize(targets)
        loss = torch.stack([F.smooth_l1_loss(output, wanted) for output in outputs]).sum()
        final = outputs[-1] * normalize.std + normalize.mean
        if recipe.ssim:
            loss = loss + recipe.ssim * ssim_loss(final, targets)
        if recipe.color:
            loss = loss + recipe.color * color_loss(final, targets)
        if self.perceptual:
            with self.autocast(images.device):
                loss = loss + recipe.perceptual * self.perceptual(final, targets)
        return loss

    def options(self) -> dict[str, Any]:
        width = {"width": self.recipe.width} if self.recipe.width else {}
        return width | ({"refines": False, "exposes": False} if self.recipe.darkens else {})

    @property
    def size(self) -> tuple[int, int]:
        return self.recipe.size

    def go_on(self, weights: str) -> nn.Module:
        begun = create_model(weights)
        theirs, own = _make(begun, model_config(weights).input_size), _make(self.build(), self.recipe.size)
        if theirs != own:
            raise ValueError(
                f"weights {weights!r} are of {theirs}, and the recipe's network is of {own}; change either"
            )
        return begun

    def measure(self, predict: Predict, config: ModelConfig) -> dict[str, float]:
        assert self.evaluation is not None
        frames: Iterator[PairFrame] = iter(tqdm(self.evaluation, desc="evaluate"))
        if self.recipe.darkens:
            frames = (PairFrame(frame.target, frame.rgb, name=frame.name) for frame in frames)
        return EnhancementAssessment().score(predict, config, self.evaluation, frames)


LESSON = EnhancementLesson


class Troublemaker:
    """A trained, frozen network that makes dark images of bright ones.

    Raises:
        ValueError: it has no weights, or is for images of another size.
    """

    def __init__(self, weights: str, size: tuple[int, int]) -> None:
        config = model_config(weights)
        if not config.weights:
            raise ValueError(f"troublemaker {weights!r} has no weights yet; run its recipe first")
        if config.input_size != size:
            raise ValueError(f"troublemaker {weights!r} is for images of {config.input_size}, and the recipe of {size}")
        self._normalize, self._network = Normalize(config), create_model(weights).requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Dark images of bright ones, (N, 3, H, W) in [0, 1], rounded to 8 bits as those of cameras are."""
        network, normalize = self._network.to(images.device), self._normalize.to(images.device)
        dark: torch.Tensor = (network(normalize(images)) * 255).round() / 255
        return dark


def _make(model: nn.Module, size: tuple[int, int]) -> str:
    """What sets networks apart, as a message tells it."""
    if not isinstance(model, Enhancer):
        return "another kind"
    parts = f"refines {model.enhance is not None}, exposes {model.expose is not None}"
    return f"size {size[0]}x{size[1]}, width {model.width}, {parts}"


def _pairs(path: Path, split: str) -> PairDataset:
    """A data set of pairs.

    Raises:
        ValueError: it is none.
    """
    dataset = open_dataset(path, split, task="enhancement")
    if not isinstance(dataset, PairDataset):
        raise ValueError(f"{path} has no pairs of dark and bright images; LOL or a folder like it is needed here")
    return dataset

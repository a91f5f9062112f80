"""What a task brings to the training loop. A task is one file, `training/TASK.py`, that holds a `LESSON`."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn

from perception.engines.acceptance import Predict
from perception.models import create_model, model_config
from perception.tasks.config import ModelConfig
from perception.training.recipe import Recipe

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)
Forward = Callable[[torch.Tensor], Any]
"""Images (N, 3, H, W) in [0, 1] to what the model returns, in float32."""


class Lesson(ABC, Generic[AnyRecipe]):
    """The frames, losses and closing measurement of one run."""

    recipe_class: ClassVar[type[Recipe]]
    """With the fields of this task beside those of every recipe."""
    workers: ClassVar[int] = 1
    """Threads that make batches."""
    forks: ClassVar[bool] = False
    """Whether forked processes may make them, as a GPU needs it: not where `batch` runs a network, whose threads a fork
    does not get."""

    def __init__(self, recipe: AnyRecipe) -> None:
        self.recipe = recipe

    @classmethod
    @abstractmethod
    def open(cls, recipe: Any, data: Path, out: Path) -> Lesson:
        """The lesson of a recipe whose paths are relative to `data`; what it computes once it keeps in `out`.

        Raises:
            ValueError: data that the recipe names and that do not fit; better refused now than after hours.
        """

    @abstractmethod
    def batch(self, step: int) -> tuple[torch.Tensor, ...]:
        """A pure function of seed and step: images uint8 (N, 3, H, W), and what is true of them."""

    @abstractmethod
    def sample(self, size: tuple[int, int]) -> torch.Tensor:
        """Some images uint8 (N, 3, *size) of the training set, for statistics."""

    @abstractmethod
    def loss(
        self, step: int, model: nn.Module, forward: Forward, images: torch.Tensor, *truth: torch.Tensor
    ) -> torch.Tensor:
        """The loss of a batch, all on one device; `forward` runs `model`."""

    def autocast(self, device: torch.device | str) -> torch.autocast:
        """The arithmetic of the run: bfloat16 on a GPU, and on a CPU that has it where a recipe asks for it."""
        kind = torch.device(device).type
        wanted = kind != "cpu" or (self.recipe.bfloat16 and cpu_has_bfloat16())
        return torch.autocast(kind, torch.bfloat16, enabled=wanted)

    @abstractmethod
    def measure(self, predict: Predict, config: ModelConfig) -> dict[str, float]:
        """Accuracy on the recipe's evaluation split."""

    def finish(self, model: nn.Module, predict: Predict) -> None:
        """Change the trained network, which `predict` runs, before it is written."""

    def options(self) -> dict[str, Any]:
        """What the model's builder is given beside its defaults; goes into the trained model's entry."""
        return {}

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the trained model's image where the recipe says so; None: as the model has it."""
        return None

    def config(self) -> ModelConfig:
        """The config of the trained model."""
        return model_config(self.recipe.model, self.size, **self.options())

    def entry(self, model: nn.Module) -> dict[str, Any]:
        """What the trained model's entry says beside weights, licence and metrics."""
        size = {"input_size": self.size} if self.size else {}
        return size | ({"options": self.options()} if self.options() else {})

    def narrow(self, model: nn.Module, out: Path) -> nn.Module:
        """The network that the stages train, of the one that the recipe starts from."""
        return model

    def teach(self, model: nn.Module) -> nn.Module:
        """What is trained and saved beside `model`, which it may watch from now on."""
        return nn.Module()

    def go_on(self, weights: str) -> nn.Module:
        """The trained network with which the recipe begins.

        Raises:
            ValueError: it does not fit the recipe.
        """
        return create_model(weights)

    def encoder(self, model: nn.Module) -> nn.Module:
        """The part of a network that can start from another's."""
        return model.encoder  # type: ignore[return-value]

    def build(self) -> nn.Module:
        """The network with random weights.

        Raises:
            ValueError: the recipe gives the network's builder what that does not take.
        """
        try:
            return create_model(self.recipe.model, False, self.size, **self.options())
        except TypeError as error:
            lacking = f"the recipe's network has a field that {self.recipe.model!r} lacks: {error}"
            raise ValueError(lacking) from error


def cpu_has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16; one without takes several times as long for it as for float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def find_lesson(model: str) -> type[Lesson]:
    """How models like `model` are trained.

    Raises:
        ValueError: an unknown model, or one whose task has no lesson.
    """
    task = model_config(model).task
    name = f"{__package__}.{task}"
    try:
        found: type[Lesson] = importlib.import_module(name).LESSON
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ValueError(
            f"{model!r} is for {task}, which cannot be trained yet: there is no training/{task}.py"
        ) from error
    return found

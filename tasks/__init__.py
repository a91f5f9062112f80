"""What node, harness and training share about a task: no torch, no ROS.

Every task is one module of this package (`depth`, ...) that satisfies the protocol `Task`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:  # so that a command can know a default without loading OpenCV
    import numpy as np

    from perception.tasks.config import ModelConfig
    from perception.tasks.geometry import Fit

    Outputs = Mapping[str, np.ndarray]


class Task(Protocol):
    """The functions that a module of `perception.tasks` must have to be a task."""

    PARITY_BOUNDS: Mapping[str, float]
    """Largest accepted `disagreement` for each precision ("fp32", "fp16", "bf16", "int8")."""
    ACCURACY_DROPS: Mapping[str, float]
    """Largest accepted loss of accuracy against the float32 definition for each precision."""

    def parse(self, outputs: Outputs, fit: Fit, config: ModelConfig) -> Any:
        """Turn the raw outputs of an engine into a result in coordinates of the original image."""

    def disagreement(self, reference: Outputs, candidate: Outputs, config: ModelConfig) -> float:
        """How far `candidate` is from `reference` in the task's own metric; 0 means equal."""


def typical(task: str, image: np.ndarray, number: int) -> np.ndarray:
    """Image `number` of the shipped clip, uint8 (height, width, 3), as the images are that a task is about.

    A task whose images are of another kind has a function `typical` for that.
    """
    change = getattr(get_task(task), "typical", None)
    return image if change is None else cast("np.ndarray", change(image, number))


def typical_inputs(config: ModelConfig, number: int) -> dict[str, np.ndarray]:
    """What goes into a model beside image `number`, by name, as it might be on a robot.

    A task whose models take more than an image has a function of this name for that.
    """
    return cast("dict[str, np.ndarray]", vars(get_task(config.task))["typical_inputs"](config, number))


def task_names() -> list[str]:
    """Names of the modules of this package that are tasks, sorted."""
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return sorted(module.__name__.rpartition(".")[2] for module in modules if hasattr(module, "PARITY_BOUNDS"))


def get_task(name: str) -> Task:
    """The task module called `name`.

    Raises:
        ValueError: no task has that name.
    """
    if name not in task_names():
        raise ValueError(f"unknown task {name!r}; available tasks: {', '.join(task_names())}")
    return cast(Task, importlib.import_module(f"{__name__}.{name}"))

"""Assessments whose rows say something together alone: metrics of classes count over all images, and are no means of
images. Their intervals come from draws of images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from perception.engines.acceptance import Predict
from perception.evaluation.assessment import AnyFrame, Result
from perception.evaluation.classes import ClassAssessment
from perception.evaluation.frames import Dataset
from perception.evaluation.results import Row, draw_images, half_width, measured_by_both
from perception.tasks.config import ModelConfig


class Together(ABC):
    """What the rows of one data set say together; broken ones are left out. `labels` are the data set's."""

    labels: tuple[str, ...]

    @abstractmethod
    def __init__(self, rows: Sequence[Row]) -> None: ...

    @abstractmethod
    def __len__(self) -> int:
        """How many images count."""

    @abstractmethod
    def metrics(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Float64 (B,) each; NaN where no image counts.

        Args:
            weights: how often each image counts, (B, images); None: all once, B is 1.
        """

    @property
    @abstractmethod
    def confusion(self) -> np.ndarray:
        """How often what was taken for what: see `confusion_matrix`."""

    @cached_property
    def drawn(self) -> dict[str, np.ndarray]:
        """Metrics of draws of as many images."""
        return self.metrics(draw_images(len(self)))

    @cached_property
    def values(self) -> dict[str, float]:
        """Metrics of all images."""
        return {name: float(values[0]) for name, values in self.metrics().items()}

    def told(self) -> dict[str, dict[str, float]]:
        """`metrics`; `ci95`: half the width of the middle 95 % of what draws of as many images give."""
        return {"metrics": self.values, "ci95": {name: half_width(values) for name, values in self.drawn.items()}}


class TogetherAssessment(ClassAssessment[AnyFrame, Result]):
    """An assessment whose rows are summed up by `together`; of its metrics `compared` are told against a reference."""

    together: ClassVar[type[Together]]
    compared: ClassVar[tuple[str, ...]]

    def difference(self, rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """Of the metrics `compared`. Both are of the same draws of images, so that small differences show."""
        mine, other = map(self.together, measured_by_both(rows, reference))
        found = {}
        for name in self.compared:
            found[name] = mine.values[name] - other.values[name]
            found[f"{name}_ci95"] = half_width(mine.drawn[name] - other.drawn[name])
        return found

    def score(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any], frames: Iterable[AnyFrame]
    ) -> dict[str, float]:
        """`metrics` as in `summary`, and `frames`."""
        together = self.together(self.rows(predict, config, dataset, frames))
        return together.values | {"frames": float(len(together))}

    def plot(self, rows: Sequence[Row], path: Path) -> dict[str, str]:
        """Which class is taken for which."""
        try:
            from perception.evaluation.confusion_plot import draw_confusion
        except ImportError:
            return {}
        name, together = f"{path.name}-confusion.png", self.together(rows)
        draw_confusion(together.confusion, together.labels, path.with_name(name))
        return {name: "Which class is taken for which"}

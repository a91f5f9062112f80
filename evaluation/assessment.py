"""What a task brings to evaluation. A task is one file, `evaluation/TASK.py`, that holds an `ASSESSMENT`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np

from perception.engines.acceptance import Predict
from perception.evaluation.frames import Dataset, Frame
from perception.evaluation.results import Row
from perception.tasks import task_names
from perception.tasks.config import ModelConfig

AnyFrame = TypeVar("AnyFrame", bound=Frame)
Result = TypeVar("Result")
Estimate = Callable[[AnyFrame], tuple[Result, float]]
"""A frame to a result in its pixels, and the milliseconds of inference (NaN where nothing is inferred)."""
Progress = Callable[[Sequence[int]], Iterable[int]]


@dataclass(frozen=True)
class Sample(Generic[AnyFrame, Result]):
    """A frame, and what was made of it."""

    frame: AnyFrame
    result: Result


class Floor(NamedTuple):
    """What one gets on a data set without looking at an image; `key` names all that it follows from."""

    name: str
    key: str
    estimate: Estimate
    assessment: Assessment


class Assessment(ABC, Generic[AnyFrame, Result]):
    """How results of a task are held against the truth, and how that is told.

    What tells (the static methods) works on plain data: rows, and summaries of them.
    """

    title: ClassVar[str]
    """Of the report: "TITLE on DATA"."""
    metric: ClassVar[str]
    """Of `score`; larger is better."""
    judge_data: ClassVar[str | None] = None
    """The data set that a build of engines measures on where none is named; None: there is none."""
    others: ClassVar[tuple[str, ...]] = ()
    """Tasks beside this one whose models can be measured, by what `inference` makes of what they say."""
    columns: ClassVar[tuple[str, ...]]
    """Titles of `cells`."""
    legend: ClassVar[str]
    """What the pictures of a sheet show."""

    @staticmethod
    def add_arguments(parser: argparse._ArgumentGroup) -> None:
        """Add the options of `perception eval` that are this task's own."""

    @classmethod
    @abstractmethod
    def from_arguments(cls, args: argparse.Namespace) -> Assessment:
        """The assessment that these options ask for.

        Raises:
            ValueError: an option that is not possible.
        """

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """All that rows follow from beside engine and data, as plain data."""

    @abstractmethod
    def inference(self, predict: Predict, config: ModelConfig, dataset: Dataset[Any]) -> Callable[[AnyFrame], Result]:
        """What a node with this engine makes of a frame.

        Raises:
            ValueError: the model says nothing of what this data set knows.
        """

    def frame(self, rgb: np.ndarray, name: str, result: Result | None = None) -> AnyFrame:
        """A frame of this image of which a result is taken for true; None: of which nothing is known.

        Raises:
            ValueError: results of this task are no truth.
        """
        raise ValueError(f"{self.title.lower()} has no truth in what a model finds; name data whose truth is known")

    def remarks(self, config: ModelConfig, dataset: Dataset[Any]) -> list[str]:
        """What a reader has to know of a model on this data set."""
        return []

    @abstractmethod
    def measure(
        self,
        sample: Sample[AnyFrame, Result],
        before: Sample[AnyFrame, Result] | None,
        dataset: Dataset[Any],
        infer: Callable[[AnyFrame], Result],
    ) -> Row:
        """What is kept of a sample, as plain data.

        Args:
            before: the sample before it, None where that is broken or there is none.
            infer: to look at a changed frame.

        Raises:
            ValueError: the truth is missing or does not fit.
        """

    def rows(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any], frames: Iterable[AnyFrame]
    ) -> list[Row]:
        """What `measure` says of each of some frames by itself.

        Raises:
            ValueError: no frame, or one without truth.
        """
        infer = self.inference(predict, config, dataset)
        rows = [self.measure(Sample(frame, infer(frame)), None, dataset, infer) for frame in frames]
        if not rows:
            raise ValueError("the data set is empty; nothing to evaluate")
        return rows

    def summarise(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What the rows of a data set say together.

        Returns:
            What `summary` returns; `failed`: name and error of each broken sample, which are in no figure;
            `latency_ms`: of single inferences.
        """
        good = [row for row in rows if "error" not in row]
        failed = [{"name": row["name"], "error": row["error"]} for row in rows if "error" in row]
        summary: dict[str, Any] = {"samples": len(rows), "failed": failed} | self.summary(rows)
        times = [row["milliseconds"] for row in good if math.isfinite(row["milliseconds"])]
        if times:
            summary["latency_ms"] = {f"p{q}": float(np.percentile(times, q)) for q in (50, 99)}
        return summary

    @abstractmethod
    def summary(self, rows: Sequence[Row]) -> dict[str, Any]:
        """`metrics`, and `ci95`: half a 95 % interval of each; and more that `sections` tells."""

    @abstractmethod
    def difference(self, rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """Metrics minus those of the reference on the samples that both have, `..._ci95` half its 95 % interval."""

    @abstractmethod
    def score(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any], frames: Iterable[AnyFrame]
    ) -> dict[str, float]:
        """Metrics of a model on some frames of a data set, among them `metric`; NaN where nothing was predicted.

        Raises:
            ValueError: no frame, or one without truth.
        """

    def floor(self, dataset: Dataset[Any], folder: Path, progress: Progress) -> Floor | None:
        """The floor of a data set, None where it has none.

        Raises:
            ValueError: it cannot be computed.
        """
        return None

    def plot(self, rows: Sequence[Row], path: Path) -> dict[str, str]:
        """Write pictures of all rows whose names begin as `path`; the name of each with a caption."""
        return {}

    @staticmethod
    @abstractmethod
    def conditions(options: Mapping[str, Any], sequence: bool) -> str:
        """What counts by these options, and how the intervals come about."""

    @staticmethod
    @abstractmethod
    def cells(summary: Mapping[str, Any]) -> tuple[str, ...]:
        """The figures of the README's table."""

    @staticmethod
    @abstractmethod
    def sections(entries: Sequence[Mapping[str, Any]], sequence: bool) -> list[str]:
        """The report's own tables, in Markdown."""

    @staticmethod
    @abstractmethod
    def rank(row: Row) -> tuple[float, ...]:
        """Smaller is better: so are samples ranked for a sheet."""

    @staticmethod
    @abstractmethod
    def caption(row: Row) -> str:
        """The figures of a sample, in a line."""

    @abstractmethod
    def pictures(self, sample: Sample[AnyFrame, Result], dataset: Dataset[Any]) -> list[np.ndarray]:
        """Up to four pictures of a sample, BGR uint8, of the image's aspect."""


def find_assessment(task: str) -> type[Assessment]:
    """How models of a task are evaluated.

    Raises:
        ValueError: they cannot be yet.
    """
    name = f"{__package__}.{task}"
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"models for {task} cannot be evaluated yet: there is no evaluation/{task}.py")
    found: type[Assessment] = importlib.import_module(name).ASSESSMENT
    return found


def all_assessments() -> dict[str, type[Assessment]]:
    """Those of all tasks that have one."""
    names = [name for name in task_names() if importlib.util.find_spec(f"{__package__}.{name}")]
    return {name: find_assessment(name) for name in names}

"""Classes of a model and of a data set: which are the same, which count, and what a reader is told of the others."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.evaluation.assessment import AnyFrame, Assessment, Result
from perception.evaluation.frames import Dataset
from perception.evaluation.tables import entry_name, figure, percent, table
from perception.tasks.config import ModelConfig
from perception.tasks.labels import UNUSED, chosen

NAMED = 12
"""Classes that a remark names at most."""
BANDS = (0.5, 0.7, 0.9, 0.97)
"""Confidences between which answers are told apart."""


class Shared:
    """The classes of a model and of a data set, which are the same where they have the same name; where the model knows
    all the `parts` that the data set's classes have, they are those that its classes are parts of.

    `places` is int64 (model's classes,), the place of each in the data set's labels, -1 where it has none. Of the data
    set's classes only those `of_interest`, bool (labels,), count.
    """

    def __init__(
        self,
        model: Sequence[str],
        data: Sequence[str],
        of_interest: np.ndarray | None = None,
        parts: Mapping[str, str] | None = None,
    ) -> None:
        if parts and parts.keys() <= set(model):
            model = [parts.get(name, name) for name in model]
        wanted = np.ones(len(data), bool) if of_interest is None else of_interest
        numbers = {name: place for place, name in enumerate(data) if wanted[place]}
        self.places = np.array([numbers.get(name, -1) if name != UNUSED else -1 for name in model], np.int64)
        self.known = np.isin(np.arange(len(data)), self.places)
        self.strangers = [name for name in model if name not in data and name != UNUSED]
        self.missing = [name for name, sought in zip(data, wanted & ~self.known, strict=True) if sought]


@dataclass(frozen=True)
class ClassAssessment(Assessment[AnyFrame, Result]):
    """An assessment of what has classes. What the model does not know is missed, unless only `shared_classes` count."""

    shared_classes: bool = False
    classes: str = ""
    """Names of the only classes that count, separated by commas; empty: all."""

    def shared(self, config: ModelConfig, dataset: Dataset[Any]) -> Shared:
        """The classes of both.

        Raises:
            ValueError: they have none in common.
        """
        shared = self._shared(config, dataset)
        if not shared.known.any():
            raise ValueError(
                f"{config.name} and {dataset.name} have no class in common; the model knows "
                f"{some_of(shared.strangers)}, the data set {some_of(shared.missing)}"
            )
        return shared

    def _shared(self, config: ModelConfig, dataset: Dataset[Any]) -> Shared:
        labels = labels_of(dataset)
        return Shared(config.labels, labels, chosen(self.classes, labels), parts_of(dataset))

    def counted(self, known: np.ndarray, dataset: Dataset[Any]) -> np.ndarray:
        """Which of the data set's classes count, bool (labels,).

        Args:
            known: which ones the model knows.
        """
        of_interest = chosen(self.classes, labels_of(dataset))
        counted = np.ones(len(known), bool) if of_interest is None else of_interest
        return counted & known if self.shared_classes else counted

    def remarks(self, config: ModelConfig, dataset: Dataset[Any]) -> list[str]:
        """The classes that only one side has."""
        shared = self._shared(config, dataset)
        remarks = []
        if shared.missing:
            fate = "left out" if self.shared_classes else "counted as missed (--shared-classes leaves them out)"
            remarks.append(f"classes that the model does not know, {fate}: {some_of(shared.missing)}")
        if shared.strangers:
            remarks.append(f"classes that the data set does not have, not looked for: {some_of(shared.strangers)}")
        return remarks


def add_class_arguments(parser: argparse._ArgumentGroup) -> None:
    """Add the options that all tasks with classes have."""
    parser.add_argument(
        "--shared-classes", action="store_true", help="classes that the model does not know are not missed"
    )
    parser.add_argument("--classes", default="", help="the only classes that count, separated by commas (default: all)")


def which_classes(options: Mapping[str, Any]) -> str:
    """The classes that count by the options of a `ClassAssessment`, in words."""
    which = "that the model knows" if options["shared_classes"] else "of the data set"
    return f"the classes {which}" + (f", of these only {options['classes']}" if options["classes"] else "")


def classes_section(entries: Sequence[Mapping[str, Any]], counted: str, figures: Sequence[str]) -> str:
    """Figures of each class, the engines side by side.

    Args:
        entries: with `classes` in their summaries: by name, what is `counted` of it, and its figures.
    """
    counts = {name: values[counted] for entry in entries for name, values in entry["summary"]["classes"].items()}
    lines = []
    for name, count in counts.items():
        found = [entry["summary"]["classes"].get(name, {}) for entry in entries]
        cells = (", ".join(figure(one[key]) for key in figures) if one else "-" for one in found)
        lines.append((name, f"{count:.0f}", *cells))
    head = ("class", counted, *map(entry_name, entries))
    return f"## By class: {', '.join(figures)}\n\n" + table(head, lines)


def labels_of(dataset: Dataset[Any]) -> tuple[str, ...]:
    """Of a data set that has classes."""
    labels: tuple[str, ...] = dataset.labels  # type: ignore[attr-defined]
    return labels


def parts_of(dataset: Dataset[Any]) -> Mapping[str, str]:
    """The finer classes that a data set's are made of, where it says so: see `Coding`."""
    parts: Mapping[str, str] = getattr(dataset, "parts", {})
    return parts


def some_of(names: Sequence[str]) -> str:
    """Names as a remark tells them, the first `NAMED`."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (", ".join(names[:NAMED]) or "none") + more


def count_bands(confidence: np.ndarray, right: np.ndarray, full: float = 1.0) -> np.ndarray:
    """How many answers each band of confidence has, and how many of them are right: int64 (2, bands).

    Args:
        confidence: (N,), `full` where an answer is quite sure.
        right: bool (N,).
    """
    band = np.searchsorted(full * np.array(BANDS), confidence, side="right")
    return np.stack([np.bincount(some, minlength=len(BANDS) + 1) for some in (band, band[right])])


def band_names() -> list[str]:
    """E.g. "50 to 70 %"."""
    edges = [f"{100 * edge:g}" for edge in (0, *BANDS, 1)]
    return [f"{low} to {high} %" for low, high in zip(edges, edges[1:], strict=False)]


def told_bands(counts: np.ndarray, answers: str) -> dict[str, dict[str, float]]:
    """Of each band that has any, its share of all `answers`, such as "pixels", and the share of these that is right.

    Args:
        counts: of `count_bands`, summed.
    """
    whole, right = counts
    return {
        name: {answers: float(whole[place] / whole.sum()), "right": float(right[place] / whole[place])}
        for place, name in enumerate(band_names())
        if whole[place]
    }


def bands_section(entries: Sequence[Mapping[str, Any]], answers: str) -> str:
    """What confidences are worth, the engines side by side.

    Args:
        entries: with `bands` in their summaries, see `told_bands`.
    """
    lines = []
    for name in band_names():
        found = [entry["summary"]["bands"].get(name) for entry in entries]
        cells = (f"{percent(band[answers])}, {percent(band['right'])}" if band else "-" for band in found)
        lines.append((name, *cells))
    head = ("confidence", *map(entry_name, entries))
    return f"## By confidence: share of {answers}, of these right\n\n" + table(head, lines)

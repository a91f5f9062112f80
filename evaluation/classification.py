"""Classes that were told against the true ones: top-1 and top-5, each class, and what confidences are worth."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from perception.engines.acceptance import Predict
from perception.evaluation.assessment import Sample
from perception.evaluation.classes import (
    Shared,
    bands_section,
    classes_section,
    count_bands,
    labels_of,
    parts_of,
    told_bands,
    which_classes,
)
from perception.evaluation.frames import ClassFrame, Dataset, Frame
from perception.evaluation.results import DRAWS_TOLD, Row
from perception.evaluation.sheet import WIDTH
from perception.evaluation.tables import apart, entry_name, figure, interval, table
from perception.evaluation.together import Together, TogetherAssessment
from perception.tasks import classification as classification_task
from perception.tasks.classification import Classification
from perception.tasks.config import ModelConfig
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess
from perception.tasks.segmentation_metrics import confusion_matrix

TOP = 5
RIGHT, OTHER, TEXT = (90, 170, 60), (150, 150, 150), (255, 255, 255)
"""Colours, BGR."""


@dataclass(frozen=True)
class Prediction:
    """`scores`, float32 (labels,), are chances of the data set's classes; `known`, bool (labels,), tells which of them
    the model knows."""

    scores: np.ndarray
    known: np.ndarray


def predict_class(predict: Predict, config: ModelConfig, frame: Frame) -> Classification:
    """What one frame shows, by the same steps as a node takes."""
    image = Image(frame.rgb, "rgb8")
    fit = Fit.of(image.size, config)
    return classification_task.parse(predict(preprocess(image, config, fit)), fit, config)


class Answers(Together):
    """What rows say together. Broken ones are left out, and images that do not count.

    `truth` is int64 (images,); `right` bool (2, images), whether the likeliest class is the true one, and whether one
    of the five likeliest is; `confidence` float64 (images,), the chance of the likeliest.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        good = [row for row in rows if "error" not in row]
        self.labels: tuple[str, ...] = tuple(good[0]["labels"]) if good else ()
        counted = [row for row in good if row["counts"]]
        self.truth = np.array([row["truth"] for row in counted], np.int64)
        self.found = np.array([row["found"][0] for row in counted], np.int64)
        near = [row["truth"] in row["found"] for row in counted]
        self.right = np.array([self.found == self.truth, near], bool)
        self.confidence = np.array([row["chances"][0] for row in counted])

    def __len__(self) -> int:
        return len(self.truth)

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`top1`, `top5`, `mean_accuracy` over classes; see `Together`."""
        weights = np.ones((1, len(self))) if weights is None else weights
        of_class = self.truth[:, None] == np.arange(len(self.labels))
        with np.errstate(invalid="ignore", divide="ignore"):
            top1, top5 = (weights @ right / weights.sum(axis=1) for right in self.right)
            shares = (weights * self.right[0]) @ of_class / (weights @ of_class)
        there = np.isfinite(shares)
        sums = np.where(there, shares, 0).sum(axis=1)
        means = np.divide(sums, there.sum(axis=1), out=np.full(len(sums), np.nan), where=there.any(axis=1))
        return {"top1": top1, "top5": top5, "mean_accuracy": means}

    @property
    def confusion(self) -> np.ndarray:
        """See `confusion_matrix`."""
        return confusion_matrix(self.truth, self.found, len(self.labels))

    def by_class(self) -> dict[str, dict[str, float]]:
        """`images`, `accuracy` and `precision` of every class that has images; NaN where nothing was taken for it."""
        confusion = self.confusion
        images, taken, right = confusion.sum(axis=1), confusion.sum(axis=0), np.diagonal(confusion)
        return {
            name: {
                "images": float(images[place]),
                "accuracy": float(right[place] / images[place]),
                "precision": float(right[place] / taken[place]) if taken[place] else math.nan,
            }
            for place, name in enumerate(self.labels)
            if images[place]
        }


@dataclass(frozen=True)
class ClassificationAssessment(TogetherAssessment[ClassFrame, Prediction]):
    """Of the model's classes only those count that the data set has."""

    title: ClassVar[str] = "Classification"
    metric: ClassVar[str] = "top1"
    together: ClassVar[type[Answers]] = Answers
    compared: ClassVar[tuple[str, ...]] = ("top1", "top5")
    columns: ClassVar[tuple[str, ...]] = ("top-1", "top-5", "mean of classes")
    legend: ClassVar[str] = "image, and the likeliest classes with their chances (green: the true one)"

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> ClassificationAssessment:
        """See `Assessment`."""
        return cls(args.shared_classes, args.classes)

    def options(self) -> dict[str, Any]:
        """See `Assessment`."""
        return asdict(self)

    def inference(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any]
    ) -> Callable[[ClassFrame], Prediction]:
        """See `Assessment`."""
        self.shared(config, dataset)  # has to be something
        shared = Shared(config.labels, labels_of(dataset), parts=parts_of(dataset))  # errors are of all classes
        there = shared.places >= 0

        def infer(frame: ClassFrame) -> Prediction:
            scores = np.zeros(len(shared.known), np.float32)
            np.add.at(scores, shared.places[there], predict_class(predict, config, frame).scores[there])
            return Prediction(scores, shared.known)

        return infer

    def frame(self, rgb: np.ndarray, name: str, result: Prediction | None = None) -> ClassFrame:
        """See `Assessment`."""
        return ClassFrame(rgb, -1 if result is None else int(result.scores.argmax()), name=name)

    def measure(
        self,
        sample: Sample[ClassFrame, Prediction],
        before: Sample[ClassFrame, Prediction] | None,
        dataset: Dataset[Any],
        infer: Callable[[ClassFrame], Prediction],
    ) -> Row:
        """`labels` of the data set; `truth`, the place of the image's; whether it `counts`; `found`, the places of the
        likeliest, best first; `chances` of these; `own`, that of the true one."""
        truth, scores, known = sample.frame.label, sample.result.scores, sample.result.known
        best = np.argsort(-scores, kind="stable")
        found = best[known[best]][:TOP]
        return {
            "labels": list(labels_of(dataset)),
            "truth": truth,
            "counts": bool(truth >= 0 and self.counted(known, dataset)[truth]),
            "found": found.tolist(),
            "chances": [round(float(scores[place]), 6) for place in found],
            "own": round(float(scores[truth]), 6) if truth >= 0 else math.nan,
        }

    def summary(self, rows: Sequence[Row]) -> dict[str, Any]:
        """See `Answers.told`; `classes`: of each its images, the share of them that is right, and the share of what was
        taken for it that is; `bands`: the share of the images that each band of confidence has, and of these the share
        that is right.
        """
        answers = Answers(rows)
        return answers.told() | {
            "classes": answers.by_class(),
            "bands": told_bands(count_bands(answers.confidence, answers.right[0]), "images"),
        }

    @staticmethod
    def conditions(options: Mapping[str, Any], sequence: bool) -> str:
        """See `Assessment`."""
        return (
            f"images of {which_classes(options)}; of what the model knows, classes that the data set does not have are "
            "no answer. top-1: the share of images of which the likeliest class is the true one; top-5: of which it is "
            "among the five likeliest; mean of classes: top-1 class by class, then the mean. " + DRAWS_TOLD
        )

    @staticmethod
    def cells(summary: Mapping[str, Any]) -> tuple[str, ...]:
        """See `columns`."""
        return tuple(interval(summary, name) for name in ("top1", "top5", "mean_accuracy"))

    @staticmethod
    def sections(entries: Sequence[Mapping[str, Any]], sequence: bool) -> list[str]:
        """See `Assessment`."""
        names = ClassificationAssessment.compared
        head = ("engine", "Δ top-1 to fp32", "Δ top-5 to fp32")
        lines = [(entry_name(entry), *(apart(entry["difference"], name) for name in names)) for entry in entries]
        by_class = classes_section(entries, "images", ("accuracy", "precision"))
        return ["## Accuracy\n\n" + table(head, lines), by_class, bands_section(entries, "images")]

    @staticmethod
    def rank(row: Row) -> tuple[float, ...]:
        """By the chance of the true class; what is of none comes last."""
        return (math.inf,) if math.isnan(row["own"]) else (-row["own"],)

    @staticmethod
    def caption(row: Row) -> str:
        """See `Assessment`."""
        truth = row["labels"][row["truth"]] if row["truth"] >= 0 else "unknown"
        found = row["labels"][row["found"][0]]
        return f"truth {truth} ({figure(row['own'])})  found {found} ({figure(row['chances'][0])})"

    def pictures(self, sample: Sample[ClassFrame, Prediction], dataset: Dataset[Any]) -> list[np.ndarray]:
        """See `legend`."""
        row = self.measure(sample, None, dataset, lambda _: sample.result)
        height, width = sample.frame.rgb.shape[:2]
        bars = np.zeros((round(WIDTH * height / width), WIDTH, 3), np.uint8)
        step = bars.shape[0] // (TOP + 1)
        for number, (place, chance) in enumerate(zip(row["found"], row["chances"], strict=True)):
            top = step // 2 + number * step
            color = RIGHT if place == row["truth"] else OTHER
            cv2.rectangle(bars, (0, top + 2), (round(chance * (WIDTH - 1)), top + step - 2), color, cv2.FILLED)
            text = f"{row['labels'][place]} {chance:.2f}"
            size = max(0.3, min(0.6, step / 50))
            cv2.putText(bars, text, (8, top + 2 * step // 3), cv2.FONT_HERSHEY_SIMPLEX, size, TEXT, 1, cv2.LINE_AA)
        return [np.ascontiguousarray(sample.frame.rgb[..., ::-1]), bars]


ASSESSMENT = ClassificationAssessment

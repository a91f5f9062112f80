"""Masks against true masks: intersection over union, contours, what confidences are worth, and how it is told."""

from __future__ import annotations

import argparse
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
    some_of,
    told_bands,
    which_classes,
)
from perception.evaluation.frames import Dataset, MaskFrame
from perception.evaluation.results import DRAWS_TOLD, Row, mean
from perception.evaluation.tables import apart, entry_name, figure, interval, percent, table
from perception.evaluation.together import Together, TogetherAssessment
from perception.tasks import segmentation as segmentation_task
from perception.tasks.colors import palette
from perception.tasks.config import ModelConfig
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess
from perception.tasks.labels import UNLABELED
from perception.tasks.segmentation import Segmentation, colorize
from perception.tasks.segmentation_metrics import TOLERANCE, boundary_scores, class_ious, confusion_matrix, metrics

WRONG, UNKNOWN = (60, 60, 230), (96, 96, 96)
"""Colours, BGR."""


@dataclass(frozen=True)
class Prediction:
    """A mask of places in the data set's labels; `known` is bool (labels,): which ones the model knows."""

    segmentation: Segmentation
    known: np.ndarray


def predict_mask(
    predict: Predict, config: ModelConfig, frame: MaskFrame, classes: np.ndarray | None = None
) -> Segmentation:
    """The mask of one frame, by the same steps as the node takes; `classes` is as in `segmentation.parse`."""
    image = Image(frame.rgb, "rgb8")
    fit = Fit.of(image.size, config)
    return segmentation_task.parse(predict(preprocess(image, config, fit)), fit, config, classes)


class Counts(Together):
    """What rows say together.

    `metrics` are those of `segmentation_metrics`, of the pixels of all images, and `boundary`: the mean over images of
    the mean boundary F-score of the classes in each.

    Args:
        rows: of one data set; broken ones are left out.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = [row for row in rows if "error" not in row]
        self.labels: tuple[str, ...] = tuple(self.rows[0]["labels"]) if self.rows else ()
        self.counted = np.isin(np.arange(len(self.labels)), self.rows[0]["counted"] if self.rows else [])
        self.confusions = np.zeros((len(self.rows), len(self.labels), len(self.labels) + 1))
        """Of each image."""
        for confusion, row in zip(self.confusions, self.rows, strict=True):
            for truth, found, pixels in row["confusion"]:
                confusion[truth, found] = pixels
        self._contours = np.array([mean(list(row["boundary"].values())) for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def confusion(self) -> np.ndarray:
        """Of all images."""
        return np.asarray(self.confusions.sum(axis=0))

    @property
    def bands(self) -> np.ndarray:
        """Pixels of each band of confidence, and those that are right: int64 (2, bands)."""
        return np.sum([row["bands"] for row in self.rows], axis=0)

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """See `Together`."""
        weights = np.ones((1, len(self))) if weights is None else weights
        known = np.isfinite(self._contours)
        with np.errstate(invalid="ignore"):  # a draw without any contour
            contours = weights @ np.where(known, self._contours, 0) / (weights @ known)
        return metrics(np.tensordot(weights, self.confusions, 1), self.counted) | {"boundary": contours}

    def by_class(self) -> dict[str, dict[str, float]]:
        """`pixels`, `IoU` and `boundary F` of every class that counts and has pixels."""
        total = self.confusion
        return {
            name: {
                "pixels": float(total[place].sum()),
                "IoU": float(iou),
                "boundary F": mean([row["boundary"][name] for row in self.rows if name in row["boundary"]]),
            }
            for place, (name, iou) in enumerate(zip(self.labels, class_ious(total), strict=True))
            if self.counted[place] and np.isfinite(iou)
        }


@dataclass(frozen=True)
class SegmentationAssessment(TogetherAssessment[MaskFrame, Prediction]):
    """How close to a contour is near."""

    tolerance: float = TOLERANCE
    """A share of the image's diagonal; see `boundary_scores`."""

    title: ClassVar[str] = "Segmentation"
    metric: ClassVar[str] = "mIoU"
    together: ClassVar[type[Counts]] = Counts
    compared: ClassVar[tuple[str, ...]] = ("mIoU", "accuracy", "boundary")
    columns: ClassVar[tuple[str, ...]] = ("mIoU", "pixel accuracy", "boundary F")
    legend: ClassVar[str] = "image, truth, prediction, wrong pixels red (grey: no truth)"

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ValueError(
                f"tolerance {self.tolerance} is not possible; it is a share of the diagonal, such as 0.0075"
            )

    @staticmethod
    def add_arguments(parser: argparse._ArgumentGroup) -> None:
        """See `Assessment`."""
        parser.add_argument(
            "--tolerance",
            type=float,
            default=TOLERANCE,
            help="how far contours may be off, as a share of the image's diagonal (default: %(default)s)",
        )

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> SegmentationAssessment:
        """See `Assessment`."""
        return cls(args.shared_classes, args.classes, args.tolerance)

    def options(self) -> dict[str, Any]:
        """See `Assessment`."""
        return asdict(self)

    def inference(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any]
    ) -> Callable[[MaskFrame], Prediction]:
        """See `Assessment`. What the data set does not have is predicted all the same, and counts as no class."""
        self.shared(config, dataset)  # has to be something
        shared = Shared(config.labels, labels_of(dataset), parts=parts_of(dataset))  # errors are of all classes
        places = np.full(256, UNLABELED, np.uint8)
        places[: len(shared.places)] = np.where(shared.places < 0, UNLABELED, shared.places)

        def infer(frame: MaskFrame) -> Prediction:
            found = predict_mask(predict, config, frame)
            return Prediction(Segmentation(cv2.LUT(found.mask, places), found.confidence), shared.known)

        return infer

    def frame(self, rgb: np.ndarray, name: str, result: Prediction | None = None) -> MaskFrame:
        """See `Assessment`."""
        mask = np.full(rgb.shape[:2], UNLABELED, np.uint8) if result is None else result.segmentation.mask
        return MaskFrame(rgb, mask, name=name)

    def measure(
        self,
        sample: Sample[MaskFrame, Prediction],
        before: Sample[MaskFrame, Prediction] | None,
        dataset: Dataset[Any],
        infer: Callable[[MaskFrame], Prediction],
    ) -> Row:
        """`labels` of the data set, and `counted`: the places of those that count; `confusion`: how many pixels of
        which label were given to which, as triples that name them by their places, the one after the last for none;
        `boundary`: the boundary F-score of each class that is there and counts; `bands`: how many pixels of such each
        band of confidence has, and how many of them are right; `scores` of the image.
        """
        labels, found, truth = labels_of(dataset), sample.result.segmentation, self._truth(sample)
        counted = self.counted(sample.result.known, dataset)
        confusion = confusion_matrix(truth, found.mask, len(labels))
        contours = boundary_scores(truth, found.mask, len(labels), self.tolerance)
        known = _marks(truth, counted)
        right = (truth == found.mask)[known]
        return {
            "labels": list(labels),
            "counted": np.flatnonzero(counted).tolist(),
            "confusion": [[*map(int, place), int(confusion[tuple(place)])] for place in np.argwhere(confusion)],
            "boundary": {
                labels[place]: round(float(contours[place]), 6) for place in np.flatnonzero(counted & (contours >= 0))
            },
            "bands": count_bands(found.confidence[known], right, full=255).tolist(),
            "scores": {name: float(metrics(confusion, counted)[name]) for name in ("mIoU", "accuracy")},
        }

    def _truth(self, sample: Sample[MaskFrame, Prediction]) -> np.ndarray:
        """The frame's mask; with `shared_classes`, without the classes that the model does not know."""
        if not self.shared_classes:
            return sample.frame.mask
        known = sample.result.known
        places = np.full(256, UNLABELED, np.uint8)
        places[: len(known)][known] = np.flatnonzero(known)
        return np.asarray(cv2.LUT(sample.frame.mask, places))

    def summary(self, rows: Sequence[Row]) -> dict[str, Any]:
        """See `Counts.told`; `classes`: of each its pixels, its IoU, and its boundary F-score as a mean over images;
        `absent`: names of those that count and have no pixel; `bands`: the share of the pixels that each band of
        confidence has, and of these the share that is right.
        """
        counts = Counts(rows)
        classes = counts.by_class()
        return counts.told() | {
            "classes": classes,
            "absent": [
                name
                for name, counted in zip(counts.labels, counts.counted, strict=True)
                if counted and name not in classes
            ],
            "bands": told_bands(counts.bands, "pixels"),
        }

    @staticmethod
    def conditions(options: Mapping[str, Any], sequence: bool) -> str:
        """See `Assessment`."""
        return (
            f"{which_classes(options)}; pixels without one do not count, but what is wrongly taken for one that counts "
            "does. mIoU: of the pixels of all images together, the mean over the classes that the truth has: "
            "those that it lacks are left out, where other reports may count them as 0; accuracy: of the pixels of "
            "classes that count, those that are right; boundary F: contours may be off by "
            f"{percent(options['tolerance'])} of the diagonal (Csurka et al., BMVC 2013), the mean over images of the "
            "mean over the classes of each. " + DRAWS_TOLD
        )

    @staticmethod
    def cells(summary: Mapping[str, Any]) -> tuple[str, ...]:
        """See `columns`."""
        return tuple(interval(summary, name) for name in SegmentationAssessment.compared)

    @staticmethod
    def sections(entries: Sequence[Mapping[str, Any]], sequence: bool) -> list[str]:
        """See `Assessment`."""
        names = SegmentationAssessment.compared
        head = ("engine", "mean accuracy of classes", *(f"Δ {name} to fp32" for name in names))
        lines = [
            (
                entry_name(entry),
                figure(entry["summary"]["metrics"]["mean_accuracy"]),
                *(apart(entry["difference"], name) for name in names),
            )
            for entry in entries
        ]
        accuracy = "## Accuracy\n\n" + table(head, lines)
        by_class = classes_section(entries, "pixels", ("IoU", "boundary F"))
        if absent := entries[0]["summary"]["absent"]:
            by_class += f"\n\nClasses of the data set that no image shows: {some_of(absent)}."
        return [accuracy, by_class, bands_section(entries, "pixels")]

    @staticmethod
    def rank(row: Row) -> tuple[float, ...]:
        """By mIoU, then accuracy; what has no class at all comes last."""
        return tuple(-value if np.isfinite(value) else 0.0 for value in row["scores"].values())

    @staticmethod
    def caption(row: Row) -> str:
        """See `Assessment`."""
        return "  ".join(f"{name} {figure(value)}" for name, value in row["scores"].items())

    def pictures(self, sample: Sample[MaskFrame, Prediction], dataset: Dataset[Any]) -> list[np.ndarray]:
        """See `legend`."""
        image, found = np.ascontiguousarray(sample.frame.rgb[..., ::-1]), sample.result.segmentation.mask
        truth, colors = self._truth(sample), palette(len(labels_of(dataset)))
        counted = self.counted(sample.result.known, dataset)
        verdict = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        verdict[(truth != found) & (_marks(truth, counted) | _marks(found, counted))] = WRONG
        verdict[truth == UNLABELED] = UNKNOWN
        return [image, colorize(truth, colors), colorize(found, colors), verdict]


ASSESSMENT = SegmentationAssessment


def _marks(mask: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Which pixels are of a class that counts, bool of the mask's shape."""
    table = np.zeros(256, bool)
    table[: len(counted)] = counted
    return table[mask]

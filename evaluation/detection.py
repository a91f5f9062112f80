"""Detections against true boxes: average precision, and how it is told."""

from __future__ import annotations

import argparse
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from perception.engines.acceptance import Predict
from perception.evaluation.assessment import Sample
from perception.evaluation.box_verdicts import Verdicts, draw, shown
from perception.evaluation.boxes import no_boxes
from perception.evaluation.classes import ClassAssessment, classes_section, labels_of, which_classes
from perception.evaluation.frames import BoxFrame, Dataset
from perception.evaluation.results import DRAWS_TOLD, Row, half_width, measured_by_both
from perception.evaluation.tables import apart, entry_name, figure, interval, table
from perception.tasks import detection as detection_task
from perception.tasks.config import ModelConfig
from perception.tasks.decoders import FoundDecoder
from perception.tasks.detection import IOU, MOST, REPORTED, Detections
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess

if TYPE_CHECKING:
    from perception.evaluation.average_precision import Evaluation

LEAST_SCORE = 1e-8
"""Average precision is over boxes of all scores; MobileDet was published with this threshold."""
REMEMBERED = 16
"""Evaluations: of an engine, which is then held against its reference."""


@dataclass(frozen=True)
class Prediction:
    """Detections, their labels as places in the data set's; `known` is bool (labels,): which ones the model knows."""

    detections: Detections
    known: np.ndarray


def predict_boxes(
    predict: Predict, config: ModelConfig, frame: BoxFrame, classes: np.ndarray, score: float, overlap: float, most: int
) -> Detections:
    """Detections of one frame, by the same steps as the node takes; the rest is as in `detection.parse`."""
    image = Image(frame.rgb, "rgb8")
    fit = Fit.of(image.size, config)
    return detection_task.parse(predict(preprocess(image, config, fit)), fit, config, score, overlap, most, classes)


@dataclass(frozen=True)
class DetectionAssessment(ClassAssessment[BoxFrame, Prediction]):
    """Which boxes count."""

    score_threshold: float = LEAST_SCORE
    iou_threshold: float = IOU
    most: int = MOST

    title: ClassVar[str] = "Detection"
    metric: ClassVar[str] = "mAP"
    columns: ClassVar[tuple[str, ...]] = ("mAP", "AP50", "AP75")
    legend: ClassVar[str] = "image, truth, predictions, right green, wrong red, missed yellow"

    def __post_init__(self) -> None:
        if not (0 <= self.score_threshold < 1 and 0 < self.iou_threshold <= 1 and self.most > 0):
            raise ValueError(
                f"score threshold {self.score_threshold}, overlap {self.iou_threshold} and {self.most} boxes are not "
                "possible; accepted: 0 to 1 each, and 1 box or more"
            )

    @staticmethod
    def add_arguments(parser: argparse._ArgumentGroup) -> None:
        """See `Assessment`."""
        parser.add_argument(
            "--score-threshold", type=float, default=LEAST_SCORE, help="of boxes that count (default: %(default)s)"
        )
        parser.add_argument(
            "--iou-threshold", type=float, default=IOU, help="of boxes that are doubles (default: %(default)s)"
        )
        parser.add_argument("--most", type=int, default=MOST, help="boxes of an image (default: %(default)s)")

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> DetectionAssessment:
        """See `Assessment`."""
        average_precision()
        return cls(args.shared_classes, args.classes, args.score_threshold, args.iou_threshold, args.most)

    def options(self) -> dict[str, Any]:
        """See `Assessment`."""
        return asdict(self)

    def inference(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any]
    ) -> Callable[[BoxFrame], Prediction]:
        """See `Assessment`."""
        shared = self.shared(config, dataset)

        def infer(frame: BoxFrame) -> Prediction:
            found = predict_boxes(
                predict, config, frame, shared.places >= 0, self.score_threshold, self.iou_threshold, self.most
            )
            return Prediction(Detections(found.boxes, found.scores, shared.places[found.labels]), shared.known)

        return infer

    def frame(self, rgb: np.ndarray, name: str, result: Prediction | None = None) -> BoxFrame:
        """True are the boxes that a node reports."""
        if result is None:
            return BoxFrame(rgb, no_boxes(), np.zeros(0, np.int64), np.zeros(0, bool), name=name)
        found = shown(result.detections)
        return BoxFrame(rgb, found.boxes, found.labels, np.zeros(len(found), bool), name=name)

    def remarks(self, config: ModelConfig, dataset: Dataset[Any]) -> list[str]:
        """The classes that only one side has, boxes that cannot count, and what an engine decides otherwise."""
        remarks = super().remarks(config, dataset)
        decoder = config.decoder
        if isinstance(decoder, FoundDecoder) and decoder.least > self.score_threshold:
            remarks.append(
                f"an engine that leaves doubles out itself, and with them what scores less than {decoder.least:g}, "
                "which lowers its figures; `perception engines build --suppression numpy` builds one that does not"
            )
        if isinstance(decoder, FoundDecoder) and decoder.threshold != self.iou_threshold:
            remarks.append(
                f"an engine that itself leaves out doubles by an overlap over {decoder.threshold:g}, so that its "
                f"figures are not those of {self.iou_threshold:g}; `perception engines build --suppression numpy` "
                "builds one that leaves it to --iou-threshold"
            )
        if dropped := getattr(dataset, "dropped", 0):
            remarks.append(f"boxes of the data set without area in their image, which are left out: {dropped}")
        return remarks

    def measure(
        self,
        sample: Sample[BoxFrame, Prediction],
        before: Sample[BoxFrame, Prediction] | None,
        dataset: Dataset[Any],
        infer: Callable[[BoxFrame], Prediction],
    ) -> Row:
        """`size` (height, width); `truth` and `found`, as `Evaluation` wants them, to seven digits; `counts` of the
        boxes that a picture shows.
        """
        frame, prediction = sample.frame, sample.result
        labels, found, counts = labels_of(dataset), prediction.detections, self._counts(sample, dataset)
        truth: dict[str, Any] = {
            "boxes": _digits(frame.boxes[counts]),
            "labels": [labels[label] for label in frame.labels[counts]],
            "ignore": frame.ignore[counts].tolist(),
        }
        if frame.areas is not None:
            truth["areas"] = _digits(frame.areas[counts])
        if frame.crowd is not None:
            truth["crowd"] = frame.crowd[counts].tolist()
        return {
            "size": list(frame.rgb.shape[:2]),
            "truth": truth,
            "found": {
                "boxes": _digits(found.boxes),
                "labels": [labels[label] for label in found.labels],
                "scores": _digits(found.scores),
            },
            "counts": {name: len(boxes) for name, boxes in vars(Verdicts.of(frame, shown(found), counts)).items()},
        }

    def _counts(self, sample: Sample[BoxFrame, Prediction], dataset: Dataset[Any]) -> np.ndarray:
        """Which objects of the frame are owed, bool (objects,)."""
        return self.counted(sample.result.known, dataset)[sample.frame.labels]

    def summary(self, rows: Sequence[Row]) -> dict[str, Any]:
        """`metrics` over all images and `classes`, see `Evaluation`; `ci95` of mAP and AP50: half the width of the
        middle 95 % of what draws of as many images give.
        """
        evaluation = evaluate(rows)
        return {
            "metrics": evaluation.metrics,
            "ci95": {name: half_width(values) for name, values in evaluation.resampled().items()},
            "classes": evaluation.by_class(),
        }

    def difference(self, rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """Of mAP and AP50. Both are of the same draws of images, so that small differences show."""
        mine, other = map(evaluate, measured_by_both(rows, reference))
        draws = mine.resampled(), other.resampled()
        found = {}
        for name in ("mAP", "AP50"):
            found[name] = mine.metrics[name] - other.metrics[name]
            found[f"{name}_ci95"] = half_width(draws[0][name] - draws[1][name])
        return found

    def score(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any], frames: Iterable[BoxFrame]
    ) -> dict[str, float]:
        """`Evaluation.metrics` and `frames`; mAP is NaN where nothing was found."""
        rows = self.rows(predict, config, dataset, frames)
        evaluation = evaluate(rows)
        nothing = {} if any(row["found"]["boxes"] for row in rows) else {self.metric: math.nan}
        return evaluation.metrics | nothing | {"frames": float(len(rows))}

    def plot(self, rows: Sequence[Row], path: Path) -> dict[str, str]:
        """Curves of precision over recall."""
        try:
            from perception.evaluation.detection_plots import draw_curves
        except ImportError:
            return {}
        name = f"{path.name}-curves.png"
        draw_curves(evaluate(rows), path.with_name(name))
        return {name: "Precision over recall"}

    @staticmethod
    def conditions(options: Mapping[str, Any], sequence: bool) -> str:
        """See `Assessment`."""
        score, overlap, most = (options[name] for name in ("score_threshold", "iou_threshold", "most"))
        return (
            f"{which_classes(options)}; boxes that score {score:g} or more, doubles by an overlap over {overlap:g} "
            f"left out, at most {most} an image. mAP, AP50, AP75, AR100: by COCO's protocol (pycocotools); VOC AP50: "
            "the whole area under each class's curve, with the same matches. " + DRAWS_TOLD
        )

    @staticmethod
    def cells(summary: Mapping[str, Any]) -> tuple[str, ...]:
        """See `columns`."""
        return interval(summary, "mAP"), interval(summary, "AP50"), figure(summary["metrics"]["AP75"])

    @staticmethod
    def sections(entries: Sequence[Mapping[str, Any]], sequence: bool) -> list[str]:
        """See `Assessment`."""
        names = ("mAP_small", "mAP_medium", "mAP_large", "AR100", "VOC_AP50")
        head = ("engine", *(name.replace("_", " ") for name in names), "Δ mAP to fp32", "Δ AP50 to fp32")
        lines = [
            (
                entry_name(entry),
                *(figure(entry["summary"]["metrics"][name]) for name in names),
                *(apart(entry["difference"], name) for name in ("mAP", "AP50")),
            )
            for entry in entries
        ]
        return ["## Accuracy\n\n" + table(head, lines), classes_section(entries, "objects", ("mAP", "AP50"))]

    @staticmethod
    def rank(row: Row) -> tuple[float, ...]:
        """By the share of boxes that are right among those that are found or missed, then by how many there are."""
        boxes = sum(row["counts"].values())
        return -row["counts"]["right"] / boxes if boxes else -1.0, -boxes

    @staticmethod
    def caption(row: Row) -> str:
        """See `Assessment`."""
        counts = ", ".join(f"{name} {count}" for name, count in row["counts"].items())
        return f"{counts} (score {REPORTED} or more)"

    def pictures(self, sample: Sample[BoxFrame, Prediction], dataset: Dataset[Any]) -> list[np.ndarray]:
        """See `legend`."""
        found, counts = shown(sample.result.detections), self._counts(sample, dataset)
        return draw(sample.frame, found, labels_of(dataset), counts)


ASSESSMENT = DetectionAssessment


def average_precision() -> Any:
    """The module of that name.

    Raises:
        ValueError: pycocotools is not installed.
    """
    try:
        from perception.evaluation import average_precision
    except ImportError as error:
        raise ValueError("accuracy of detection needs pycocotools; install it: pip install pycocotools") from error
    return average_precision


_recent: list[tuple[list[Row], Evaluation]] = []


def evaluate(rows: Sequence[Row]) -> Evaluation:
    """Of the rows that are not broken; the last ones are remembered, because a large data set takes a minute."""
    good = [row for row in rows if "error" not in row]
    for place, (known, _) in enumerate(_recent):
        if len(known) == len(good) and all(map(operator.is_, known, good)):
            _recent.insert(0, _recent.pop(place))
            break
    else:
        _recent[REMEMBERED - 1 :] = []
        _recent.insert(0, (good, average_precision().Evaluation(good)))
    return _recent[0][1]


def _digits(values: np.ndarray) -> Any:
    """As lists, without the digits that float32 does not have."""
    return [_digits(value) if np.ndim(value) else float(f"{value:.7g}") for value in values]

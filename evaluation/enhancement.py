"""Enhanced images against bright ones of the same view: PSNR, SSIM, the order of lightness, and how they are told."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from perception.engines.acceptance import Predict
from perception.evaluation.assessment import Assessment, Estimate, Floor, Progress, Sample
from perception.evaluation.datasets import data_hash
from perception.evaluation.floor import floor_places
from perception.evaluation.frames import Dataset, Frame, PairFrame
from perception.evaluation.results import Row, image_differences, image_means
from perception.evaluation.tables import apart, entry_name, interval, of_images, table
from perception.tasks import enhancement as enhancement_task
from perception.tasks.config import ModelConfig
from perception.tasks.darkening import scale_light
from perception.tasks.enhancement_metrics import brightness_error, fitted_psnr, lightness_order_error, psnr, ssim
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess

LARGEST_ERROR = 0.25
"""Error of an intensity in [0, 1] from which on the error map is white."""
STOPS = 16
"""The largest gain of an automatic exposure, in factors of two."""


def predict_image(predict: Predict, config: ModelConfig, frame: Frame) -> np.ndarray:
    """The enhanced image of one frame, uint8 RGB of its shape, by the same steps as the node takes."""
    image = Image(frame.rgb, "rgb8")
    fit = Fit.of(image.size, config)
    tensor = preprocess(image, config, fit)
    return enhancement_task.parse(predict(tensor), fit, config, image, tensor=tensor).image


def expose(image: np.ndarray, mean: float) -> np.ndarray:
    """What a camera's automatic exposure would have made of an image: uint8 of its shape.

    All its light grows by one factor, clipped at white, such that the mean intensity is `mean`, 0 to 255. Noise grows
    as well.
    """
    shares = np.bincount(image.ravel(), minlength=256) / image.size
    levels = np.arange(256, dtype=np.uint8)
    low, high = -float(STOPS), float(STOPS)
    for _ in range(20):
        stops = (low + high) / 2
        low, high = (stops, high) if shares @ scale_light(levels, 2**stops) < mean else (low, stops)
    return scale_light(image, 2**high)


@dataclass(frozen=True)
class EnhancementAssessment(Assessment[PairFrame, np.ndarray]):
    """Brightness is held against the bright image as it comes. A result is an image, uint8 RGB (height, width, 3)."""

    title: ClassVar[str] = "Enhancement"
    metric: ClassVar[str] = "PSNR"
    columns: ClassVar[tuple[str, ...]] = ("PSNR dB", "SSIM", "LOE")
    legend: ClassVar[str] = "image, truth, prediction, |error| (white: 25 % of full scale or more)"

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> EnhancementAssessment:
        """See `Assessment`."""
        return cls()

    def options(self) -> dict[str, Any]:
        """See `Assessment`."""
        return {}

    def inference(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any]
    ) -> Callable[[PairFrame], np.ndarray]:
        """See `Assessment`."""
        return lambda frame: predict_image(predict, config, frame)

    def measure(
        self,
        sample: Sample[PairFrame, np.ndarray],
        before: Sample[PairFrame, np.ndarray] | None,
        dataset: Dataset[Any],
        infer: Callable[[PairFrame], np.ndarray],
    ) -> Row:
        """Metrics, see `enhancement_metrics`."""
        image, target = sample.result, sample.frame.target
        return {
            "metrics": {
                "PSNR": psnr(image, target),
                "SSIM": ssim(image, target),
                "LOE": lightness_order_error(image, sample.frame.rgb),
                "fitted_PSNR": fitted_psnr(image, target),
                "brightness": brightness_error(image, target),
            }
        }

    def summary(self, rows: Sequence[Row]) -> dict[str, Any]:
        """`metrics` and `ci95`, see `image_means`; and `exposure`: the mean size of the error of brightness."""
        good = [row for row in rows if "error" not in row]
        return image_means(good) | {"exposure": float(np.mean([abs(row["metrics"]["brightness"]) for row in good]))}

    def difference(self, rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """Of PSNR and SSIM."""
        return image_differences(rows, reference, ("PSNR", "SSIM"))

    def score(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any], frames: Iterable[PairFrame]
    ) -> dict[str, float]:
        """`metrics` of `summary`, half the intervals of PSNR and SSIM, and `frames`."""
        rows = self.rows(predict, config, dataset, frames)
        means = image_means(rows)
        intervals = {f"{name}_ci95": means["ci95"][name] for name in ("PSNR", "SSIM")}
        scores: dict[str, float] = means["metrics"] | intervals | {"frames": float(len(rows))}
        return scores

    def floor(self, dataset: Dataset[Any], folder: Path, progress: Progress) -> Floor | None:
        """An automatic exposure to the mean of the bright images of the training split."""
        training = dataset.training()
        if training is None:
            return None
        places = floor_places(training)
        mean = float(np.mean([training[place].target.mean() for place in progress(places)]))
        estimate: Estimate = lambda frame: (expose(frame.rgb, mean), math.nan)  # noqa: E731
        key = f"exposure to the mean of {training.name} {data_hash(training, places)}"
        return Floor("floor (exposure to the training split's mean)", key, estimate, self)

    @staticmethod
    def conditions(options: Mapping[str, Any], sequence: bool) -> str:
        """See `Assessment`."""
        return (
            "all pixels of the images as nodes publish them, RGB in [0, 1], no mean fitted unless a column says so. "
            "LOE: share of pairs of pixels whose order of lightness is no longer that of the dark image. "
            f"{of_images(sequence)}"
        )

    @staticmethod
    def cells(summary: Mapping[str, Any]) -> tuple[str, ...]:
        """See `columns`."""
        return interval(summary, "PSNR", 2), interval(summary, "SSIM"), f"{summary['metrics']['LOE']:.3f}"

    @staticmethod
    def sections(entries: Sequence[Mapping[str, Any]], sequence: bool) -> list[str]:
        """See `Assessment`."""
        head = ("engine", "PSNR dB, mean fitted", "too bright by", "its size", "Δ PSNR to fp32", "Δ SSIM to fp32")
        lines = []
        for entry in entries:
            summary, scores = entry["summary"], entry["summary"]["metrics"]
            lines.append(
                (
                    entry_name(entry),
                    f"{scores['fitted_PSNR']:.2f}",
                    f"{100 * scores['brightness']:+.1f} %",
                    f"{100 * summary['exposure']:.1f} %",
                    *(apart(entry["difference"], name) for name in ("PSNR", "SSIM")),
                )
            )
        text = (
            "Mean fitted: after the image was scaled to the true one's mean, which no robot has, as some papers do. "
            "Too bright: mean intensity minus the true one's, of full scale; its size: mean of that without sign."
        )
        return [f"## Accuracy\n\n{text}\n\n" + table(head, lines)]

    @staticmethod
    def rank(row: Row) -> tuple[float, ...]:
        """By PSNR."""
        return (-row["metrics"]["PSNR"],)

    @staticmethod
    def caption(row: Row) -> str:
        """See `Assessment`."""
        scores = row["metrics"]
        return f"PSNR {scores['PSNR']:.2f} dB  SSIM {scores['SSIM']:.3f}  too bright by {scores['brightness']:+.3f}"

    def pictures(self, sample: Sample[PairFrame, np.ndarray], dataset: Dataset[Any]) -> list[np.ndarray]:
        """See `legend`."""
        frame, image = sample.frame, sample.result
        error = np.abs(image.astype(np.float32) - frame.target).mean(axis=2) / 255
        shades = (255 * np.minimum(error / LARGEST_ERROR, 1)).astype(np.uint8)
        heat = cv2.applyColorMap(shades, cv2.COLORMAP_HOT)
        return [frame.rgb[..., ::-1], frame.target[..., ::-1], image[..., ::-1], heat]


ASSESSMENT = EnhancementAssessment

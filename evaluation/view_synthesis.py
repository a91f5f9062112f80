"""Novel views against true ones: PSNR, SSIM, where objects are, what was seen before, depth, and how they are told.

A model for depth is measured as what its depth makes of the image by warping; and so is the true depth, in place of a
floor: it is what a model of novel views has to beat. What such a model is told beside the image is what a robot would
know: nothing, the depth that a model finds, or that of a sensor.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from perception.engines.acceptance import Predict
from perception.evaluation.assessment import Assessment, Estimate, Floor, Progress, Sample
from perception.evaluation.contenders import Contender, obtain
from perception.evaluation.depth import predict_depth
from perception.evaluation.frames import Dataset, RGBDFrame, ViewFrame
from perception.evaluation.lpips import Lpips
from perception.evaluation.results import Row, half_interval, image_differences, mean, measured_by_both
from perception.evaluation.tables import apart, entry_name, figure, interval, of_images, table
from perception.evaluation.views import ViewDataset
from perception.tasks.config import ModelConfig
from perception.tasks.depth import colorize
from perception.tasks.enhancement_metrics import psnr, ssim
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess
from perception.tasks.poses import angle_of, distance_of
from perception.tasks.view_synthesis import View, parse, source_inputs, target_inputs
from perception.tasks.view_synthesis_metrics import (
    CONTRAST,
    FEWEST,
    HIT,
    RATIO,
    consistency,
    depth_errors,
    placement_iou,
)
from perception.tasks.warping import warp

BANDS = (0.0, 10.0, 20.0, 30.0, 60.0, 180.0)
"""Degrees from the input, between which views are told apart."""
TRUE = "true"
"""In place of a model's name: what is true."""


def warped(frame: ViewFrame, depth: np.ndarray) -> View:
    """The view that a depth of the input makes, with the true mask of its objects, where that is known."""
    objects = None if frame.mask is None else frame.mask > 0
    return warp(frame.rgb, depth, frame.camera, frame.target_camera, frame.pose, objects)


def predict_view(
    predict: Predict,
    config: ModelConfig,
    frame: ViewFrame,
    depth: np.ndarray | None = None,
    instances: np.ndarray | None = None,
) -> View:
    """The view that a network for novel views makes of a frame's image, by the same steps as the node takes.

    Args:
        depth, instances: what it is told of the image, see `source_inputs`.
    """
    image = Image(frame.rgb, "rgb8")
    inputs = {"image": preprocess(image, config, Fit.of(image.size, config))}
    inputs |= source_inputs(config, frame.camera, depth, instances)
    inputs |= target_inputs(config, frame.target_camera, frame.pose)
    size = frame.target_camera.height, frame.target_camera.width
    return parse(predict(inputs), Fit.of(size, config), config)


def true_view(frame: ViewFrame) -> View:
    """The view that the true depth of the input makes.

    Raises:
        ValueError: it is not known.
    """
    if frame.depth is None:
        raise ValueError(f"frame {frame.name!r} has no true depth to warp its image by; name a model for depth")
    return warped(frame, frame.depth)


@dataclass(frozen=True)
class ViewAssessment(Assessment[ViewFrame, View]):
    """The input view is no target, so that it never counts. A result is a `View`."""

    within: float = BANDS[3]
    """Degrees from the input within which views count in the figures; the others are told by themselves."""
    depth: str = ""
    """What models of novel views are told of the input's depth: nothing, `TRUE`, or what this model for depth finds."""
    instances: bool = False
    """Whether they are told which of the input's pixels show which object."""
    key: str = ""
    """Of the engine of the model for depth."""
    lpips: Lpips | None = None
    find_depth: Callable[[ViewFrame], np.ndarray | None] | None = field(default=None, compare=False, repr=False)
    """That model at work."""

    title: ClassVar[str] = "Novel views"
    metric: ClassVar[str] = "PSNR"
    others: ClassVar[tuple[str, ...]] = ("depth",)
    columns: ClassVar[tuple[str, ...]] = ("PSNR dB", "SSIM", "IoU")
    legend: ClassVar[str] = "input, truth, view, its depth (black: unknown)"

    @staticmethod
    def add_arguments(parser: argparse._ArgumentGroup) -> None:
        """See `Assessment`."""
        parser.add_argument(
            "--within",
            type=float,
            default=ViewAssessment.within,
            metavar="DEGREES",
            help="views that are turned by more do not count in the figures (default: %(default)g)",
        )
        parser.add_argument(
            "--told-depth",
            default="",
            metavar="MODEL",
            help=f"models of novel views are told the depth that this model finds, or that is {TRUE} (default: none)",
        )
        parser.add_argument(
            "--told-instances", action="store_true", help="models of novel views are told the true mask of objects"
        )
        parser.add_argument(
            "--lpips",
            type=Path,
            metavar="FILE",
            help="ONNX file of LPIPS, whose weights are not shipped (default: left out)",
        )

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> ViewAssessment:
        """See `Assessment`."""
        if not args.within > 0:
            raise ValueError(f"--within {args.within:g} leaves no view to count; give degrees, such as 30")
        told = args.within, args.told_depth, args.told_instances
        lpips = Lpips(args.lpips) if args.lpips else None
        if not args.told_depth or args.told_depth == TRUE:
            return cls(*told, lpips=lpips)
        engine = obtain(Contender(args.told_depth), args.out / "engines", args.threads, print)
        if engine.config.task != "depth":
            raise ValueError(f"--told-depth {args.told_depth} is for {engine.config.task}; name a model for depth")

        def find(frame: ViewFrame) -> np.ndarray:
            return predict_depth(engine.run, engine.config, _seen(frame)).metres

        return cls(*told, engine.info["key"], lpips, find)

    def options(self) -> dict[str, Any]:
        """See `Assessment`."""
        told = {"within": self.within, "depth": self.depth, "instances": self.instances, "key": self.key}
        return told | {"lpips": self.lpips.sha256 if self.lpips else ""}

    def inference(self, predict: Predict, config: ModelConfig, dataset: Dataset[Any]) -> Callable[[ViewFrame], View]:
        """See `Assessment`."""
        if config.task == "depth":
            return lambda frame: warped(frame, predict_depth(predict, config, _seen(frame)).metres)
        taken = {tensor.name for tensor in config.more_inputs}
        if self.instances and "instances" not in taken:
            raise ValueError(f"{config.name} takes no mask of objects; leave out --told-instances")
        find = self.find_depth or (lambda frame: frame.depth if self.depth else None)

        def infer(frame: ViewFrame) -> View:
            return predict_view(predict, config, frame, find(frame), frame.mask if self.instances else None)

        return infer

    def remarks(self, config: ModelConfig, dataset: Dataset[Any]) -> list[str]:
        """See `Assessment`."""
        said = [self._told(config)]
        if isinstance(dataset, ViewDataset) and not dataset.metric:
            said.append("nobody knows how long a unit of these scenes is, so that metres do not fit them")
        return said

    def _told(self, config: ModelConfig) -> str:
        if config.task == "depth":
            return "views made from its depth by warping"
        depth = "the true depth" if self.depth == TRUE else f"the depth that {self.depth} finds"
        told = [depth] if self.depth else []
        told += ["the true mask of objects"] if self.instances else []
        beside = " and ".join(told)
        return f"told {beside or 'nothing'} beside the image; milliseconds are those of field and view together"

    def measure(
        self,
        sample: Sample[ViewFrame, View],
        before: Sample[ViewFrame, View] | None,
        dataset: Dataset[Any],
        infer: Callable[[ViewFrame], View],
    ) -> Row:
        """`angle` in degrees and `distance` in metres from the input; `input`, which tells views of one from others;
        metrics: NaN where what they need is unknown.

        Raises:
            ValueError: the view is of another size than the true one.
        """
        frame, view = sample.frame, sample.result
        found = consistency(frame.rgb, view.image, frame.target)
        errors = {"REL": math.nan, "known": math.nan}
        if frame.target_depth is not None:
            errors = depth_errors(view.depth, frame.target_depth)
        iou = math.nan
        if frame.target_mask is not None and view.mask is not None:
            iou = placement_iou(view.mask, frame.target_mask > 0)
        return {
            "angle": angle_of(frame.pose),
            "distance": distance_of(frame.pose),
            "input": hashlib.sha256(frame.rgb.tobytes()).hexdigest()[:12],
            "metrics": {
                "PSNR": psnr(view.image, frame.target),
                "SSIM": ssim(view.image, frame.target),
                "IoU": iou,
                "hit_rate": found.hit_rate,
                "gap": found.distance,
                "LPIPS": self.lpips(view.image, frame.target) if self.lpips else math.nan,
                **errors,
            },
        }

    def summary(self, rows: Sequence[Row]) -> dict[str, Any]:
        """`metrics` and `ci95` of the views that count, means over those of which a figure is known; `bands`: metrics
        of the views between two of `BANDS`, each with their number, `views`, and mean `distance`."""
        good = [row for row in rows if "error" not in row]
        counted = self._counted(good)
        if not counted:
            raise ValueError(f"no view lies within {self.within:g} degrees of its input; allow more by --within")
        bands = {}
        for low, high in zip(BANDS, BANDS[1:], strict=False):
            between = [row for row in good if low <= row["angle"] < high]
            if between:
                known = {"views": len(between), "distance": mean([row["distance"] for row in between])}
                bands[f"{low:g} to {high:g}"] = known | {
                    name: mean(values) for name, values in _columns(between).items()
                }
        columns, inputs = _columns(counted), [row["input"] for row in counted]
        return {
            "metrics": {name: mean(values) for name, values in columns.items()},
            "ci95": {name: _half_interval(values, inputs) for name, values in columns.items()},
            "views": len(counted),
            "bands": bands,
        }

    def _counted(self, rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if "error" not in row and row["angle"] <= self.within]

    def difference(self, rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """Of PSNR and SSIM, of the views that count."""
        mine, theirs = (self._counted(side) for side in measured_by_both(rows, reference))
        return image_differences(mine, theirs, ("PSNR", "SSIM"), "input")

    def score(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any], frames: Iterable[ViewFrame]
    ) -> dict[str, float]:
        """`metrics` of `summary`, half the intervals of PSNR and SSIM, and `frames`, the number that counted."""
        found = self.summary(self.rows(predict, config, dataset, frames))
        intervals = {f"{name}_ci95": found["ci95"][name] for name in ("PSNR", "SSIM")}
        scores: dict[str, float] = found["metrics"] | intervals | {"frames": float(found["views"])}
        return scores

    def floor(self, dataset: Dataset[Any], folder: Path, progress: Progress) -> Floor | None:
        """The views that the true depth makes by warping; None where it is not known."""
        if dataset[0].depth is None:
            return None
        estimate: Estimate = lambda frame: (true_view(frame), math.nan)  # noqa: E731
        return Floor("warping by the true depth", "warping", estimate, self)

    @staticmethod
    def conditions(options: Mapping[str, Any], sequence: bool) -> str:
        """See `Assessment`."""
        return (
            f"views turned by at most {options['within']:g} degrees from the input, which itself never counts; all "
            "pixels of the images as nodes publish them, RGB in [0, 1]. IoU: of where objects are in the view and "
            f"where they should be. LPIPS: {_told_lpips(options)}. {of_images(sequence)} Views of one input count as "
            "one there."
        )

    @staticmethod
    def cells(summary: Mapping[str, Any]) -> tuple[str, ...]:
        """See `columns`."""
        return interval(summary, "PSNR", 2), interval(summary, "SSIM"), figure(summary["metrics"]["IoU"])

    @staticmethod
    def sections(entries: Sequence[Mapping[str, Any]], sequence: bool) -> list[str]:
        """See `Assessment`."""
        told = ("hit rate", "gap", "LPIPS", "depth REL", "depth known", "Δ PSNR to fp32", "Δ SSIM to fp32")
        head = ("engine", "views", *told)
        lines, bands = [], []
        for entry in entries:
            summary, scores = entry["summary"], entry["summary"]["metrics"]
            shares = (figure(scores[name]) for name in ("hit_rate", "gap", "LPIPS", "REL", "known"))
            differences = (apart(entry["difference"], name) for name in ("PSNR", "SSIM"))
            lines.append((entry_name(entry), str(summary["views"]), *shares, *differences))
            for name, band in summary["bands"].items():
                rest = (figure(band[key]) for key in ("SSIM", "IoU", "hit_rate", "REL"))
                bands.append(
                    (
                        entry_name(entry),
                        name,
                        str(band["views"]),
                        f"{band['distance']:.2f}",
                        f"{band['PSNR']:.2f}",
                        *rest,
                    )
                )
        text = (
            f"Hit rate: of the input's points (SIFT with contrast threshold {CONTRAST:g}, mutual nearest neighbours, "
            f"ratio {RATIO:g}) that are found in the true view, the share found in this one within {HIT:g} of the "
            "image's width of there; gap: mean distance of those found in both, in widths; views with less than "
            f"{FEWEST} points do not count. Depth REL: mean of |error| / truth over the pixels that the view knows the "
            "depth of; depth known: their share."
        )
        by_angle = (
            "engine",
            "degrees from the input",
            "views",
            "m away",
            "PSNR dB",
            "SSIM",
            "IoU",
            "hit rate",
            "depth REL",
        )
        return [
            f"## Consistency and depth\n\n{text}\n\n" + table(head, lines),
            "## By angle\n\nAll views, those too that do not count above.\n\n" + table(by_angle, bands),
        ]

    @staticmethod
    def rank(row: Row) -> tuple[float, ...]:
        """By PSNR."""
        return (-row["metrics"]["PSNR"],)

    @staticmethod
    def caption(row: Row) -> str:
        """See `Assessment`."""
        scores = row["metrics"]
        return (
            f"{row['angle']:.0f} deg {row['distance']:.2f} m  PSNR {scores['PSNR']:.2f} dB  SSIM {scores['SSIM']:.3f}  "
            f"IoU {figure(scores['IoU'])}  hit rate {figure(scores['hit_rate'])}"
        )

    def pictures(self, sample: Sample[ViewFrame, View], dataset: Dataset[Any]) -> list[np.ndarray]:
        """See `legend`."""
        frame, view = sample.frame, sample.result
        images = [np.ascontiguousarray(image[..., ::-1]) for image in (frame.rgb, frame.target, view.image)]
        return [*images, colorize(view.depth)]


def _seen(frame: ViewFrame) -> RGBDFrame:
    return RGBDFrame(frame.rgb, None, frame.camera, name=frame.name)


def _told_lpips(options: Mapping[str, Any]) -> str:
    known = options.get("lpips", "")
    return (
        f"by the network with the SHA-256 {known[:12]}" if known else "not measured, as no weights were given (--lpips)"
    )


def _columns(rows: Sequence[Row]) -> dict[str, list[float]]:
    return {name: [row["metrics"][name] for row in rows] for name in rows[0]["metrics"]}


def _half_interval(values: Sequence[float], inputs: Sequence[str]) -> float:
    """See `half_interval`; of those that are finite, NaN where none is. Views of one input hang together."""
    known = np.isfinite(values)
    return half_interval(np.array(values)[known], np.array(inputs)[known].tolist()) if known.any() else math.nan


ASSESSMENT = ViewAssessment

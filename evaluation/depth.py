"""Depth against true depth: metrics, error by distance, edges, steadiness, the lens test, and how they are told."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from perception.engines.acceptance import Predict
from perception.evaluation.assessment import Assessment, Floor, Progress, Sample
from perception.evaluation.floor import floor_of
from perception.evaluation.frames import Dataset, RGBDFrame
from perception.evaluation.results import Row, image_differences, image_means, mean
from perception.evaluation.stability import half_view_change, relative_change, scale_of
from perception.evaluation.tables import apart, entry_name, interval, of_images, percent, table
from perception.tasks import depth as depth_task
from perception.tasks.config import ModelConfig
from perception.tasks.depth_metrics import PLAIN, Rule, band_sums, edge_errors, metrics
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess

LENS_BAR = 0.05
"""Largest median change of metres when half the field of view is seen (DESIGN 3)."""
LARGEST_ERROR = 0.5
"""Relative error from which on the error map is white."""


def predict_depth(predict: Predict, config: ModelConfig, frame: RGBDFrame) -> depth_task.Depth:
    """Depth of one frame, by the same steps as the node takes."""
    image = Image(frame.rgb, "rgb8")
    fit = Fit.of(image.size, config, frame.camera)
    return depth_task.parse(predict(preprocess(image, config, fit)), fit, config)


def true_depth(frame: RGBDFrame) -> np.ndarray:
    """The frame's depth.

    Raises:
        ValueError: there is none, or it has another size than the image.
    """
    if frame.depth is None:
        raise ValueError(f"frame {frame.name!r} has no true depth; accuracy needs a data set with depth")
    if frame.depth.shape != frame.rgb.shape[:2]:
        raise ValueError(
            f"frame {frame.name!r} has depth of shape {frame.depth.shape} and an image of {frame.rgb.shape[:2]}; "
            "depth must be registered to the image"
        )
    return frame.depth


def evaluate_depth(
    predict: Predict, config: ModelConfig, frames: Iterable[RGBDFrame], rule: Rule = PLAIN
) -> dict[str, float]:
    """Depth metrics: the mean over images of each image's metric, `delta1_ci95` and `rmse_ci95`, half their 95 %
    intervals, and `frames`. For code that has its frames in hand; `harness.run` is what measures a data set.

    Raises:
        ValueError: a frame without true depth, or no frame at all.
    """
    rows: list[Row] = [
        {"metrics": metrics(predict_depth(predict, config, frame).metres, true_depth(frame), rule)} for frame in frames
    ]
    if not rows:
        raise ValueError("the data set is empty; nothing to evaluate")
    summary = image_means(rows)
    intervals = {f"{name}_ci95": summary["ci95"][name] for name in ("delta1", "rmse")}
    return summary["metrics"] | intervals | {"frames": float(len(rows))}


@dataclass(frozen=True)
class DepthAssessment(Assessment[RGBDFrame, np.ndarray]):
    """What is measured beside each frame's metrics, and by which rule. A result is metres, float32 (height, width)."""

    rule: Rule = PLAIN
    half_view: bool = False
    """Whether the lens test is made on every frame; it takes a second inference."""

    title: ClassVar[str] = "Depth"
    metric: ClassVar[str] = "delta1"
    judge_data: ClassVar[str | None] = "clip"
    columns: ClassVar[tuple[str, ...]] = ("delta1", "RMSE m", "REL")
    legend: ClassVar[str] = "image, truth, prediction, |error| / truth (white: 50 % or more)"

    @staticmethod
    def add_arguments(parser: argparse._ArgumentGroup) -> None:
        """See `Assessment`."""
        parser.add_argument("--valid", default="target", help="pixels: target > 0 (default), or FastDepth's 'either'")
        parser.add_argument("--crop", default="none", help="none (default), eigen, or top:bottom,left:right")
        parser.add_argument(
            "--cap", type=_cap, default=(0.0, float("inf")), metavar="MIN:MAX", help="metres (default: none)"
        )
        parser.add_argument(
            "--half-view", action="store_true", help="lens test: metres must stay when half the view is seen"
        )

    @classmethod
    def from_arguments(cls, args: argparse.Namespace) -> DepthAssessment:
        """See `Assessment`."""
        return cls(Rule(args.valid, args.crop, *args.cap), args.half_view)

    def options(self) -> dict[str, Any]:
        """See `Assessment`."""
        return asdict(self)

    def inference(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any]
    ) -> Callable[[RGBDFrame], np.ndarray]:
        """See `Assessment`."""
        return lambda frame: predict_depth(predict, config, frame).metres

    def frame(self, rgb: np.ndarray, name: str, result: np.ndarray | None = None) -> RGBDFrame:
        """See `Assessment`."""
        return RGBDFrame(rgb, result, name=name)

    def measure(
        self,
        sample: Sample[RGBDFrame, np.ndarray],
        before: Sample[RGBDFrame, np.ndarray] | None,
        dataset: Dataset[Any],
        infer: Callable[[RGBDFrame], np.ndarray],
    ) -> Row:
        """Metrics, sums of bands and errors of edges; `scale` and `change` in a sequence; `half_view` where asked for.

        Raises:
            ValueError: no true depth, or no pixel to compare.
        """
        frame, metres = sample.frame, sample.result
        truth = true_depth(frame)
        row: Row = {
            "metrics": metrics(metres, truth, self.rule),
            "bands": band_sums(metres, truth, self.rule),
            "edges": edge_errors(metres, truth, self.rule),
        }
        if math.isnan(row["metrics"]["rmse"]):
            raise ValueError("no pixel is left to compare: depth is unknown, outside of crop and cap, or unpredicted")
        if dataset.sequence:
            row["scale"] = scale_of(metres, truth)
            row["change"] = math.nan if before is None else relative_change(before.frame, before.result, frame, metres)
        if self.half_view:
            row["half_view"] = half_view_change(infer, frame, metres)
        return row

    def summary(self, rows: Sequence[Row]) -> dict[str, Any]:
        """`metrics`: the mean over images of each image's figure. `ci95`: half a 95 % interval of each of these means,
        1.96 standard errors over the images; it takes images for independent, which those of a sequence are not.
        `bands`: over all pixels of a distance. `edges`: means over the images that have edges. `stability` of a
        sequence, as medians over frames. `half_view`: medians over frames of the lens test, as shares of depth: `bias`
        of `shift` with its sign, `shift` and `change` of their sizes.
        """
        good = [row for row in rows if "error" not in row]
        summary = image_means(good)
        summary["bands"] = _bands(good)
        summary["edges"] = {name: mean([row["edges"][name] for row in good]) for name in good[0]["edges"]}
        if any("scale" in row for row in good):
            summary["stability"] = _stability(rows)
        views = [row["half_view"] for row in good if math.isfinite(row.get("half_view", {}).get("shift", math.nan))]
        if views:
            # Where the lens is not followed, all frames go the same way: the bias. A network that sees less of the
            # scene moves single frames either way too, which the sizes of their shifts tell.
            medians = {name: float(np.median([abs(view[name]) for view in views])) for name in views[0]}
            bias = float(np.median([view["shift"] for view in views]))
            summary["half_view"] = {"bias": bias} | medians | {"frames": len(views)}
        return summary

    def difference(self, rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, float]:
        """Of delta1 and rmse."""
        return image_differences(rows, reference, ("delta1", "rmse"))

    def score(
        self, predict: Predict, config: ModelConfig, dataset: Dataset[Any], frames: Iterable[RGBDFrame]
    ) -> dict[str, float]:
        """See `evaluate_depth`."""
        return evaluate_depth(predict, config, frames, self.rule)

    def floor(self, dataset: Dataset[Any], folder: Path, progress: Progress) -> Floor | None:
        """The median of the training split, said of every frame."""
        training = dataset.training()
        if training is None:
            return None
        key, estimate = floor_of(training, folder, progress)
        plain = DepthAssessment(self.rule)
        return Floor("floor (median of the training split)", f"median of {training.name} {key}", estimate, plain)

    @staticmethod
    def conditions(options: Mapping[str, Any], sequence: bool) -> str:
        """See `Assessment`."""
        rule = options["rule"]
        capped = rule["min_depth"] > 0 or math.isfinite(rule["max_depth"])
        cap = f"{rule['min_depth']:g} to {rule['max_depth']:g} m" if capped else "none"
        return (
            f"pixels: {rule['valid']}, crop {rule['crop']}, cap {cap}; metres as they come, no scale fitted. "
            f"{of_images(sequence)}"
        )

    @staticmethod
    def cells(summary: Mapping[str, Any]) -> tuple[str, ...]:
        """See `columns`."""
        return interval(summary, "delta1"), interval(summary, "rmse"), f"{summary['metrics']['rel']:.3f}"

    @staticmethod
    def sections(entries: Sequence[Mapping[str, Any]], sequence: bool) -> list[str]:
        """See `Assessment`."""
        return [_accuracy_section(entries), _bands_section(entries), _robot_section(entries, sequence)]

    @staticmethod
    def rank(row: Row) -> tuple[float, ...]:
        """By delta1, then RMSE."""
        return -row["metrics"]["delta1"], row["metrics"]["rmse"]

    @staticmethod
    def caption(row: Row) -> str:
        """See `Assessment`."""
        scores = row["metrics"]
        return f"delta1 {scores['delta1']:.3f}  RMSE {scores['rmse']:.3f} m  REL {scores['rel']:.3f}"

    def pictures(self, sample: Sample[RGBDFrame, np.ndarray], dataset: Dataset[Any]) -> list[np.ndarray]:
        """See `legend`."""
        frame, metres = sample.frame, sample.result
        truth = true_depth(frame)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.abs(metres - truth) / truth
        known = np.isfinite(error)
        shades = (255 * np.clip(np.where(known, error, 0) / LARGEST_ERROR, 0, 1)).astype(np.uint8)
        heat = cv2.applyColorMap(shades, cv2.COLORMAP_HOT)
        heat[~known] = (96, 96, 96)
        return [frame.rgb[..., ::-1], depth_task.colorize(truth), depth_task.colorize(metres), heat]


ASSESSMENT = DepthAssessment


def _cap(text: str) -> tuple[float, float]:
    low, separator, high = text.partition(":")
    try:
        return float(low), float(high if separator else "x")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no cap; write metres as MIN:MAX, as in 0.001:10") from None


def _bands(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    bands = {}
    for name in rows[0]["bands"]:
        pixels, absolute, relative, close = np.sum([row["bands"][name] for row in rows], axis=0).tolist()
        if pixels:
            bands[name] = {
                "pixels": pixels,
                "mae": absolute / pixels,
                "rel": relative / pixels,
                "delta1": close / pixels,
            }
    return bands


def _stability(rows: Sequence[Row]) -> dict[str, float]:
    """Medians over neighbouring frames: of the change of depth, and of the change of scale."""
    changes = [row["change"] for row in rows if math.isfinite(row.get("change", math.nan))]
    scales = np.array([row.get("scale", math.nan) for row in rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        jumps = np.abs(np.diff(np.log(scales)))
    jumps = jumps[np.isfinite(jumps)]
    return {
        "change": float(np.median(changes)) if changes else float("nan"),
        "flicker": float(np.median(jumps)) if len(jumps) else float("nan"),
        "pairs": float(len(jumps)),
    }


def _accuracy_section(entries: Sequence[Mapping[str, Any]]) -> str:
    """Every metric, and the difference to the float32 reference, sample by sample."""
    head = ("engine", "delta2", "delta3", "MAE m", "log10", "predicted", "Δ delta1 to fp32", "Δ RMSE to fp32")
    lines = []
    for entry in entries:
        scores = entry["summary"]["metrics"]
        lines.append(
            (
                entry_name(entry),
                *(f"{scores[name]:.3f}" for name in ("delta2", "delta3", "mae", "log10")),
                f"{100 * scores['valid']:.1f} %",
                *(apart(entry["difference"], name) for name in ("delta1", "rmse")),
            )
        )
    return "## Accuracy\n\n" + table(head, lines)


def _bands_section(entries: Sequence[Mapping[str, Any]]) -> str:
    """Error by true distance, over all pixels of that distance."""
    names = list(dict.fromkeys(name for entry in entries for name in entry["summary"]["bands"]))
    lines = []
    for entry in entries:
        bands = entry["summary"]["bands"]
        cells = (
            f"{bands[name]['delta1']:.3f}, {bands[name]['mae']:.2f} m, {100 * bands[name]['rel']:.0f} %"
            if name in bands
            else "-"
            for name in names
        )
        lines.append((entry_name(entry), *cells))
    return "## By true distance: delta1, MAE, REL over all pixels\n\n" + table(("engine", *names), lines)


def _robot_section(entries: Sequence[Mapping[str, Any]], sequence: bool) -> str:
    """Edges, and where they were measured steadiness and the lens test."""
    views = any("half_view" in entry["summary"] for entry in entries)
    head = ["engine", "edges: accuracy px", "edges: completeness px"]
    head += ["change to the next frame", "flicker of scale"] if sequence else []
    head += [f"half the view: change of {what}" for what in ("all frames", "a frame", "a pixel")] if views else []
    lines = []
    for entry in entries:
        edges, steady = entry["summary"]["edges"], entry["summary"].get("stability", {})
        line = [entry_name(entry), f"{edges['edge_accuracy']:.2f}", f"{edges['edge_completeness']:.2f}"]
        if sequence:
            line += [percent(steady.get("change", math.nan)), percent(steady.get("flicker", math.nan))]
        if views:
            change = entry["summary"].get("half_view", {})
            line += [_held(change.get(name, math.nan)) for name in ("bias", "shift", "change")]
        lines.append(line)
    text = "Edges in the manner of iBims-1 (true edges found in the true depth; 10 px: missed)."
    if sequence:
        text += " Change: of a surface's depth from one frame to the next, carried over by true poses; medians."
    if views:
        text += (
            " Half the view: the frame's central half, rescaled, against the same pixels of the whole. All frames: "
            "median of their changes, near and far against each other. A frame, a pixel: medians of sizes of changes."
        )
    return f"## For a robot\n\n{text}\n\n" + table(head, lines)


def _held(change: float) -> str:
    """A median change of the lens test, and whether it is small enough."""
    if math.isnan(change):
        return "-"
    return f"{percent(change)} ({'within' if abs(change) <= LENS_BAR else 'over'} {100 * LENS_BAR:g} %)"

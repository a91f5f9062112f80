"""Accuracy as the robot gets it: the node's own preprocessing, engine and parsing over a data set with true depth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.engines.acceptance import Predict
from perception.evaluation.frames import Dataset, RGBDFrame
from perception.evaluation.results import ResultLog, Row, summarise
from perception.evaluation.stability import half_view_change, relative_change, scale_of
from perception.tasks import depth as depth_task
from perception.tasks.config import ModelConfig
from perception.tasks.depth_metrics import PLAIN, Rule, band_sums, edge_errors, metrics
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess

Estimate = Callable[[RGBDFrame], tuple[np.ndarray, float]]
"""A frame to metres in its pixels, and the milliseconds of inference (NaN where nothing is inferred)."""


@dataclass(frozen=True)
class Options:
    """What is measured beside the metrics of each frame, and by which rule."""

    rule: Rule = PLAIN
    half_view: bool = False
    """Whether the lens test is made on every frame; it takes a second inference."""


def predict_depth(predict: Predict, config: ModelConfig, frame: RGBDFrame) -> depth_task.Depth:
    """Depth of one frame, by the same steps as the node takes."""
    image = Image(frame.rgb, "rgb8")
    fit = Fit.of(image.size, config, frame.camera)
    return depth_task.parse(predict(preprocess(image, config, fit)), fit, config)


def network(predict: Predict, config: ModelConfig, clock: Callable[[], float] = time.perf_counter) -> Estimate:
    """An engine as an `Estimate`; only its `run` is timed."""

    def estimate(frame: RGBDFrame) -> tuple[np.ndarray, float]:
        seconds = math.nan

        def timed(image: np.ndarray) -> Mapping[str, np.ndarray]:
            nonlocal seconds
            start = clock()
            outputs = predict(image)
            seconds = clock() - start
            return outputs

        metres = predict_depth(timed, config, frame).metres
        return metres, 1e3 * seconds

    return estimate


def run(
    estimate: Estimate,
    dataset: Dataset,
    count: int,
    options: Options,
    log: ResultLog,
    progress: Callable[[range], Iterable[int]] = iter,
) -> list[Row]:
    """Measure the first `count` samples, of which `log` may hold some already; a row for each, in order.

    A broken sample gets a row with `error`. In a sequence each frame is held against the one before it, which is
    estimated again when a run continues.

    Raises:
        ValueError: every sample is broken; the message says what is wrong with the first.
    """
    before: tuple[RGBDFrame, np.ndarray] | None = None
    for index in progress(range(count)):
        if index < len(log.rows):
            continue
        if dataset.sequence and index and before is None and "error" not in log.rows[index - 1]:
            frame = dataset[index - 1]
            before = frame, estimate(frame)[0]
        row, before = measure(estimate, dataset, index, options, before)
        log.append(row)
    if count and all("error" in row for row in log.rows):
        raise ValueError(f"all {count} samples of {dataset.name} are broken; the first: {log.rows[0]['error']}")
    return log.rows


def measure(
    estimate: Estimate,
    dataset: Dataset,
    index: int,
    options: Options,
    before: tuple[RGBDFrame, np.ndarray] | None = None,
) -> tuple[Row, tuple[RGBDFrame, np.ndarray] | None]:
    """The row of one sample, and its frame with the estimate; None instead where the sample is broken."""
    head = {"index": index, "name": dataset.label(index)}
    try:
        frame = dataset[index]
        truth = true_depth(frame)
        metres, milliseconds = estimate(frame)
        row: dict[str, Any] = {
            "metrics": metrics(metres, truth, options.rule),
            "bands": band_sums(metres, truth, options.rule),
            "edges": edge_errors(metres, truth, options.rule),
            "milliseconds": milliseconds,
        }
        if math.isnan(row["metrics"]["rmse"]):
            raise ValueError("no pixel is left to compare: depth is unknown, outside of crop and cap, or unpredicted")
        if dataset.sequence:
            row["scale"] = scale_of(metres, truth)
            row["change"] = math.nan if before is None else relative_change(*before, frame, metres)
        if options.half_view:
            row["half_view"] = half_view_change(lambda view: estimate(view)[0], frame, metres)
    except (ValueError, OSError) as error:  # not EngineError: an engine's failure is not the sample's
        return head | {"error": str(error)}, None
    return head | row, (frame, metres)


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
    intervals, and `frames`. For code that has its frames in hand; `run` is what measures a data set.

    Raises:
        ValueError: a frame without true depth, or no frame at all.
    """
    rows: list[Row] = [
        {"metrics": metrics(predict_depth(predict, config, frame).metres, true_depth(frame), rule)} for frame in frames
    ]
    if not rows:
        raise ValueError("the data set is empty; nothing to evaluate")
    summary = summarise(rows)
    intervals = {f"{name}_ci95": summary["ci95"][name] for name in ("delta1", "rmse")}
    return summary["metrics"] | intervals | {"frames": float(len(rows))}

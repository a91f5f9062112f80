"""Accuracy as the robot gets it: the node's own preprocessing, engine and parsing over a data set with known truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from perception.engines.acceptance import Predict
from perception.engines.runtimes import Frame as Inputs
from perception.evaluation.assessment import Assessment, Estimate, Sample
from perception.evaluation.frames import Dataset, Frame
from perception.evaluation.results import ResultLog, Row
from perception.tasks.config import ModelConfig


def network(
    assessment: Assessment,
    predict: Predict,
    config: ModelConfig,
    dataset: Dataset[Any],
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """An engine as an `Estimate`; only its `run` is timed."""
    seconds = math.nan

    def timed(inputs: Inputs) -> Mapping[str, np.ndarray]:
        nonlocal seconds
        start = clock()
        outputs = predict(inputs)
        seconds = clock() - start
        return outputs

    infer = assessment.inference(timed, config, dataset)

    def estimate(frame: Frame) -> tuple[Any, float]:
        result = infer(frame)
        return result, 1e3 * seconds

    return estimate


def run(
    estimate: Estimate,
    dataset: Dataset[Any],
    count: int,
    assessment: Assessment,
    log: ResultLog,
    progress: Callable[[range], Iterable[int]] = iter,
) -> list[Row]:
    """Measure the first `count` samples, of which `log` may hold some already; a row for each, in order.

    A broken sample gets a row with `error`. In a sequence each frame is held against the one before it, which is
    estimated again when a run continues.

    Raises:
        ValueError: every sample is broken; the message says what is wrong with the first.
    """
    before: Sample | None = None
    for index in progress(range(count)):
        if index < len(log.rows):
            continue
        if dataset.sequence and index and before is None and "error" not in log.rows[index - 1]:
            frame = dataset[index - 1]
            before = Sample(frame, estimate(frame)[0])
        row, before = measure(estimate, dataset, index, assessment, before)
        log.append(row)
    if count and all("error" in row for row in log.rows):
        raise ValueError(f"all {count} samples of {dataset.name} are broken; the first: {log.rows[0]['error']}")
    return log.rows


def measure(
    estimate: Estimate, dataset: Dataset[Any], index: int, assessment: Assessment, before: Sample | None = None
) -> tuple[Row, Sample | None]:
    """The row of one sample, and its frame with the estimate; None instead where the sample is broken."""
    head = {"index": index, "name": dataset.label(index)}
    try:
        frame = dataset[index]
        result, milliseconds = estimate(frame)
        sample = Sample(frame, result)
        row = assessment.measure(sample, before, dataset, lambda view: estimate(view)[0])
    except (ValueError, OSError) as error:  # not EngineError: an engine's failure is not the sample's
        return head | {"error": str(error)}, None
    return head | row | {"milliseconds": milliseconds}, sample

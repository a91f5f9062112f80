"""Every target and precision of a model against plain ONNX Runtime, timed together."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.engines import auto
from perception.engines.device import cpu
from perception.engines.errors import EngineError
from perception.engines.graph import to_bytes
from perception.engines.runtimes import RUNTIMES, Progress, Session, get_runtime
from perception.engines.suppression_check import compare_suppression, suppressing
from perception.engines.workshop import EngineCandidate, Workshop, candidates, make_workshop
from perception.tasks import detection
from perception.tasks.geometry import Fit

PARSED_AT = (0.3, 1e-8)
"""A robot's threshold, and that of an evaluation."""
PARSINGS = 200


@dataclass
class Baseline:
    """ONNX Runtime in fp32 with its default options on the graph as it was exported: what one has without us."""

    workshop: Workshop
    threads: int
    target: str = "plain"
    precision: str = "fp32"
    note: str = "ONNX Runtime, default options, plain export"

    def start(self) -> Session:
        """Load the graph."""
        runtime = get_runtime("onnxruntime")
        graph = to_bytes(self.workshop.source.plain())
        return runtime.load(graph, self.workshop.config, "fp32", self.threads)


def bench(
    model: str,
    target: str,
    precision: str,
    threads: int,
    size: tuple[int, int] | None,
    frames: Path | None,
    calibration: Path | None,
    progress: Progress,
    part: str = "",
) -> str:
    """Time the baseline and all candidates in turn and return the table, with what it was measured on.

    Raises:
        EngineError: as `perception.engines.build`.
    """
    workshop = make_workshop(model, size, frames, calibration, progress, part=part)
    possible: list[Baseline | EngineCandidate] = [Baseline(workshop, threads)]
    possible += candidates(workshop, target, precision, RUNTIMES, threads)
    rows = auto.measure(possible, workshop.acceptance, progress)
    height, width = workshop.config.input_size
    name = f"{workshop.config.name} {part}".strip()
    head = f"{name} {height}x{width} on {cpu().name}, {threads or os.cpu_count()} threads"
    best = auto.fastest(rows[1:])
    lines = [head, auto.table(rows, rows[0].times), f"fastest that passes parity: {best.name}"]
    if workshop.config.decoder is not None:
        winner = next(candidate for candidate in possible if candidate is best.candidate)
        lines += [_parsing(workshop), _suppression(winner)]
    return "\n".join(lines)


def _parsing(workshop: Workshop) -> str:
    """What parsing takes of what the definition says of the frames, which no runtime changes: one thread of NumPy."""
    config = workshop.config
    fit = Fit.of(config.input_size, config)
    parts = []
    for threshold in PARSED_AT:
        durations, found = [], 0
        for turn in range(PARSINGS):
            outputs = workshop.reference[turn % len(workshop.reference)]
            start = time.perf_counter()
            found += len(detection.parse(outputs, fit, config, threshold))
            durations.append(time.perf_counter() - start)
        p50, p95 = 1e3 * np.percentile(durations, (50, 95))
        parts.append(f"score {threshold:g}: {p50:.2f} / {p95:.2f} ms for {found / PARSINGS:.1f} objects an image")
    return f"parsing and suppression in NumPy, p50 / p95: {'; '.join(parts)}"


def _suppression(winner: Baseline | EngineCandidate) -> str:
    assert isinstance(winner, EngineCandidate)
    lines: list[str] = []
    try:
        compare_suppression(winner, suppressing(winner), lines.append)
    except EngineError as error:
        return f"suppression in the graph is not possible: {error}"
    return f"{winner.target} {winner.precision}: {lines[-1]}"

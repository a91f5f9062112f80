"""Every target and precision of a model against plain ONNX Runtime, timed together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from perception.engines import auto
from perception.engines.device import cpu
from perception.engines.graph import to_bytes
from perception.engines.runtimes import RUNTIMES, Progress, Session, get_runtime
from perception.engines.workshop import EngineCandidate, Workshop, candidates, make_workshop


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
) -> str:
    """Time the baseline and all candidates in turn and return the table, with what it was measured on.

    Raises:
        EngineError: as `perception.engines.build`.
    """
    workshop = make_workshop(model, size, frames, calibration, progress)
    possible: list[Baseline | EngineCandidate] = [Baseline(workshop, threads)]
    possible += candidates(workshop, target, precision, RUNTIMES, threads)
    rows = auto.measure(possible, workshop.acceptance, progress)
    height, width = workshop.config.input_size
    head = f"{workshop.config.name} {height}x{width} on {cpu().name}, {threads or os.cpu_count()} threads"
    best = auto.fastest(rows[1:])
    return f"{head}\n{auto.table(rows, rows[0].times)}\nfastest that passes parity: {best.name}"

"""What engines are built from: a source, its frames, and the graphs made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from perception.engines.acceptance import Acceptance, Finding, FindJudge, Judge
from perception.engines.errors import EngineError
from perception.engines.frames import find_frames, load_frames, split
from perception.engines.graph import read, to_bytes
from perception.engines.key import Key, hash_frames, make_key, sha256
from perception.engines.precision import to_fp16
from perception.engines.quantize import Statistics, calibrate, place_pairs
from perception.engines.runtimes import (
    PRECISIONS,
    Frame,
    Progress,
    Quantization,
    Runtime,
    Session,
    available_runtimes,
    get_runtime,
)
from perception.engines.sensitivity import Bench
from perception.engines.source import Source, complete, open_source
from perception.engines.store import Record
from perception.engines.suppression import suppressed, with_suppression
from perception.tasks.config import ModelConfig

SENSITIVITY_FRAMES = 8


@dataclass(frozen=True)
class FloatLayers:
    """Which layers int8 leaves in float32: those named, and so many of those that it harms most."""

    named: tuple[str, ...] = ()
    worst: int = 0


ALL_INT8 = FloatLayers()


class Workshop:
    """A source with its frames and the graphs made of it so far, shared by everything that is built from it.

    Args:
        calibration, parity_frames: image files; never the same ones.
        judge: measures accuracy; None: parity alone decides.
        layers: which ones int8 leaves in float32.
    """

    def __init__(
        self,
        source: Source,
        calibration: list[Path],
        parity_frames: list[Path],
        progress: Progress,
        judge: Judge | None = None,
        layers: FloatLayers = ALL_INT8,
    ) -> None:
        self.source = source
        self.config = source.config
        self.progress = progress
        self.frames = complete(source, load_frames(parity_frames, source.config))
        self.judge = judge
        self._calibration, self._layers = calibration, layers
        self._kept: dict[Quantization, tuple[str, ...]] = {}
        self._graphs: dict[tuple[str, Quantization | None], bytes] = {}

    @cached_property
    def calibration(self) -> list[Frame]:
        """Frames that int8 scales come from."""
        return complete(self.source, load_frames(self._calibration, self.config))

    @cached_property
    def reference(self) -> list[dict[str, np.ndarray]]:
        """What the float32 definition makes of the parity frames."""
        self.progress(f"running the float32 definition on {len(self.frames)} frames")
        return [
            {name: array.copy() for name, array in outputs.items()} for outputs in self.source.reference(self.frames)
        ]

    @cached_property
    def acceptance(self) -> Acceptance:
        """What engines are held against."""
        if self.judge is None:
            return Acceptance(self.config, self.frames, self.reference)
        self.progress(f"measuring the float32 definition's accuracy on {self.judge.data}")
        expected = self.judge.score(lambda image: next(iter(self.source.reference([image]))), self.config)
        self.progress(f"{self.judge.metric} of the float32 definition is {expected:.4f}")
        return Acceptance(self.config, self.frames, self.reference, self.judge, expected)

    @cached_property
    def _statistics(self) -> dict[str, Statistics]:
        return calibrate(self._float32, self.calibration, self.progress)

    def sensitivity(self, scheme: Quantization, frames: int = SENSITIVITY_FRAMES) -> Bench:
        """Where the float32 graph's layers are quantised one at a time, on so many of the parity frames."""
        step = max(1, len(self.frames) // frames)
        return Bench(self._float32, self._statistics, scheme, self.frames[::step], self.config)

    def float_layers(self, scheme: Quantization) -> tuple[str, ...]:
        """Names of the layers that int8 leaves in float32: those that were named, and the worst ones."""
        if scheme not in self._kept:
            ranked = self.sensitivity(scheme).rank(self.progress) if self._layers.worst else []
            worst = [layer.name for layer in ranked[: self._layers.worst]]
            self._kept[scheme] = tuple(sorted({*self._layers.named, *worst}))
            if self._kept[scheme]:
                self.progress(f"in float32 stay {', '.join(self._kept[scheme])}")
        return self._kept[scheme]

    @cached_property
    def _float32(self) -> onnx.ModelProto:
        self.progress("exporting the graph")
        return self.source.graph()

    def graph(self, runtime: Runtime, precision: str) -> bytes:
        """What `runtime` compiles at this precision."""
        if runtime.graph_format == "torch":
            return self.source.program()
        scheme = runtime.quantization() if precision == "int8" else None
        if (precision, scheme) not in self._graphs:
            self._graphs[precision, scheme] = to_bytes(self._make_graph(precision, scheme))
        return self._graphs[precision, scheme]

    def _make_graph(self, precision: str, scheme: Quantization | None) -> onnx.ModelProto:
        if scheme:
            return place_pairs(self._float32, self._statistics, scheme, self.float_layers(scheme))
        return to_fp16(self._float32) if precision == "fp16" else self._float32

    def key(self, runtime: Runtime, precision: str, graph: bytes, config: ModelConfig) -> Key:
        """The key of an engine that is built now."""
        return make_key(
            runtime,
            precision,
            config,
            source=self.source.identity,
            graph=sha256(graph),
            calibration=hash_frames(self.calibration) if precision == "int8" else "",
            float_layers=", ".join(self.float_layers(runtime.quantization())) if precision == "int8" else "",
        )


@dataclass
class EngineCandidate:
    """One runtime at one precision; what `auto` compares."""

    workshop: Workshop
    runtime: Runtime
    precision: str
    threads: int = 0
    suppresses: bool = False
    """Whether the graph finds a detector's boxes itself; see `perception.engines.suppression`."""
    plan: bytes = field(default=b"", repr=False)

    @cached_property
    def config(self) -> ModelConfig:
        """Of the engine: the model's, with other outputs where the graph suppresses."""
        return suppressed(self.workshop.config) if self.suppresses else self.workshop.config

    @cached_property
    def graph(self) -> bytes:
        """What is compiled."""
        graph = self.workshop.graph(self.runtime, self.precision)
        return to_bytes(with_suppression(read(graph))) if self.suppresses else graph

    @property
    def key(self) -> Key:
        """Of the engine that is built now."""
        return self.workshop.key(self.runtime, self.precision, self.graph, self.config)

    @property
    def target(self) -> str:
        """The runtime's name."""
        return self.runtime.name

    @property
    def note(self) -> str:
        """See `Runtime.note`."""
        return self.runtime.note(self.precision)

    def start(self) -> Session:
        """Compile, keep the plan, and load it; a second time the plan that is there already."""
        self.plan = self.plan or self.runtime.compile(self.graph, self.precision, self.workshop.progress)
        return self.runtime.load(self.plan, self.config, self.precision, self.threads)

    def record(self, finding: Finding, milliseconds: float, now: float, chosen: bool) -> Record:
        """What the store keeps beside the plan."""
        return Record(
            config=self.config,
            model=self.workshop.source.model,
            key=self.key,
            plan="",
            plan_sha256="",
            parity=finding.disagreement,
            bound=finding.bound,
            milliseconds=milliseconds,
            built=now,
            accuracy=finding.accuracy,
            chosen=now if chosen else 0.0,
        )


def candidates(
    workshop: Workshop, target: str, precision: str, runtimes: Mapping[str, Callable[[], Runtime]], threads: int = 0
) -> list[EngineCandidate]:
    """Every combination that `target` and `precision` allow here ("auto": all).

    Raises:
        EngineError: unknown names, a missing library, or a precision that the target does not have here.
    """
    if precision not in ("auto", *PRECISIONS):
        raise EngineError(f"precision {precision!r} is unknown; accepted: auto, {', '.join(PRECISIONS)}")
    found = available_runtimes(runtimes) if target == "auto" else [get_runtime(target, runtimes)]
    fitting = [runtime for runtime in found if runtime.graph_format in workshop.source.formats]
    if not fitting:
        raise EngineError(f"target {target!r} needs a registered model, and {workshop.source.model} is an ONNX file")
    combinations = [
        EngineCandidate(workshop, runtime, possible, threads)
        for runtime in fitting
        for possible in runtime.precisions()
        if precision in ("auto", possible)
    ]
    if not combinations:
        offers = "; ".join(f"{runtime.name}: {', '.join(runtime.precisions())}" for runtime in fitting)
        raise EngineError(f"precision {precision!r} is not possible with target {target!r} on this machine ({offers})")
    return combinations


def make_workshop(
    model: str,
    size: tuple[int, int] | None = None,
    frames: Path | None = None,
    calibration: Path | None = None,
    progress: Progress = lambda line: None,
    judge: FindJudge | None = None,
    layers: FloatLayers = ALL_INT8,
    part: str = "",
) -> Workshop:
    """Open the model and share out the frames.

    Args:
        frames: folder of images; the shipped clip if None.
        calibration: another folder for int8 scales; if None, every second image of `frames`.
        judge: finds the judge of the model; a part has none.
        layers: see `Workshop`.
        part: of a network that has parts, each of which is an engine.

    Raises:
        EngineError: see `open_source`; or no part was named of a network that has some.
    """
    progress(f"opening {part and f'part {part} of '}{model}")
    source = open_source(model, size, part)
    if source.config.parts and not part:
        names = ", ".join(each.name for each in source.config.parts)
        raise EngineError(f"{model} is built in parts: {names}; say which")
    to_calibrate, to_compare = split(find_frames(frames))
    if calibration:
        to_calibrate = split(find_frames(calibration))[0]
    return Workshop(
        source, to_calibrate, to_compare, progress, judge(source.config) if judge and not part else None, layers
    )

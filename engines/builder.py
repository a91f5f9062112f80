"""Building engines: graph, key, plan, parity, store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from perception.engines import auto, parity
from perception.engines.errors import EngineError
from perception.engines.frames import find_frames, load_frames, split
from perception.engines.graph import to_bytes
from perception.engines.key import Key, hash_frames, make_key, sha256
from perception.engines.precision import to_fp16
from perception.engines.quantize import quantize
from perception.engines.runtimes import (
    PRECISIONS,
    RUNTIMES,
    Progress,
    Quantization,
    Runtime,
    Session,
    available_runtimes,
    get_runtime,
)
from perception.engines.source import Source, open_source
from perception.engines.store import Record, Store
from perception.engines.timing import time_sessions

TIMED_ROUNDS = 10


class Workshop:
    """A source with its frames and the graphs made of it so far, shared by everything that is built from it.

    Args:
        calibration, parity_frames: image files; never the same ones.
    """

    def __init__(self, source: Source, calibration: list[Path], parity_frames: list[Path], progress: Progress) -> None:
        self.source = source
        self.config = source.config
        self.progress = progress
        self.frames = load_frames(parity_frames, source.config)
        self._calibration = calibration
        self._graphs: dict[tuple[str, Quantization | None], bytes] = {}

    @cached_property
    def calibration(self) -> list[np.ndarray]:
        """Frames that int8 scales come from."""
        return load_frames(self._calibration, self.config)

    @cached_property
    def reference(self) -> list[dict[str, np.ndarray]]:
        """What the float32 definition makes of the parity frames."""
        self.progress(f"running the float32 definition on {len(self.frames)} frames")
        return [
            {name: array.copy() for name, array in outputs.items()} for outputs in self.source.reference(self.frames)
        ]

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
            return quantize(self._float32, self.calibration, scheme, self.progress)
        return to_fp16(self._float32) if precision == "fp16" else self._float32

    def key(self, runtime: Runtime, precision: str, graph: bytes) -> Key:
        """The key of an engine that is built now."""
        return make_key(
            runtime,
            precision,
            self.config,
            source=self.source.identity,
            graph=sha256(graph),
            calibration=hash_frames(self.calibration) if precision == "int8" else "",
        )


@dataclass
class EngineCandidate:
    """One runtime at one precision; what `auto` compares."""

    workshop: Workshop
    runtime: Runtime
    precision: str
    threads: int = 0
    plan: bytes = field(default=b"", repr=False)

    @property
    def target(self) -> str:
        """The runtime's name."""
        return self.runtime.name

    @property
    def note(self) -> str:
        """See `Runtime.note`."""
        return self.runtime.note(self.precision)

    def start(self) -> Session:
        """Compile, keep the plan, and load it."""
        graph = self.workshop.graph(self.runtime, self.precision)
        self.plan = self.runtime.compile(graph, self.precision, self.workshop.progress)
        return self.runtime.load(self.plan, self.workshop.config, self.precision, self.threads)

    def record(self, disagreement: float, milliseconds: float, now: float, chosen: bool) -> Record:
        """What the store keeps beside the plan."""
        graph = self.workshop.graph(self.runtime, self.precision)
        return Record(
            config=self.workshop.config,
            model=self.workshop.source.model,
            key=self.workshop.key(self.runtime, self.precision, graph),
            plan="",
            plan_sha256="",
            parity=disagreement,
            bound=parity.bound(self.workshop.config, self.precision),
            milliseconds=milliseconds,
            built=now,
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
) -> Workshop:
    """Open the model and share out the frames.

    Args:
        frames: folder of images; the shipped clip if None.
        calibration: another folder for int8 scales; if None, every second image of `frames`.
    """
    progress(f"opening {model}")
    to_calibrate, to_compare = split(find_frames(frames))
    if calibration:
        to_calibrate = split(find_frames(calibration))[0]
    return Workshop(open_source(model, size), to_calibrate, to_compare, progress)


def build(
    model: str,
    target: str = "auto",
    precision: str = "auto",
    *,
    size: tuple[int, int] | None = None,
    directory: Path | None = None,
    frames: Path | None = None,
    calibration: Path | None = None,
    progress: Progress = lambda line: None,
    runtimes: Mapping[str, Callable[[], Runtime]] = RUNTIMES,
    clock: Callable[[], float] = time.time,
) -> Path:
    """Build an engine, hold it against the float32 definition, and store it. Nothing is built where nothing changed.

    Args:
        model: registered name, or path of an ONNX file with our metadata.
        target, precision: names, or "auto": all that are possible here are timed and the fastest right one is kept.
        size: (height, width) other than the model's own.
        frames, calibration: see `make_workshop`.

    Returns:
        The engine's JSON file; its plan lies beside it.

    Raises:
        EngineError: see the message; what was stored before is untouched.
    """
    store = Store(directory)
    workshop = make_workshop(model, size, frames, calibration, progress)
    possible = candidates(workshop, target, precision, runtimes)
    if "auto" in (target, precision) and len(possible) > 1:
        return _build_fastest(workshop, possible, store, progress, clock)
    return _build_one(possible[0], store, progress, clock)


def _build_one(candidate: EngineCandidate, store: Store, progress: Progress, clock: Callable[[], float]) -> Path:
    workshop = candidate.workshop
    path = store.record_path(workshop.source.model, workshop.config, candidate.target, candidate.precision)
    graph = workshop.graph(candidate.runtime, candidate.precision)
    if _is_current(store, path, workshop.key(candidate.runtime, candidate.precision, graph)):
        progress(f"{path} is up to date")
        return path
    session = candidate.start()
    try:
        found = parity.disagreement(session, workshop.config, workshop.frames, workshop.reference)
        limit = parity.bound(workshop.config, candidate.precision)
        if not found <= limit:
            raise EngineError(auto.refusal(f"{candidate.target} {candidate.precision}", found, limit))
        times = time_sessions({"engine": session}, workshop.frames, TIMED_ROUNDS)["engine"]
    finally:
        session.close()
    progress(f"parity {found:.4f} (accepted: {limit}), {times.p50:.2f} ms")
    return store.save(candidate.record(found, times.p50, clock(), chosen=False), candidate.plan)


def _is_current(store: Store, path: Path, key: Key) -> bool:
    try:
        record = store.read(path)
        store.plan(record)
    except EngineError:
        return False
    return record.key == key


def _build_fastest(
    workshop: Workshop,
    possible: list[EngineCandidate],
    store: Store,
    progress: Progress,
    clock: Callable[[], float],
) -> Path:
    rows = auto.measure(possible, workshop.config, workshop.frames, workshop.reference, progress)
    progress(auto.table(rows))
    row = auto.fastest(rows)
    winner = next(candidate for candidate in possible if candidate is row.candidate)
    milliseconds = row.times.p50 if row.times else float("nan")
    progress(f"{row.name} is the fastest that passes parity")
    return store.save(winner.record(row.disagreement, milliseconds, clock(), chosen=True), winner.plan)

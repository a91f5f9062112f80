"""Building engines: graph, key, plan, acceptance, store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from perception.engines import auto
from perception.engines.acceptance import FindJudge
from perception.engines.errors import EngineError
from perception.engines.key import Key
from perception.engines.runtimes import RUNTIMES, Progress, Runtime
from perception.engines.store import Store
from perception.engines.suppression_check import can_suppress, compare_suppression, suppressing
from perception.engines.timing import time_sessions
from perception.engines.workshop import ALL_INT8, EngineCandidate, FloatLayers, Workshop, candidates, make_workshop

TIMED_ROUNDS = 10
SUPPRESSIONS = ("auto", "graph", "numpy")


def build(
    model: str,
    target: str = "auto",
    precision: str = "auto",
    *,
    size: tuple[int, int] | None = None,
    directory: Path | None = None,
    frames: Path | None = None,
    calibration: Path | None = None,
    judge: FindJudge | None = None,
    layers: FloatLayers = ALL_INT8,
    suppression: str = "auto",
    part: str = "",
    progress: Progress = lambda line: None,
    runtimes: Mapping[str, Callable[[], Runtime]] = RUNTIMES,
    clock: Callable[[], float] = time.time,
) -> Path:
    """Build an engine, hold it against the float32 definition, and store it. Nothing is built where nothing changed.

    Args:
        model: registered name, or path of an ONNX file with our metadata.
        target, precision: names, or "auto": all that are possible here are timed and the fastest right one is kept.
        size: (height, width) other than the model's own.
        frames, calibration, judge, layers, part: see `make_workshop`.
        suppression: where a detector's doubles are left out: in its "graph", in "numpy" behind it, or where that takes
            less time here ("auto"; of an engine by name that is "numpy", the one whose thresholds can be changed).

    Returns:
        The engine's JSON file; its plan lies beside it.

    Raises:
        EngineError: see the message; what was stored before is untouched.
    """
    store = Store(directory)
    workshop = make_workshop(model, size, frames, calibration, progress, judge, layers, part)
    if suppression not in SUPPRESSIONS:
        raise EngineError(f"suppression {suppression!r} is unknown; accepted: {', '.join(SUPPRESSIONS)}")
    possible = candidates(workshop, target, precision, runtimes)
    if "auto" in (target, precision) and len(possible) > 1:
        return _build_fastest(workshop, possible, store, suppression, progress, clock)
    return _build_one(possible[0], store, suppression == "graph", progress, clock)


def _build_one(
    candidate: EngineCandidate, store: Store, suppresses: bool, progress: Progress, clock: Callable[[], float]
) -> Path:
    workshop = candidate.workshop
    path = store.record_path(workshop.source.model, workshop.config, candidate.target, candidate.precision)
    wanted = suppressing(candidate) if suppresses else candidate
    judged = workshop.judge.data if workshop.judge else ""
    if _is_current(store, path, wanted.key, judged):
        progress(f"{path} is up to date")
        return path
    session = candidate.start()
    try:
        name = f"{candidate.target} {candidate.precision}"
        found = workshop.acceptance.examine(session, name, candidate.precision)
        if found.problem:
            raise EngineError(found.problem)
        times = time_sessions({"engine": session}, workshop.frames, TIMED_ROUNDS)["engine"]
    finally:
        session.close()
    progress(f"parity {found.disagreement:.4f} (accepted: {found.bound}), {times.p50:.2f} ms")
    if accuracy := found.accuracy:
        progress(
            f"{accuracy.metric} {accuracy.value:.4f} on {accuracy.data}, {accuracy.drop:+.4f} lost "
            f"(accepted: {accuracy.bound})"
        )
    if suppresses:
        compare_suppression(candidate, wanted, progress)
    return store.save(wanted.record(found, times.p50, clock(), chosen=False), wanted.plan)


def _is_current(store: Store, path: Path, key: Key, judged: str) -> bool:
    """Whether the stored engine is the one to build, and was held against the same truth if there is one now."""
    try:
        record = store.read(path)
        store.plan(record)
    except EngineError:
        return False
    measured = not judged or (record.accuracy is not None and record.accuracy.data == judged)
    return record.key == key and measured


def _build_fastest(
    workshop: Workshop,
    possible: list[EngineCandidate],
    store: Store,
    suppression: str,
    progress: Progress,
    clock: Callable[[], float],
) -> Path:
    rows = auto.measure(possible, workshop.acceptance, progress)
    progress(auto.table(rows))
    row = auto.fastest(rows)
    winner = next(candidate for candidate in possible if candidate is row.candidate)
    milliseconds = row.times.p50 if row.times else float("nan")
    assert row.finding  # it passed
    progress(f"{row.name} is the fastest that passes")
    if suppression == "graph" or (suppression == "auto" and can_suppress(winner)):
        winner = _suppressing_if_better(winner, suppression == "graph", progress)
    return store.save(winner.record(row.finding, milliseconds, clock(), chosen=True), winner.plan)


def _suppressing_if_better(winner: EngineCandidate, forced: bool, progress: Progress) -> EngineCandidate:
    """The candidate with suppression in its graph if that finds the same in less time, or must."""
    other = suppressing(winner)
    try:
        plain, inside = compare_suppression(winner, other, progress)
    except EngineError as error:
        if forced:
            raise
        progress(f"doubles are left out in NumPy: {error}")
        return winner
    return other if forced or inside < plain else winner

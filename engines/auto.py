"""Which engine is the fastest that is still right, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from perception.engines import parity
from perception.engines.errors import EngineError
from perception.engines.runtimes import Progress, Session
from perception.engines.timing import ROUNDS, Times, time_sessions
from perception.tasks.config import ModelConfig


class Candidate(Protocol):
    """A way to run a model that may turn out slow, wrong or impossible."""

    @property
    def target(self) -> str:
        """Name of the runtime."""

    @property
    def precision(self) -> str:
        """Name out of PRECISIONS."""

    @property
    def note(self) -> str:
        """What a reader of the table should know."""

    def start(self) -> Session:
        """Compile and load; raises EngineError where that is not possible."""


@dataclass
class Row:
    """What was found out about one candidate."""

    candidate: Candidate
    disagreement: float = float("nan")
    bound: float = float("nan")
    times: Times | None = None
    problem: str = ""
    session: Session | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """E.g. "openvino int8"."""
        return f"{self.candidate.target} {self.candidate.precision}"


def measure(
    candidates: Iterable[Candidate],
    config: ModelConfig,
    frames: Sequence[np.ndarray],
    reference: Sequence[Mapping[str, np.ndarray]],
    progress: Progress,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Row]:
    """Start every candidate, refuse those that miss the parity bound, and time the others together.

    Sessions are closed before it returns. Rows come in the order of `candidates`.
    """
    rows = [_try(candidate, config, frames, reference, progress) for candidate in candidates]
    running = {row.name: row.session for row in rows if row.session}
    try:
        progress(f"timing {len(running)} candidates in turn")
        times = time_sessions(running, frames, rounds, clock)
    finally:
        for session in running.values():
            session.close()
    for row in rows:
        row.times, row.session = times.get(row.name), None
    return rows


def _try(
    candidate: Candidate,
    config: ModelConfig,
    frames: Sequence[np.ndarray],
    reference: Sequence[Mapping[str, np.ndarray]],
    progress: Progress,
) -> Row:
    row = Row(candidate)
    progress(f"{row.name}: compiling")
    try:
        session = candidate.start()
    except EngineError as error:
        row.problem = str(error)
        return row
    row.bound = parity.bound(config, candidate.precision)
    row.disagreement = parity.disagreement(session, config, frames, reference)
    if row.disagreement <= row.bound:
        row.session = session
    else:
        row.problem = refusal(row.name, row.disagreement, row.bound)
        with suppress(EngineError):
            session.close()
    return row


def refusal(name: str, disagreement: float, bound: float) -> str:
    """The sentence about an engine that misses parity."""
    return f"{name} misses parity: it disagrees with the float32 definition by {disagreement:.4f}, accepted is {bound}"


def fastest(rows: Iterable[Row]) -> Row:
    """The row with the smallest median time among those that passed.

    Raises:
        EngineError: none did; the message says why for each.
    """
    rows = list(rows)
    passed = [row for row in rows if row.times]
    if not passed:
        reasons = "; ".join(f"{row.name}: {row.problem}" for row in rows) or "there was none"
        raise EngineError(f"no candidate can be used here: {reasons}")
    return min(passed, key=lambda row: row.times.p50 if row.times else float("inf"))


def table(rows: Iterable[Row], baseline: Times | None = None) -> str:
    """The rows for people, the ratio being the baseline's median over the row's."""
    lines = [f"{'target':12}{'precision':11}{'p50 ms':>8}{'p95 ms':>8}{'ratio':>7}  {'parity':>7} {'bound':>6}  note"]
    for row in rows:
        start = f"{row.candidate.target:12}{row.candidate.precision:11}"
        if row.times is None:
            lines.append(f"{start}{'-':>8}{'-':>8}{'-':>7}  {row.problem}")
            continue
        ratio = f"{baseline.p50 / row.times.p50:7.2f}" if baseline else f"{'-':>7}"
        parts = f"{row.times.p50:8.2f}{row.times.p95:8.2f}{ratio}  {row.disagreement:7.4f} {row.bound:6.3g}"
        lines.append(f"{start}{parts}  {row.candidate.note}".rstrip())
    return "\n".join(lines)

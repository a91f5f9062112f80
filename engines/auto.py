"""Which engine is the fastest that is still right, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from perception.engines.acceptance import Acceptance, Finding
from perception.engines.errors import EngineError
from perception.engines.runtimes import Progress, Session
from perception.engines.timing import ROUNDS, Times, time_sessions


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
    finding: Finding | None = None
    times: Times | None = None
    problem: str = ""
    session: Session | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """E.g. "openvino int8"."""
        return f"{self.candidate.target} {self.candidate.precision}"


def measure(
    candidates: Iterable[Candidate],
    acceptance: Acceptance,
    progress: Progress,
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Row]:
    """Start every candidate, refuse those that are not acceptable, and time the others together.

    Sessions are closed before it returns. Rows come in the order of `candidates`.
    """
    rows = [_try(candidate, acceptance, progress) for candidate in candidates]
    running = {row.name: row.session for row in rows if row.session}
    try:
        progress(f"timing {len(running)} candidates in turn")
        times = time_sessions(running, acceptance.frames, rounds, clock)
    finally:
        for session in running.values():
            session.close()
    for row in rows:
        row.times, row.session = times.get(row.name), None
    return rows


def _try(candidate: Candidate, acceptance: Acceptance, progress: Progress) -> Row:
    row = Row(candidate)
    progress(f"{row.name}: compiling")
    try:
        session = candidate.start()
    except EngineError as error:
        row.problem = str(error)
        return row
    row.finding = acceptance.examine(session, row.name, candidate.precision)
    row.problem = row.finding.problem
    if not row.problem:
        row.session = session
    else:
        with suppress(EngineError):
            session.close()
    return row


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
    rows = list(rows)
    judged = next((row.finding.accuracy for row in rows if row.finding and row.finding.accuracy), None)
    head = f"{'target':12}{'precision':11}{'p50 ms':>8}{'p95 ms':>8}{'ratio':>7}  {'parity':>7} {'bound':>6}"
    lines = [head + (f" {judged.metric:>9} {'drop':>8}" if judged else "") + "  note"]
    for row in rows:
        start = f"{row.candidate.target:12}{row.candidate.precision:11}"
        if row.times is None or row.finding is None:
            lines.append(f"{start}{'-':>8}{'-':>8}{'-':>7}  {row.problem}")
            continue
        ratio = f"{baseline.p50 / row.times.p50:7.2f}" if baseline else f"{'-':>7}"
        found, accuracy = row.finding, row.finding.accuracy
        parts = f"{row.times.p50:8.2f}{row.times.p95:8.2f}{ratio}  {found.disagreement:7.4f} {found.bound:6.3g}"
        measured = f" {accuracy.value:9.4f} {accuracy.drop:+8.4f}" if accuracy else ""
        lines.append(f"{start}{parts}{measured}  {row.candidate.note}".rstrip())
    if judged:
        lines.append(f"{judged.metric} on {judged.data}; the float32 definition has {judged.reference:.4f}")
    return "\n".join(lines)

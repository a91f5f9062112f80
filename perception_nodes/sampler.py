"""Processor time and memory of processes while they run."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping

import numpy as np
import psutil

from perception.evaluation.replayed import growth
from perception.nodes.diagnostics import device_temperature
from perception.nodes.session import SessionError

SAMPLED = 0.5
"""Seconds between two looks at the processes."""


class Sampler:
    """Looks at processes and what they started, now and then, in a thread: processor time and resident memory.

    Raises:
        SessionError: a process has ended already.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        try:
            self._roots = {name: psutil.Process(pid) for name, pid in pids.items()}
        except psutil.NoSuchProcess as error:
            raise SessionError(f"what was started has ended before it could be measured: {error}") from error
        self._rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in pids}
        self._spent = {name: {root: 0.0} for name, root in self._roots.items()}
        """Processor seconds of each process of a root that was seen: those of one that has ended still count."""
        self.temperatures: list[float] = []
        self.megahertz: list[float] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> dict[str, np.ndarray]:
        """End; by process float64 (n, 3): the steady clock and processor time in seconds, resident memory in MiB."""
        self._stopped.set()
        self._thread.join()
        return {name: np.array(rows).reshape(-1, 3) for name, rows in self._rows.items()}

    def weather(self) -> dict[str, float | None]:
        """Highest temperature and median clock, where the machine shows them."""
        return {
            "temperature_c": round(max(self.temperatures), 1) if self.temperatures else None,
            "clock_mhz": round(float(np.median(self.megahertz))) if self.megahertz else None,
        }

    def _run(self) -> None:
        while True:
            for name, root in self._roots.items():
                self._rows[name].append(_look(root, self._spent[name]))
            if (celsius := device_temperature()) is not None:
                self.temperatures.append(celsius)
            with contextlib.suppress(NotImplementedError, OSError):  # not every machine shows its clock
                if frequency := psutil.cpu_freq():
                    self.megahertz.append(frequency.current)
            if self._stopped.wait(SAMPLED):
                return


def _look(root: psutil.Process, spent: dict[psutil.Process, float]) -> tuple[float, float, float]:
    """A row of what `Sampler.stop` gives; `spent`, the processor seconds of all that belong to the root, is updated."""
    memory = 0.0
    with contextlib.suppress(psutil.Error):  # ended: the session says so where it matters
        for child in root.children(recursive=True):
            spent.setdefault(child, 0.0)
    for process in spent:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            spent[process] = times.user + times.system
            memory += process.memory_info().rss
    return time.monotonic(), sum(spent.values()), memory / 2**20


def usage(rows: np.ndarray) -> dict[str, float]:
    """For the report, of what `Sampler.stop` gives of a process: cores, most memory and its growth in MiB."""
    t, seconds, memory = rows.T
    span = t[-1] - t[0] if len(t) > 1 else 0.0
    return {
        "cores": round(float((seconds[-1] - seconds[0]) / span), 3) if span else 0.0,
        "memory_mib": round(float(memory.max()), 1),
        "growth_mib": round(growth(t, memory), 2),
    }

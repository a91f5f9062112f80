"""Processor time and memory of processes while they run."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import numpy as np
import psutil

from perception.evaluation.replayed import growth
from perception.nodes.diagnostics import device_temperature

SAMPLED = 0.5
"""Seconds between two looks at the processes."""


class Sampler:
    """Looks at processes and what they started, now and then, in a thread: processor time and resident memory."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._roots = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in pids}
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
                self._rows[name].append(self._look(root))
            if (celsius := device_temperature()) is not None:
                self.temperatures.append(celsius)
            if frequency := psutil.cpu_freq():
                self.megahertz.append(frequency.current)
            if self._stopped.wait(SAMPLED):
                return

    @staticmethod
    def _look(root: psutil.Process) -> tuple[float, float, float]:
        """A row of what `stop` gives."""
        seconds = memory = 0.0
        try:
            for process in (root, *root.children(recursive=True)):
                times = process.cpu_times()
                seconds += times.user + times.system
                memory += process.memory_info().rss
        except psutil.NoSuchProcess:  # the session says so
            pass
        return time.monotonic(), seconds, memory / 2**20


def usage(rows: np.ndarray) -> dict[str, float]:
    """For the report, of what `Sampler.stop` gives of a process: cores, most memory and its growth in MiB."""
    t, seconds, memory = rows.T
    span = t[-1] - t[0] if len(t) > 1 else 0.0
    return {
        "cores": round(float((seconds[-1] - seconds[0]) / span), 3) if span else 0.0,
        "memory_mib": round(float(memory.max()), 1),
        "growth_mib": round(growth(t, memory), 2),
    }

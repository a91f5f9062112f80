"""What a node says on /diagnostics once a second."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from perception.tasks.durations import POINTS

if TYPE_CHECKING:
    from perception.nodes.node import BaseNode


COUNTS = ("received", "published", "dropped", "failed", "skipped", "bad_calibration")


class Reporter:
    """Publishes the state of a node: rate, counts, percentiles of every stage, engine, temperature.

    diagnostic_updater is not used: its tasks have a clock of their own, which ignores /clock.
    """

    def __init__(self, node: BaseNode) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def publish(self, problems: list[str]) -> None:
        """One status; `problems` make it a warning, frames that failed since the last one an error."""
        node, statistics = self._node, self._node.statistics
        counts = statistics.counts
        failed = statistics.take_failures()
        level, message = DiagnosticStatus.OK, "ok"
        if problems:
            level, message = DiagnosticStatus.WARN, "; ".join(problems)
        if failed > 0:
            level, message = DiagnosticStatus.ERROR, f"{failed} not usable in the last second: {statistics.last_error}"
        values = {"rate_hz": f"{statistics.rate():.2f}"}
        values |= {name: str(counts[name]) for name in COUNTS}
        for stage, durations in statistics.spreads().items():
            for name, milliseconds in durations.milliseconds().items():
                values[f"{stage}_{name}_ms"] = f"{milliseconds:.3f}"
        values |= node.describe()
        if (temperature := device_temperature()) is not None:
            values["temperature_c"] = f"{temperature:.1f}"
        status = DiagnosticStatus(
            level=level,
            name=node.get_fully_qualified_name(),
            message=message,
            hardware_id=node.describe().get("device", ""),
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = node.get_clock().now().to_msg()
        self._publisher.publish(array)


def device_temperature(root: Path = Path("/sys/class/thermal")) -> float | None:
    """The hottest thermal zone in degrees Celsius; None where the kernel shows none."""
    readings = []
    for path in root.glob("thermal_zone*/temp"):
        try:
            readings.append(int(path.read_text()) / 1000)
        except (OSError, ValueError):
            continue  # a zone that is switched off cannot be read; the others still can
    return max(readings, default=None)


def stages_of(values: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Stage to percentile to milliseconds, read back from the values of a status."""
    names = [key.removesuffix("_p50_ms") for key in values if key.endswith("_p50_ms")]
    return {name: {point: float(values[f"{name}_{point}_ms"]) for point in POINTS} for name in names}


def counts_of(values: Mapping[str, str]) -> dict[str, int]:
    """Event to count, read back from the values of a status."""
    return {name: int(values[name]) for name in COUNTS}


def engine_of(values: Mapping[str, str]) -> dict[str, str]:
    """What identifies the engine, read back from the values of a status."""
    return {
        name: values[name] for name in ("model", "target", "precision", "threads", "key", "device") if name in values
    }

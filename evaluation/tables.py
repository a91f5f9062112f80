"""Pieces of reports in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table with a line of titles."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows)


def entry_name(entry: Mapping[str, Any]) -> str:
    """E.g. "fastdepth openvino int8"."""
    return " ".join(filter(None, (entry["model"], entry["target"], entry["precision"])))


def interval(summary: Mapping[str, Any], name: str, digits: int = 3) -> str:
    """A metric, and half its 95 % interval, where that is known."""
    value, half = f"{summary['metrics'][name]:.{digits}f}", summary["ci95"][name]
    return value if math.isnan(half) else f"{value} ± {half:.{digits}f}"


def of_images(sequence: bool) -> str:
    """How figures and intervals come about that are means over images."""
    alike = " Frames of a sequence resemble each other, which makes it too narrow." if sequence else ""
    return (
        "Means over images of each image's figure, ± half a 95 % interval (1.96 standard errors over the images)."
        f"{alike}"
    )


def apart(difference: Mapping[str, float] | None, name: str) -> str:
    """How far a metric is from the reference's, and half the 95 % interval of that."""
    return f"{difference[name]:+.4f} ± {difference[f'{name}_ci95']:.4f}" if difference else "-"


def figure(value: float) -> str:
    """E.g. "0.420"."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def percent(value: float) -> str:
    """E.g. "4.20 %"."""
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"

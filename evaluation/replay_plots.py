"""Plots of what `perception bench` measured: latency over time and its distribution, stages, memory.

Needs matplotlib; whoever imports this module says so where it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from perception.evaluation.replay_report import STAGES, SUMS

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by colour-blind people too (Okabe and Ito)."""
GRID = "#e0e0e0"
WIDTH, DPI = 8.5, 140
"""Inches, and pixels of each: a README shows somewhat less than these 1190 pixels."""
LINE = 0.18
"""Inches of a line of a legend."""
SHARES = {1.0: "all", 0.5: "p50", 0.1: "p90", 0.05: "p95", 0.01: "p99", 0.001: "p99.9", 0.0001: "p99.99"}
"""Shares of images that take longer, and the percentiles that they belong to."""
SOAK = 30.0
"""Seconds from which on the memory of a run is worth a plot."""
LEAST_MIB = 8.0
"""Span of a memory axis at least: what is less is noise."""
LONGEST_NAME, LONGEST_LINE = 52, 84
"""Letters of a subject's name, and of a line of a legend."""


@dataclass
class Curve:
    """All rounds of a subject's runs at one pace.

    Args:
        runs: as in the report.
        series: of each run, see `Passage.series`.
    """

    label: str
    asked: str
    colour: str
    runs: list[Mapping[str, Any]]
    series: list[Mapping[str, np.ndarray]]


def draw_plots(report: Mapping[str, Any], series: Mapping[str, np.ndarray], folder: Path) -> dict[str, str]:
    """Write PNG files; the name of each with a caption.

    Args:
        report, series: as of `perception.evaluation.replay_report.write_report`.
    """
    curves = _curves(report["subjects"], series)
    figures = {
        "latency.png": ("Latency of each image over time, lost images as ticks", _over_time(curves)),
        "distribution.png": (
            "Share of images that take longer than a latency, lost ones always",
            _distribution(curves),
        ),
        "stages.png": ("Stages in the nodes: bars are p50, lines reach p99", _stages(curves)),
        "memory.png": ("Resident memory of each process over time", _memory(curves)),
    }
    for name in figures:
        (folder / name).unlink(missing_ok=True)  # an earlier report's
    drawn = {name: (caption, figure) for name, (caption, figure) in figures.items() if figure}
    for name, (caption, figure) in drawn.items():
        figure.suptitle(f"{caption} · {report['bag']['name']}", x=0.01, ha="left", fontsize=11)
        figure.savefig(folder / name, dpi=DPI)
    return {name: caption for name, (caption, _) in drawn.items()}


def _curves(subjects: Sequence[Mapping[str, Any]], series: Mapping[str, np.ndarray]) -> list[Curve]:
    curves: dict[tuple[int, str], Curve] = {}
    colours = cycle(COLOURS)
    for number, subject in enumerate(subjects):
        for run in subject["runs"]:
            if (number, run["asked"]) not in curves:
                name = _short(subject["name"]) if len(subjects) > 1 else ""
                label = ", ".join(part for part in (name, run["asked"]) if part)
                curves[number, run["asked"]] = Curve(label, run["asked"], next(colours), [], [])
            curve = curves[number, run["asked"]]
            curve.runs.append(run)
            prefix = f"{run['series']}/"
            curve.series.append({key.removeprefix(prefix): series[key] for key in series if key.startswith(prefix)})
    return list(curves.values())


def _short(name: str) -> str:
    """Without its middle where it is long: commands differ at their ends."""
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[: half - 1]}…{name[-half:]}"


def _over_time(curves: Sequence[Curve]) -> Figure:
    """A dot for each image, one panel for each pace; the ticks of lost ones lie below the dots."""
    paces = list(dict.fromkeys(curve.asked for curve in curves))
    figure, panels = _panels(len(paces), 2.2 + LINE * len(curves) / len(paces), sharey=True)
    for panel, asked in zip(panels, paces, strict=True):
        shown = [curve for curve in curves if curve.asked == asked]
        for place, curve in enumerate(shown):
            sent = np.concatenate([run["sent_s"] for run in curve.series])
            latency = np.concatenate([run["latency_s"] for run in curve.series])
            lost = np.isnan(latency)
            label = f"{curve.label}: {lost.sum()} of {len(lost)} lost"
            panel.plot(sent, 1e3 * latency, ".", color=curve.colour, markersize=4, alpha=0.7, label=label)
            height = np.full(int(lost.sum()), 0.03 + 0.06 * place)
            ticks = panel.get_xaxis_transform()
            panel.plot(sent[lost], height, "|", color=curve.colour, markersize=8, transform=ticks)
        _log_axis(panel, "y")
        panel.set_ylabel("latency, ms")
        _legend(panel)
    low, high = np.log10(panels[0].get_ylim())
    # Free of dots, for the ticks.
    panels[0].set_ylim(bottom=10 ** (low - (high - low) * 0.06 * len(curves) / len(paces)))
    panels[-1].set_xlabel("seconds since the first image")
    return figure


def _distribution(curves: Sequence[Curve]) -> Figure:
    """Of all images, the share without a result after so long: tails are long stairs, losses a level at the end."""
    figure, (panel,) = _panels(1, 3.6 + LINE * len(curves))
    pooled = [np.concatenate([run["latency_s"] for run in curve.series]) for curve in curves]
    finite = np.concatenate([1e3 * seconds[np.isfinite(seconds)] for seconds in pooled])
    end = 1.15 * finite.max() if len(finite) else 10.0
    floor = 0.6 / max(max(map(len, pooled)), 1)
    for curve, seconds in zip(curves, pooled, strict=True):
        came = np.sort(1e3 * seconds[np.isfinite(seconds)])
        lost = (len(seconds) - len(came)) / max(len(seconds), 1)
        share = np.concatenate([1 - np.arange(len(came)) / max(len(seconds), 1), [lost, lost]])
        begin, last = (came[0], came[-1]) if len(came) else (end / 10, end)
        x = np.concatenate([[begin], came, [end if lost else last]])
        panel.step(x, np.maximum(share, floor), where="post", color=curve.colour, linewidth=1.6, label=curve.label)
    _log_axis(panel, "x")
    panel.set_yscale("log")
    shares = [share for share in SHARES if share > floor]
    panel.set_yticks(shares, [f"{100 * share:g} %  ({SHARES[share]})" for share in shares])
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_ylim(floor, 1.15)
    panel.set_xlim(right=end)
    panel.set_xlabel("latency, ms")
    panel.set_ylabel("share that takes longer")
    _legend(panel)
    return figure


def _stages(curves: Sequence[Curve]) -> Figure | None:
    """Medians over the rounds; one panel for each node, sums of stages apart. Nothing where no node tells of stages."""
    nodes = list(dict.fromkeys(name for curve in curves for run in curve.runs for name in _told(run)))
    if not nodes:
        return None
    shown = {node: [curve for curve in curves if any(node in _told(run) for run in curve.runs)] for node in nodes}
    most = max(map(len, shown.values()))
    figure, panels = _panels(len(nodes), 0.7 + len(STAGES) * (0.1 + 0.16 * most))
    for panel, (node, bars) in zip(panels, shown.items(), strict=True):
        stages = [stage for stage in STAGES if _values(bars, node, stage)]
        rows = [row + (0.5 if stage in SUMS else 0.0) for row, stage in enumerate(stages)]
        for place, curve in enumerate(bars):
            thick = 0.84 / len(bars)
            label = curve.label
            for row, stage in zip(rows, stages, strict=True):
                if values := _values([curve], node, stage):
                    p50, p99 = np.median(values, axis=0)
                    y = row + (place - (len(bars) - 1) / 2) * thick
                    panel.barh(y, p50, 0.88 * thick, color=curve.colour, label=label)
                    panel.plot([p50, p99], [y, y], "-|", color=curve.colour, linewidth=1, markevery=[1])
                    panel.annotate(
                        f"{p50:.1f} / {p99:.1f}", (p99, y), (5, 0), textcoords="offset points", va="center",
                        fontsize=7, color="#505050",
                    )  # fmt: skip
                    label = "_"  # hides it from the legend
        panel.set_yticks(rows, stages)
        panel.invert_yaxis()
        panel.set_xlim(left=0)
        panel.grid(axis="x", color=GRID)
        panel.set_xlabel(f"{node}: ms, p50 / p99")
        panel.margins(y=0.02)
        _legend(panel)
    return figure


def _told(run: Mapping[str, Any]) -> list[str]:
    return [name for name, node in run["nodes"].items() if node.get("stages_ms")]


def _values(curves: Sequence[Curve], node: str, stage: str) -> list[tuple[float, float]]:
    """p50 and p99 in milliseconds of each run that tells of the stage."""
    stages = [run["nodes"].get(node, {}).get("stages_ms", {}).get(stage) for curve in curves for run in curve.runs]
    return [(found["p50"], found["p99"]) for found in stages if found]


def _memory(curves: Sequence[Curve]) -> Figure | None:
    """Of soaks, one panel for each process; nothing where no run was long enough."""
    rows: dict[str, list[tuple[Curve, np.ndarray, float]]] = {}
    for curve in curves:
        for run, series in zip(curve.runs, curve.series, strict=True):
            for name, process in run["processes"].items():
                samples = series[f"memory_mib/{name}"]
                if np.ptp(samples[:, 0]) >= SOAK:
                    rows.setdefault(name, []).append((curve, samples, process["growth_mib"]))
    if not rows:
        return None
    figure, panels = _panels(len(rows), 2 + LINE * max(map(len, rows.values())))
    for panel, (name, lines) in zip(panels, rows.items(), strict=True):
        for curve, samples, growth in lines:
            label = f"{curve.label}: {growth:+.1f} MiB over the second half"
            panel.plot(samples[:, 0], samples[:, 1], color=curve.colour, linewidth=1.4, label=label)
        low, high = panel.get_ylim()
        missing = max(LEAST_MIB - (high - low), 0) / 2
        panel.set_ylim(low - missing, high + missing)
        panel.grid(color=GRID)
        panel.set_ylabel(f"{_short(name)}, MiB")
        _legend(panel)
    panels[-1].set_xlabel("seconds since the first image")
    return figure


def _panels(count: int, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """So many axes below each other, each `height` inches high."""
    figure = Figure(figsize=(WIDTH, 0.6 + height * count), layout="constrained")
    panels = list(figure.subplots(count, 1, squeeze=False, sharey=sharey)[:, 0])
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_axisbelow(True)
    return figure, panels


def _log_axis(panel: Axes, which: Literal["x", "y"]) -> None:
    """Logarithmic, with plain numbers at 1, 2 and 5 times the powers of ten."""
    axis = panel.xaxis if which == "x" else panel.yaxis
    (panel.set_xscale if which == "x" else panel.set_yscale)("log", subs=[2, 5])
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(ScalarFormatter())
    panel.tick_params(axis=which, which="both", length=4, pad=4)
    panel.grid(which="both", color=GRID)


def _legend(panel: Axes) -> None:
    """Above the axes, where it hides nothing; in two columns where they fit."""
    labels = sorted((len(label) for label in panel.get_legend_handles_labels()[1]), reverse=True)
    columns = 2 if len(labels) > 1 and 2 * labels[0] <= LONGEST_LINE else 1
    panel.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncol=columns, frameon=False, fontsize=9, markerscale=2, borderpad=0.1
    )

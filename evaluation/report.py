"""The report of a comparison: JSON for programs, Markdown for people, and the block of results in a README."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

LENS_BAR = 0.05
"""Largest median change of metres when half the field of view is seen (DESIGN 3)."""
BLOCK_START, BLOCK_END = "<!-- results -->", "<!-- /results -->"


def write_report(report: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write report.json and report.md; what is not finite is null or a word in JSON, which has no numbers for it."""
    machine, people = folder / "report.json", folder / "report.md"
    machine.write_text(json.dumps(_plain(report), indent=2, allow_nan=False) + "\n")
    people.write_text(markdown(report))
    return machine, people


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def markdown(report: Mapping[str, Any]) -> str:
    """The whole report."""
    measured = [entry for entry in report["entries"] if entry["summary"]]
    parts = [
        f"# Depth on {report['data']['name']}",
        conditions(report),
        results_table(report),
        _accuracy(measured),
        _bands(measured),
        _robot(measured, report["sequence"]),
        _problems(report["entries"]),
        "\n".join(f"![{_name(entry)}]({entry['sheet']})" for entry in measured if entry["sheet"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def conditions(report: Mapping[str, Any]) -> str:
    """What was measured, on what, and how the intervals come about."""
    data, machine, rule = report["data"], report["machine"], report["options"]["rule"]
    cap = f"{rule['min_depth']:g} to {rule['max_depth']:g} m" if _capped(rule) else "none"
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    alike = " Frames of a sequence resemble each other, which makes it too narrow." if report["sequence"] else ""
    return (
        f"{data['samples']} samples (SHA-256 {data['sha256'][:16]}); pixels: {rule['valid']}, crop {rule['crop']}, "
        f"cap {cap}; metres as they come, no scale fitted. Means over images of each image's figure, ± half a 95 % "
        f"interval (1.96 standard errors over the images).{alike}\n\n"
        f"{report['date']}, {machine['cpu']}, {machine['cores']} cores, engine threads: {machine['threads']}; "
        f"{versions}.\n\n`{report['command']}`"
    )


def _capped(rule: Mapping[str, Any]) -> bool:
    return bool(rule["min_depth"] > 0 or math.isfinite(rule["max_depth"]))


def results_table(report: Mapping[str, Any]) -> str:
    """The table of the README: accuracy, cost, latency and size of every engine."""
    data = f"{report['data']['name']}, {report['data']['samples']}"
    head = ("model", "data", "delta1", "RMSE m", "REL", "GMAC", "parameters", "p50 / p99 ms", "engine", "MB")
    lines = []
    for entry in report["entries"]:
        runtime = str(entry["facts"].get("runtime", entry["target"])).split("-")[0]  # without the build's number
        engine = f"{runtime} {entry['precision']}".strip()
        if not entry["summary"]:
            lines.append((entry["model"], data, "-", "-", "-", *_cost(entry), "-", f"{engine}: not measured", "-"))
            continue
        summary = entry["summary"]
        times, size = summary.get("latency_ms"), entry["facts"].get("bytes")
        lines.append(
            (
                entry["model"],
                data,
                _interval(summary, "delta1"),
                _interval(summary, "rmse"),
                f"{summary['metrics']['rel']:.3f}",
                *_cost(entry),
                f"{times['p50']:.1f} / {times['p99']:.1f}" if times else "-",
                engine or "-",
                f"{size / 1e6:.1f}" if size else "-",
            )
        )
    return _table(head, lines)


def _cost(entry: Mapping[str, Any]) -> tuple[str, str]:
    if not entry["cost"]:
        return "-", "-"
    parameters, macs = entry["cost"]
    return f"{macs / 1e9:.2f}", f"{parameters / 1e6:.2f} M"


def _interval(summary: Mapping[str, Any], name: str) -> str:
    return f"{summary['metrics'][name]:.3f} ± {summary['ci95'][name]:.3f}"


def _accuracy(entries: Sequence[Mapping[str, Any]]) -> str:
    """Every metric, and the difference to the float32 reference, sample by sample."""
    head = ("engine", "delta2", "delta3", "MAE m", "log10", "predicted", "Δ delta1 to fp32", "Δ RMSE to fp32")
    lines = []
    for entry in entries:
        scores, apart = entry["summary"]["metrics"], entry["difference"]
        lines.append(
            (
                _name(entry),
                *(f"{scores[name]:.3f}" for name in ("delta2", "delta3", "mae", "log10")),
                f"{100 * scores['valid']:.1f} %",
                *(f"{apart[n]:+.4f} ± {apart[f'{n}_ci95']:.4f}" if apart else "-" for n in ("delta1", "rmse")),
            )
        )
    return "## Accuracy\n\n" + _table(head, lines)


def _bands(entries: Sequence[Mapping[str, Any]]) -> str:
    """Error by true distance, over all pixels of that distance."""
    names = list(dict.fromkeys(name for entry in entries for name in entry["summary"]["bands"]))
    lines = []
    for entry in entries:
        bands = entry["summary"]["bands"]
        cells = (
            f"{bands[name]['delta1']:.3f}, {bands[name]['mae']:.2f} m, {100 * bands[name]['rel']:.0f} %"
            if name in bands
            else "-"
            for name in names
        )
        lines.append((_name(entry), *cells))
    return "## By true distance: delta1, MAE, REL over all pixels\n\n" + _table(("engine", *names), lines)


def _robot(entries: Sequence[Mapping[str, Any]], sequence: bool) -> str:
    """Edges, and where they were measured steadiness and the lens test."""
    views = any("half_view" in entry["summary"] for entry in entries)
    head = ["engine", "edges: accuracy px", "edges: completeness px"]
    head += ["change to the next frame", "flicker of scale"] if sequence else []
    head += [f"half the view: change of {what}" for what in ("all frames", "a frame", "a pixel")] if views else []
    lines = []
    for entry in entries:
        edges, steady = entry["summary"]["edges"], entry["summary"].get("stability", {})
        line = [_name(entry), f"{edges['edge_accuracy']:.2f}", f"{edges['edge_completeness']:.2f}"]
        if sequence:
            line += [_percent(steady.get("change", math.nan)), _percent(steady.get("flicker", math.nan))]
        if views:
            change = entry["summary"].get("half_view", {})
            line += [_held(change.get(name, math.nan)) for name in ("bias", "shift", "change")]
        lines.append(line)
    text = "Edges in the manner of iBims-1 (true edges found in the true depth; 10 px: missed)."
    if sequence:
        text += " Change: of a surface's depth from one frame to the next, carried over by true poses; medians."
    if views:
        text += (
            " Half the view: the frame's central half, rescaled, against the same pixels of the whole. All frames: "
            "median of their changes, near and far against each other. A frame, a pixel: medians of sizes of changes."
        )
    return f"## For a robot\n\n{text}\n\n" + _table(head, lines)


def _held(change: float) -> str:
    """A median change of the lens test, and whether it is small enough."""
    if math.isnan(change):
        return "-"
    return f"{_percent(change)} ({'within' if abs(change) <= LENS_BAR else 'over'} {100 * LENS_BAR:g} %)"


def _problems(entries: Iterable[Mapping[str, Any]]) -> str:
    """Broken samples by name, and the engines that could not be had."""
    lines = [f"- {_name(entry)}: {entry['problem']}" for entry in entries if entry["problem"]]
    for text in dict.fromkeys(failures(entry) for entry in entries if entry["summary"]):
        lines += [f"- {text}"] if text else []
    return "## Not measured\n\n" + "\n".join(lines) if lines else ""


def failures(entry: Mapping[str, Any]) -> str:
    """E.g. "failed: 2 of 100: 0004 (cannot be read), ..."; empty where nothing failed."""
    summary = entry["summary"]
    if not summary.get("failed"):
        return ""
    names = "; ".join(f"{broken['name']} ({broken['error']})" for broken in summary["failed"])
    return f"failed: {len(summary['failed'])} of {summary['samples']}: {names}"


def replace_block(text: str, table: str) -> str:
    """`text` with `table` between the markers of a README.

    Raises:
        ValueError: the markers are not there.
    """
    before, start, rest = text.partition(BLOCK_START)
    _, end, after = rest.partition(BLOCK_END)
    if not start or not end:
        raise ValueError(f"the file has no lines {BLOCK_START} and {BLOCK_END}; put them where the table shall stand")
    return f"{before}{start}\n{table.strip()}\n{end}{after}"


def readme_block(report: Mapping[str, Any]) -> str:
    """What stands between the markers: the table, the machine and the command."""
    machine = report["machine"]
    cores = f"{machine['cores']} cores, engine threads: {machine['threads']}"
    return f"{results_table(report)}\n\n{machine['cpu']}, {cores}, {report['date'][:10]}: `{report['command']}`"


def _name(entry: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (entry["model"], entry["target"], entry["precision"])))


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows)

"""The report of a comparison: JSON for programs, Markdown for people, and the block of results in a README."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perception.evaluation.assessment import find_assessment
from perception.evaluation.tables import entry_name, table

BLOCK_START, BLOCK_END = "<!-- results {} -->", "<!-- /results {} -->"
"""Lines of a README between which the table of a task stands."""


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
    assessment = find_assessment(report["task"])
    parts = [
        f"# {assessment.title} on {report['data']['name']}",
        conditions(report),
        results_table(report),
        *(assessment.sections(measured, report["sequence"]) if measured else ()),
        _remarks(measured),
        _problems(report["entries"]),
        *(
            f"{caption}: {entry_name(entry)}\n\n![{caption}]({name})"
            for entry in measured
            for name, caption in entry["plots"].items()
        ),
        "\n".join(f"![{entry_name(entry)}]({entry['sheet']})" for entry in measured if entry["sheet"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def conditions(report: Mapping[str, Any]) -> str:
    """What was measured, on what, and how the intervals come about."""
    data, machine = report["data"], report["machine"]
    counts = find_assessment(report["task"]).conditions(report["options"], report["sequence"])
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return (
        f"{data['samples']} samples (SHA-256 {data['sha256'][:16]}); {counts}\n\n"
        f"{report['date']}, {machine['cpu']}, {machine['cores']} cores, engine threads: {machine['threads']}; "
        f"{versions}.\n\n`{report['command']}`"
    )


def results_table(report: Mapping[str, Any]) -> str:
    """The table of the README: accuracy, cost, latency and size of every engine."""
    data = f"{report['data']['name']}, {report['data']['samples']}"
    assessment = find_assessment(report["task"])
    head = ("model", "data", *assessment.columns, "GMAC", "parameters", "p50 / p99 ms", "engine", "MB")
    lines = []
    for entry in report["entries"]:
        runtime = str(entry["facts"].get("runtime", entry["target"])).split("-")[0]  # without the build's number
        engine = f"{runtime} {entry['precision']}".strip()
        if not entry["summary"]:
            none = ["-"] * len(assessment.columns)
            lines.append((entry["model"], data, *none, *_cost(entry), "-", f"{engine}: not measured", "-"))
            continue
        summary = entry["summary"]
        times, size = summary.get("latency_ms"), entry["facts"].get("bytes")
        lines.append(
            (
                entry["model"],
                data,
                *assessment.cells(summary),
                *_cost(entry),
                f"{times['p50']:.1f} / {times['p99']:.1f}" if times else "-",
                engine or "-",
                f"{size / 1e6:.1f}" if size else "-",
            )
        )
    return table(head, lines)


def _cost(entry: Mapping[str, Any]) -> tuple[str, str]:
    if not entry["cost"]:
        return "-", "-"
    parameters, macs = entry["cost"]
    return f"{macs / 1e9:.2f}", f"{parameters / 1e6:.2f} M"


def _remarks(entries: Sequence[Mapping[str, Any]]) -> str:
    """Each once, with the models that it is about, or the engines where it is not about all of a model's."""
    lines = []
    for remark in dict.fromkeys(remark for entry in entries for remark in entry["remarks"]):
        about = [entry for entry in entries if remark in entry["remarks"]]
        models = list(dict.fromkeys(entry["model"] for entry in about))
        whole = all(entry in about for entry in entries if entry["model"] in models)
        lines.append(f"- {', '.join(models if whole else map(entry_name, about))}: {remark}")
    return "## Remarks\n\n" + "\n".join(lines) if lines else ""


def _problems(entries: Iterable[Mapping[str, Any]]) -> str:
    """Broken samples by name, and the engines that could not be had."""
    lines = [f"- {entry_name(entry)}: {entry['problem']}" for entry in entries if entry["problem"]]
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


def replace_block(text: str, task: str, data: str, content: str) -> str:
    """`text` with `content` between the markers that a README has for results of a task: for those on a data set, named
    as the command names it, where it has such, else those for the task alone.

    Raises:
        ValueError: the markers are not there.
    """
    own = f"{task} {data}"
    name = own if BLOCK_START.format(own) in text else task
    opening, closing = BLOCK_START.format(name), BLOCK_END.format(name)
    before, start, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not start or not end:
        raise ValueError(f"the file has no lines {opening} and {closing}; put them where the table shall stand")
    return f"{before}{start}\n{content.strip()}\n{end}{after}"


def readme_block(report: Mapping[str, Any]) -> str:
    """What stands between the markers: the table, the machine and the command."""
    machine = report["machine"]
    cores = f"{machine['cores']} cores, engine threads: {machine['threads']}"
    return f"{results_table(report)}\n\n{machine['cpu']}, {cores}, {report['date'][:10]}: `{report['command']}`"

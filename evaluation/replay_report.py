"""The report of `perception bench`: JSON for programs, Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perception.tasks.durations import POINTS

STAGES = ("transport", "receive", "wait", "decode", "preprocess", "infer", "publish", "latency", "overhead", "age")


def write_report(report: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write report.json and report.md."""
    machine, people = folder / "report.json", folder / "report.md"
    machine.write_text(json.dumps(report, indent=2) + "\n")
    people.write_text(markdown(report))
    return machine, people


def markdown(report: Mapping[str, Any]) -> str:
    """The whole report."""
    subjects = report["subjects"]
    parts = [f"# {report['bag']['name']} through {' and '.join(subject['name'] for subject in subjects)}"]
    parts.append(_conditions(report))
    parts += [_runs(report), _rates(subjects), _ratios(report.get("ratios", {}))]
    parts += [_stages(subject) for subject in subjects]
    return "\n\n".join(part for part in parts if part) + "\n"


def _conditions(report: Mapping[str, Any]) -> str:
    bag, machine = report["bag"], report["machine"]
    where = ", ".join([machine["cpu"], f"{machine['cores']} cores", machine["ros"], machine["rmw"]])
    return (
        f"{bag['images']} images of {bag['form']} on `{bag['topic']}` in {bag['seconds']:.1f} s. Real topics, every "
        "frame matched by its header's stamp; latency from the sending of an image to the arrival of its result, on "
        f"one steady clock.\n\n{report['date']}, {where}:\n`{report['command']}`"
    )


def _runs(report: Mapping[str, Any]) -> str:
    rows = []
    for subject in report["subjects"]:
        for run in subject["runs"]:
            latency = run["latency_ms"] or dict.fromkeys(POINTS)
            age = next((node["stages_ms"]["age"]["p99"] for node in run["nodes"].values() if "age" in _of(node)), None)
            cores = sum(process["cores"] for process in run["processes"].values())
            memory = sum(process["memory_mib"] for process in run["processes"].values())
            rows.append(
                [
                    subject["name"], run["asked"], run["input_hz"], run["output_hz"], f"{run['lost']} of {run['sent']}",
                    *(latency[point] for point in POINTS), age, run["jitter_ms"], cores, memory, _drops(run),
                    _accuracy(run.get("accuracy")),
                ]
            )  # fmt: skip
    head = ["", "input", "in Hz", "out Hz", "lost", *(f"{point} ms" for point in POINTS), "age p99 ms", "jitter ms"]
    return "## Runs\n\n" + table([*head, "cores", "MiB", "lost where", "accuracy"], rows)


def _of(node: Mapping[str, Any]) -> Mapping[str, Any]:
    stages: Mapping[str, Any] = node.get("stages_ms", {})
    return stages


def _drops(run: Mapping[str, Any]) -> str:
    return ", ".join(f"{place} {count}" for place, count in run["lost_where"].items() if count) or "-"


def _accuracy(scores: Mapping[str, float] | None) -> str:
    return f"delta1 {scores['delta1']:.3f}, RMSE {scores['rmse']:.3f} m" if scores else "-"


def _rates(subjects: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [subject["name"], *(subject["highest_hz"][share] for share in subject["highest_hz"])]
        for subject in subjects
        if "highest_hz" in subject
    ]
    return "## Highest input\n\n" + table(["", "0 % lost, Hz", "at most 1 % lost, Hz"], rows) if rows else ""


def _ratios(ratios: Mapping[str, float | None]) -> str:
    if not ratios:
        return ""
    return "## Second over first\n\n" + table(["", "ratio"], [[name, ratio] for name, ratio in ratios.items()])


def _stages(subject: Mapping[str, Any]) -> str:
    """Of the first run."""
    run = subject["runs"][0]
    parts = []
    for name, node in run["nodes"].items():
        stages = _of(node)
        rows = [[stage, *(stages[stage][point] for point in POINTS)] for stage in STAGES if stage in stages]
        engine = ", ".join(node.get("engine", {}).values())
        parts.append(f"`{name}`" + (f" ({engine})" if engine else "") + "\n\n" + table(["ms", *POINTS], rows))
    rows = [
        [name, process["cores"], process["memory_mib"], process["growth_mib"]]
        for name, process in run["processes"].items()
    ]
    parts.append(table(["process", "cores", "MiB", "growth over the second half, MiB"], rows))
    hot = f"{run['temperature_c']} °C" if run["temperature_c"] is not None else "not shown by this machine"
    clock = f"{run['clock_mhz']} MHz" if run["clock_mhz"] is not None else "not shown by this machine"
    parts.append(
        f"Ready after {run['ready_s']} s (engines built in {subject['build_s']} s before), first result "
        f"{run['first_result_ms']} ms after the first image. Temperature: {hot}; clock: {clock}."
    )
    return f"## {subject['name']}, {run['asked']}\n\n" + "\n\n".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; None is a dash, numbers have three significant decimals at most."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_text, line)) + " |" for line in lines)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

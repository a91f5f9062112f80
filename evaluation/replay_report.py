"""The report of `perception bench`: JSON for programs, Markdown and plots for people.

`python -m perception.evaluation.replay_report FOLDER` writes the latter two anew from report.json and series.npz.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perception.evaluation.replayed import total
from perception.evaluation.truth import accuracy_text
from perception.tasks.durations import POINTS

STAGES = ("transport", "receive", "wait", "decode", "preprocess", "infer", "publish", "latency", "overhead", "age")
SUMS = STAGES[-3:]
"""Those that others are part of."""


def write_report(report: Mapping[str, Any], series: Mapping[str, np.ndarray], folder: Path) -> tuple[Path, Path]:
    """Write report.json, series.npz, the plots where matplotlib is installed, and report.md.

    Args:
        series: by the "series" of a run and a name of `Passage.series`, with a slash between them.

    Returns:
        Paths of report.json and report.md.
    """
    machine, people = folder / "report.json", folder / "report.md"
    machine.write_text(json.dumps(report, indent=2) + "\n")
    np.savez_compressed(folder / "series.npz", **dict[str, Any](series))
    said = markdown(report)
    people.write_text(said)  # whatever comes of the plots
    people.write_text(f"{said}\n{_plots(report, series, folder)}\n")
    return machine, people


def rewrite(folder: Path) -> None:
    """Write report.md and the plots again."""
    with np.load(folder / "series.npz") as series:
        write_report(json.loads((folder / "report.json").read_text()), dict(series), folder)


def _plots(report: Mapping[str, Any], series: Mapping[str, np.ndarray], folder: Path) -> str:
    """The section that shows them, or says why there are none."""
    try:
        from perception.evaluation.replay_plots import draw_plots
    except ImportError as error:
        return (
            f"No plots, because matplotlib cannot be imported ({error}); install it and run "
            f"`python -m perception.evaluation.replay_report {folder}`."
        )
    captions = draw_plots(report, series, folder)
    return "## Plots\n\n" + "\n\n".join(f"![{caption}]({name})" for name, caption in captions.items())


def markdown(report: Mapping[str, Any]) -> str:
    """The whole report."""
    subjects = report["subjects"]
    parts = [f"# {report['bag']['name']} through {' and '.join(subject['name'] for subject in subjects)}"]
    parts.append(_conditions(report))
    parts += [_runs(report), _unmatched(subjects), _rates(subjects), _ratios(report.get("ratios", {}))]
    parts += [_run(subject, number) for subject in subjects for number in range(len(subject["runs"]))]
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
            rows.append(
                [
                    subject["name"], run["asked"], run["input_hz"], run["output_hz"], f"{run['lost']} of {run['sent']}",
                    *(latency[point] for point in POINTS), run["jitter_ms"], total(run, "cores"),
                    total(run, "memory_mib"), _drops(run),
                    accuracy_text(run["accuracy"]) if run.get("accuracy") else None,
                ]
            )  # fmt: skip
    head = ["", "input", "in Hz", "out Hz", "lost", *(f"latency {point} ms" for point in POINTS), "jitter ms"]
    return "## Runs\n\n" + table([*head, "cores", "MiB", "lost where", "accuracy"], rows)


def _unmatched(subjects: Sequence[Mapping[str, Any]]) -> str:
    """Of results that belong to no image by their stamps; empty where there are none."""
    counts = [sum(run["unknown_stamps"] for run in subject["runs"]) for subject in subjects]
    return "\n\n".join(
        f"Results of {subject['name']} came with {count} stamps that no image was sent with, and their images count as "
        "lost (unexplained): the pipeline stamps its results itself, or the images in the bag have no stamps. Have the "
        "pipeline pass on the header of each image; `perception convert --stamps recorded` stamps those of a bag."
        for subject, count in zip(subjects, counts, strict=True)
        if count
    )


def _drops(run: Mapping[str, Any]) -> str:
    return ", ".join(f"{place} {count}" for place, count in run["lost_where"].items() if count) or "-"


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


def _run(subject: Mapping[str, Any], number: int) -> str:
    """The stages, processes and conditions of one run."""
    run = subject["runs"][number]
    before = sum(other["asked"] == run["asked"] for other in subject["runs"][:number])
    parts = [f"## {subject['name']}, {run['asked']}" + (f", round {before + 1}" if before else "")]
    for name, node in run["nodes"].items():
        stages = node.get("stages_ms", {})
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
    loads = [f"{node['engine_load_s']} s ({name})" for name, node in run["nodes"].items() if "engine_load_s" in node]
    parts.append(
        f"Engines built, or found built, in {subject['build_s']} s before the start; topics there {run['ready_s']} s "
        "after it"
        + (f", in which engines loaded in {', '.join(loads)}" if loads else "")
        + f"; first result {run['first_result_ms']} ms after the first image. Temperature: {hot}; clock: {clock}."
    )
    return "\n\n".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; None is a dash, numbers have three significant decimals at most."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_text, line)) + " |" for line in lines)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write report.md and the plots of `perception bench` again.")
    parser.add_argument("folder", type=Path, help="its --out")
    rewrite(parser.parse_args().folder)

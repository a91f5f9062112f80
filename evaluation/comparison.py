"""Several engines side by side on one data set: what `perception eval` runs."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from perception.engines import EngineError
from perception.engines.device import cpu
from perception.evaluation.assessment import Assessment, Estimate
from perception.evaluation.contenders import REFERENCES, Contender, facts, obtain, short_name
from perception.evaluation.datasets import data_hash
from perception.evaluation.frames import Dataset
from perception.evaluation.harness import network, run
from perception.evaluation.judge import check_task
from perception.evaluation.looks import AS_IT_IS, Look, Seen
from perception.evaluation.results import ResultLog, Row
from perception.evaluation.sheet import draw_sheet

Say = Callable[[str], None]
Cost = tuple[int, int]
"""Parameters and multiply-accumulates."""
VERSIONS = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch", "tensorrt")


@dataclass
class Entry:
    """One line of the comparison. `problem` says why there are no figures; `difference` is to the float32 reference;
    `plots` are files with their captions."""

    model: str
    target: str
    precision: str
    problem: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    cost: Cost | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    difference: dict[str, float] | None = None
    remarks: list[str] = field(default_factory=list)
    plots: dict[str, str] = field(default_factory=dict)
    sheet: str = ""
    rows: list[Row] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        """E.g. "fastdepth openvino int8"."""
        return " ".join(filter(None, (self.model, self.target, self.precision)))

    def public(self) -> dict[str, Any]:
        """All but the rows, which have files of their own."""
        return {key: value for key, value in asdict(self).items() if key != "rows"}


class Comparison:
    """Measures contenders on the first `count` samples of a data set; `folder` keeps what was measured before.

    Args:
        threads: CPU threads of the engines; 0: all cores.
        command: as it was typed, for the report.
        say: gets one line about what is being done.
        frames: for engines that are built; see `obtain`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        count: int,
        assessment: Assessment,
        folder: Path,
        threads: int,
        command: str,
        say: Say,
        frames: Path | None = None,
    ) -> None:
        self.dataset, self.count, self.assessment, self.folder = dataset, count, assessment, folder
        self.threads, self.command, self.say, self.frames = threads, command, say, frames
        folder.mkdir(parents=True, exist_ok=True)
        say(f"reading {count} of {len(dataset)} samples of {dataset.name}")
        self.hash = data_hash(dataset, range(count))
        self.entries: list[Entry] = []
        self.engines = folder.parent / "engines"
        """Of engines that were built only to be measured."""
        self.names: dict[str, str] = {}

    def measure(self, contender: Contender, cost: Cost | None = None, look: Look = AS_IT_IS) -> Entry:
        """Measure one engine, or what is left of it; one that cannot be had, or that can say nothing of any sample,
        becomes an entry that says why.

        Args:
            look: what it sees of the samples.
        """
        name = short_name(contender.model, self.names) + (f" ({look.name})" if look.name else "")
        entry = Entry(name, contender.target, contender.precision, cost=cost)
        self.entries.append(entry)
        try:
            if look.problem:
                raise EngineError(look.problem)
            with obtain(contender, self.engines, self.threads, self.say, self.frames) as engine:
                known = facts(engine, self.engines)
                entry.target = str(known.get("target", contender.target))
                entry.precision, entry.facts = str(known.get("precision", contender.precision)), known
                check_task(self.dataset, engine.config)
                entry.remarks = [*self.assessment.remarks(engine.config, self.dataset), *look.remarks]
                binding = {"engine": known["key"], "model": known["identity"]}
                dataset = self.dataset
                if look.key:
                    dataset, binding["look"] = Seen(dataset, look), look.key
                estimate = network(self.assessment, engine.run, engine.config, dataset)
                self._fill(entry, estimate, self.assessment, binding, dataset)
        except (EngineError, ValueError) as error:
            entry.problem = str(error)
            self.say(f"{entry.name}: {error}")
        return entry

    def measure_floor(self) -> Entry | None:
        """Measure what one gets without looking at an image; None where the task or the data set has no such floor."""
        entry = Entry("floor", "", "")
        try:
            floor = self.assessment.floor(self.dataset, self.folder, lambda n: tqdm(n, desc="floor"))
            if floor is None:
                return None
            entry.model = floor.name
            self._fill(entry, floor.estimate, floor.assessment, {"engine": floor.key}, self.dataset)
        except ValueError as error:
            entry.problem = str(error)
        self.entries.append(entry)
        return entry

    def _fill(
        self,
        entry: Entry,
        estimate: Estimate,
        assessment: Assessment,
        binding: Mapping[str, Any],
        dataset: Dataset[Any],
    ) -> None:
        name = slug(entry.name)
        header = {
            **binding,
            "threads": self.threads,
            "data": self.hash,
            "samples": self.count,
            "options": assessment.options(),
            "machine": cpu().name,
        }
        log = ResultLog(self.folder / f"{name}.jsonl", header)
        if log.note:
            self.say(f"{entry.name}: {log.note}")
        entry.rows = run(estimate, dataset, self.count, assessment, log, lambda n: tqdm(n, desc=entry.name))
        entry.summary = assessment.summarise(entry.rows)
        entry.plots = assessment.plot(entry.rows, self.folder / name)
        entry.sheet = f"{name}.png"
        draw_sheet(self.folder / entry.sheet, entry.name, entry.rows, dataset, assessment, estimate)

    def report(self) -> dict[str, Any]:
        """Everything that is known now, as plain data."""
        for entry in self.entries:
            same = [other for other in self.entries if other.model == entry.model and other.rows]
            kinds = {(other.target, other.precision): other for other in reversed(same)}
            reference = next((kinds[kind] for kind in REFERENCES if kind in kinds), None)
            if reference and entry.rows and entry is not reference:
                entry.difference = self.assessment.difference(entry.rows, reference.rows)
        return {
            "task": self.dataset.task,
            "command": self.command,
            "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "data": {"name": self.dataset.name, "samples": self.count, "sha256": self.hash},
            "sequence": self.dataset.sequence,
            "options": self.assessment.options(),
            "machine": {"cpu": cpu().name, "cores": os.cpu_count(), "threads": self.threads or "all"},
            "versions": {"python": platform.python_version(), **_versions()},
            "entries": [entry.public() for entry in self.entries],
        }


def slug(name: str) -> str:
    """A file name for `name`."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-")


def _versions() -> dict[str, str]:
    found = {}
    for name in ("perception", *VERSIONS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

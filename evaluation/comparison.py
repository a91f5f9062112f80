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
from perception.evaluation.contenders import REFERENCES, Contender, facts, obtain
from perception.evaluation.datasets import data_hash
from perception.evaluation.floor import floor_of
from perception.evaluation.frames import Dataset
from perception.evaluation.harness import Estimate, Options, network, run
from perception.evaluation.results import ResultLog, Row, difference, summarise
from perception.evaluation.sheet import draw_sheet
from perception.tasks.config import WEIGHTS_SUFFIX

Say = Callable[[str], None]
Cost = tuple[int, int]
"""Parameters and multiply-accumulates."""
VERSIONS = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch", "tensorrt")


@dataclass
class Entry:
    """One line of the comparison. `problem` says why there are no figures; `difference` is to the float32 reference."""

    model: str
    target: str
    precision: str
    problem: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    cost: Cost | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    difference: dict[str, float] | None = None
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
    """

    def __init__(
        self, dataset: Dataset, count: int, options: Options, folder: Path, threads: int, command: str, say: Say
    ) -> None:
        self.dataset, self.count, self.options, self.folder = dataset, count, options, folder
        self.threads, self.command, self.say = threads, command, say
        folder.mkdir(parents=True, exist_ok=True)
        say(f"reading {count} of {len(dataset)} samples of {dataset.name}")
        self.hash = data_hash(dataset, range(count))
        self.entries: list[Entry] = []
        self.engines = folder.parent / "engines"
        """Of engines that were built only to be measured."""
        self.names: dict[str, str] = {}

    def measure(self, contender: Contender, cost: Cost | None = None) -> Entry:
        """Measure one engine, or what is left of it; one that cannot be had, or that can say nothing of any sample,
        becomes an entry that says why.
        """
        entry = Entry(self._name(contender.model), contender.target, contender.precision, cost=cost)
        self.entries.append(entry)
        try:
            with obtain(contender, self.engines, self.threads, self.say) as engine:
                known = facts(engine, self.engines)
                entry.target = str(known.get("target", contender.target))
                entry.precision, entry.facts = str(known.get("precision", contender.precision)), known
                estimate = network(engine.run, engine.config)
                self._fill(entry, estimate, self.options, {"engine": known["key"], "model": known["identity"]})
        except (EngineError, ValueError) as error:
            entry.problem = str(error)
            self.say(f"{entry.name}: {error}")
        return entry

    def _name(self, model: str) -> str:
        """A file's by its stem, with its folder where another file is called so."""
        path = Path(model)
        if path.suffix not in (".onnx", WEIGHTS_SUFFIX):
            return model
        taken = self.names.setdefault(path.stem, model)
        return path.stem if taken == model else f"{path.parent.name}/{path.stem}"

    def measure_floor(self) -> Entry | None:
        """Measure the training split's median map; None where the data set has no such split."""
        training = self.dataset.training()
        if training is None:
            return None
        entry = Entry("floor (median of the training split)", "", "")
        self.entries.append(entry)
        try:
            key, estimate = floor_of(training, self.folder, lambda n: tqdm(n, desc="median of the training split"))
            self._fill(entry, estimate, Options(self.options.rule), {"engine": f"median of {training.name} {key}"})
        except ValueError as error:
            entry.problem = str(error)
        return entry

    def _fill(self, entry: Entry, estimate: Estimate, options: Options, binding: Mapping[str, Any]) -> None:
        name = slug(entry.name)
        header = {
            **binding,
            "threads": self.threads,
            "data": self.hash,
            "samples": self.count,
            "options": asdict(options),
            "machine": cpu().name,
        }
        log = ResultLog(self.folder / f"{name}.jsonl", header)
        if log.note:
            self.say(f"{entry.name}: {log.note}")
        entry.rows = run(estimate, self.dataset, self.count, options, log, lambda n: tqdm(n, desc=entry.name))
        entry.summary = summarise(entry.rows)
        entry.sheet = f"{name}.png"
        draw_sheet(self.folder / entry.sheet, entry.name, entry.rows, self.dataset, lambda frame: estimate(frame)[0])

    def report(self) -> dict[str, Any]:
        """Everything that is known now, as plain data."""
        for entry in self.entries:
            same = [other for other in self.entries if other.model == entry.model and other.rows]
            kinds = {(other.target, other.precision): other for other in reversed(same)}
            reference = next((kinds[kind] for kind in REFERENCES if kind in kinds), None)
            if reference and entry.rows and entry is not reference:
                entry.difference = difference(entry.rows, reference.rows)
        return {
            "command": self.command,
            "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "data": {"name": self.dataset.name, "samples": self.count, "sha256": self.hash},
            "sequence": self.dataset.sequence,
            "options": asdict(self.options),
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

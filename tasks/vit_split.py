"""A vision transformer cut into workers for several devices: the folder that `perception vit split` writes.

split.json       what `Split` holds, and a hash of it
worker_0.onnx    one for each worker: image in, `features` out; an ONNX file like any other model's
fusion.npz       the network that makes an answer of features, see `fusion`
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

FORMAT = 1
FILE = "split.json"
SHORT = 16
"""Digits of a hash that travel with features."""


@dataclass(frozen=True)
class SplitWorker:
    """One slice of the network and where it runs. What is in milliseconds and joules was predicted for its device."""

    name: str
    device: str
    classes: tuple[str, ...]
    """Whose images it was trained to tell apart; its features help with the others too."""
    graph: str
    """File in the split's folder."""
    sha256: str
    """Of that file."""
    features: int
    """Length of what it sends for an image."""
    parameters: int
    macs: int
    bytes: int
    latency_ms: float
    energy_j: float


@dataclass(frozen=True)
class FusionFile:
    """The fusion network's file in the split's folder."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Split:
    """All of a split. The order of `workers` is that of their features in the fusion network's input."""

    model: str
    """Name of the network that was split."""
    labels: tuple[str, ...]
    """Names of the classes by number."""
    workers: tuple[SplitWorker, ...]
    fusion: FusionFile
    predictions: Mapping[str, float]
    """What was measured and predicted when it was made, by name: accuracy, accuracy_one_missing, latency_ms, ..."""
    folder: Path = field(default=Path(), compare=False)
    """Where it was read from."""

    def __post_init__(self) -> None:
        names = [worker.name for worker in self.workers]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a split needs workers of different names; these are {', '.join(names) or 'none'}")
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"a split needs two or more labels of different names; these are {list(self.labels)}")
        for worker in self.workers:
            if not re.fullmatch(r"[A-Za-z]\w*", worker.name, re.ASCII):
                raise ValueError(f"worker {worker.name!r} must be named by letters, digits and _, as topics are")
            if unknown := sorted(set(worker.classes) - set(self.labels)):
                raise ValueError(f"{worker.name} is for {', '.join(unknown)}, which is none of the labels")
            if worker.features < 1:
                raise ValueError(f"{worker.name} has {worker.features} features; accepted: 1 or more")

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all there is to say of the split, every file included: features of different splits do not mix."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def short_hash(self) -> str:
        """The beginning of it."""
        return self.hash[:SHORT]

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices, in the order of the workers."""
        return tuple(dict.fromkeys(worker.device for worker in self.workers))

    def worker_of(self, graph: str) -> SplitWorker:
        """The worker whose ONNX file in the split's folder has this name.

        Raises:
            ValueError: there is none.
        """
        graphs = [worker.graph for worker in self.workers]
        if graph not in graphs:
            raise ValueError(f"{graph} is no worker of the split {self.folder}; it has {', '.join(graphs)}")
        return self.workers[graphs.index(graph)]

    def on_device(self, device: str) -> tuple[SplitWorker, ...]:
        """The workers of a device.

        Raises:
            ValueError: the split has no such device.
        """
        if device not in self.devices:
            raise ValueError(f"device {device!r} is not in the split {self.folder}; it has {', '.join(self.devices)}")
        return tuple(worker for worker in self.workers if worker.device == device)

    def graph_path(self, worker: SplitWorker) -> Path:
        """A worker's ONNX file. Only the files of a device's own workers need to be there.

        Raises:
            ValueError: it is not there, or not the one of this split.
        """
        return self._checked(worker.graph, worker.sha256)

    def fusion_path(self) -> Path:
        """The fusion network's file; raises like `graph_path`."""
        return self._checked(self.fusion.file, self.fusion.sha256)

    def _checked(self, name: str, sha256: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise ValueError(f"{path} is missing; copy it from where `perception vit split` wrote {FILE}")
        if (found := file_sha256(path)) != sha256:
            raise ValueError(
                f"{path} has the SHA-256 {found[:SHORT]}, but {FILE} says {sha256[:SHORT]}: it is of another split; "
                "copy the folder again as a whole"
            )
        return path

    def _content(self) -> dict[str, Any]:
        """What is written, but for the hash."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "folder"}
        fields |= {
            "labels": list(self.labels),
            "workers": [dataclasses.asdict(worker) | {"classes": list(worker.classes)} for worker in self.workers],
            "fusion": dataclasses.asdict(self.fusion),
            "predictions": dict(self.predictions),
        }
        return {"format": FORMAT} | fields

    @property
    def text(self) -> str:
        """What split.json holds."""
        content = self._content()
        return json.dumps({"format": content.pop("format"), "hash": self.hash} | content, indent=1) + "\n"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_split(folder: Path | str) -> Split:
    """The split in a folder.

    Raises:
        ValueError: there is none, or split.json is not one that this version wrote; the message says what to do.
    """
    path = Path(folder) / FILE
    if not str(folder) or not path.is_file():
        raise ValueError(f"no split in {str(folder)!r}: there is no {FILE}; make one with `perception vit split`")
    again = "; make it again with `perception vit split`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}{again}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} has the format {found!r}; this version of perception reads {FORMAT}{again}")
    said = content.pop("hash", None)
    try:
        split = _from_content(content, Path(folder))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold what a split needs: {error!r}{again}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not usable: {error}{again}") from error
    if split.hash != said:
        raise ValueError(f"{path} was changed after it was written: its hash does not fit what it says{again}")
    return split


def _from_content(content: Mapping[str, Any], folder: Path) -> Split:
    fields = {name: value for name, value in content.items() if name != "format"}
    fields |= {
        "labels": _texts(fields["labels"]),
        "workers": tuple(
            SplitWorker(**worker | {"classes": _texts(worker["classes"])}) for worker in fields["workers"]
        ),
        "fusion": FusionFile(**fields["fusion"]),
    }
    return Split(**fields, folder=folder)


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{values!r} should be a list of names")
    return tuple(values)

"""The content key of an engine: when one field differs, the engine is stale."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from perception.engines.runtimes import Frame, Runtime, by_name
from perception.tasks.config import ModelConfig
from perception.tasks.labels import NAMED_LABELS

DESCRIPTIONS = (".yaml", ".yml")
"""Suffixes of files that describe a model that was made elsewhere."""


@dataclass(frozen=True)
class Key:
    """Everything that a compiled engine follows from."""

    source: str
    """SHA-256 of the weights file (empty for a random start) or of the ONNX file that was given."""
    graph: str
    """SHA-256 of the graph that the runtime compiled, weights included."""
    runtime: str
    version: str
    """Version of the runtime."""
    device: str
    capability: str
    """CPU features or CUDA compute capability."""
    precision: str
    shapes: str
    """Inputs and outputs, e.g. "image 1x224x224x3, depth 1x1x224x224"."""
    options: str
    """Build flags and quantisation scheme."""
    calibration: str
    """SHA-256 of the calibration frames; empty unless the precision is int8."""
    float_layers: str = ""
    """Names of the layers that int8 leaves in float32, comma-separated."""

    def digest(self) -> str:
        """SHA-256 over all fields, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def difference(self, now: Key) -> str | None:
        """A sentence on the first field that differs from `now`; None if all are equal."""
        for field in dataclasses.fields(self):
            was, new = getattr(self, field.name), getattr(now, field.name)
            if was != new:
                return f"{field.name} was {was or 'none'!r} when it was built and is {new or 'none'!r} now"
        return None


def make_key(
    runtime: Runtime,
    precision: str,
    config: ModelConfig,
    *,
    source: str,
    graph: str,
    calibration: str,
    float_layers: str = "",
) -> Key:
    """The key that an engine has if it is built on this machine now. Hashes are given, everything else is looked up."""
    device = runtime.device()
    options = [runtime.options(precision), str(runtime.quantization()) if precision == "int8" else ""]
    return Key(
        source=source,
        graph=graph,
        runtime=runtime.name,
        version=runtime.version(),
        device=device.name,
        capability=device.capability,
        precision=precision,
        shapes=", ".join(f"{x.name} {'x'.join(map(str, x.shape))}" for x in (*config.inputs, *config.outputs)),
        options=", ".join(option for option in options if option),
        calibration=calibration,
        float_layers=float_layers,
    )


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_identity(path: Path) -> str | None:
    """SHA-256 of a model's file; of a description (see `perception.engines.foreign`) together with the files that it
    names. None where one of those is not there, as on a robot that has the engine only.
    """
    data = path.read_bytes()
    if path.suffix in DESCRIPTIONS:
        for named in described_files(path):
            if not named.is_file():
                return None
            data += named.read_bytes()
    return sha256(data)


def described_files(description: Path) -> list[Path]:
    """The model's file that a description names, and the list of its classes if that is a file."""
    try:
        fields = yaml.safe_load(description.read_bytes())
    except yaml.YAMLError:  # half edited; who reads it for its content says so
        return []
    if not isinstance(fields, dict):
        return []
    files = [description.parent / str(fields["file"])] if "file" in fields else []
    labels = fields.get("labels")
    named = isinstance(labels, str) and labels not in NAMED_LABELS
    return [*files, description.parent / str(labels)] if named else files


def hash_frames(frames: Iterable[Frame]) -> str:
    """SHA-256 over shapes and content of frames, in order."""
    digest = hashlib.sha256()
    for array in (array for frame in frames for array in by_name(frame).values()):
        digest.update(str(array.shape).encode() + array.tobytes())
    return digest.hexdigest()

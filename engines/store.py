"""Where built engines lie: a plan, and beside it a JSON file that says what the plan is."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from perception.engines.acceptance import Accuracy
from perception.engines.errors import EngineError
from perception.engines.key import Key, sha256
from perception.tasks.config import ModelConfig

FORMAT = 2
"""Raised when a record's fields change, so that an older file is refused in words."""


def default_directory() -> Path:
    """$PERCEPTION_ENGINES, or ~/.cache/perception/engines."""
    named = os.environ.get("PERCEPTION_ENGINES")
    return Path(named) if named else Path.home() / ".cache" / "perception" / "engines"


@dataclass(frozen=True)
class Record:
    """What is known of a built engine."""

    config: ModelConfig
    model: str
    """What the build was asked for: a registered name, or the absolute path of an ONNX file."""
    key: Key
    plan: str
    """File name of the plan in the store's directory."""
    plan_sha256: str
    parity: float
    """Largest disagreement with the float32 definition, in the task's own metric."""
    bound: float
    milliseconds: float
    """Median time of one run at the build, on all cores."""
    built: float
    """Seconds since 1970."""
    accuracy: Accuracy | None = None
    """None: the build was given no frames with truth."""
    chosen: float = 0.0
    """When `--target auto` chose this engine, seconds since 1970; 0: it was built by name."""

    @property
    def short_key(self) -> str:
        """The first digits of the key, for people."""
        return self.key.digest()[:8]

    def to_json(self) -> str:
        """Readable JSON with the key's digest, which `from_json` checks."""
        fields = dataclasses.asdict(self) | {"format": FORMAT, "digest": self.key.digest()}
        return json.dumps(fields | {"config": json.loads(self.config.to_json())}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """The inverse of `to_json`.

        Raises:
            ValueError: not a record of this version, or one that was edited.
        """
        try:
            fields = json.loads(text)
            version, digest = fields.pop("format"), fields.pop("digest")
            if version != FORMAT:
                raise ValueError(f"it has format {version}, and this version of perception reads format {FORMAT}")
            config = ModelConfig.from_json(json.dumps(fields.pop("config")))
            accuracy = fields.pop("accuracy")
            fields["accuracy"] = Accuracy(**accuracy) if accuracy else None
            record = cls(config=config, key=Key(**fields.pop("key")), **fields)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is not an engine's record ({error!r})") from error
        if record.key.digest() != digest:
            raise ValueError(f"its key {record.key.digest()[:8]} is not the one it was written with, {digest[:8]}")
        return record


class Store:
    """Engines in a directory, which is made when the first one is saved."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = Path(directory) if directory else default_directory()

    def record_path(self, model: str, config: ModelConfig, target: str, precision: str) -> Path:
        """Where the JSON file of an engine lies, whether it exists or not."""
        height, width = config.input_size
        name = "-".join(filter(None, (Path(model).stem, config.part, f"{height}x{width}", target, precision)))
        return self.directory / f"{name}.json"

    def read(self, path: Path) -> Record:
        """The record in the JSON file at `path`.

        Raises:
            EngineError: it cannot be read or is not a record.
        """
        try:
            return Record.from_json(path.read_text())
        except (OSError, ValueError) as error:
            raise EngineError(f"engine {path} cannot be used: {error}; build it again") from error

    def records(self) -> dict[Path, Record | EngineError]:
        """All engines of the directory by the path of their JSON file; an error where one cannot be read."""
        found: dict[Path, Record | EngineError] = {}
        for path in sorted(self.directory.glob("*.json")):
            try:
                found[path] = self.read(path)
            except EngineError as error:
                found[path] = error
        return found

    def plan(self, record: Record) -> bytes:
        """The plan of a record, whole and unchanged.

        Raises:
            EngineError: the file is missing, cut short or not the one that was built.
        """
        path = self.directory / record.plan
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise EngineError(f"engine file {path} cannot be read: {error}; build it again") from error
        if sha256(plan) != record.plan_sha256:
            raise EngineError(
                f"engine file {path} of {len(plan)} bytes is not what was built: it was cut short or changed "
                f"(SHA-256 {sha256(plan)[:8]}, expected {record.plan_sha256[:8]}); build it again"
            )
        return plan

    def save(self, record: Record, plan: bytes) -> Path:
        """Write plan and record so that a reader finds the old engine or the new one, never half of one.

        Returns:
            The path of the JSON file.

        Raises:
            EngineError: the disk is full or the directory cannot be written; nothing is left behind.
        """
        path = self.record_path(record.model, record.config, record.key.runtime, record.key.precision)
        record = dataclasses.replace(record, plan=f"{path.stem}-{record.short_key}.plan", plan_sha256=sha256(plan))
        try:
            outdated = self.read(path).plan if path.is_file() else None
        except EngineError:  # what is replaced may be broken
            outdated = None
        write_atomically(self.directory / record.plan, plan)
        try:
            write_atomically(path, record.to_json().encode())
        except EngineError:
            if record.plan != outdated:
                (self.directory / record.plan).unlink()
            raise
        if outdated and outdated != record.plan:
            (self.directory / outdated).unlink(missing_ok=True)
        return path


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file in the same directory, flush it to the disk, then rename it to `path`.

    Raises:
        EngineError: it could not be written; the temporary file is removed and an older `path` stays as it was.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        raise EngineError(
            f"{path} ({len(data) / 1e6:.1f} MB) cannot be written: {error.strerror or error}; nothing was left there. "
            "Free some space, or choose another directory (for engines: PERCEPTION_ENGINES)"
        ) from error

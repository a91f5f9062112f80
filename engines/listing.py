"""The text of `perception engines list`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from perception.engines.engine import stale
from perception.engines.errors import EngineError
from perception.engines.store import Record, Store
from perception.tasks.config import ModelConfig


def describe(models: Iterable[ModelConfig], directory: Path | None = None) -> str:
    """Every model with its input, licences and accuracy, and every engine with its key and whether it is fresh."""
    store = Store(directory)
    records = store.records()
    lines = ["models"]
    for config in models:
        lines.append(f"  {config.name}: {_model(config)}")
    lines.append(f"engines in {store.directory}")
    lines += [f"  {path.stem}: {_engine(record)}" for path, record in records.items()] or ["  none"]
    return "\n".join(lines)


def _model(config: ModelConfig) -> str:
    height, width = config.input_size
    accuracy = ", ".join(f"{name} {value:.3f}" for name, value in config.metrics.items())
    return (
        f"{config.task}, {config.color} {height}x{width}, code {config.licence}, data {config.data_licence or 'none'}, "
        f"{accuracy or 'not trained'}"
    )


def _engine(record: Record | EngineError) -> str:
    if isinstance(record, EngineError):
        return str(record)
    reason = stale(record)
    accuracy = record.accuracy
    return (
        f"key {record.short_key}, {record.milliseconds:.2f} ms, parity {record.parity:.4f} (accepted {record.bound}), "
        + (f"{accuracy.metric} {accuracy.value:.4f} ({accuracy.drop:+.4f} lost), " if accuracy else "")
        + (f"stale: {reason}" if reason else "fresh")
        + (", chosen by auto" if record.chosen else "")
    )

"""Engines: a model compiled for this machine's processor, with its config, kept on disk.

`load` runs on a robot and needs one inference library; `build` needs PyTorch and onnx as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.engines.engine import Engine, build_command, built_parts, load, load_whole, stale
from perception.engines.errors import EngineError
from perception.engines.store import default_directory

if TYPE_CHECKING:
    from perception.engines.builder import build

__all__ = [
    "Engine",
    "EngineError",
    "build",
    "build_command",
    "built_parts",
    "default_directory",
    "load",
    "load_whole",
    "part_names",
    "stale",
]


def part_names(model: str, size: tuple[int, int] | None = None, directory: Path | None = None) -> list[str]:
    """Names of a model's parts, each of which is an engine; [""] for most models, which have none. What was built tells
    them without the definition.

    Raises:
        EngineError: nothing was built yet, and there is no such model or file.
    """
    if names := built_parts(model, directory):
        return names
    from perception.engines.source import open_source

    return [part.name for part in open_source(model, size).config.parts] or [""]


def __getattr__(name: str) -> Any:
    """`build` on demand, because it imports onnx."""
    if name == "build":
        from perception.engines.builder import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Engines: a model compiled for this machine's processor, with its config, kept on disk.

`load` runs on a robot and needs one inference library; `build` needs PyTorch and onnx as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perception.engines.engine import Engine, build_command, built_parts, load, stale
from perception.engines.errors import EngineError
from perception.engines.store import default_directory

if TYPE_CHECKING:
    from perception.engines.builder import build

__all__ = ["Engine", "EngineError", "build", "build_command", "built_parts", "default_directory", "load", "stale"]


def __getattr__(name: str) -> Any:
    """`build` on demand, because it imports onnx."""
    if name == "build":
        from perception.engines.builder import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

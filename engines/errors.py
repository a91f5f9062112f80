"""The one error of engines."""

from __future__ import annotations


class EngineError(RuntimeError):
    """An engine cannot be built, loaded or run; the message says what came, what is accepted and what to do."""

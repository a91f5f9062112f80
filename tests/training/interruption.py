"""A training run that somebody interrupts."""

from __future__ import annotations

import pytest
import torch

from perception.training.train import Run


def interrupt_once(monkeypatch: pytest.MonkeyPatch, call: int) -> list[int]:
    """Let a step be interrupted, that of this call, counted from 1 over all runs; the steps that were begun since."""
    plain, seen = Run.step, []

    def dying(run: Run, step: int, *batch: torch.Tensor) -> float:
        seen.append(step)
        if len(seen) == call:
            raise KeyboardInterrupt
        return plain(run, step, *batch)

    monkeypatch.setattr(Run, "step", dying)
    return seen

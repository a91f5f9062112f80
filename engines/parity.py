"""Whether an engine computes what its float32 definition computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from perception.engines.errors import EngineError
from perception.engines.frames import PARITY_FRAMES
from perception.engines.runtimes import Frame, Session
from perception.tasks import get_task
from perception.tasks.config import ModelConfig


def bound(config: ModelConfig, precision: str) -> float:
    """Largest accepted disagreement of the model's task at this precision."""
    return float(get_task(config.task).PARITY_BOUNDS[precision])


def disagreement(
    session: Session,
    config: ModelConfig,
    frames: Sequence[Frame],
    reference: Iterable[Mapping[str, np.ndarray]],
) -> float:
    """The largest disagreement over all frames, in the task's own metric.

    Raises:
        EngineError: fewer frames than a verdict needs.
    """
    if len(frames) < PARITY_FRAMES:
        raise EngineError(f"parity was asked for on {len(frames)} frames; at least {PARITY_FRAMES} are needed")
    task = get_task(config.task)
    pairs = zip(frames, reference, strict=True)
    return max(task.disagreement(expected, session.run(frame), config) for frame, expected in pairs)

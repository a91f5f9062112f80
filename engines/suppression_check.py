"""Whether a detector that leaves doubles out in its graph finds what it finds without, and in how much time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from perception.engines.errors import EngineError
from perception.engines.runtimes import Frame, Progress, Session
from perception.engines.suppression import LEAST
from perception.engines.timing import time_sessions
from perception.engines.workshop import EngineCandidate
from perception.tasks import detection
from perception.tasks.anchors import pairwise_iou
from perception.tasks.config import ModelConfig
from perception.tasks.geometry import Fit

ROUNDS = 20
OVERLAP = 0.9
"""Of what counts as the same box."""
SURE = 2 * LEAST
"""Score from which on a box must be found again. Of those near the threshold, rounding decides."""


class Finder:
    """A session together with the parsing of what it gives.

    Args:
        fit: of the images that it is given.
    """

    def __init__(self, session: Session, config: ModelConfig) -> None:
        self._session, self._config = session, config
        self._fit = Fit.of(config.input_size, config)
        self.device = session.device

    def find(self, frame: Frame, least: float = LEAST) -> detection.Detections:
        """Objects in an image of the network's size."""
        return detection.parse(self._session.run(frame), self._fit, self._config, least)

    def run(self, frame: Frame) -> dict[str, np.ndarray]:
        """As a session, to be timed."""
        self.find(frame, 0.3)
        return {}

    def close(self) -> None:
        """Free the session."""
        self._session.close()


def can_suppress(candidate: EngineCandidate) -> bool:
    """Whether it is a detector, and its runtime takes ONNX's operators."""
    return candidate.workshop.config.decoder is not None and candidate.runtime.graph_format == "onnx"


def suppressing(candidate: EngineCandidate) -> EngineCandidate:
    """The same with suppression in its graph.

    Raises:
        EngineError: that is not possible.
    """
    if not can_suppress(candidate):
        name = candidate.workshop.config.name
        raise EngineError(f"{name!r} with target {candidate.target!r} cannot leave doubles out in its graph")
    return dataclasses.replace(candidate, suppresses=True, plan=b"")


def compare_suppression(plain: EngineCandidate, inside: EngineCandidate, progress: Progress) -> tuple[float, float]:
    """Milliseconds of inference and parsing, p50, without and with suppression in the graph.

    Raises:
        EngineError: it cannot be compiled, or other objects are found.
    """
    finders: dict[str, Finder] = {}
    frames = plain.workshop.frames
    try:
        for name, candidate in (("plain", plain), ("inside", inside)):
            finders[name] = Finder(candidate.start(), candidate.config)
        check_same(
            [finders["plain"].find(frame) for frame in frames], [finders["inside"].find(frame) for frame in frames]
        )
        times = time_sessions(finders, frames, ROUNDS)
    finally:
        for finder in finders.values():
            finder.close()
    progress(
        f"inference and parsing take {times['plain'].p50:.2f} ms with suppression in NumPy, "
        f"{times['inside'].p50:.2f} ms with it in the graph"
    )
    return times["plain"].p50, times["inside"].p50


def check_same(plain: Sequence[detection.Detections], inside: Sequence[detection.Detections]) -> None:
    """Hold what was found, image by image, against each other.

    Raises:
        EngineError: a sure object of one side is missing on the other, or there is none at all.
    """
    if not any((one.scores >= SURE).any() for one in plain):
        raise EngineError("no object is found in any frame, so nothing is compared; name others with --frames")
    for place, pair in enumerate(zip(plain, inside, strict=True)):
        for one, other in (pair, pair[::-1]):
            sure = one.scores >= SURE
            same = pairwise_iou(one.boxes[sure], other.boxes) >= OVERLAP
            same &= one.labels[sure][:, None] == other.labels[None]
            missing = int((~same.any(1)).sum())
            if missing:
                raise EngineError(
                    f"suppression in the graph does not find the same: {missing} of {int(sure.sum())} objects of frame "
                    f"{place} differ"
                )

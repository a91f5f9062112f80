"""What an engine must show before it is stored: parity with the float32 definition, and no loss of accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from perception.engines import parity
from perception.engines.runtimes import Frame, Session
from perception.tasks import get_task
from perception.tasks.config import ModelConfig

Predict = Callable[[Frame], Mapping[str, np.ndarray]]
"""uint8 image of shape (1, height, width, 3), or all inputs by name, to outputs by name; an engine's `run`."""


class Judge(Protocol):
    """Measures accuracy on frames whose truth is known. Made by the caller: engines knows no data sets."""

    data: str
    """What it measures on, for people and for the engine's record."""
    metric: str
    """E.g. "delta1"; larger is better."""

    def score(self, predict: Predict, config: ModelConfig) -> float:
        """The metric of a model over all frames; NaN where nothing was predicted."""


FindJudge = Callable[[ModelConfig], "Judge | None"]
"""The judge of a model; None where there is no truth for its task."""


@dataclass(frozen=True)
class Accuracy:
    """What a build measured with a judge."""

    data: str
    metric: str
    reference: float
    """Of the float32 definition."""
    value: float
    """Of the engine."""
    bound: float
    """Largest accepted drop."""

    @property
    def drop(self) -> float:
        """How much the engine loses; negative if it gains."""
        return self.reference - self.value


@dataclass(frozen=True)
class Finding:
    """What was found out about one engine."""

    disagreement: float
    bound: float
    accuracy: Accuracy | None = None
    """None: without a judge, or of an engine that misses parity already."""
    problem: str = ""
    """Why it is refused; empty if it is accepted."""


class Acceptance:
    """The float32 definition's results, and the bounds around them.

    Args:
        frames, reference: at least 16, and what the definition makes of them.
        judge, expected: measures accuracy, and what it measured of the definition; None: only parity counts.
    """

    def __init__(
        self,
        config: ModelConfig,
        frames: Sequence[Frame],
        reference: Sequence[Mapping[str, np.ndarray]],
        judge: Judge | None = None,
        expected: float = float("nan"),
    ) -> None:
        self.config, self.frames, self.reference = config, frames, reference
        self.judge = None if math.isnan(expected) else judge  # a definition that predicts nothing sets no standard
        self.expected = expected

    def examine(self, session: Session, name: str, precision: str) -> Finding:
        """Hold an engine against the definition.

        Raises:
            EngineError: fewer frames than a verdict needs.
        """
        found = parity.disagreement(session, self.config, self.frames, self.reference)
        bound = parity.bound(self.config, precision)
        if not found <= bound:
            return Finding(found, bound, problem=refusal(name, found, bound))
        if self.judge is None:
            return Finding(found, bound)
        accuracy = Accuracy(
            self.judge.data,
            self.judge.metric,
            self.expected,
            self.judge.score(session.run, self.config),
            float(get_task(self.config.task).ACCURACY_DROPS[precision]),
        )
        problem = "" if accuracy.drop <= accuracy.bound else _loss(name, precision, accuracy)
        return Finding(found, bound, accuracy, problem)


def refusal(name: str, disagreement: float, bound: float) -> str:
    """The sentence about an engine that misses parity."""
    return f"{name} misses parity: it disagrees with the float32 definition by {disagreement:.4f}, accepted is {bound}"


def _loss(name: str, precision: str, accuracy: Accuracy) -> str:
    advice = "take another precision or runtime"
    if precision == "int8":
        advice = (
            "let `perception engines sensitivity` find the layers to leave in float32 (--keep-float), calibrate on "
            "frames like the robot's (--calibration), or take another precision"
        )
    return (
        f"{name} loses accuracy: {accuracy.metric} is {accuracy.value:.4f} on {accuracy.data}, and "
        f"{accuracy.reference:.4f} in the float32 definition: a drop of {accuracy.drop:.4f}, accepted is "
        f"{accuracy.bound}; {advice}"
    )

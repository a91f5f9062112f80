"""Classification of whole images: results and parity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perception.tasks.config import ModelConfig
from perception.tasks.geometry import Fit

PARITY_BOUNDS: Mapping[str, float] = {"fp32": 0.001, "fp16": 0.01, "bf16": 0.05, "int8": 0.15}
"""Largest accepted `disagreement` with the float32 definition, frame by frame."""
ACCURACY_DROPS: Mapping[str, float] = {"fp32": 0.001, "fp16": 0.003, "bf16": 0.005, "int8": 0.01}
"""Largest accepted loss of top-1 accuracy against the float32 definition, over a data set."""


@dataclass(frozen=True)
class Classification:
    """What an image shows: `scores` is float32 (classes,), the chance of each of the config's `labels`; their sum is 1.

    The likeliest class is `scores.argmax()`.
    """

    scores: np.ndarray


def parse(outputs: Mapping[str, np.ndarray], fit: Fit, config: ModelConfig) -> Classification:
    """The chances of the classes.

    Args:
        outputs: "logits", float32 (1, classes).
        fit: not needed: what is said is said of the whole image.

    Raises:
        ValueError: features in place of logits, or numbers that are not finite.
    """
    if "logits" not in outputs:
        raise ValueError(
            f"{config.name!r} is a worker of a split and gives features; classes are told by the fusion of all workers"
        )
    return Classification(softmax(outputs["logits"][0]))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Chances of the classes along the last axis, float32.

    Raises:
        ValueError: numbers that are not finite.
    """
    if not np.isfinite(logits).all():
        raise ValueError("the network's logits are no numbers; try another precision of the engine")
    chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (chances / chances.sum(axis=-1, keepdims=True)).astype(np.float32)


def disagreement(
    reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray], config: ModelConfig
) -> float:
    """How much probability has moved from class to class: 1 where both are sure of different ones.

    Of a worker's features: how long their difference is, as a share of their length. Inf where a number is not finite.
    """
    name = config.outputs[0].name
    expected, got = reference[name], candidate[name]
    if expected.shape != got.shape or not np.isfinite(got).all():
        return float("inf")
    if name == "features":
        return float(np.linalg.norm(got - expected) / max(float(np.linalg.norm(expected)), 1e-6))
    return float(np.abs(softmax(expected) - softmax(got)).sum() / 2)

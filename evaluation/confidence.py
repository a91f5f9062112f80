"""What the scores of a detector are worth: how often a box of a score is right. Two detectors' scores of 0.5 may mean a
box that is nearly always right and one that is mostly wrong, and a network that learns from them learns that too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from perception.engines.acceptance import Predict
from perception.evaluation.boxes import BoxDataset
from perception.evaluation.detection import DetectionAssessment, evaluate
from perception.tasks.config import ModelConfig
from perception.tasks.decoders import logit

LEAST = 0.02
"""Boxes that score less tell nothing more, and are many."""
STEPS = 100


@dataclass(frozen=True)
class Confidence:
    """The chance that a box is right: 1 / (1 + exp(-slope * (score - middle))) (Platt, 1999)."""

    slope: float
    middle: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Of each score."""
        return np.asarray(1 / (1 + np.exp(-self.slope * (scores - self.middle))))

    def score_of(self, chance: float) -> float:
        """The score with which a box is right as often as this: at least 0, but more than 1 where none is."""
        return max(0.0, self.middle + logit(chance) / self.slope)

    @classmethod
    def fit(cls, scores: np.ndarray, right: np.ndarray) -> Confidence:
        """The most likely one, with Platt's targets, which stay off 0 and 1 as few boxes ask for.

        Args:
            scores: float (N,).
            right: bool (N,).

        Raises:
            ValueError: all are right or all wrong, or those that score more are not right more often.
        """
        rights, wrongs = int(right.sum()), int((~right).sum())
        if not rights or not wrongs:
            raise ValueError(
                f"{rights} boxes are right and {wrongs} wrong, which does not tell how scores go with that"
            )
        wanted = np.where(right, (rights + 1) / (rights + 2), 1 / (wrongs + 2))
        inputs = np.stack([scores, np.ones_like(scores)], axis=1)
        weights = np.zeros(2)
        for _ in range(STEPS):  # Newton's, which converges in about ten
            chances = 1 / (1 + np.exp(-inputs @ weights))
            curvature = (inputs.T * (chances * (1 - chances) + 1e-9)) @ inputs + 1e-9 * np.eye(2)
            step = np.linalg.solve(curvature, inputs.T @ (wanted - chances))
            weights = weights + step
            if np.abs(step).max() < 1e-9:
                break
        slope = float(weights[0])
        if not slope > 0:
            raise ValueError("boxes that score more are not right more often; are its labels those of the data set?")
        return cls(slope, float(-weights[1] / slope))


def judge_boxes(predict: Predict, config: ModelConfig, dataset: BoxDataset) -> tuple[np.ndarray, np.ndarray]:
    """Scores float (N,) of what a detector finds in a data set, of the classes that both know, and whether it is right,
    bool (N,): at an overlap of 0.5, by COCO's protocol.

    Raises:
        ValueError: pycocotools is missing.
    """
    assessment = DetectionAssessment(score_threshold=LEAST, shared_classes=True)
    frames = tqdm(dataset, desc="judge boxes", leave=False)
    matches = evaluate(assessment.rows(predict, config, dataset, frames)).matches
    counted = [~match.skipped[0] for match in matches]
    scores = [match.score[kept] for match, kept in zip(matches, counted, strict=True)]
    right = [match.hit[0][kept] for match, kept in zip(matches, counted, strict=True)]
    return np.concatenate([np.empty(0), *scores]), np.concatenate([np.empty(0, bool), *right])

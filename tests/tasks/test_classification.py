"""Classification: chances of classes, and how far two engines are apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perception.tasks import classification as task
from perception.tasks import get_task, task_names
from perception.tasks.config import ModelConfig, Output
from perception.tasks.geometry import Fit

CONFIG = ModelConfig("t", "classification", (32, 32), (Output("logits", (1, 3), "logit"),), labels=("a", "b", "c"))
WORKER = CONFIG.replace(outputs=(Output("features", (1, 4), "feature"),))
FIT = Fit.of((48, 64), CONFIG)


def logits(*values: float) -> dict[str, np.ndarray]:
    return {"logits": np.array([values], np.float32)}


def features(*values: float) -> dict[str, np.ndarray]:
    return {"features": np.array([values], np.float32)}


def test_classification_is_a_task() -> None:
    assert "classification" in task_names() and get_task("classification") is task


@given(arrays(np.float32, (1, 3), elements=st.floats(-1e4, 1e4, width=32)))
def test_scores_are_chances(values: np.ndarray) -> None:
    scores = task.parse({"logits": values}, FIT, CONFIG).scores
    assert scores.dtype == np.float32 and scores.shape == (3,)
    assert (scores >= 0).all() and scores.sum() == pytest.approx(1, abs=1e-5)
    assert values[0, scores.argmax()] == pytest.approx(values.max(), abs=1e-3)


def test_scores_are_a_softmax() -> None:
    scores = task.parse(logits(0, np.log(2), np.log(5)), FIT, CONFIG).scores
    assert scores == pytest.approx([1 / 8, 2 / 8, 5 / 8])


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="no numbers; try another precision"):
        task.parse(logits(0, np.nan, 1), FIT, CONFIG)
    with pytest.raises(ValueError, match="'t' is a worker of a split and gives features"):
        task.parse(features(1, 2, 3, 4), FIT, WORKER)


def test_disagreement_is_the_probability_that_moved() -> None:
    same = task.disagreement(logits(1, 2, 3), logits(11, 12, 13), CONFIG)
    assert same == pytest.approx(0, abs=1e-6), "softmax does not see a shift"
    half = task.disagreement(logits(0, 0, -50), logits(50, 0, -50), CONFIG)
    assert half == pytest.approx(0.5)
    assert task.disagreement(logits(50, 0, 0), logits(0, 50, 0), CONFIG) == pytest.approx(1)
    assert task.disagreement(logits(1, 2, 3), logits(1, np.inf, 3), CONFIG) == np.inf


def test_features_differ_by_a_share_of_their_length() -> None:
    expected = features(3, 0, 4, 0)
    assert task.disagreement(expected, features(3, 0.5, 4, 0), WORKER) == pytest.approx(0.1)
    assert task.disagreement(expected, expected, WORKER) == 0
    assert task.disagreement(expected, features(3, 0, 4), WORKER) == np.inf
    assert task.disagreement(expected, features(3, np.nan, 4, 0), WORKER) == np.inf

"""Depth metrics, worked out by hand on small arrays."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks.depth_metrics import BANDS, METRICS, Rule, band_name, band_sums, edge_errors, find_edges, metrics


def test_metrics_by_hand() -> None:
    target = np.array([[1.0, 2.0, 4.0, 0.0, np.nan]])
    prediction = np.array([[1.2, 1.0, 4.0, 7.0, 3.0]])
    scores = metrics(prediction, target)
    assert scores["rmse"] == pytest.approx(math.sqrt((0.04 + 1 + 0) / 3))
    assert scores["mae"] == pytest.approx(1.2 / 3)
    assert scores["rel"] == pytest.approx((0.2 + 0.5) / 3)
    assert scores["log10"] == pytest.approx((math.log10(1.2) + math.log10(2)) / 3)
    assert [scores[f"delta{k}"] for k in (1, 2, 3)] == pytest.approx([2 / 3, 2 / 3, 2 / 3])  # 2 > 1.25^3 = 1.953
    assert scores["valid"] == 1


def test_each_delta_has_its_own_limit() -> None:
    scores = metrics(np.array([[1.2, 1.5, 1.9, 2.0]]), np.ones((1, 4)))
    assert [scores[f"delta{k}"] for k in (1, 2, 3)] == [0.25, 0.5, 0.75]


def test_delta_is_strict() -> None:
    assert metrics(np.array([[1.25]]), np.array([[1.0]]))["delta1"] == 0


def test_unpredicted_pixels_are_told_not_scored() -> None:
    scores = metrics(np.array([[np.inf, np.nan, 2.0, 2.0]]), np.array([[5.0, 5.0, 2.0, 2.0]]))
    assert scores["rmse"] == 0 and scores["valid"] == 0.5
    assert math.isnan(metrics(np.ones((1, 2)), np.zeros((1, 2)))["rmse"])
    with pytest.raises(ValueError, match="differ"):
        metrics(np.ones((1, 2)), np.ones((2, 1)))


def test_a_prediction_of_zero_or_less_is_infinitely_wrong() -> None:
    for nothing in (0.0, -3.0):
        scores = metrics(np.array([[nothing, 2.0]]), np.array([[1.0, 2.0]]))
        assert scores["delta3"] == 0.5 and scores["rel"] == 0.5 and scores["log10"] == math.inf


def test_fastdepths_own_rule_makes_rel_infinite() -> None:
    """Target 0 with a prediction stays in; target 0 without one does not."""
    prediction, target = np.array([[2.0, 3.0, 0.0]]), np.array([[2.0, 0.0, 0.0]])
    scores = metrics(prediction, target, Rule(valid="either"))
    assert scores["rel"] == math.inf and scores["log10"] == math.inf
    assert scores["rmse"] == pytest.approx(math.sqrt(9 / 2)) and scores["delta1"] == 0.5
    assert metrics(prediction, target)["rel"] == 0


def test_a_cap_clips_predictions_and_drops_targets() -> None:
    rule = Rule(min_depth=1.0, max_depth=10.0)
    target = np.array([[0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 12.0]])
    prediction = np.array([[9.0, 9.0, 0.2, np.nan, np.inf, 3.0, 3.0]])
    scores = metrics(prediction, target, rule)  # 2 against 1, 4 against 1, 8 against 10
    assert scores["mae"] == pytest.approx((1 + 3 + 2) / 3) and scores["valid"] == 1
    assert metrics(np.array([[-np.inf]]), np.array([[2.0]]), rule)["mae"] == 1


def test_a_crop_compares_its_window_only() -> None:
    target = np.ones((4, 6))
    prediction = np.full((4, 6), 9.0)
    prediction[1:3, 2:5] = 1
    assert metrics(prediction, target, Rule(crop="1:3,2:5"))["rmse"] == 0
    assert metrics(prediction, target, Rule(crop="0:3,2:5"))["mae"] == pytest.approx(8 / 3)
    whole = np.full((480, 640), 9.0)
    whole[45:471, 41:601] = 1
    assert metrics(whole, np.ones((480, 640)), Rule(crop="eigen"))["rmse"] == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"valid": "both"}, "'both' is unknown; accepted: target, either"),
        ({"crop": "garg"}, "'garg' is unknown; accepted: none, eigen"),
        ({"crop": "5:5,0:3"}, "top:bottom"),
        ({"min_depth": 3.0, "max_depth": 3.0}, "holds no depth"),
        ({"valid": "either", "max_depth": 10.0}, "without a cap"),
    ],
)
def test_impossible_rules_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule(**fields)


@pytest.mark.parametrize("crop", ["eigen", "0:5,0:3"])
def test_a_crop_that_does_not_fit_is_refused(crop: str) -> None:
    with pytest.raises(ValueError, match="does not fit depth of 4x3"):
        metrics(np.ones((4, 3)), np.ones((4, 3)), Rule(crop=crop))


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=1, max_size=20))
def test_bands_add_up_to_the_whole(pairs: list[tuple[float, float]]) -> None:
    prediction, target = np.array([pairs]).reshape(-1, 1, 2).transpose(2, 0, 1)
    scores, bands = metrics(prediction, target), band_sums(prediction, target)
    pixels, absolute, relative, close = np.sum(list(bands.values()), axis=0)
    assert pixels == len(pairs) and absolute / pixels == pytest.approx(scores["mae"])
    assert relative / pixels == pytest.approx(scores["rel"]) and abs(close / pixels - scores["delta1"]) < 1e-9


def test_bands_by_hand() -> None:
    bands = band_sums(np.array([[1.0, 1.1, 3.0, 8.0]]), np.array([[0.5, 1.0, 2.0, 10.0]]))
    assert list(bands) == ["0-1 m", "1-2 m", "2-3 m", "3-5 m", "5+ m"] == [band_name(band) for band in BANDS]
    assert bands["0-1 m"] == [1, 0.5, 1, 0] and bands["1-2 m"] == pytest.approx([1, 0.1, 0.1, 1])
    assert bands["2-3 m"] == [1, 1, 0.5, 0] and bands["3-5 m"] == [0, 0, 0, 0] and bands["5+ m"] == [1, 2, 0.2, 0]


def step(column: int, unknown: int = 0) -> np.ndarray:
    """2 m left of `column`, 3 m right of it, with a gap of unknown pixels between."""
    metres = np.full((40, 60), 2.0)
    metres[:, column:] = 3.0
    metres[:, column - unknown : column + unknown] = np.nan
    return metres


def test_edges_are_found_where_depth_steps() -> None:
    for unknown in (0, 2):
        columns = np.nonzero(find_edges(step(30, unknown)))[1]
        assert len(columns) >= 36 and np.abs(columns - 29.5).max() <= 1.5
    assert not find_edges(np.tile(np.linspace(2, 3, 60), (40, 1))).any(), "a slope is no edge"
    assert not find_edges(np.full((4, 4), np.nan)).any()


def test_edge_errors_are_distances_in_pixels() -> None:
    assert edge_errors(step(30), step(30)) == {"edge_accuracy": 0, "edge_completeness": 0}
    shifted = edge_errors(step(34), step(30))
    assert shifted["edge_accuracy"] == pytest.approx(4, abs=0.3)
    assert shifted["edge_completeness"] == pytest.approx(4, abs=0.3)
    assert edge_errors(np.full((40, 60), 2.0), step(30)) == {"edge_accuracy": 10, "edge_completeness": 10}
    assert math.isnan(edge_errors(step(30), np.full((40, 60), 2.0))["edge_accuracy"])


def test_the_published_example_of_fastdepth() -> None:
    """deploy/data of the repository dwofk/fast-depth: pred.npy against depth.npy."""
    folder = os.environ.get("PERCEPTION_FASTDEPTH_EXAMPLE")
    if not folder:
        pytest.skip("PERCEPTION_FASTDEPTH_EXAMPLE does not name a folder with FastDepth's depth.npy and pred.npy")
    target = np.load(Path(folder) / "depth.npy")
    for rule in (Rule(), Rule(valid="either")):  # the target is dense, so that both rules agree
        scores = metrics(np.load(Path(folder) / "pred.npy").reshape(target.shape), target, rule)
        assert [round(scores[name], 4) for name in METRICS if name != "log10"] == [
            0.6180, 0.4222, 0.1405, 0.7773, 0.9647, 0.9996,
        ]  # fmt: skip

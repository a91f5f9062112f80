"""Novel views: parsing, parity, and how far away they may be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perception.tasks import get_task, task_names
from perception.tasks import view_synthesis as task
from perception.tasks.config import ModelConfig, Output
from perception.tasks.geometry import Fit
from perception.tasks.poses import pose_of, translated

CONFIG = ModelConfig(
    name="t",
    task="view_synthesis",
    input_size=(8, 12),
    outputs=(Output("view", (1, 3, 8, 12), "intensity"), Output("depth", (1, 1, 8, 12), "m")),
)


def outputs(intensity: float = 0.5, metres: float = 2.0) -> dict[str, np.ndarray]:
    return {
        "view": np.full((1, 3, 8, 12), intensity, np.float32),
        "depth": np.full((1, 1, 8, 12), metres, np.float32),
    }


def test_view_synthesis_is_a_task() -> None:
    assert "view_synthesis" in task_names() and get_task("view_synthesis") is task


def test_parse_gives_bytes_and_metres_at_the_targets_size() -> None:
    found = outputs(0.25)
    found["view"][0, 0], found["view"][0, 2] = 1.5, -0.5  # a network may leave [0, 1]
    found["depth"][0, 0, :4, :6] = (0, np.inf, np.nan, -1, 3, 4)
    view = task.parse(found, Fit.of((16, 24), CONFIG), CONFIG)
    assert view.image.dtype == np.uint8 and view.image.shape == (16, 24, 3)
    assert (view.image == (255, 64, 0)).all()
    assert view.depth.dtype == np.float32 and view.depth.shape == (16, 24)
    assert np.isnan(view.depth[0, :8]).all() and view.depth[0, 8:12].tolist() == [3, 3, 4, 4]
    assert (view.depth[8:] == 2).all()


def test_a_view_of_no_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="no numbers; try another precision"):
        task.parse(outputs(math.nan), Fit.of((8, 12), CONFIG), CONFIG)


def test_disagreement_is_the_largest_share_of_any_output() -> None:
    reference = outputs()
    assert task.disagreement(reference, reference, CONFIG) == 0
    assert task.disagreement(reference, outputs(0.5, 2.2), CONFIG) == pytest.approx(0.1)
    assert task.disagreement(reference, outputs(0.6, 2.0), CONFIG) == pytest.approx(0.2)
    assert task.disagreement(reference, outputs(0.5, math.nan), CONFIG) == math.inf
    field = {"planes": np.ones((1, 3, 4, 8, 8), np.float32)}
    assert task.disagreement(field, {"planes": 0.99 * field["planes"]}, CONFIG) == pytest.approx(0.01, rel=1e-3)


def test_what_is_too_far_away_is_refused() -> None:
    reach = task.Reach(0.5, 30)
    reach.check(translated((0.3, 0, 0.4)))
    reach.check(pose_of((0, 0, 0), (0, math.sin(math.radians(14.9)), 0, math.cos(math.radians(14.9)))))
    with pytest.raises(ValueError, match=r"0\.60 m and 0 degrees.*at most 0\.5 m and 30 degrees.*allow more"):
        reach.check(translated((0, 0.6, 0)))
    with pytest.raises(ValueError, match="0.00 m and 90 degrees"):
        reach.check(pose_of((0, 0, 0), (0, 0, 1, 1)))
    with pytest.raises(ValueError, match="a pose must be 4x4 and finite"):
        reach.check(np.full((4, 4), np.nan))

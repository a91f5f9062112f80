"""Novel views: parsing, parity, and how far away they may be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perception.tasks import get_task, task_names
from perception.tasks import view_synthesis as task
from perception.tasks.config import Input, ModelConfig, Output
from perception.tasks.geometry import Camera, Fit
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


def test_a_mask_is_where_an_object_is_more_likely_than_not() -> None:
    assert task.parse(outputs(), Fit.of((8, 12), CONFIG), CONFIG).mask is None
    mask = np.full((1, 1, 8, 12), 0.4, np.float32)
    mask[..., :6] = 0.6
    found = task.parse(outputs() | {"mask": mask}, Fit.of((16, 24), CONFIG), CONFIG).mask
    assert found.dtype == bool and found[:, :12].all() and not found[:, 12:].any()


def test_the_distance_is_the_median_of_what_is_known_of_depth() -> None:
    depth = np.array([[1.0, 2.0, 3.0], [np.nan, 0, np.inf]], np.float32)
    assert task.scene_distance(depth) == 2
    assert task.scene_distance(np.full((2, 2), np.nan)) == task.scene_distance(None) == task.UNKNOWN == 0


def test_a_network_is_told_what_it_takes() -> None:
    camera = Camera(24, 16, 12.0, 8.0, 11.5, 7.5)
    inputs = (Input("camera", (1, 5), ""), Input("seen_depth", (1, 1, 8, 12), "m"), Input("pose", (1, 4, 4), "m"))
    config = CONFIG.replace(more_inputs=inputs)
    depth = np.full((16, 24), 2.0)
    depth[:8, :12] = np.nan
    told = task.source_inputs(config, camera, depth)
    assert list(told) == ["camera", "seen_depth"] and told["camera"].tolist() == [[0.5, 0.5, 0.5, 0.5, 2]]
    assert told["seen_depth"].shape == (1, 1, 8, 12) and told["seen_depth"].dtype == np.float32
    assert not told["seen_depth"][0, 0, :4, :6].any() and (told["seen_depth"][0, 0, 4:] == 2).all()
    nothing = task.source_inputs(config, camera)
    assert nothing["camera"][0, 4] == 0 and not nothing["seen_depth"].any()
    wanted = task.target_inputs(config, camera, translated((1, 2, 3)))
    assert list(wanted) == ["pose"] and wanted["pose"].dtype == np.float32
    assert wanted["pose"][0, :3, 3].tolist() == [1, 2, 3]
    typical = task.typical_inputs(config, 0)
    assert typical["camera"][0, 4] == pytest.approx(2.0) and list(typical) == [tensor.name for tensor in inputs]


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


def test_what_the_image_shows_of_a_view() -> None:
    camera = Camera(12, 8, 10.0, 10.0, 5.5, 3.5)
    wall = np.full((8, 12), 2.0, np.float32)
    assert task.is_shown(wall, camera, np.eye(4)).all()
    # 0.4 m to the right at 2 m are two pixels; 0.2 m down one.
    aside = task.is_shown(wall, camera, translated((0.4, 0.2, 0.0)))
    assert aside[:7, :10].all() and not aside[7].any() and not aside[:, 10:].any()
    assert not task.is_shown(wall, camera, translated((0.0, 0.0, -3.0))).any(), "behind the camera"
    assert not task.is_shown(wall * np.nan, camera, np.eye(4)).any()
    turned = pose_of((0, 0, 0), (0, 1, 0, 0))
    assert not task.is_shown(wall, camera, turned).any(), "what lies behind the camera has a place in its image, too"
    seen = wall.copy()
    seen[:, 4], seen[:, 5] = 1.0, np.nan
    behind = task.is_shown(wall, camera, translated((0.4, 0.0, 0.0)), seen)
    assert behind[:, [0, 1, 3, 4, 5, 6, 7, 8, 9]].all() and not behind[:, 2].any(), "a post hides it"
    assert task.is_shown(1.05 * wall, camera, np.eye(4), wall).all(), "a model's depth is not exact"


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

"""Novel views against true ones, from the depth of a network to the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.engines.acceptance import Predict
from perception.engines.runtimes import Frame, by_name
from perception.evaluation.assessment import Sample, find_assessment
from perception.evaluation.frames import ViewFrame
from perception.evaluation.harness import network, run
from perception.evaluation.judge import DatasetJudge, check_task
from perception.evaluation.report import markdown
from perception.evaluation.results import ResultLog
from perception.evaluation.sheet import draw_sheet
from perception.evaluation.view_synthesis import ViewAssessment, true_view
from perception.evaluation.views import ViewDataset
from perception.tasks.config import Input, ModelConfig, Output
from perception.tasks.geometry import Camera
from perception.tasks.poses import pose_of, translated
from perception.tasks.view_synthesis import View

CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
CONFIG = ModelConfig(
    name="deep",
    task="depth",
    input_size=(48, 64),
    outputs=(Output("depth", (1, 1, 48, 64), "m"),),
    focal=(60 / 64, 60 / 48),
)
SHOWS = ModelConfig(
    name="shows",
    task="view_synthesis",
    input_size=(48, 64),
    outputs=(Output("view", (1, 3, 48, 64), "intensity"), Output("depth", (1, 1, 48, 64), "m")),
    more_inputs=(
        Input("camera", (1, 5), ""),
        Input("seen_depth", (1, 1, 48, 64), "m"),
        Input("pose", (1, 4, 4), "m"),
        Input("target", (1, 4), ""),
    ),
)
POSES = (
    translated((0.1, 0, 0)),
    translated((0, 0.15, 0)),
    pose_of((0, 0, 0), (0, 0.2, 0, 1)),
    pose_of((0, 0, 0), (0, 1, 0, 1)),
)


PAPER = np.random.default_rng(1).integers(0, 256, (160, 160, 3)).astype(np.uint8)
"""Of which `PER_METRE` pixels cover a metre of the wall."""
PER_METRE = 8


class Wall(ViewDataset):
    """A papered wall 2 m ahead, seen from `POSES`, of which the last is turned by 90 degrees; and a broken
    sample. A square of it counts as an object."""

    name, labels = "wall", ()

    def __len__(self) -> int:
        return len(POSES) + 1

    def label(self, index: int) -> str:
        return f"view {index}"

    def files(self, index: int) -> tuple[Path, ...]:
        return ()

    def __getitem__(self, index: int) -> ViewFrame:
        if index == len(POSES):
            raise ValueError("this one is broken")
        rgb, depth, mask = seen(np.eye(4))
        target, target_depth, target_mask = seen(POSES[index])
        return ViewFrame(
            rgb, CAMERA, POSES[index], target, CAMERA, depth, mask, target_depth, target_mask, name=self.label(index)
        )


def seen(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, depth and mask from a pose; grey, and NaN, where there is no wall."""
    columns, rows = CAMERA.rays()
    rays = np.stack(np.broadcast_arrays(columns, rows[:, None], np.float32(1)), axis=-1) @ pose[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(rays[..., 2] > 0.05, (2 - pose[2, 3]) / rays[..., 2], np.nan)
    points = pose[:3, 3] + depth[..., None] * rays
    x, y = points[..., 0], points[..., 1]
    u, v = (np.nan_to_num(values * PER_METRE + 80, nan=-9).astype(np.float32) for values in (x, y))
    image = cv2.remap(PAPER, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(128, 128, 128))
    return image, depth.astype(np.float32), ((np.abs(x) < 0.3) & (np.abs(y) < 0.3)).astype(np.uint8)


def says(metres: float) -> Predict:
    """A network that says the same depth everywhere."""

    def predict(image: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"depth": np.full((1, 1, 48, 64), metres, np.float32)}

    return predict


def test_a_model_for_depth_is_measured_by_the_views_it_makes(tmp_path: Path) -> None:
    assessment, wall, summaries, all_rows = ViewAssessment(), Wall(), [], []
    check_task(wall, CONFIG)
    with pytest.raises(ValueError, match="deep is for detection, and wall is for view_synthesis"):
        check_task(wall, CONFIG.replace(task="detection"))
    for name, metres in (("right", 2.0), ("near", 1.0)):
        estimate = network(assessment, says(metres), CONFIG, wall)
        rows = run(estimate, wall, len(wall), assessment, ResultLog(tmp_path / f"{name}.jsonl", {"engine": name}))
        draw_sheet(tmp_path / f"{name}.png", name, rows, wall, assessment, estimate)
        assert cv2.imread(str(tmp_path / f"{name}.png")).shape[1] == 1200
        all_rows.append(rows)
        summaries.append(assessment.summarise(json.loads(json.dumps(rows))))
    good, worse = summaries
    assert good["views"] == 3 and [failed["name"] for failed in good["failed"]] == ["view 4"]
    assert good["metrics"]["PSNR"] > worse["metrics"]["PSNR"] + 5
    assert good["metrics"]["IoU"] > 0.95 > 0.85 > worse["metrics"]["IoU"]
    assert good["metrics"]["hit_rate"] > worse["metrics"]["hit_rate"] + 0.3
    assert good["metrics"]["REL"] < 0.02 and worse["metrics"]["REL"] == pytest.approx(0.5, abs=0.02)
    assert good["bands"].keys() == {"0 to 10", "20 to 30", "60 to 180"} and good["bands"]["60 to 180"]["views"] == 1
    assert good["bands"]["0 to 10"]["distance"] == pytest.approx(0.125)
    assert ViewAssessment(100).summarise(all_rows[0])["views"] == 4
    with pytest.raises(ValueError, match="no view lies within 1e-06 degrees.*--within"):
        ViewAssessment(1e-6).summarise(all_rows[0][2:])
    difference = assessment.difference(all_rows[1], all_rows[0])
    assert difference["PSNR"] == pytest.approx(worse["metrics"]["PSNR"] - good["metrics"]["PSNR"])
    assert assessment.rank(all_rows[0][0]) < assessment.rank(all_rows[1][0])
    assert assessment.caption(all_rows[0][0]).startswith("0 deg 0.10 m  PSNR ")


def test_lpips_is_measured_where_it_is_given() -> None:
    def apart(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.abs(one.astype(float) - other).mean())

    wall = Wall()
    for given in (None, apart):
        assessment = ViewAssessment(lpips=given)  # type: ignore[arg-type]
        row = assessment.measure(Sample(wall[0], true_view(wall[0])), None, wall, true_view)
        expected = apart(true_view(wall[0]).image, wall[0].target) if given else math.nan
        assert row["metrics"]["LPIPS"] == pytest.approx(expected, nan_ok=True)


def test_a_model_of_views_is_told_what_a_robot_knows() -> None:
    """And its view is stretched to that of the target camera."""
    given: list[Mapping[str, np.ndarray]] = []

    def predict(frame: Frame) -> Mapping[str, np.ndarray]:
        given.append(by_name(frame))
        target = wall[0].target.transpose(2, 0, 1)[None] / np.float32(255)
        return {"view": target, "depth": np.full((1, 1, 48, 64), 2, np.float32)}

    wall = Wall()
    for assessment, metres in (
        (ViewAssessment(), 0),
        (ViewAssessment(depth="true"), 2),
        (ViewAssessment(depth="deep", find_depth=lambda frame: np.full((48, 64), 3.0)), 3),
    ):
        [row] = assessment.rows(predict, SHOWS, wall, [wall[0]])
        assert row["metrics"]["PSNR"] > 60 and row["metrics"]["REL"] < 0.01 and math.isnan(row["metrics"]["IoU"])
        told = given.pop()
        assert told["camera"].tolist() == [[60 / 64, 60 / 48, 0.5, 0.5, pytest.approx(metres)]]
        np.testing.assert_allclose(told["seen_depth"], np.full((1, 1, 48, 64), metres), rtol=1e-6)
        np.testing.assert_array_equal(told["image"][0], wall[0].rgb)
        np.testing.assert_allclose(told["pose"][0], POSES[0], rtol=1e-6)
        assert told["target"].tolist() == [[60 / 64, 60 / 48, 0.5, 0.5]]


def test_the_true_depth_is_what_a_model_has_to_beat(tmp_path: Path) -> None:
    assessment, wall = ViewAssessment(), Wall()
    floor = assessment.floor(wall, tmp_path, iter)
    assert floor is not None and floor.name == "warping by the true depth"
    view, milliseconds = floor.estimate(wall[0])
    assert math.isnan(milliseconds) and np.nanmax(np.abs(view.depth - 2)) < 1e-3 and view.mask.any()

    class Unmeasured(Wall):
        def __getitem__(self, index: int) -> ViewFrame:
            frame = super().__getitem__(index)
            return ViewFrame(frame.rgb, CAMERA, frame.pose, frame.target, CAMERA, name="bare")

    assert assessment.floor(Unmeasured(), tmp_path, iter) is None
    with pytest.raises(ValueError, match="'bare' has no true depth to warp its image by; name a model for depth"):
        true_view(Unmeasured()[0])
    row = assessment.measure(Sample(Unmeasured()[0], view), None, Unmeasured(), lambda frame: view)
    assert math.isnan(row["metrics"]["IoU"]) and math.isnan(row["metrics"]["REL"]) and row["metrics"]["PSNR"] > 20


def test_remarks_say_where_views_come_from_and_what_nobody_knows() -> None:
    wall = Wall()
    assert ViewAssessment().remarks(CONFIG, wall) == ["views made from its depth by warping"]
    wall.metric = False
    assert "unit of these scenes" in ViewAssessment().remarks(CONFIG, wall)[1]
    blind, told = ViewAssessment(), ViewAssessment(depth="deep", instances=True)
    assert blind.remarks(SHOWS, wall)[0].startswith("told nothing beside the image;")
    assert told.remarks(SHOWS, wall)[0].startswith("told the depth that deep finds and the true mask of objects beside")
    with pytest.raises(ValueError, match="shows takes no mask of objects; leave out --told-instances"):
        told.inference(says(1), SHOWS, wall)


def test_a_view_of_another_size_is_broken() -> None:
    view = View(np.zeros((24, 32, 3), np.uint8), np.zeros((24, 32), np.float32))
    with pytest.raises(ValueError, match="shape"):
        ViewAssessment().measure(Sample(Wall()[0], view), None, Wall(), lambda frame: view)


def test_the_report_has_every_figure() -> None:
    assert find_assessment("view_synthesis") is ViewAssessment
    assessment, wall = ViewAssessment(), Wall()
    infer = assessment.inference(says(2.0), CONFIG, wall)
    rows = [assessment.measure(Sample(wall[i], infer(wall[i])), None, wall, infer) for i in range(4)]
    rows = [row | {"index": i, "name": str(i), "milliseconds": math.nan} for i, row in enumerate(rows)]
    summary = assessment.summarise(rows)
    entry = {"model": "m", "target": "t", "precision": "fp32", "problem": "", "facts": {}, "cost": None}
    entry |= {"summary": summary, "difference": None, "remarks": [], "plots": {}, "sheet": ""}
    report = {
        "task": "view_synthesis", "command": "c", "date": "d", "sequence": False, "options": assessment.options(),
        "versions": {}, "data": {"name": wall.name, "samples": 4, "sha256": "0" * 64},
        "machine": {"cpu": "cpu", "cores": 2, "threads": "all"}, "entries": [entry],
    }  # fmt: skip
    told, scores = markdown(report), summary["metrics"]
    assert math.isnan(summary["ci95"]["PSNR"]), "all are views of one input"
    assert f"| {scores['PSNR']:.2f} | {scores['SSIM']:.3f} |" in told
    assert f"| m t fp32 | 3 | {scores['hit_rate']:.3f} | {scores['gap']:.3f} | - | {scores['REL']:.3f} |" in told
    assert "| m t fp32 | 60 to 180 | 1 | 0.00 |" in told and "turned by at most 30 degrees" in told


def test_engines_are_judged_by_these_figures() -> None:
    class Whole(Wall):
        def __len__(self) -> int:
            return len(POSES)

    judge = DatasetJudge(ViewAssessment(), Whole())
    assert judge.metric == "PSNR" and judge.score(says(2.0), CONFIG) > judge.score(says(1.0), CONFIG) + 5

"""Enhanced images against bright ones, from the outputs of a network to the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.engines.acceptance import Predict
from perception.evaluation.assessment import Sample, find_assessment
from perception.evaluation.datasets import data_root, find_dataset
from perception.evaluation.enhancement import EnhancementAssessment, expose, predict_image
from perception.evaluation.harness import network, run
from perception.evaluation.judge import DatasetJudge
from perception.evaluation.pairs import PairDataset
from perception.evaluation.report import markdown
from perception.evaluation.results import ResultLog
from perception.evaluation.sheet import draw_sheet
from perception.tasks.config import ModelConfig, Output
from perception.tasks.enhancement_metrics import psnr
from perception.tasks.image import to_light

CONFIG = ModelConfig(
    name="brightens",
    task="enhancement",
    input_size=(32, 48),
    outputs=(Output("enhanced", (1, 3, 32, 48), "intensity"),),
)


def times(factor: float) -> Predict:
    """A network that multiplies the intensities of its image."""

    def predict(image: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"enhanced": np.clip(image.transpose(0, 3, 1, 2) * np.float32(factor / 255), 0, 1)}

    return predict


@pytest.fixture
def pairs(tmp_path: Path) -> PairDataset:
    """Three pairs to evaluate on and two to train on, the bright images four times the dark ones; one is broken."""
    rng = np.random.default_rng(0)
    for split, count in (("eval", 4), ("train", 2)):
        for number in range(count):
            for kind in ("low", "high"):
                (tmp_path / "night" / split / kind).mkdir(parents=True, exist_ok=True)
            small = rng.integers(5, 15 + 15 * number, (4, 6, 3)).astype(np.uint8)
            dark = cv2.resize(small, (48, 32), interpolation=cv2.INTER_LINEAR)
            cv2.imwrite(str(tmp_path / "night" / split / "low" / f"{number}.png"), dark)
            cv2.imwrite(str(tmp_path / "night" / split / "high" / f"{number}.png"), 4 * dark)
    (tmp_path / "night/eval/high/3.png").unlink()
    return PairDataset(tmp_path / "night")


def test_an_engine_is_measured_as_a_node_would_run_it(pairs: PairDataset, tmp_path: Path) -> None:
    assessment, entries = EnhancementAssessment(), []
    for name, factor in (("right", 3.9), ("dim", 2.0)):
        estimate = network(assessment, times(factor), CONFIG, pairs)
        log = ResultLog(tmp_path / f"{name}.jsonl", {"engine": name})
        rows = run(estimate, pairs, len(pairs), assessment, log)
        entries.append((name, rows, assessment.summarise(json.loads(json.dumps(rows)))))
        draw_sheet(tmp_path / f"{name}.png", name, rows, pairs, assessment, estimate)
        assert cv2.imread(str(tmp_path / f"{name}.png")).shape[1] == 1200
    (_, right, good), (_, dim, worse) = entries
    assert good["metrics"]["PSNR"] > 35 > 25 > worse["metrics"]["PSNR"]
    assert good["metrics"]["SSIM"] > 0.99 > worse["metrics"]["SSIM"] and good["metrics"]["LOE"] < 0.01
    assert worse["metrics"]["fitted_PSNR"] > worse["metrics"]["PSNR"] + 5
    assert worse["metrics"]["brightness"] < -0.05 and worse["exposure"] == pytest.approx(
        -worse["metrics"]["brightness"]
    )
    assert [failed["name"] for failed in good["failed"]] == ["3"]
    difference = assessment.difference(dim, right)
    assert difference["PSNR"] == pytest.approx(worse["metrics"]["PSNR"] - good["metrics"]["PSNR"])
    assert assessment.rank(right[0]) < assessment.rank(dim[0]) and "dB  SSIM 0.99" in assessment.caption(right[0])
    cells = assessment.cells(worse)
    assert len(cells) == len(assessment.columns) and cells[0].startswith(f"{worse['metrics']['PSNR']:.2f} ± ")


def test_the_report_has_every_figure(pairs: PairDataset) -> None:
    assessment = EnhancementAssessment()
    infer = assessment.inference(times(2.0), CONFIG, pairs)
    rows = [assessment.measure(Sample(pairs[i], infer(pairs[i])), None, pairs, infer) for i in range(3)]
    rows = [row | {"index": i, "name": str(i), "milliseconds": math.nan} for i, row in enumerate(rows)]
    summary = assessment.summarise(rows)
    entry = {"model": "m", "target": "t", "precision": "fp32", "problem": "", "facts": {}, "cost": None}
    entry |= {"summary": summary, "difference": None, "remarks": [], "plots": {}, "sheet": ""}
    report = {
        "task": "enhancement", "command": "c", "date": "d", "sequence": False, "options": {}, "versions": {},
        "data": {"name": pairs.name, "samples": 3, "sha256": "0" * 64},
        "machine": {"cpu": "cpu", "cores": 2, "threads": "all"}, "entries": [entry],
    }  # fmt: skip
    told = markdown(report)
    assert f"| {summary['metrics']['PSNR']:.2f} ± {summary['ci95']['PSNR']:.2f} |" in told
    assert f"| {100 * summary['metrics']['brightness']:+.1f} % | {100 * summary['exposure']:.1f} % |" in told


def test_a_build_judges_by_psnr(pairs: PairDataset) -> None:
    assessment = find_assessment("enhancement")()
    (Path(pairs.root) / "eval/low/3.png").unlink()
    judge = DatasetJudge(assessment, PairDataset(pairs.root))
    assert judge.metric == "PSNR" and judge.score(times(3.9), CONFIG) > judge.score(times(3.0), CONFIG) + 10
    scores = assessment.score(times(3.0), CONFIG, pairs, [pairs[0]])
    assert scores["frames"] == 1 and scores["PSNR"] == psnr(
        predict_image(times(3.0), CONFIG, pairs[0]), pairs[0].target
    )
    with pytest.raises(ValueError, match="empty"):
        assessment.score(times(3.0), CONFIG, pairs, [])


def test_the_floor_is_an_exposure_to_what_the_training_split_is_like(pairs: PairDataset, tmp_path: Path) -> None:
    assessment = EnhancementAssessment()
    floor = assessment.floor(pairs, tmp_path, iter)
    training = pairs.training()
    assert floor is not None and training is not None and training.name in floor.key
    image, milliseconds = floor.estimate(pairs[1])
    expected = np.mean([frame.target.mean() for frame in training])
    assert image.mean() == pytest.approx(expected, abs=0.5) and math.isnan(milliseconds)
    assert assessment.floor(PairDataset(pairs.root / "eval"), tmp_path, iter) is None


@pytest.mark.parametrize("mean", [20.0, 60.0, 150.0])
def test_an_exposure_multiplies_light(mean: float) -> None:
    image = np.random.default_rng(1).integers(20, 90, (40, 50, 3)).astype(np.uint8)
    exposed = expose(image, mean)
    assert exposed.mean() == pytest.approx(mean, abs=0.5) and exposed.dtype == np.uint8
    unclipped = exposed < 255
    ratio = (to_light(exposed / 255) / to_light(image / 255))[unclipped]
    assert np.median(ratio) == pytest.approx(np.mean(ratio), rel=0.02) and ratio.std() < 0.1 * ratio.mean()


def test_what_is_black_stays_black_and_white_is_the_most() -> None:
    assert expose(np.zeros((4, 4, 3), np.uint8), 100).max() == 0
    assert expose(np.full((4, 4, 3), 50, np.uint8), 255).min() == 255


def test_lol_has_a_floor() -> None:
    """An exposure is worth 19.8 dB there, which a network has to beat."""
    if not (data_root() / "lol").is_dir():
        pytest.skip(f"{data_root() / 'lol'} is not there")
    dataset = find_dataset("lol", data_root())
    scores = [psnr(expose(dataset[place].rgb, 120.8), dataset[place].target) for place in (0, 10, 20)]
    assert 15 < np.mean(scores) < 23

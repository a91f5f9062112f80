"""What models see of a data set: in the dark, enhanced, and in real pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.evaluation.datasets import data_hash
from perception.evaluation.depth import DepthAssessment
from perception.evaluation.enhancement import EnhancementAssessment
from perception.evaluation.frames import RGBDFrame
from perception.evaluation.harness import network, run
from perception.evaluation.looks import AS_IT_IS, Answered, Look, Seen, enhanced, find_looks, in_the_dark
from perception.evaluation.pairs import PairDataset
from perception.evaluation.results import ResultLog
from perception.tasks.config import ModelConfig, Output
from perception.tasks.darkening import darken
from tests.evaluation.memory import MemoryDataset, flat

SIZE = (48, 64)


class Brightens:
    """An enhancement that multiplies intensities."""

    config = ModelConfig(
        name="brightens", task="enhancement", input_size=SIZE, outputs=(Output("enhanced", (1, 3, *SIZE), "intensity"),)
    )

    def __init__(self, factor: float) -> None:
        self.factor, self.info = factor, {"key": f"times {factor}"}

    def run(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"enhanced": np.clip(image.transpose(0, 3, 1, 2) * np.float32(self.factor / 255), 0, 1)}


class Measures:
    """Depth that is the mean intensity of the image: what is dark seems near."""

    config = ModelConfig(name="measures", task="depth", input_size=SIZE, outputs=(Output("depth", (1, 1, *SIZE), "m"),))
    info = {"key": "m"}

    def run(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"depth": np.full((1, 1, *SIZE), max(image.mean() / 10, 0.01), np.float32)}


def grey(shade: int) -> RGBDFrame:
    """Whose depth is what `Measures` says of it."""
    return flat(shade / 10, shade)


def deltas(dataset: MemoryDataset | Answered, look: Look, folder: Path) -> float:
    assessment, seen = DepthAssessment(), Seen(dataset, look)
    estimate = network(assessment, Measures().run, Measures.config, seen)
    rows = run(estimate, seen, len(seen), assessment, ResultLog(folder / f"{look.name}.jsonl", {}))
    return float(assessment.summarise(rows)["metrics"]["rmse"])


def test_a_look_changes_images_and_nothing_else() -> None:
    dataset = MemoryDataset([grey(200), grey(100), "broken"], sequence=True)
    look = in_the_dark(0.1)
    seen = Seen(dataset, look)
    assert (len(seen), seen.task, seen.sequence, seen.name, seen.label(1)) == (3, "depth", True, "memory", "s1")
    assert (seen[1].rgb == darken(dataset[1].rgb, 0.1, np.random.default_rng(1))).all() and seen[1].rgb.mean() < 50
    assert (seen[1].rgb == seen[1].rgb).all() and seen[1].depth is dataset[1].depth
    assert seen.samples is dataset.samples, "and what data sets of one task have beside"
    with pytest.raises(ValueError, match="broken"):
        seen[2]
    with pytest.raises(AttributeError):
        _ = seen.labels
    with pytest.raises(ValueError, match="a share of the light"):
        in_the_dark(1.5)


def test_what_the_dark_takes_and_an_enhancement_gives_back(tmp_path: Path) -> None:
    dataset = MemoryDataset([grey(200), grey(120)])
    bright, dark, again, wrong = (
        deltas(dataset, look, tmp_path)
        for look in (
            AS_IT_IS,
            in_the_dark(0.05),
            enhanced(in_the_dark(0.05), "right", Brightens(3.9)),  # type: ignore[arg-type]
            enhanced(in_the_dark(0.05), "wrong", Brightens(0.5)),  # type: ignore[arg-type]
        )
    )
    assert bright < 1e-3 < again < 0.3 * dark < dark < wrong


def test_looks_are_with_and_without(tmp_path: Path) -> None:
    dataset, engines = MemoryDataset([grey(9)]), {"two": Brightens(2), "three": Brightens(3)}
    assert [look.name for look in find_looks(dataset, [], {})] == [""]
    found = find_looks(dataset, [0.1, 0.02], engines)  # type: ignore[arg-type]
    assert [look.name for look in found] == [
        "", "10 % of the light", "10 % of the light, two", "10 % of the light, three",
        "2 % of the light", "2 % of the light, two", "2 % of the light, three",
    ]  # fmt: skip
    assert len({look.key for look in found}) == 7, "results of one are not taken for those of another"
    assert [look.name for look in find_looks(dataset, [], engines)] == ["", "two", "three"]  # type: ignore[arg-type]
    assert any("without two" in remark and "brightens every image" in remark for remark in found[2].remarks)
    assert any("10 % of the light would" in remark for remark in found[1].remarks)


@pytest.fixture
def pairs(tmp_path: Path) -> PairDataset:
    for number, shade in enumerate((30, 50)):
        for kind, factor in (("low", 1), ("high", 4)):
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"{number}.png"), np.full((*SIZE, 3), shade * factor, np.uint8))
    return PairDataset(tmp_path)


def test_of_real_pairs_what_is_found_in_the_bright_image_is_true(pairs: PairDataset, tmp_path: Path) -> None:
    dataset = Answered(pairs, DepthAssessment(), Measures())  # type: ignore[arg-type]
    assert dataset.task == "depth" and [float(frame.depth.mean()) for frame in dataset] == [12, 20]
    assert dataset[0] is dataset[0] and dataset.files(0) == pairs.files(0) and len(pairs.files(0)) == 2
    other = Measures()
    other.info = {"key": "other"}
    others = Answered(pairs, DepthAssessment(), other)  # type: ignore[arg-type]
    keys = [{look.key for look in find_looks(answered, [0.1], {})} for answered in (dataset, others)]
    assert len(keys[0] | keys[1]) == 4, "what one engine finds is not taken for what another one finds"
    names = [look.name for look in find_looks(dataset, [], {"brightens": Brightens(4)})]  # type: ignore[dict-item]
    assert names == ["really dark", "really dark, brightens"]
    dark, again = find_looks(dataset, [], {"brightens": Brightens(4)})  # type: ignore[dict-item]
    assert (Seen(dataset, dark)[1].rgb == 50).all() and (Seen(dataset, again)[1].rgb == 200).all()
    assert deltas(dataset, again, tmp_path) < 0.01 < 5 < deltas(dataset, dark, tmp_path)


def test_a_broken_pair_is_a_broken_sample(pairs: PairDataset) -> None:
    dark, _ = pairs.files(0)
    before = data_hash(pairs)
    dark.write_text("no image")
    dataset = Answered(pairs, DepthAssessment(), Measures())  # type: ignore[arg-type]
    assert data_hash(dataset) != before and dataset[1].depth.mean() == 20
    with pytest.raises(ValueError, match="not a readable image"):
        dataset[0]


def test_what_a_model_finds_becomes_truth_of_its_task() -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `eval`)")
    from perception.evaluation.detection import DetectionAssessment, Prediction
    from perception.evaluation.segmentation import Prediction as MaskPrediction
    from perception.evaluation.segmentation import SegmentationAssessment
    from perception.tasks.detection import Detections
    from perception.tasks.segmentation import Segmentation

    rgb = np.zeros((*SIZE, 3), np.uint8)
    boxes = np.array([[1, 2, 30, 40], [5, 5, 9, 9]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.2], np.float32), np.array([2, 1]))
    frame = DetectionAssessment().frame(rgb, "a", Prediction(found, np.ones(3, bool)))
    assert (frame.boxes == boxes[:1]).all() and frame.labels.tolist() == [2] and frame.ignore.tolist() == [False]
    assert len(DetectionAssessment().frame(rgb, "a").boxes) == 0
    mask = np.arange(48 * 64, dtype=np.uint32).reshape(SIZE).astype(np.uint8) % 3
    certain = Segmentation(mask, np.full(SIZE, 255, np.uint8))
    assert (SegmentationAssessment().frame(rgb, "a", MaskPrediction(certain, np.ones(3, bool))).mask == mask).all()
    assert (SegmentationAssessment().frame(rgb, "a").mask == 255).all()
    assert math.isclose(float(DepthAssessment().frame(rgb, "a", np.ones(SIZE, np.float32)).depth.mean()), 1)
    with pytest.raises(ValueError, match="enhancement has no truth in what a model finds"):
        EnhancementAssessment().frame(rgb, "a")

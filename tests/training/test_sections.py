"""Whole small runs of recipes that distil, prune and quantise, from a trained network on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from perception.evaluation.rgbd_folder import RGBDWriter  # noqa: E402
from perception.models import count_macs, create_model, model_config  # noqa: E402
from perception.tasks.geometry import Camera  # noqa: E402
from perception.training.depth import DepthRecipe, DepthSource, DepthStage  # noqa: E402
from perception.training.distillation import Distillation  # noqa: E402
from perception.training.pruning import Pruning  # noqa: E402
from perception.training.reading import load_recipe  # noqa: E402
from perception.training.train import train  # noqa: E402
from tests.training.test_distillation import onnx_teacher  # noqa: E402

MODEL = "fastdepth_mobilenet_v2_035"
FOCAL = (0.92, 1.22)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames `set`, images `photos`, and a network that has seen the frames twice: `base/NAME.safetensors`."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    writer = RGBDWriter(folder / "set", Camera(96, 64, 88.0, 78.0, 48.0, 32.0), 10.0, "none", "none")
    (folder / "photos").mkdir()
    for index in range(6):
        rgb = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
        writer.write_frame(rgb, np.full((64, 96), 1.0 + index, np.float32))
        cv2.imwrite(str(folder / "photos" / f"{index}.png"), rgb)
    train(recipe(), folder, folder / "base")
    return folder


def recipe(**changes: object) -> DepthRecipe:
    fields = {
        "name": "small", "model": MODEL, "focal": FOCAL, "sources": (DepthSource("set"),), "evaluate": "set",
        "stages": (DepthStage(2, (32, 64), 2),), "data_licence": "none", "warmup": 1,
    }  # fmt: skip
    return DepthRecipe(**fields | changes)  # type: ignore[arg-type]


def test_pruning_narrows_the_trained_network_and_tells_its_widths(data: Path) -> None:
    size = model_config(MODEL).input_size
    full = count_macs(create_model(MODEL, pretrained=False), size) / 1e9
    settings = Pruning(budget=0.9 * full, step=0.06, candidates=1, tune_steps=1, batch=2, held_out=2)
    weights = str(data / f"base/{MODEL}.safetensors")
    pruned = train(recipe(weights=weights, pruning=settings), data, data / "pruned")
    model = create_model(str(pruned))
    assert 0.7 * full < count_macs(model, size) / 1e9 <= 0.9 * full
    assert json.loads(pruned.with_suffix(".json").read_text())[MODEL]["options"]["widths"] == model.widths
    again = train(recipe(weights=weights, pruning=settings), data, data / "pruned")  # from the checkpoint
    assert again.read_bytes() == pruned.read_bytes()


def test_quantization_starts_from_the_trained_network_and_ends_as_an_ordinary_one(data: Path) -> None:
    weights = str(data / f"base/{MODEL}.safetensors")
    quantized = train(recipe(weights=weights, quantization=True, rate=1e-5), data, data / "quantized")
    before, after = create_model(weights), create_model(str(quantized))
    assert [name for name, _ in before.named_parameters()] == [name for name, _ in after.named_parameters()]
    image = torch.rand(1, 3, 64, 64)
    assert torch.allclose(after(image), before(image), rtol=0.2) and not torch.equal(after(image), before(image))


def test_teachers_of_metres_and_of_relative_depth(data: Path) -> None:
    onnx_teacher(data / "teacher.onnx", channels_last=True)
    sources = (DepthSource("set", 0.5), DepthSource("photos", 0.5, relative=True))
    settings = Distillation(
        teacher=str(data / f"base/{MODEL}.safetensors"), features=0.1, relative_teacher="teacher.onnx"
    )
    taught = recipe(sources=sources, distillation=settings, stages=(DepthStage(3, (32, 64), 4),))
    first = train(taught, data, data / "taught")
    assert len(list((data / "taught" / "relative").rglob("*.npy"))) == 6
    assert first.read_bytes() == train(taught, data, data / "taught").read_bytes()
    assert first.read_bytes() != train(recipe(stages=(DepthStage(3, (32, 64), 4),)), data, data / "alone").read_bytes()


def test_frames_without_depth_are_no_metric_source(data: Path) -> None:
    (data / "set/depth/000003.png").rename(data / "depth")
    with pytest.raises(ValueError, match="set: frame '000003' lacks depth or camera"):
        train(recipe(), data, data / "useless")
    (data / "depth").rename(data / "set/depth/000003.png")


def test_sections_are_read_from_the_file(tmp_path: Path) -> None:
    text = (
        "{name: x, model: fastdepth, focal: [1, 1], data_licence: none, evaluate: e, "
        "stages: [{steps: 1, size: [32, 32], batch: 1}], "
        "sources: [{path: p, relative: true}], pruning: {budget: 0.3}, distillation: {teacher: t}WEIGHTS}"
    )
    path = tmp_path / "r.yaml"
    path.write_text(text.replace("WEIGHTS", ", weights: w"))
    found = load_recipe(str(path))
    assert found.pruning == Pruning(budget=0.3) and found.distillation == Distillation(teacher="t")
    assert found.sources == (DepthSource("p", relative=True),)
    path.write_text(text.replace("WEIGHTS", ""))
    with pytest.raises(ValueError, match="prunes, which needs a trained network.*`weights`"):
        load_recipe(str(path))

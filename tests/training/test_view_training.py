"""Novel views as a lesson: losses, coarse and fine stages, whole small runs, what recipes accept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from interruption import interrupt_once  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from scenes import scene  # noqa: E402

from perception.evaluation.frames import ViewFrame  # noqa: E402
from perception.evaluation.views import ViewDataset  # noqa: E402
from perception.models import model_config  # noqa: E402
from perception.tasks.poses import relative_pose  # noqa: E402
from perception.training.reading import RECIPES, load_recipe  # noqa: E402
from perception.training.train import Run, train  # noqa: E402
from perception.training.view_data import ViewAugmentation  # noqa: E402
from perception.training.view_synthesis import (  # noqa: E402
    ViewLesson,
    ViewRecipe,
    ViewSource,
    ViewStage,
    disparity_loss,
    distortion_loss,
)

SIZE = (32, 32)
SMALL = {
    "patch": 8, "heads": 1, "encoder_depth": 1, "decoder_depth": 2, "grid": 3, "piece": 4, "width": 8, "samples": 8,
    "looks": 3, "near": 1.0, "far": 6.0, "depth": True, "instances": True, "mask": True,
}  # fmt: skip
RECIPE = ViewRecipe(
    name="tiny", model="nvist_compact", sources=(ViewSource("scenes"),), data_licence="test", evaluate="walls",
    stages=(ViewStage(2, SIZE, 2, views=1, rays=8, coarse=True), ViewStage(2, SIZE, 2, views=1, rays=8)),
    network=SMALL, warmup=1, average=0.5,
)  # fmt: skip


class Walls(ViewDataset):
    name = "walls"

    def __len__(self) -> int:
        return 2

    def label(self, index: int) -> str:
        return str(index)

    def files(self, index: int) -> tuple[Path, ...]:
        return ()

    def __getitem__(self, index: int) -> ViewFrame:
        known = scene(9)
        pose = relative_pose(known.poses[2], known.poses[index])
        sides = (known.camera, known.depths[2], known.masks[2], known.depths[index], known.masks[index])
        return ViewFrame(known.images[2], known.camera, pose, known.images[index], *sides, name=str(index))


def changed(**fields: Any) -> ViewRecipe:
    return dataclasses.replace(RECIPE, **fields)


def lesson_of(recipe: ViewRecipe) -> ViewLesson:
    return ViewLesson(recipe, [scene(number) for number in range(3)], Walls())


@pytest.mark.parametrize("coarse", [True, False])
def test_the_lesson_is_learned(coarse: bool) -> None:
    recipe = changed(stages=(ViewStage(40, SIZE, 4, views=1, rays=8, coarse=coarse),), rate=3e-3)
    torch.manual_seed(0)
    lesson = lesson_of(recipe)
    run = Run(lesson, lesson.build(), "cpu")
    losses = [run.step(step, *lesson.batch(0)).item() for step in range(16)]
    assert np.mean(losses[-4:]) < 0.85 * np.mean(losses[:4])


def test_every_loss_has_its_share() -> None:
    torch.manual_seed(0)
    recipe = changed(stages=RECIPE.stages[1:])
    model = lesson_of(recipe).build()

    def loss_of(recipe: ViewRecipe) -> float:
        torch.manual_seed(1)
        lesson = lesson_of(recipe)
        images, *truth = lesson.batch(0)
        with torch.no_grad():
            return float(lesson.loss(0, model, lambda x: x, images.float() / 255, *truth))

    recipe = dataclasses.replace(recipe, perceive="ssdlite_mobilenet_v2_robot")
    whole = loss_of(recipe)
    for field, value in (
        ("rendered", 0.0),
        ("depth", 0.0),
        ("surface", 0.0),
        ("mask", 0.0),
        ("distortion", 0.0),
        ("perceive", ""),
    ):
        assert loss_of(dataclasses.replace(recipe, **{field: value})) < whole - 1e-6, field


def test_losses_of_rays() -> None:
    weights = torch.zeros(1, 4, 2)
    weights[0, 1, 0] = 1  # all in one sample
    weights[0, 0, 1] = weights[0, 3, 1] = 0.5  # in two, three quarters of the ray apart
    assert distortion_loss(weights[..., :1]).item() == pytest.approx(1 / 12)
    assert distortion_loss(weights[..., 1:]).item() == pytest.approx(2 * 0.25 * 0.75 + 0.5 / 12)
    depth = torch.tensor([1.0, 2.0, 4.0, 9.0])
    truth = torch.tensor([2.0, 2.0, float("nan"), 0.0])
    assert disparity_loss(depth, truth).item() == pytest.approx(0.25)
    assert disparity_loss(depth, truth * 0).item() == 0


def test_a_run_is_the_same_when_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through both stages; the trained network is measured, and its entry tells how it is built."""
    from perception.training import train as loop

    monkeypatch.setattr(loop, "LOGGED", 2)
    path = train(RECIPE, tmp_path, tmp_path / "whole", lesson=lesson_of(RECIPE))
    steps = interrupt_once(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, tmp_path, tmp_path / "cut", lesson=lesson_of(RECIPE))
    resumed = load_file(train(RECIPE, tmp_path, tmp_path / "cut", lesson=lesson_of(RECIPE)))
    whole = load_file(path)
    assert steps[-2:] == [2, 3] and all(torch.equal(whole[name], resumed[name]) for name in whole)
    config = model_config(str(path))
    assert config.input_size == SIZE and [output.name for output in config.outputs][3:] == ["view", "depth", "mask"]
    assert {"PSNR", "SSIM", "IoU", "REL"} <= set(config.metrics) and config.metrics["frames"] == 2


def test_what_training_told_is_told_when_it_is_measured() -> None:
    given = []

    def predict(frame: Any) -> dict[str, np.ndarray]:
        given.append(frame)
        return {"view": np.full((1, 3, *SIZE), 0.5, np.float32), "depth": np.ones((1, 1, *SIZE), np.float32)}

    lesson = lesson_of(RECIPE)
    lesson.measure(predict, lesson.config())
    assert given[0]["seen_depth"].min() > 1 and given[0]["instances"].any() and given[0]["camera"][0, 4] > 1
    lesson = lesson_of(changed(augmentation=ViewAugmentation(unknown=1)))
    lesson.measure(predict, lesson.config())
    assert not given[-1]["seen_depth"].any() and not given[-1]["instances"].any() and not given[-1]["camera"][0, 4]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"stages": (ViewStage(1, SIZE, 1), ViewStage(1, (64, 64), 1))}, "different sizes"),
        ({"stages": (ViewStage(1, (32, 64), 1),)}, "32x64, and those of scenes are square"),
        ({"stages": (ViewStage(1, SIZE, 1, views=0),)}, "must be 1 or more"),
        ({"sources": (ViewSource("a"), ViewSource("b"))}, "scenes come from one"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(**fields)


def test_a_lesson_that_does_not_fit_its_network_is_refused() -> None:
    with pytest.raises(ValueError, match="17 rays of 2 pixels make a window of 34.*32x32; at most 16 rays"):
        lesson_of(changed(stages=(ViewStage(1, SIZE, 1, rays=17),)))
    lesson_of(changed(stages=(ViewStage(1, SIZE, 1, rays=32, coarse=True),)))
    with pytest.raises(ValueError, match="12 rays do not part a side of 32 pixels evenly"):
        lesson_of(changed(stages=(ViewStage(1, SIZE, 1, rays=12, coarse=True),)))
    with pytest.raises(ValueError, match="network has a field that 'nvist_compact' lacks"):
        lesson_of(changed(network={"wings": 2}))


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("nvist*.yaml")))
def test_shipped_recipes_can_be_read(name: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, ViewRecipe) and recipe.name == name
    assert {output.name for output in ViewLesson(recipe, []).config().outputs} >= {"view", "depth"}

"""Enhancement as a lesson: what recipes accept, both steps of Troublemaker Learning, and whole small runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from interruption import interrupt_once  # noqa: E402

from perception.evaluation.frames import PairFrame  # noqa: E402
from perception.models import create_model, model_config, registry  # noqa: E402
from perception.training.data import to_unit  # noqa: E402
from perception.training.enhancement import (  # noqa: E402
    EnhancementLesson,
    EnhancementRecipe,
    EnhancementSource,
    Troublemaker,
)
from perception.training.pair_data import PairMixture, PairSource  # noqa: E402
from perception.training.reading import RECIPES, load_recipe  # noqa: E402
from perception.training.recipe import Stage  # noqa: E402
from perception.training.train import Run, train  # noqa: E402

SIZE = (80, 80)
PAIRS = EnhancementSource("night")
RECIPE = EnhancementRecipe(
    name="tiny", model="ugdc_compact", sources=(PAIRS,), stages=(Stage(4, SIZE, 2),), data_licence="test",
    evaluate="night", width=4, warmup=1, average=0.5,
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pairs of which the bright image is four times the dark one, and a folder of bright images."""
    for split, count in (("train", 4), ("eval", 2)):
        for kind in ("low", "high"):
            (tmp_path / "night" / split / kind).mkdir(parents=True)
        for number in range(count):
            small = np.random.default_rng(number).integers(5, 60, (4, 4, 3)).astype(np.uint8)
            dark = cv2.resize(small, (96, 96), interpolation=cv2.INTER_LINEAR)
            cv2.imwrite(str(tmp_path / "night" / split / "low" / f"{number}.png"), dark)
            cv2.imwrite(str(tmp_path / "night" / split / "high" / f"{number}.png"), 4 * dark)
    return tmp_path


def changed(**fields: Any) -> EnhancementRecipe:
    return dataclasses.replace(RECIPE, **fields)


def test_the_lesson_is_learned(data: Path) -> None:
    """All losses together fall, and every part of them has a share."""
    recipe = changed(
        stages=(Stage(30, SIZE, 4),), rate=3e-3, ssim=0.5, color=0.5, perceive="ssdlite_mobilenet_v2_robot",
    )  # fmt: skip
    torch.manual_seed(0)
    lesson = EnhancementLesson.open(recipe, data, data)
    run = Run(lesson, lesson.build(), "cpu")
    losses = [run.step(step, *lesson.batch(step)).item() for step in range(12)]
    assert np.mean(losses[-3:]) < 0.85 * np.mean(losses[:3])

    def loss_of(recipe: EnhancementRecipe) -> float:
        torch.manual_seed(1)
        lesson = EnhancementLesson(recipe, run.lesson.mixture)
        images, *truth = lesson.batch(0)
        with torch.no_grad():
            return float(lesson.loss(0, run.model, run._forward, to_unit(images), *truth))

    whole = loss_of(recipe)
    for field, value in (("ssim", 0.0), ("color", 0.0), ("perceive", "")):
        assert loss_of(dataclasses.replace(recipe, **{field: value})) < whole - 1e-4


def test_coarse_and_final_are_both_held_against_the_bright_image() -> None:
    """By smooth L1 in the network's normalisation (TML)."""
    frame = PairFrame(np.full((*SIZE, 3), 10, np.uint8), np.full((*SIZE, 3), 102, np.uint8))
    lesson = EnhancementLesson(RECIPE, PairMixture([PairSource([frame])]))
    images, *truth = lesson.batch(0)
    wanted = (torch.full((2, 3, *SIZE), 0.4) - torch.tensor(lesson.config().mean).view(3, 1, 1)) / torch.tensor(
        lesson.config().std
    ).view(3, 1, 1)
    steps = wanted + 0.5, wanted - 3
    loss = lesson.loss(0, torch.nn.Module(), lambda _: steps, to_unit(images), *truth)
    assert loss.item() == pytest.approx(0.5**2 / 2 + (3 - 0.5), rel=1e-4)


def test_a_run_is_the_same_when_interrupted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    from perception.training import train as loop

    monkeypatch.setattr(loop, "LOGGED", 2)
    whole = load_file(train(RECIPE, data, data / "whole"))
    steps = interrupt_once(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, data, data / "cut")
    resumed = load_file(train(RECIPE, data, data / "cut"))
    assert steps[-2:] == [2, 3] and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_both_steps_of_troublemaker_learning(data: Path) -> None:
    """A network of its own makes darkness, is measured by it, and teaches an enhancer that sees bright images alone."""
    first = changed(name="dark", darkens=True)
    weights = train(first, data, data / "first")
    config = model_config(str(weights))
    assert config.input_size == SIZE and {"PSNR", "SSIM"} < set(config.metrics)
    photographs = EnhancementSource("night/train/high", photographs=True)
    second = changed(sources=(photographs,), troublemaker=str(weights))
    lesson = EnhancementLesson.open(second, data, data)
    images, targets, undone = lesson.batch(0)
    assert undone.all() and torch.equal(images, targets)
    seen: list[torch.Tensor] = []

    def forward(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append(images)
        return (images,)

    lesson.loss(0, torch.nn.Module(), forward, to_unit(images), targets, undone)
    expected = Troublemaker(str(weights), SIZE)(to_unit(targets))
    assert torch.equal(seen[0], expected) and torch.equal((expected * 255).round() / 255, expected)
    trained = train(second, data, data / "second")
    assert create_model(str(trained))(torch.zeros(1, 3, *SIZE)).shape == (1, 3, *SIZE)
    with pytest.raises(ValueError, match=r"is for images of \(80, 80\), and the recipe of \(80, 160\)"):
        Troublemaker(str(weights), (80, 160))
    with pytest.raises(ValueError, match="has no weights yet"):
        Troublemaker("mobiledet_cpu", (320, 320))


def test_a_troublemaker_learns_from_bright_to_dark(data: Path) -> None:
    lesson = EnhancementLesson.open(changed(darkens=True), data, data)
    images, targets, _ = lesson.batch(0)
    assert images.float().mean() > 3 * targets.float().mean()
    assert lesson.sample(SIZE).float().mean() > 60
    assert lesson.build().enhance is None and lesson.entry(lesson.build())["options"] == {
        "width": 4, "refines": False, "exposes": False,
    }  # fmt: skip


def test_a_network_with_shipped_weights_can_be_trained_at_another_size(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = {"weights": "x", "weights_sha256": "0", "input_size": [160, 240], "options": {"width": 16}}
    (tmp_path / "weights.json").write_text(json.dumps({"ugdc_compact": shipped}))
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match="'ugdc_compact' are for 160x240, not for 80x80"):
        create_model("ugdc_compact", input_size=SIZE)
    lesson = EnhancementLesson.open(RECIPE, data, data)
    assert lesson.config().input_size == SIZE
    assert lesson.build().eval()(torch.zeros(1, 3, *SIZE)).shape == lesson.config().outputs[0].shape


def test_training_goes_on_with_a_network_of_the_same_make(data: Path) -> None:
    weights = str(train(RECIPE, data, data / "first"))
    begun = EnhancementLesson.open(changed(weights=weights), data, data).go_on(weights)
    assert all(
        torch.equal(begun.state_dict()[name], tensor) for name, tensor in create_model(weights).state_dict().items()
    )
    others = {"width": 8}, {"darkens": True}, {"stages": (Stage(1, (80, 160), 1),)}
    for fields, said in zip(others, ("width 8", "refines False", "size 80x160"), strict=True):
        lesson = EnhancementLesson.open(changed(weights=weights, **fields), data, data)
        with pytest.raises(ValueError, match=f"of size 80x80, width 4, refines True, exposes True.*{said}"):
            lesson.go_on(weights)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"stages": (Stage(1, (80, 80), 1), Stage(1, (80, 160), 1))}, "different sizes"),
        ({"sources": (EnhancementSource("x", photographs=True),)}, "nothing darkens its photographs"),
        (
            {"darkens": True, "sources": (EnhancementSource("x", photographs=True, exposure=(0.1, 0.2)),)},
            "learned from pairs",
        ),
    ],
)
def test_recipes_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(**fields)


def test_sources_are_what_they_say(data: Path) -> None:
    with pytest.raises(ValueError, match="exposure is for photographs"):
        EnhancementSource("x", exposure=(0.1, 0.2))
    for exposure in ((0.15, 0.004), (0.0, 0.1), (0.1, 1.5)):
        with pytest.raises(ValueError, match="source x: exposure.*smallest and largest"):
            EnhancementSource("x", photographs=True, exposure=exposure)
    with pytest.raises(ValueError, match="no pairs of dark and bright|no known data set"):
        EnhancementLesson.open(changed(sources=(EnhancementSource("night/train/high"),)), data, data)
    with pytest.raises(ValueError, match="must be positive multiples of 80"):
        EnhancementLesson.open(changed(stages=(Stage(1, (96, 96), 1),)), data, data)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("ugdc*.yaml")))
def test_shipped_recipes_can_be_read(name: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, EnhancementRecipe) and recipe.name == name
    assert model_config(recipe.model, recipe.size).input_size == recipe.size

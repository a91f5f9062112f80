"""Training of classifiers: recipes, whole small runs, teachers, gathered classes, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from interruption import interrupt_once  # noqa: E402

from perception.models import count_macs, count_parameters, create_model, model_config  # noqa: E402
from perception.training.class_data import STILL, ClassAugmentation  # noqa: E402
from perception.training.classification import (  # noqa: E402
    ClassificationLesson,
    ClassificationRecipe,
    Teacher,
    chances_loss,
)
from perception.training.imitation import Imitation  # noqa: E402
from perception.training.losses import feature_loss  # noqa: E402
from perception.training.reading import load_recipe  # noqa: E402
from perception.training.recipe import Source, Stage  # noqa: E402
from perception.training.train import Run, train  # noqa: E402

NAMES = ("disc", "ring", "square")
SIZE = (16, 16)
TINY = {"heads": 1, "patch": 4, "depth": 1}


def write_shapes(root: Path, train: int = 8, held_out: int = 3) -> Path:
    """So many images of each of three bright shapes on dark ground."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("eval", held_out)):
        for name in NAMES:
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = rng.integers(0, 60, (*SIZE, 3), np.uint8)
                x, y = (int(value) for value in rng.integers(7, 10, 2))
                if name == "square":
                    cv2.rectangle(image, (x - 4, y - 4), (x + 4, y + 4), (230, 220, 240), -1)
                else:
                    cv2.circle(image, (x, y), 5, (230, 220, 240), -1 if name == "disc" else 1)
                cv2.imwrite(str(root / split / name / f"{index}.png"), image)
    return root


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "shapes").parent


def small_recipe(**changes: object) -> ClassificationRecipe:
    recipe = ClassificationRecipe(
        name="small", model="vit_tiny", labels=NAMES, network=TINY, sources=(Source("shapes"),),
        stages=(Stage(4, SIZE, 4),), data_licence="none", evaluate="shapes", warmup=1, augmentation=STILL,
    )  # fmt: skip
    return dataclasses.replace(recipe, **changes)


def test_an_interrupted_run_gives_the_same_weights(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.training.train.LOGGED", 2)
    recipe = small_recipe(
        augmentation=ClassAugmentation(mixup=0.3, cutmix=0.3, erase=0.2), network=TINY | {"drop": 0.2, "depth": 2}
    )
    whole = train(recipe, shapes, shapes / "whole")
    seen = interrupt_once(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, shapes, shapes / "part")
    again = train(recipe, shapes, shapes / "part")
    assert seen == [0, 1, 2, 3, 2, 3] and again.read_bytes() == whole.read_bytes()
    entry = json.loads(whole.with_suffix(".json").read_text())["vit_tiny"]
    assert entry["options"] == {"labels": list(NAMES), "heads": 1, "patch": 4, "depth": 2, "drop": 0.2}
    assert set(entry["metrics"]) == {"top1", "top5", "mean_accuracy", "frames"} and entry["metrics"]["top5"] == 1
    config = model_config(str(whole))
    assert config.labels == NAMES and config.input_size == SIZE
    assert create_model(str(whole))(torch.zeros(1, 3, *SIZE)).shape == (1, 3)


def test_shapes_are_learned(shapes: Path) -> None:
    recipe = small_recipe(stages=(Stage(80, SIZE, 16),), rate=1e-3, smoothing=0.0)
    lesson = ClassificationLesson.open(recipe, shapes, shapes)
    torch.manual_seed(0)
    run = Run(lesson, lesson.build(), "cpu")
    losses = [run.step(step, *lesson.batch(step)).item() for step in range(recipe.steps)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])


def test_a_mixed_image_is_as_much_of_either_class(shapes: Path) -> None:
    lesson = ClassificationLesson.open(small_recipe(smoothing=0.0), shapes, shapes)
    logits = torch.tensor([[1.0, 2.0, 0.5]])
    truth = torch.tensor([0]), torch.tensor([1]), torch.tensor([0.25]), torch.tensor([0])
    loss = lesson.loss(0, lesson.build(), lambda _: logits, torch.zeros(1, 3, *SIZE), *truth)
    chances = logits.log_softmax(1)[0]
    assert loss.item() == pytest.approx(-(0.25 * chances[0] + 0.75 * chances[1]).item(), rel=1e-5)


def test_what_a_teacher_says_is_learned_at_its_own_size(shapes: Path) -> None:
    bigger = small_recipe(stages=(Stage(1, (32, 32), 2),))
    path = str(train(bigger, shapes, shapes / "teacher"))
    lesson = ClassificationLesson.open(small_recipe(teacher=path, taught=2.0, temperature=2.0), shapes, shapes)
    plain = ClassificationLesson.open(small_recipe(), shapes, shapes)
    logits = torch.randn(4, 3)
    images, *truth = lesson.batch(0)
    images = images / 255
    theirs = Teacher(path, NAMES)(images)
    mine, own = (one.loss(0, lesson.build(), lambda _: logits, images, *truth).item() for one in (lesson, plain))
    expected = 2.0 * chances_loss(logits, (theirs / 2).softmax(1), 2.0).item()
    assert mine - own == pytest.approx(expected, rel=1e-4) and expected > 0
    assert chances_loss(theirs, (theirs / 3).softmax(1), 3.0).item() == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="cannot teach: it is for classification, weights '.*', classes disc, ring"):
        Teacher(path, ("disc", "eel"))
    with pytest.raises(ValueError, match="fastdepth_mobilenet_v2 cannot teach: it is for depth"):
        Teacher("fastdepth_mobilenet_v2", NAMES)


@pytest.mark.parametrize("mixed", [{}, {"mixup": 1.0}])
def test_a_teacher_can_be_asked_once_for_all(shapes: Path, monkeypatch: pytest.MonkeyPatch, mixed: dict) -> None:
    path = str(train(small_recipe(stages=(Stage(1, (32, 32), 2),)), shapes, shapes / "teacher"))
    amount = dataclasses.replace(STILL, **mixed)
    recipe = small_recipe(teacher=path, temperature=2.0, augmentation=amount, smoothing=0.0)
    asks, remembers, knows_none = (
        ClassificationLesson.open(dataclasses.replace(recipe, **changes), shapes, shapes / "out/run")
        for changes in ({}, {"remembered": True}, {"teacher": ""})
    )
    logits = torch.randn(4, 3)
    images, first, second, share, which = remembers.batch(0)

    def loss(lesson: ClassificationLesson) -> float:
        return lesson.loss(0, None, lambda _: logits, images / 255, first, second, share, which).item()

    if not mixed:
        assert loss(remembers) == pytest.approx(loss(asks), abs=2e-3)
    teacher = Teacher(path, NAMES)
    still = [remembers.mixture.sources[0][number // 2].rgb for number in which.tolist()]
    pictures = [image[:, ::-1] if number % 2 else image for image, number in zip(still, which.tolist(), strict=True)]
    chances = (teacher(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255) / 2).softmax(1)
    chances = share[:, None] * chances + (1 - share)[:, None] * chances.roll(-1, 0)
    taught = loss(remembers) - loss(knows_none)
    assert taught == pytest.approx(chances_loss(logits, chances, 2.0).item(), abs=2e-3)
    monkeypatch.setattr(Teacher, "__call__", None)
    again = ClassificationLesson.open(remembers.recipe, shapes, shapes / "out/other")
    assert loss(again) == loss(remembers), "kept for other runs, too"


def test_classes_are_gathered_for_a_worker_that_still_knows_all(shapes: Path) -> None:
    path = str(train(small_recipe(), shapes, shapes / "teacher"))
    recipe = small_recipe(labels=("other", "ring"), others="gather", teacher=path, knows=1.0)
    lesson = ClassificationLesson.open(recipe, shapes, shapes)
    assert lesson.evaluation is not None and [frame.label for frame in lesson.evaluation] == [0] * 3 + [1] * 3 + [0] * 3
    assert Teacher(path, recipe.labels).places.tolist() == [[1, 0], [0, 1], [1, 0]]
    run = Run(lesson, lesson.build(), "cpu")
    before = run.distiller.state_dict()["1.layer.weight"].clone()
    assert np.isfinite(run.step(0, *lesson.batch(0)).item())
    assert not torch.equal(before, run.distiller.state_dict()["1.layer.weight"])
    entry = json.loads(train(recipe, shapes, shapes / "worker").with_suffix(".json").read_text())["vit_tiny"]
    assert entry["options"]["labels"] == ["other", "ring"] and entry["metrics"]["frames"] == 9


def test_recipes_are_chosen_by_images_that_are_held_out(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "shapes", train=16).parent
    lesson = ClassificationLesson.open(small_recipe(hold_out=2), data, data)
    assert lesson.evaluation is not None and len(lesson.evaluation) == 24 and len(lesson.mixture.sources[0]) == 24
    assert set(lesson.measure(lambda image: {"logits": np.zeros((1, 3), np.float32)}, lesson.config())) >= {
        "held_out_top1", "held_out_frames"
    }  # fmt: skip


def test_a_classifier_on_an_encoder_learns(shapes: Path) -> None:
    recipe = small_recipe(model="classifier_efficientnet_lite0", network=None, stages=(Stage(1, (32, 32), 2),))
    lesson = ClassificationLesson.open(recipe, shapes, shapes)
    run = Run(lesson, lesson.build(), "cpu")
    assert np.isfinite(run.step(0, *lesson.batch(0)).item())
    assert all(parameter.grad is not None for parameter in run.model.parameters())
    assert model_config(recipe.model, labels=NAMES).outputs[0].shape == (1, 3)


def test_data_that_does_not_fit_is_refused(shapes: Path) -> None:
    with pytest.raises(ValueError, match="has classes that the recipe's labels lack: ring, square; add them"):
        ClassificationLesson.open(small_recipe(labels=("disc",)), shapes, shapes)
    with pytest.raises(ValueError, match="would be trained on, and is measured in the end; give the folder splits"):
        ClassificationLesson.open(small_recipe(sources=(Source("shapes", split="eval"),)), shapes, shapes)
    with pytest.raises(ValueError, match="network has a field that 'vit_tiny' lacks.*'width'"):
        ClassificationLesson.open(small_recipe(network={"width": 3}), shapes, shapes).build()
    (shapes / "shapes/train/disc/0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="not a readable image"):
        ClassificationLesson.open(small_recipe(), shapes, shapes)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stages": (Stage(1, (16, 16), 2), Stage(1, (32, 32), 2))}, "trains at the size that it runs at"),
        ({"smoothing": 1.0}, "smoothing is 1.0"),
        ({"hold_out": 1}, "hold_out is 1"),
        ({"others": "gather"}, "needs a label 'other'"),
        ({"labels": ("other", "ring")}, "needs a label 'other'"),
        ({"knows": 1.0}, "name a teacher"),
        ({"remembered": True}, "name a teacher"),
        ({"others": "keep"}, "others is 'keep'; accepted: refuse, leave_out, gather"),
    ],
)
def test_impossible_recipes_are_refused(fields: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small_recipe(**fields)


def test_a_vision_transformers_stem_imitates_convolutions() -> None:
    """The features of the strides that both have; a network whose tokens come of single patches has none."""
    torch.manual_seed(0)
    student, teacher = create_model("vit_compact", False), create_model("classifier_resnet20", False)
    imitation, images = Imitation(student, teacher.encoder.channels), torch.randn(2, 3, 32, 32)
    student(images)
    features = teacher.encoder(images)
    imitation(features).backward()
    assert [adaptor.weight.shape[:2] for adaptor in imitation.adaptors] == [(32, 64), (64, 192)]
    assert student.embed[0][0].weight.grad.any() and student.blocks[0].widen.weight.grad is None
    with torch.no_grad():
        imitation.adaptors[0].weight.zero_()
        imitation.adaptors[1].weight.zero_()
        for adaptor, level in zip(imitation.adaptors, features[1:], strict=True):
            adaptor.bias.copy_(level.mean((0, 2, 3)))
        student(images)
        own = [level.mean((0, 2, 3))[None, :, None, None].expand_as(level) for level in features[1:]]
        expected = torch.stack([feature_loss(*pair) for pair in zip(own, features[1:], strict=True)]).mean()
        torch.testing.assert_close(imitation(features), expected)
    imitation.remove()
    with pytest.raises(ValueError, match="this ViT has no convolutions that could imitate others"):
        Imitation(create_model("vit_tiny", False, (32, 32), patch=8, depth=1), (16, 32, 64))


def test_shipped_recipes_are_of_their_networks() -> None:
    recipe = load_recipe("vit_compact_cifar10")
    assert isinstance(recipe, ClassificationRecipe)
    config = model_config(recipe.model, recipe.size, labels=recipe.labels, **(recipe.network or {}))
    assert config.input_size == (32, 32) and len(config.labels) == 10
    with torch.device("meta"):
        whole, worker = (
            create_model(recipe.model, False, recipe.size, **(recipe.network or {}) | options)
            for options in ({}, {"heads": 1, "classifies": False})
        )
    assert count_parameters(whole) > 28 * count_parameters(worker)
    assert count_macs(whole, recipe.size) > 25 * count_macs(worker, recipe.size)
    assert model_config(Path(recipe.teacher).stem).labels == config.labels

"""Training of segmentation networks: recipes, whole small runs, teachers, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from interruption import interrupt_once  # noqa: E402

from perception.models import create_model, model_config  # noqa: E402
from perception.tasks.labels import CAMVID_LABELS, NYU_LABELS, UNLABELED  # noqa: E402
from perception.training.mask_data import STILL, MaskAugmentation  # noqa: E402
from perception.training.reading import RECIPES, load_recipe  # noqa: E402
from perception.training.recipe import Source, Stage  # noqa: E402
from perception.training.segmentation import SegmentationLesson, SegmentationRecipe, Teacher  # noqa: E402
from perception.training.train import Run, train  # noqa: E402

MODEL = "ffnet_mobilenet_v2"
NAMES = ("ground", "disc", "square")


def write_shapes(root: Path, train: int = 8, held_out: int = 2) -> Path:
    """Bright discs and dark squares on grey ground; the lowest rows are of no class."""
    rng = np.random.default_rng(0)
    (root / "labels.txt").write_text("\n".join(NAMES))
    for split, count in (("train", train), ("eval", held_out)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, mask = np.full((64, 64, 3), 120, np.uint8), np.zeros((64, 64), np.uint8)
            x, y, a, b = (int(value) for value in rng.integers(12, 48, 4))
            cv2.circle(image, (x, y), 10, (240, 220, 250), -1)
            cv2.circle(mask, (x, y), 10, 1, -1)
            cv2.rectangle(image, (a - 8, b - 8), (a + 8, b + 8), (10, 30, 20), -1)
            cv2.rectangle(mask, (a - 8, b - 8), (a + 8, b + 8), 2, -1)
            mask[-3:] = UNLABELED
            cv2.imwrite(str(root / "images" / split / f"{index}.png"), image)
            cv2.imwrite(str(root / "masks" / split / f"{index}.png"), mask)
    return root


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return write_shapes(tmp_path)


def small_recipe(**changes: object) -> SegmentationRecipe:
    recipe = SegmentationRecipe(
        name="small", model=MODEL, labels=NAMES, size=(64, 64), sources=(Source("."),),
        stages=(Stage(2, (48, 48), 2), Stage(2, (32, 64), 2)), data_licence="none", evaluate=".", warmup=1,
        augmentation=STILL,
    )  # fmt: skip
    return dataclasses.replace(recipe, **changes)


def test_an_interrupted_run_gives_the_same_weights(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.training.train.LOGGED", 2)
    recipe = small_recipe(
        jaccard=0.5, hardest=0.5, balance=0.5, pasted=("disc",), augmentation=MaskAugmentation(rare=0.5, paste=1)
    )
    whole = train(recipe, shapes, shapes / "whole")
    seen = interrupt_once(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, shapes, shapes / "part")
    again = train(recipe, shapes, shapes / "part")
    assert seen == [0, 1, 2, 3, 2, 3] and again.read_bytes() == whole.read_bytes()
    entry = json.loads(whole.with_suffix(".json").read_text())[MODEL]
    assert entry["options"] == {"labels": list(NAMES)} and entry["input_size"] == [64, 64]
    assert set(entry["metrics"]) == {"mIoU", "accuracy", "mean_accuracy", "boundary", "frames"}
    config = model_config(str(whole))
    assert config.labels == NAMES and config.input_size == (64, 64) and create_model(str(whole)) is not None


def test_the_loss_falls(shapes: Path) -> None:
    recipe = small_recipe(stages=(Stage(12, (64, 64), 4),), rate=5e-3, jaccard=1.0)
    lesson = SegmentationLesson.open(recipe, shapes, shapes)
    torch.manual_seed(0)
    run = Run(lesson, lesson.build(), "cpu")
    losses = [run.step(step, *lesson.batch(step)).item() for step in range(recipe.steps)]
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:2])


def test_the_loss_is_of_other_rows_and_columns_in_every_step(shapes: Path) -> None:
    """A network that is right on even rows only, and nowhere else sure."""
    lesson = SegmentationLesson.open(small_recipe(every=2), shapes, shapes)
    images, masks = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    masks[:, 1::2], masks[:, :, 1::2] = 1, 2
    logits = torch.tensor([9.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    losses = [lesson.loss(step, lesson.build(), lambda _: logits, images, masks).item() for step in range(4)]
    assert losses[0] < 0.01 and all(loss > 8 for loss in losses[1:])


def test_what_a_teacher_says_is_learned(shapes: Path) -> None:
    teacher = str(train(small_recipe(), shapes, shapes / "teacher"))
    recipe = small_recipe(teacher=teacher, taught=2.0, imitate=teacher)
    lesson = SegmentationLesson.open(recipe, shapes, shapes)
    torch.manual_seed(0)
    run = Run(lesson, lesson.build(), "cpu")
    images = torch.rand(2, 3, 64, 64)
    logits = Teacher(teacher, NAMES)(images)
    assert logits.shape == (2, 3, 32, 32) and logits.isfinite().all()
    plain = SegmentationLesson.open(small_recipe(), shapes, shapes)
    batch = lesson.batch(0)
    run.model.train()
    losses = [one.loss(0, run.model, run._forward, batch[0] / 255, batch[1]).item() for one in (lesson, plain)]
    assert losses[0] > losses[1] and np.isfinite(run.step(0, *batch).item())
    with pytest.raises(ValueError, match="cannot teach: it is for segmentation, weights '.*', classes ground, disc"):
        Teacher(teacher, ("ground", "disc"))
    with pytest.raises(ValueError, match="fastdepth_mobilenet_v2 cannot teach: it is for depth"):
        Teacher("fastdepth_mobilenet_v2", NAMES)


def test_recipes_are_chosen_by_frames_that_are_held_out(tmp_path: Path) -> None:
    shapes = write_shapes(tmp_path, train=24)
    lesson = SegmentationLesson.open(small_recipe(hold_out=3), shapes, shapes)
    assert (
        lesson.evaluation is not None
        and lesson.evaluation.chosen == list(range(8, 16))
        and len(lesson.mixture.sources[0]) == 16
    )
    assert lesson.evaluation.dataset.name.endswith(" train")
    entry = json.loads(train(small_recipe(hold_out=3), shapes, shapes / "out").with_suffix(".json").read_text())
    assert entry[MODEL]["metrics"]["held_out_frames"] == 8 and "mIoU" not in entry[MODEL]["metrics"]


def test_a_network_of_other_classes_is_a_start_for_all_but_the_classes(shapes: Path) -> None:
    first = str(train(small_recipe(), shapes, shapes / "first"))
    recipe = small_recipe(labels=("disc", "square"), weights=first, others="leave_out")
    lesson = SegmentationLesson.open(recipe, shapes, shapes)
    state, trained = lesson.go_on(first).state_dict(), create_model(first).state_dict()
    differ = {name for name in state if state[name].shape != trained[name].shape}
    assert len(differ) == 2 and all(torch.equal(state[name], trained[name]) for name in set(state) - differ)
    assert set(np.unique(lesson.batch(0)[1])) <= {0, 1, UNLABELED}, "the ground is left out"


def test_data_that_does_not_fit_is_refused(shapes: Path) -> None:
    with pytest.raises(ValueError, match="has classes that the recipe's labels lack: square; add them"):
        SegmentationLesson.open(small_recipe(labels=("ground", "disc")), shapes, shapes)
    with pytest.raises(ValueError, match="would be trained on, and is measured in the end; give the folder splits"):
        SegmentationLesson.open(small_recipe(sources=(Source(".", split="eval"),)), shapes, shapes)
    (shapes / "masks" / "train" / "0.png").unlink()
    with pytest.raises(ValueError, match="0.png cannot be read"):
        SegmentationLesson.open(small_recipe(), shapes, shapes)


def test_what_is_held_out_is_in_no_other_source(tmp_path: Path) -> None:
    shapes, own, final = write_shapes(tmp_path, train=24), Source("."), Source(".", split="eval")
    for sources, said in (
        ((own, own), "has images of .* train that are held out; leave this source out"),
        ((own, final), "eval would be trained on, and is measured in the end"),
        ((final,), "eval would be trained on, and is measured in the end"),
    ):
        with pytest.raises(ValueError, match=said):
            SegmentationLesson.open(small_recipe(hold_out=3, sources=sources), shapes, shapes)


def test_a_teacher_that_does_not_fit_is_refused_before_training(shapes: Path) -> None:
    with pytest.raises(ValueError, match="ffnet_mobilenet_v2 cannot teach: it is for segmentation, weights ''"):
        SegmentationLesson.open(small_recipe(teacher=MODEL), shapes, shapes)


def test_sources_share_one_memory(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = 4 * 64 * 64
    monkeypatch.setattr("perception.training.segmentation.MEMORY", 11 * frame)
    lesson = SegmentationLesson.open(small_recipe(sources=(Source("."), Source("."))), shapes, shapes)
    assert [source.spare for source in lesson.mixture.sources] == [3 * frame, 0]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"balance": 2.0}, "balance is 2.0 and hardest 1.0; they must lie between 0 and 1"),
        ({"hardest": 0.0}, "hardest 0.0"),
        ({"every": 0}, "every is 0"),
        ({"hold_out": 1}, "hold_out is 1; accepted"),
        ({"pasted": ("disk",)}, "pasted names disk, which are not among the labels"),
        ({"pasted": ("disc",)}, "paste and the names in pasted belong together"),
        ({"labels": "camvit"}, "labels is 'camvit'; give a list of names, or one of: coco, "),
        ({"others": "drop"}, "others is 'drop'; accepted: refuse, leave_out"),
    ],
)
def test_impossible_recipes_are_refused(fields: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small_recipe(**fields)


def test_a_recipe_may_name_a_list_of_classes() -> None:
    assert small_recipe(labels="nyu").labels == NYU_LABELS  # type: ignore[arg-type]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("ffnet_*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_of_their_data(path: Path) -> None:
    recipe = load_recipe(str(path))
    assert isinstance(recipe, SegmentationRecipe) and recipe.hold_out == 0
    assert recipe.labels in (CAMVID_LABELS, NYU_LABELS)
    divisor = model_config(recipe.model).size_divisor
    assert all(side % divisor == 0 for stage in recipe.stages for side in (*stage.size, *recipe.size))

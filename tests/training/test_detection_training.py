"""Training of detectors: who answers for what, losses, boxes that stay on their objects, and whole small runs."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from interruption import interrupt_once  # noqa: E402

from perception.evaluation.frames import BoxFrame  # noqa: E402
from perception.models import create_model, model_config  # noqa: E402
from perception.models.registry import find_encoder  # noqa: E402
from perception.models.ssdlite import SSDLite  # noqa: E402
from perception.tasks import anchors as coding  # noqa: E402
from perception.tasks.detection import parse  # noqa: E402
from perception.tasks.geometry import Fit  # noqa: E402
from perception.tasks.image import Image, preprocess  # noqa: E402
from perception.training import detection  # noqa: E402
from perception.training import train as loop  # noqa: E402
from perception.training.box_data import BoxAugmentation, BoxMixture, augment, evened, turned  # noqa: E402
from perception.training.box_losses import (  # noqa: E402
    COVERED,
    IGNORED,
    NOTHING,
    assign,
    detection_losses,
    encode,
    focal_loss,
)
from perception.training.data import to_unit  # noqa: E402
from perception.training.detection import DetectionLesson, DetectionRecipe, DetectionSource  # noqa: E402
from perception.training.reading import RECIPES, load_recipe  # noqa: E402
from perception.training.recipe import Stage  # noqa: E402
from perception.training.train import Run, torch_predict, train  # noqa: E402

MODEL = "ssdlite_mobilenet_v2"
NAMES = ("disc", "square")


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    low, high = np.sort(rng.random((2, count, 2)), axis=0)
    return np.concatenate([low, high + 0.01], axis=1).astype(np.float32)


def plainly_assigned(
    boxes: np.ndarray, labels: np.ndarray, anchors: np.ndarray, least: float
) -> tuple[list[int], list[bool]]:
    """One image, anchor by anchor."""
    overlaps = coding.pairwise_iou(boxes, anchors)
    overlaps[labels < 0] = 0
    objects, counted = [], []
    best = {m: int(overlaps[m].argmax()) for m in range(len(boxes)) if overlaps[m].max() > 0}
    for a, anchor in enumerate(anchors):
        claims = [m for m, place in best.items() if place == a] or [
            m for m in range(len(boxes)) if overlaps[m, a] >= least
        ]
        objects.append(max(claims, key=lambda m: overlaps[m, a], default=-1))
        low, high = np.maximum(boxes[:, :2], anchor[:2]), np.minimum(boxes[:, 2:], anchor[2:])
        common = np.maximum(high - low, 0).prod(axis=1)
        covered = (common >= COVERED * (anchor[2:] - anchor[:2]).prod()) & (labels == IGNORED)
        counted.append(objects[-1] >= 0 or not covered.any())
    return objects, counted


@settings(max_examples=40)
@given(st.integers(0, 9999), st.integers(1, 6), st.integers(1, 40))
def test_anchors_answer_for_what_they_overlap_most(seed: int, objects: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.stack([random_boxes(rng, objects) for _ in range(3)])
    labels = rng.integers(NOTHING, 4, (3, objects))
    anchors = random_boxes(rng, count)
    found, counted = assign(torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(anchors))
    for image in range(3):
        expected = plainly_assigned(boxes[image], labels[image], anchors, 0.5)
        assert (found[image].tolist(), counted[image].tolist()) == expected


def test_of_equal_claims_the_first_wins_and_no_object_is_without_an_anchor() -> None:
    anchors = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    same = torch.tensor([[[0.0, 0.0, 0.5, 0.5]] * 2 + [[0.9, 0.9, 0.95, 0.95]]])
    objects, counted = assign(same, torch.tensor([[3, 4, 5]]), anchors)
    assert objects.tolist() == [[-1, 0, 2]] and counted.all()
    objects, counted = assign(same, torch.tensor([[IGNORED, NOTHING, NOTHING]]), anchors)
    assert objects.tolist() == [[-1, -1, -1]] and counted.tolist() == [[True, False, True]]
    objects, counted = assign(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64), anchors)
    assert (objects == -1).all() and objects.shape == (2, 3) and counted.all()


def test_codes_are_those_that_nodes_read() -> None:
    rng = np.random.default_rng(0)
    boxes, anchors = random_boxes(rng, 50), random_boxes(rng, 50)

    def centred(corners: np.ndarray) -> np.ndarray:
        return np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)

    coder = (10.0, 10.0, 5.0, 5.0)
    codes = encode(torch.from_numpy(boxes), torch.from_numpy(anchors), coder).numpy()
    assert np.allclose(codes, coding.encode(centred(boxes), centred(anchors), coder), rtol=1e-3, atol=1e-3)
    assert np.allclose(coding.corners(coding.decode(codes, centred(anchors), coder)), boxes, atol=1e-4)


def test_focal_loss_as_worked_out() -> None:
    """At a score of 0.2: a target of 1 costs 0.75 * 0.8^2 * -log 0.2, one of 0 0.25 * 0.2^2 * -log 0.8."""
    logits = torch.full((2,), float(np.log(0.2 / 0.8)))
    expected = [0.75 * 0.64 * -np.log(0.2), 0.25 * 0.04 * -np.log(0.8)]
    assert focal_loss(logits, torch.tensor([1.0, 0.0])).tolist() == pytest.approx(expected, rel=1e-5)
    plain = focal_loss(logits, torch.tensor([1.0, 0.0]), alpha=0.5, gamma=0)
    assert plain.tolist() == pytest.approx([-0.5 * np.log(0.2), -0.5 * np.log(0.8)], rel=1e-5)


def test_detection_losses_as_worked_out() -> None:
    """Two anchors answer, for one object each, one lies in an ignored object, one shows background."""
    anchors = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9], [0.0, 0.5, 0.2, 0.7], [0.8, 0.0, 1.0, 0.2]])
    boxes = torch.tensor([[[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9], [0.0, 0.4, 0.3, 0.8]]])
    labels = torch.tensor([[1, 0, IGNORED]])
    codes = torch.zeros(1, 4, 4)
    codes[0, 0] = torch.tensor([0.5, 0, 0, 3.0])  # smooth L1: 0.5^2 / 2 and 3 - 1 / 2
    codes[0, 2:] = 7.0
    logits = torch.zeros(1, 4, 3)
    rest = boxes, labels, torch.ones(1, 3), anchors, (10.0, 10.0, 5.0, 5.0), 1
    box, classes = detection_losses(codes, logits, *rest)
    assert box.item() == pytest.approx((0.125 + 2.5) / 4 / 2, rel=1e-4)
    half = 0.25 * np.log(2)  # of every output: 0.5^2 * -log 0.5
    assert classes.item() == pytest.approx((2 * 0.75 + 7 * 0.25) * half / 2, rel=1e-4)
    unsure = boxes, labels, torch.tensor([[0.5, 1.0, 1.0]]), *rest[3:]
    assert detection_losses(codes, logits, *unsure)[0].item() == pytest.approx(0.5 * 2.625 / 4 / 1.5, rel=1e-4)
    logits[0, 2] = 9.0
    assert detection_losses(codes, logits, *rest)[1] == classes
    logits[0, 3] = 9.0
    assert detection_losses(codes, logits, *rest)[1] > classes


def test_a_teachers_doubt_is_what_is_learned() -> None:
    """The loss of an anchor's class is smallest at the score that the teacher gave."""
    anchors = torch.tensor([[0.0, 0.0, 0.2, 0.2]])
    truth = torch.tensor([[[0.0, 0.0, 0.2, 0.2]]]), torch.tensor([[0]]), torch.tensor([[0.6]])
    losses = [
        detection_losses(torch.zeros(1, 1, 4), torch.full((1, 1, 1), logit), *truth, anchors, (10.0, 10.0, 5.0, 5.0))[1]
        for logit in (-2.0, float(np.log(0.6 / 0.4)), 3.0)
    ]
    assert losses[1] < 1e-6 < losses[0] and losses[1] < losses[2]


def test_an_image_without_objects_teaches_that_nothing_is_there() -> None:
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    anchors = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]])
    nothing = torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0)
    box, classes = detection_losses(torch.zeros(1, 2, 4), logits, *nothing, anchors, (10.0, 10.0, 5.0, 5.0))
    classes.backward()
    assert box == 0 and (logits.grad > 0).all()


COLORS = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250]], np.uint8)


def rectangles(seed: int, count: int = 3, size: tuple[int, int] = (120, 160)) -> BoxFrame:
    """Rectangles of their class's colour side by side on black, so that none hides another."""
    rng = np.random.default_rng(seed)
    height, width = size
    rgb = np.zeros((height, width, 3), np.uint8)
    boxes, labels = [], []
    for place in range(count):
        w, h = rng.integers(12, width // count - 4), rng.integers(12, height - 4)
        x, y = place * (width // count) + 1, int(rng.integers(0, height - h))
        label = int(rng.integers(len(COLORS)))
        rgb[y : y + h, x : x + w] = COLORS[label]
        boxes.append([x, y, x + w, y + h])
        labels.append(label)
    return BoxFrame(rgb, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.zeros(count, bool))


AMOUNTS = {
    "crop": BoxAugmentation(crop=1, color=0),
    "expand": BoxAugmentation(crop=0, expand=1, color=0),
    "turn": BoxAugmentation(crop=0, expand=0, turn=1, color=0),
    "mosaic": BoxAugmentation(mosaic=1, turn=0.5, color=0),
}


@pytest.mark.parametrize("name", AMOUNTS)
def test_boxes_stay_on_their_objects(name: str) -> None:
    """Inside of a box is its class's colour, and of what has such a colour little lies outside of all boxes."""
    amount, found = AMOUNTS[name], 0
    for seed in range(25):
        frames = [rectangles(10 * seed + place) for place in range(4 if amount.mosaic else 1)]
        frames = [dataclasses.replace(frame, scores=(0.5 + 0.1 * frame.labels).astype(np.float32)) for frame in frames]
        image, (boxes, labels, scores) = augment(frames, (150, 130), amount, np.random.default_rng(seed))
        assert scores[labels >= 0] == pytest.approx(0.5 + 0.1 * labels[labels >= 0])
        assert image.shape == (150, 130, 3) and boxes.dtype == np.float32 and len(boxes) == len(labels)
        colored = (np.abs(image[:, :, None].astype(int) - COLORS).max(axis=3) < 40).any(axis=2)
        for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
            assert 0 <= x1 < x2 <= 130 and 0 <= y1 < y2 <= 150
            rows, columns = slice(int(np.floor(y1)), int(np.ceil(y2))), slice(int(np.floor(x1)), int(np.ceil(x2)))
            if label >= 0:
                inner = image[rows, columns][2:-2, 2:-2].reshape(-1, 3).astype(int)
                assert len(inner) == 0 or np.abs(np.median(inner, axis=0) - COLORS[label]).max() < 40
                filled = colored[rows, columns].mean()
                assert filled > 0.7 or min(x2 - x1, y2 - y1) < 12  # edges are blurred
                found += 1
            colored[rows, columns] = False
        assert colored.mean() < 0.002
    assert found > 25


def test_what_is_hardly_seen_need_not_be_found() -> None:
    """Of crops of one object every box is either wanted, or ignored because most of the object is cut off."""
    frame = rectangles(3, count=1)
    kinds = set()
    for seed in range(60):
        amount = BoxAugmentation(crop=1, smallest=0.02, color=0)
        kinds |= set(augment([frame], (96, 96), amount, np.random.default_rng(seed))[1][1].tolist())
    assert kinds == {IGNORED, int(frame.labels[0])}
    crowd = dataclasses.replace(frame, ignore=np.ones(1, bool))
    still = BoxAugmentation(crop=0, expand=0, color=0)
    assert augment([crowd], (96, 96), still, np.random.default_rng(0))[1][1].tolist() == [IGNORED]


def test_four_quarters_are_none() -> None:
    frame = rectangles(0)
    once = turned(frame, 1)
    assert once.rgb.shape == (160, 120, 3)
    again = turned(turned(once, 2), 1)
    assert np.array_equal(again.boxes, frame.boxes) and np.array_equal(again.rgb, frame.rgb)


def mixture(count: int, objects: int) -> BoxMixture:
    return BoxMixture([[rectangles(seed, objects) for seed in range(count)]], [1.0], [None], [np.arange(3)])


def test_batches_depend_on_seed_and_step_only_and_lists_are_filled_up() -> None:
    frames = BoxMixture([[rectangles(0, count=0), rectangles(1)]], [1.0], [None], [np.array([5, 6, 7])])
    still = BoxAugmentation(crop=0, expand=0)
    one, again, other = (frames.batch(step, 3, 8, (64, 96), still) for step in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True)) and not torch.equal(one[0], other[0])
    images, boxes, labels, scores = one
    assert images.shape == (8, 3, 64, 96) and boxes.shape == (8, 3, 4) and labels.shape == (8, 3)
    empty = (labels == NOTHING).all(dim=1)
    assert 0 < empty.sum() < 8 and ((labels[~empty] >= 5) & (labels[~empty] <= 7)).all()
    assert boxes.min() >= 0 and boxes.max() <= 1 and not boxes[empty].any()


def test_classes_can_come_equally_often() -> None:
    labels = [np.array([0]), np.array([0, 0]), np.array([0, 1]), np.array([], int)]
    assert evened(labels, 0) == pytest.approx([0.25] * 4)
    assert evened(labels, 1) == pytest.approx(np.array([1 / 3, 1 / 3, 1, 1]) / (8 / 3))


def small_recipe(**changes: object) -> DetectionRecipe:
    fields = {
        "name": "small", "model": MODEL, "labels": NAMES, "sources": (DetectionSource("shapes"),),
        "stages": (Stage(2, (64, 64), 2), Stage(2, (96, 96), 2)), "data_licence": "none", "evaluate": "shapes",
        "warmup": 1,
    }  # fmt: skip
    return DetectionRecipe(**fields | changes)  # type: ignore[arg-type]


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """YOLO's layout: `shapes` with both splits of the same rectangles."""
    folder = tmp_path / "shapes"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for seed in range(4):
            frame = rectangles(seed)
            cv2.imwrite(str(folder / "images" / split / f"{seed}.png"), frame.rgb[..., ::-1])
            low, high = frame.boxes[:, :2], frame.boxes[:, 2:]
            shares = np.concatenate([(low + high) / 2, high - low], axis=1) / (160, 120, 160, 120)
            lines = [f"{label % 2} {' '.join(map(str, row))}" for label, row in zip(frame.labels, shares, strict=True)]
            (folder / "labels" / split / f"{seed}.txt").write_text("\n".join(lines))
    (folder / "labels.txt").write_text("\n".join(NAMES))
    return tmp_path


def test_a_run_resumes_to_the_same_weights_and_writes_what_it_measured(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed; accuracy of boxes is measured with it")
    monkeypatch.setattr(loop, "LOGGED", 2)
    whole = train(small_recipe(), shapes, shapes / "whole")
    config = model_config(str(whole))
    assert config.input_size == (96, 96) and config.labels == NAMES and config.outputs[1].shape[-1] == 3
    assert {"AP50", "mAP"} <= set(config.metrics) and config.data_licence == "none"
    seen = interrupt_once(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train(small_recipe(), shapes, shapes / "part")
    assert train(small_recipe(), shapes, shapes / "part").read_bytes() == whole.read_bytes()
    assert seen == [0, 1, 2, 3, 2, 3]


def test_a_detector_learns_eight_images_and_parse_finds_their_boxes() -> None:
    torch.manual_seed(0)
    narrow = SSDLite(find_encoder("mobilenet_v2").build(width=0.25), 3)
    for norm in (layer for layer in narrow.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
        norm.momentum = 0.1  # the run is short
    recipe = small_recipe(
        labels=("red", "green", "blue"), augmentation=BoxAugmentation(crop=0, expand=0, color=0),
        stages=(Stage(70, (96, 96), 8),), rate=1e-2, average=0.8,
    )  # fmt: skip
    lesson = DetectionLesson(recipe, mixture(8, objects=2))
    run = Run(lesson, narrow, "cpu")
    losses = [run.step(step, *lesson.batch(step)) for step in range(recipe.steps)]
    assert losses[-1] < 0.1 * losses[0]
    config, found = lesson.config(), 0
    predict = torch_predict(run.average.eval(), config)
    for frame in lesson.mixture.sources[0]:
        fit = Fit.of((120, 160), config)
        seen = parse(predict(preprocess(Image(frame.rgb, "rgb8"), config, fit)), fit, config)
        right = coding.pairwise_iou(frame.boxes, seen.boxes) > 0.5
        found += int((right & (frame.labels[:, None] == seen.labels)).any(axis=1).sum())
    assert found >= 13, f"{found} of 16"


def test_an_encoder_learns_a_trained_ones_features(shapes: Path) -> None:
    """Of other widths and strides' channels; the teacher stays as it is, and untrained ones are refused."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed; accuracy of boxes is measured with it")
    trained = str(train(small_recipe(stages=(Stage(1, (64, 64), 2),)), shapes, shapes / "teacher"))
    recipe = small_recipe(
        model="mobiledet_cpu", imitate=trained, features=2.0, rate=5e-3, stages=(Stage(8, (64, 64), 2),)
    )
    lesson = DetectionLesson.open(recipe, shapes, shapes)
    torch.manual_seed(0)
    run = Run(lesson, lesson.build(), "cpu")
    channels = create_model(trained).encoder.channels[-3:]
    assert [(a.in_channels, a.out_channels) for a in run.distiller.adaptors] == list(
        zip(run.model.encoder.channels[-3:], channels, strict=True)
    )
    kept = copy.deepcopy(lesson.teacher.network.state_dict())
    batch = lesson.batch(0)

    def unlikeness() -> float:
        with torch.no_grad():
            images = to_unit(batch[0])
            run.model.eval()(run.normalize(images))
            return run.distiller(lesson.teacher(images)).item()

    before = unlikeness()
    with_it = [run.step(step, *batch).item() for step in range(recipe.steps)]
    assert unlikeness() < 0.8 * before and with_it[-1] < with_it[0]
    assert all(
        torch.equal(a, b) for a, b in zip(kept.values(), lesson.teacher.network.state_dict().values(), strict=True)
    )
    with pytest.raises(ValueError, match="mobiledet_cpu has no weights, so nothing can be learned from it"):
        Run(DetectionLesson.open(small_recipe(imitate="mobiledet_cpu"), shapes, shapes), lesson.build(), "cpu")


def test_scores_become_chances_and_boxes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of boxes that score 0.7 half are right, of those that score 0.9 nine of ten: so the network says from now on."""
    scores = np.repeat([0.7, 0.9], 1000)
    right = np.arange(2000) % 1000 < np.repeat([500, 900], 1000)
    monkeypatch.setattr(detection, "judge_boxes", lambda *_: (scores, right))
    lesson = DetectionLesson(small_recipe(), mixture(1, objects=1), calibration=object())  # type: ignore[arg-type]
    model = lesson.build().eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        boxes, logits = model(images)
        lesson.finish(model, lambda _: {})
        same, chances = model(images)
    monkeypatch.setattr(detection, "judge_boxes", lambda *_: (np.array([1.0, 0.9]), np.array([True, True])))
    lesson.finish(model, lambda _: {})  # cannot tell, and so leaves them
    assert torch.equal(model(images)[1], chances)
    monkeypatch.setattr(detection, "judge_boxes", lambda *_: (np.array([1.0, 0.5]), np.array([True, False])))
    lesson.finish(model, lambda _: {})
    assert model(images)[1].isfinite().all()
    odds = np.log([7 / 3, 9])
    slope = np.log(9) / (odds[1] - odds[0])
    assert torch.equal(same, boxes) and torch.allclose(chances, slope * (logits - odds[0]), rtol=0.02, atol=0.02)


def test_a_recipe_says_only_what_its_task_knows(tmp_path: Path) -> None:
    good = (
        f"{{name: x, model: {MODEL}, labels: [a], data_licence: none, evaluate: e, sources: [{{path: p}}], "
        "stages: [{steps: 1, size: [32, 32], batch: 1}]ADDED}"
    )
    path = tmp_path / "r.yaml"
    path.write_text(good.replace("ADDED", ", alpha: 0.5"))
    assert load_recipe(str(path)) == small_recipe(
        name="x", labels=("a",), evaluate="e", sources=(DetectionSource("p"),), stages=(Stage(1, (32, 32), 1),),
        alpha=0.5, warmup=100,
    )  # fmt: skip
    for text, words in (
        (good.replace("ADDED", ", focal: [1, 1]"), "r.yaml has unknown fields: focal; known: .*labels"),
        (good.replace("batch: 1", "batch: 1, lens: 1").replace("ADDED", ""), "stages has unknown fields: lens"),
        (good.replace("ADDED", ", augmentation: {pad: 1}"), "augmentation has unknown fields: pad; known: crop"),
        (good.replace("ADDED", ", augmentation: {mosaic: 2}"), "augmentation: mosaic is 2; it is a share"),
        (good.replace("path: p", "path: p, even: 3").replace("ADDED", ""), "source p: even is 3"),
        (good.replace("labels: [a], ", "").replace("ADDED", ""), "r.yaml lacks: labels"),
        ((RECIPES / "fastdepth_nyu.yaml").read_text() + "alpha: 1", "unknown fields: alpha; known: .*focal"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            load_recipe(str(path))


def test_a_detector_of_other_classes_is_a_start_for_all_but_the_classes(shapes: Path) -> None:
    first = train(small_recipe(), shapes, shapes / "first")
    recipe = small_recipe(labels=("disc", "square", "ring"), weights=str(first), others="leave_out")
    begun = DetectionLesson.open(recipe, shapes, shapes / "out").go_on(str(first))
    state, trained = begun.state_dict(), create_model(str(first)).state_dict()
    differ = {
        name for name in state if state[name].shape != trained[name].shape or (state[name] != trained[name]).any()
    }
    assert differ and all(name.startswith("scores.") for name in differ)
    again = DetectionLesson.open(small_recipe(weights=str(first)), shapes, shapes / "out").go_on(str(first))
    assert all(torch.equal(tensor, trained[name]) for name, tensor in again.state_dict().items())


def test_boxes_of_other_classes_can_be_left_out(shapes: Path) -> None:
    recipe = small_recipe(labels=("disc",), others="leave_out")
    lesson = DetectionLesson.open(recipe, shapes, shapes / "out")
    everything = DetectionLesson.open(small_recipe(labels=("square", "disc")), shapes, shapes / "out")
    both = [int((lesson_.batch(0)[2] >= 0).sum()) for lesson_ in (lesson, everything)]
    discs = int((everything.batch(0)[2] == 1).sum())
    assert both[0] == discs < both[1]
    with pytest.raises(ValueError, match="others is 'drop'; accepted: refuse, leave_out"):
        small_recipe(others="drop")


def test_nothing_is_trained_on_that_is_measured(shapes: Path) -> None:
    pytest.importorskip("pycocotools", reason="pycocotools is not installed; accuracy of boxes is measured with it")
    sources = DetectionSource("shapes"), DetectionSource("shapes", split="eval")
    with pytest.raises(ValueError, match="would be trained on, and is measured in the end; give the folder splits"):
        DetectionLesson.open(small_recipe(sources=sources), shapes, shapes / "out")
    DetectionLesson.open(small_recipe(sources=sources[:1]), shapes, shapes / "out")


def test_data_without_boxes_or_with_other_classes_is_refused(shapes: Path) -> None:
    with pytest.raises(ValueError, match="classes that the recipe's labels lack: square; add them"):
        train(small_recipe(labels=("disc",)), shapes, shapes / "out")
    from tests.evaluation.test_nyu import make_folder

    make_folder(shapes / "nyu")
    with pytest.raises(ValueError, match="has no boxes of objects"):
        train(small_recipe(evaluate="nyu"), shapes, shapes / "out")
    with pytest.raises(ValueError, match="absent holds no known data set"):
        train(small_recipe(evaluate="absent"), shapes, shapes / "out")

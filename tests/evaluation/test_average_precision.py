"""Average precision against a plain implementation of the protocol, and its resampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `eval`)")
from perception.evaluation.average_precision import Evaluation, average_precisions
from perception.tasks.anchors import pairwise_iou

OVERLAPS = np.linspace(0.5, 0.95, 10)


def scene(
    truth: list[tuple[str, list[float]]],
    found: list[tuple[str, list[float], float]],
    ignore: list[bool] | None = None,
    crowd: bool = True,
) -> dict[str, Any]:
    return {
        "size": [100, 100],
        "truth": {
            "boxes": [box for _, box in truth],
            "labels": [name for name, _ in truth],
            "ignore": ignore or [False] * len(truth),
            "crowd": ignore if ignore and crowd else [False] * len(truth),
        },
        "found": {
            "boxes": [box for _, box, _ in found],
            "labels": [name for name, _, _ in found],
            "scores": [score for _, _, score in found],
        },
    }


def random_scenes(seed: int, images: int) -> list[dict[str, Any]]:
    """Detections are objects moved about, or nothing; their scores differ."""
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(images):
        corners = rng.uniform(0, 60, (rng.integers(0, 5), 2))
        boxes = np.hstack([corners, corners + rng.uniform(5, 40, corners.shape)])
        names = rng.choice(["a", "b"], len(boxes))
        again = np.repeat(np.arange(len(boxes)), rng.integers(0, 3, len(boxes)))
        moved = boxes[again] + rng.normal(0, 2, (len(again), 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        found = [("a", box.tolist(), float(rng.uniform())) for box in rng.uniform(0, 40, (2, 4)) + [0, 0, 50, 50]]
        found += [(names[i], box.tolist(), float(rng.uniform())) for i, box in zip(again, moved, strict=True)]
        scenes.append(scene([(n, b.tolist()) for n, b in zip(names, boxes, strict=True)], found))
    return scenes


def plain(scenes: list[dict[str, Any]], name: str, overlap: float) -> tuple[float, float]:
    """Precision at 101 recalls, and the whole area under the curve, of a class without crowds; loops only."""
    hits: list[tuple[float, bool]] = []
    owed = 0
    for one in scenes:
        objects = [
            box for box, label in zip(one["truth"]["boxes"], one["truth"]["labels"], strict=True) if label == name
        ]
        parts = one["found"]["scores"], one["found"]["boxes"], one["found"]["labels"]
        found = sorted(((s, box) for s, box, label in zip(*parts, strict=True) if label == name), key=lambda d: -d[0])
        taken: set[int] = set()
        owed += len(objects)
        for score, box in found:
            best, place = overlap, None
            for index, other in enumerate(objects):
                value = float(pairwise_iou(np.array([box]), np.array([other]))[0, 0])
                if index not in taken and value >= best:
                    best, place = value, index
            hits.append((score, place is not None))
            if place is not None:
                taken.add(place)
    hits.sort(key=lambda hit: -hit[0])
    points, right = [(0.0, 1.0)], 0
    for count, (_, hit) in enumerate(hits, 1):
        right += hit
        points.append((right / owed, right / count))
    at = [max((p for r, p in points[1:] if r >= recall), default=0.0) for recall in np.linspace(0, 1, 101)]
    area = sum((points[i][0] - points[i - 1][0]) * max(p for _, p in points[i:]) for i in range(1, len(points)))
    return float(np.mean(at)), float(area)


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(max_examples=25)
def test_it_is_what_the_plain_protocol_gives(seed: int, images: int) -> None:
    scenes = random_scenes(seed, images)
    evaluation = Evaluation(scenes)
    present = sorted({name for one in scenes for name in one["truth"]["labels"]})
    assert sorted(evaluation.by_class()) == present
    if not present:
        assert np.isnan(list(evaluation.metrics.values())).all()
        return
    expected = np.array([[plain(scenes, name, overlap) for overlap in OVERLAPS] for name in present])
    metrics = evaluation.metrics
    assert metrics["mAP"] == pytest.approx(expected[:, :, 0].mean(), abs=1e-6)
    assert metrics["AP50"] == pytest.approx(expected[:, 0, 0].mean(), abs=1e-6)
    assert metrics["AP75"] == pytest.approx(expected[:, 5, 0].mean(), abs=1e-6)
    assert metrics["VOC_AP50"] == pytest.approx(expected[:, 0, 1].mean(), abs=1e-6)
    once = np.ones((1, images), np.float32)
    for place, name in enumerate(evaluation.classes):
        if name in present:
            again = average_precisions(evaluation.matches[place], once, evaluation.recalls)[0]
            np.testing.assert_allclose(again, expected[present.index(name), :, 0], atol=1e-6)


def test_a_draw_weighs_as_the_images_themselves_would() -> None:
    scenes = random_scenes(3, 4)
    weights = np.array([[2, 0, 1, 1]], np.float32)
    evaluation, drawn = Evaluation(scenes), Evaluation([scenes[0], scenes[0], scenes[2], scenes[3]])
    for name, match in zip(evaluation.classes, evaluation.matches, strict=True):
        values = average_precisions(match, weights, evaluation.recalls)[0]
        place = drawn.classes.index(name)
        expected = drawn.precision[:, :, place].mean(axis=1)
        np.testing.assert_allclose(values, expected, atol=1e-6)


def test_resampling_is_repeatable_and_centred() -> None:
    evaluation = Evaluation(random_scenes(5, 60))
    draws = evaluation.resampled(200)
    assert (draws["mAP"] == evaluation.resampled(200)["mAP"]).all()
    assert draws["mAP"].mean() == pytest.approx(evaluation.metrics["mAP"], abs=0.02) and draws["mAP"].std() > 0.005


def test_a_crowd_is_neither_owed_nor_a_mistake() -> None:
    box, crowd = [0.0, 0.0, 20.0, 20.0], [50.0, 50.0, 100.0, 100.0]
    found = [("a", crowd, 0.9), ("a", [51.0, 51.0, 70.0, 70.0], 0.8), ("a", box, 0.7)]
    metrics = Evaluation([scene([("a", box), ("a", crowd)], found, [False, True])]).metrics
    assert metrics["mAP"] == pytest.approx(1) and metrics["VOC_AP50"] == pytest.approx(1)
    metrics = Evaluation([scene([("a", box)], found)]).metrics
    assert metrics["AP50"] == pytest.approx(1 / 3), "two mistakes come before it"


def test_a_difficult_object_is_ignored_where_it_is_overlapped_and_only_there() -> None:
    """VOC's rule, by hand: two that overlap it by half and more are nothing, one that lies in it is a mistake."""
    box, difficult = [0.0, 0.0, 20.0, 20.0], [50.0, 50.0, 100.0, 100.0]
    half, corner = [50.0, 50.0, 100.0, 80.0], [51.0, 51.0, 70.0, 70.0]
    twice = [("a", difficult, 0.9), ("a", half, 0.8), ("a", box, 0.7)]
    metrics = Evaluation([scene([("a", box), ("a", difficult)], twice, [False, True], crowd=False)]).metrics
    assert metrics["AP50"] == pytest.approx(1) and metrics["VOC_AP50"] == pytest.approx(1)
    assert metrics["AP75"] == pytest.approx(1 / 2), "0.6 is too little for that overlap"
    inside = [("a", corner, 0.9), ("a", box, 0.7)]
    metrics = Evaluation([scene([("a", box), ("a", difficult)], inside, [False, True], crowd=False)]).metrics
    assert metrics["AP50"] == pytest.approx(1 / 2) and metrics["VOC_AP50"] == pytest.approx(1 / 2)
    metrics = Evaluation([scene([("a", box), ("a", difficult)], inside, [False, True])]).metrics
    assert metrics["AP50"] == pytest.approx(1), "as a crowd it would not be"


def test_sizes_and_empty_images() -> None:
    small, large = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 99.0, 99.0]
    found = [("a", small, 0.9)]
    metrics = Evaluation([scene([("a", small)], found), scene([], []), scene([("b", large)], [])]).metrics
    assert metrics["mAP_small"] == pytest.approx(1) and metrics["mAP_large"] == 0 and np.isnan(metrics["mAP_medium"])
    assert metrics["mAP"] == pytest.approx(0.5) and metrics["AR100"] == pytest.approx(0.5)
    metrics = Evaluation([scene([("a", small)], found), scene([], found)]).metrics
    assert metrics["AP50"] == pytest.approx(1), "equal scores keep the order of images"


def test_nothing_at_all_is_not_a_number() -> None:
    evaluation = Evaluation([scene([], []), scene([], [])])
    assert np.isnan(list(evaluation.metrics.values())).all() and evaluation.by_class() == {}
    assert np.isnan(evaluation.resampled(3)["mAP"]).all()
    nothing_found = Evaluation([scene([("a", [0.0, 0.0, 9.0, 9.0])], [])])
    assert nothing_found.metrics["mAP"] == 0 and nothing_found.resampled(3)["AP50"].tolist() == [0, 0, 0]

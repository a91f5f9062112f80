"""Tracking on objects whose ways are known."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.tasks.detection import Detections
from perception.tasks.tracking import Tracker, assign

SECOND = 1_000_000_000
HIGH, LOW = 0.8, 0.2
Seen = tuple[float, float, float, int]
"""Centre x and y, score, and class of an object 40 wide and 60 high."""


def detections(*objects: Seen) -> Detections:
    values = np.array(sorted(objects, key=lambda seen: -seen[2]), float).reshape(-1, 4)
    half = np.array([20.0, 30.0])
    boxes = np.concatenate([values[:, :2] - half, values[:, :2] + half], 1).astype(np.float32)
    return Detections(boxes, values[:, 2].astype(np.float32), values[:, 3].astype(np.int64))


def follow(
    frames: Sequence[Sequence[Seen]], hz: float = 20.0, tracker: Tracker | None = None
) -> list[dict[float, int]]:
    """Centre x to number, frame by frame."""
    tracker = tracker or Tracker()
    answers = []
    for index, frame in enumerate(frames):
        found = tracker.update(detections(*frame), round(index / hz * SECOND), 0.5, 1.0)
        assert found.tracks is not None and len(found.tracks) == len(found.boxes) == len(found.labels)
        answers.append(dict(zip(found.boxes[:, [0, 2]].mean(1).tolist(), found.tracks.tolist(), strict=True)))
    return answers


def test_an_object_has_a_number_from_its_second_image_on() -> None:
    answers = follow([[(100, 100, HIGH, 0), (300, 100, HIGH, 0)]] * 4)
    assert answers == [{100: 0, 300: 0}] + [{100: 1, 300: 2}] * 3


def test_objects_that_cross_keep_their_numbers() -> None:
    """At 20 Hz and 100 pixels a second, towards each other, one 35 pixels above the other."""
    ways = [[(100 + 5 * i, 100, HIGH, 0), (300 - 5 * i, 135, HIGH, 0)] for i in range(41)]
    answers = follow(ways)
    for index, answer in enumerate(answers[1:], 1):
        if index != 20:  # both have the same centre x
            assert answer == {100 + 5 * index: 1, 300 - 5 * index: 2}


def test_what_is_hidden_for_a_while_is_found_again_where_it_must_be() -> None:
    """Half a second behind a pillar, in which it moves on by more than its own width."""
    frames = [[] if 20 < i < 30 else [(100 + 6 * i, 100, HIGH, 0)] for i in range(45)]
    answers = follow(frames)
    assert all(list(answer.values()) == [1] for answer, frame in zip(answers[1:], frames[1:], strict=True) if frame)


@pytest.mark.parametrize("late", [0.003, 5.0])
def test_images_slower_than_the_memory_keep_what_they_all_show(late: float) -> None:
    tracker, box = Tracker(), (100, 100, 0.9, 0)
    numbers = []
    for image in range(5):
        stamp = int((1.0 + late) * image * 1e9)
        numbers.append(tracker.update(detections(box), stamp, 0.3, 1.0).tracks.tolist())
    assert numbers == [[0], [1], [1], [1], [1]]


def test_what_is_hidden_for_longer_is_another_object() -> None:
    frames = [[] if 20 < i < 45 else [(100, 100, HIGH, 0)] for i in range(50)]
    assert follow(frames)[-1] == {100: 2}


def test_half_hidden_objects_are_followed_and_nothing_begins_with_them() -> None:
    frames = [[(100 + 4 * i, 100, LOW if 10 <= i < 20 else HIGH, 0), (500, 300, LOW, 0)] for i in range(30)]
    answers = follow(frames)
    assert answers[0] == {100: 0}
    assert all(answer == {100 + 4 * index: 1} for index, answer in enumerate(answers[1:], 1))


@pytest.mark.parametrize("hz", [5.0, 20.0, 60.0])
def test_stamps_count_and_not_frames(hz: float) -> None:
    """The same motion and the same pause of 0.6 s at any rate, images lost on the way."""
    rng = np.random.default_rng(0)
    tracker, numbers = Tracker(), []
    for index in range(round(4 * hz)):
        seconds = index / hz
        if rng.random() < 0.2 and index > 3:
            continue
        found = detections() if 2.0 < seconds < 2.6 else detections((100 + 60 * seconds, 100, HIGH, 0))
        tracks = tracker.update(found, round(seconds * SECOND), 0.5, 1.0).tracks
        numbers += [] if tracks is None else tracks.tolist()
    assert set(numbers[1:]) == {1}


@pytest.mark.parametrize("hz", [10.0, 30.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_poor_detector_makes_no_new_objects(hz: float, seed: int) -> None:
    """Four objects that wander, of which boxes jitter by 3 %, a tenth is missing and a fifth scores low."""
    rng = np.random.default_rng(seed)
    x, velocity = np.full(4, 300.0), rng.normal(0, 60, 4)
    tracker, owner = Tracker(), {}
    for index in range(round(10 * hz)):
        velocity += rng.normal(0, 20 / np.sqrt(hz), 4)
        x += velocity / hz
        scores = np.where(rng.random(4) < 0.2, LOW, HIGH)
        seen = [
            (x[lane] + rng.normal(0, 1.2), 100 * lane + rng.normal(0, 1.8), scores[lane], 0)
            for lane in range(4)
            if rng.random() > 0.1
        ]
        found = tracker.update(detections(*seen), round(index / hz * SECOND), 0.5, 1.0)
        assert found.tracks is not None
        for y, number in zip(found.boxes[:, [1, 3]].mean(1), found.tracks, strict=True):
            if number:
                assert owner.setdefault(int(number), round(float(y) / 100)) == round(float(y) / 100)
    assert sorted(owner.values()) == [0, 1, 2, 3], "one number each"


def test_a_fast_object_is_followed_at_a_low_rate() -> None:
    """60 pixels an image, half as far again as it is wide: known once its velocity is."""
    xs = np.concatenate([np.arange(0, 60, 15), np.arange(60, 600, 15 * 1.0)])
    assert list(follow([[(x, 100, HIGH, 0)] for x in xs])[-1].values()) == [1]
    slower = xs[:20].tolist() + (xs[19] + np.arange(60, 300, 60)).tolist()
    tracker = Tracker()
    stamps = [*(i * SECOND // 20 for i in range(20)), *(SECOND * 19 // 20 + i * SECOND // 5 for i in range(1, 5))]
    last = [
        tracker.update(detections((x, 100, HIGH, 0)), t, 0.5, 1.0).tracks for x, t in zip(slower, stamps, strict=True)
    ]
    assert last[-1] is not None and last[-1].tolist() == [1]


def test_classes_are_not_mixed_up() -> None:
    answers = follow([[(100, 100, HIGH, i % 2)] for i in range(6)])
    assert all(set(answer.values()) == {0} for answer in answers)


def test_stamps_that_jump_back_end_all_tracks_and_numbers_go_on() -> None:
    tracker = Tracker()
    frames = [[(100, 100, HIGH, 0)]] * 3
    assert follow(frames, tracker=tracker)[-1] == {100: 1}
    assert follow(frames, tracker=tracker) == [{100: 0}, {100: 2}, {100: 2}]


def test_tracks_can_be_ended_and_numbers_go_on() -> None:
    tracker, numbers = Tracker(), []
    for stamp in range(1, 7):
        if stamp == 4:
            tracker.forget()
        numbers.append(tracker.update(detections((100, 100, HIGH, 0)), stamp, 0.5, 1.0).tracks)
    assert [list(each) for each in numbers if each is not None] == [[0], [1], [1], [0], [2], [2]]


def test_the_same_image_again_says_nothing_new() -> None:
    tracker = Tracker()
    stamps = [5, 5, 5, 6, 6]
    numbers = [tracker.update(detections((100, 100, HIGH, 0)), stamp, 0.5, 1.0).tracks for stamp in stamps]
    assert [list(each) for each in numbers if each is not None] == [[0], [0], [0], [1], [1]]


def test_boxes_are_handed_on_as_they_came_and_an_empty_image_is_none_the_worse() -> None:
    tracker = Tracker()
    found = detections((100.25, 100, 0.9, 3), (200, 50, 0.6, 1), (300, 50, 0.3, 1))
    for stamp in (0, SECOND // 20):
        told = tracker.update(found, stamp, 0.5, 1.0)
        assert np.array_equal(told.boxes, found.boxes[:2]) and np.array_equal(told.scores, found.scores[:2])
        assert told.labels.tolist() == [3, 1]
    empty = tracker.update(detections(), SECOND // 10, 0.5, 1.0)
    assert len(empty) == 0 and empty.tracks is not None and empty.boxes.shape == (0, 4)


def test_the_same_images_give_the_same_numbers() -> None:
    rng = np.random.default_rng(1)
    frames = [
        [(float(x), float(y), float(score), int(c)) for x, y, score, c in rng.uniform(0, [400, 300, 1, 2], (12, 4))]
        for _ in range(20)
    ]
    assert follow(frames) == follow(frames)


@settings(max_examples=150)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_no_assignment_gains_more(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gains = np.round(rng.uniform(0, 1, (rows, columns)), 1) * (rng.random((rows, columns)) < 0.7)
    pairs = assign(gains)
    assert len(set(pairs[:, 0].tolist())) == len(set(pairs[:, 1].tolist())) == len(pairs)
    assert (gains[pairs[:, 0], pairs[:, 1]] > 0).all()
    wide = gains if rows <= columns else gains.T
    ways = itertools.permutations(range(wide.shape[1]), wide.shape[0])
    best = max(sum(wide[row, column] for row, column in enumerate(way)) for way in ways)
    assert gains[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(best)


def test_a_hundred_objects_take_little_time() -> None:
    rng = np.random.default_rng(2)
    places = rng.uniform(0, [640, 480], (100, 2))
    tracker = Tracker()
    seconds = []
    for index in range(10):
        found = detections(*((x, y, HIGH, 0) for x, y in places + index))
        begin = time.perf_counter()
        tracker.update(found, index * SECOND // 30, 0.5, 1.0)
        seconds.append(time.perf_counter() - begin)
    assert min(seconds[2:]) < 0.05

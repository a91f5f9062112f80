"""Splits by clip: where clips end, which are held out, and that no frame of one has a twin on the other side."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from test_boxes import voc_xml

from perception.evaluation.boxes import Annotation
from perception.evaluation.clips import LEAST, SIDE, find_borders, find_clips, hold_out, main, nearest_across
from perception.evaluation.datasets import open_dataset

LENGTH = 2 * LEAST


def take(seed: int, length: int = LENGTH, pixels: int = SIDE) -> np.ndarray:
    """A camera that drifts over a ground of its own."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (6, 12, 3)).astype(np.float32)
    ground = cv2.resize(coarse, (2 * pixels, pixels), interpolation=cv2.INTER_LINEAR)
    shifts = [np.array([[1, 0, -0.004 * pixels * place], [0, 1, 0]]) for place in range(length)]
    return np.stack([cv2.warpAffine(ground, shift, (pixels, pixels)) for shift in shifts]).astype(np.uint8)


def holding(label: int, length: int = LENGTH, x: float = 5) -> list[Annotation]:
    box = np.array([[x, 5, x + 4, 9.0]])
    return [Annotation(box, np.array([label]), np.zeros(1, bool), None, (SIDE, SIDE))] * length


def test_a_clip_ends_at_a_cut_another_class_and_another_place() -> None:
    cut = np.concatenate([take(0), take(1)])
    assert find_borders(cut, holding(0, 2 * LENGTH)) == [0, LENGTH]
    still = np.repeat(take(0, 1), 2 * LENGTH, axis=0)
    assert find_borders(still, holding(0) + holding(1)) == [0, LENGTH]
    assert find_borders(still, holding(0, 2 * LENGTH)) == [0]
    still[LENGTH:] += np.uint8(2)
    assert find_borders(still, holding(0) + holding(0, x=15)) == [0, LENGTH]


def test_what_resembles_each_other_is_one_clip() -> None:
    frames = np.concatenate([take(0), take(1), take(0)])
    annotations = holding(0, 3 * LENGTH)
    assert find_clips(frames, annotations).tolist() == [0] * LENGTH + [1] * LENGTH + [0] * LENGTH
    annotations[2 * LENGTH :] = holding(1)
    assert set(find_clips(frames, annotations)[2 * LENGTH :]) == {2}, "another object on the same ground"


def test_a_short_piece_goes_to_its_neighbour() -> None:
    frames = np.concatenate([take(0), take(1, 3), take(2)])
    assert set(find_clips(frames, holding(0, len(frames)))[: LENGTH + 3]) in ({0}, {0, 1})
    assert len(set(find_clips(frames, holding(0, len(frames))))) == 2


@given(st.lists(st.dictionaries(st.integers(0, 4), st.integers(1, 200), min_size=1, max_size=2), max_size=30))
def test_every_class_stays_on_the_side_of_training_and_is_held_out_where_it_can_be(clips: list[dict[int, int]]) -> None:
    counts = [Counter(clip) for clip in clips]
    chosen = hold_out(counts)
    assert chosen == hold_out(counts)
    for label in {label for clip in clips for label in clip}:
        homes = {place for place, clip in enumerate(clips) if label in clip}
        assert homes - chosen, "never all"
        alone = all(len(clips[place]) == 1 for place in homes)
        assert len(homes) == 1 or homes & chosen or not alone


def test_about_a_seventh_is_held_out() -> None:
    counts = [Counter({place % 2: 100}) for place in range(40)]
    assert len(hold_out(counts)) == 6


def test_the_lists_are_written(tmp_path: Path, capsys) -> None:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    names = [f"{number:06d}" for number in range(4 * LENGTH)]
    for clip in range(4):
        for place, image in enumerate(take(clip, pixels=4 * SIDE)):
            name = names[clip * LENGTH + place]
            cv2.imwrite(str(tmp_path / "JPEGImages" / f"{name}.jpg"), image)
            text = voc_xml([("Bolt" if clip < 3 else "Nut", (5.5, 5.5, 9, 9), 0)], image.shape[:2])
            (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text("\n".join(reversed(names)))
    assert main([str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "4 clips, 1 of them held out" in told and f"Bolt: 2 clips, {2 * LENGTH} frames; 1 clips" in told
    train, held_out = open_dataset(tmp_path, "train"), open_dataset(tmp_path)
    assert len(train) == 3 * LENGTH and len(held_out) == LENGTH
    assert {train.label(i) for i in range(len(train))}.isdisjoint(held_out.label(i) for i in range(len(held_out)))
    assert {int(held_out.label(i)) // LENGTH for i in range(len(held_out))} == {0}, "one whole clip"


def test_twins_across_the_sides_are_found() -> None:
    frames = take(0)
    assert nearest_across(frames[::2], frames[:1]).tolist() == [0]
    assert nearest_across(frames, take(1, 2)).min() > 5

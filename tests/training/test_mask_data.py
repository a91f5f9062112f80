"""Batches of masks: crops that keep every class on its pixels, rare classes, what is pasted, and what is held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; training needs it")

from hypothesis import given, settings
from hypothesis import strategies as st

from perception.evaluation.frames import MaskFrame
from perception.evaluation.masks import MaskDataset
from perception.tasks.config import GREY
from perception.tasks.labels import UNLABELED
from perception.training.mask_data import (
    STILL,
    Frames,
    MaskAugmentation,
    MaskMixture,
    augment,
    paste,
)
from tests.evaluation.memory import InMemory

SHADES = np.array([10, 80, 160, 240], np.uint8)
"""Of the classes 0 to 2, and of what has none."""


def painted(mask: np.ndarray) -> MaskFrame:
    """An image in which every class has its shade."""
    return MaskFrame(SHADES[np.minimum(mask, 3)][..., None].repeat(3, axis=2), mask)


def blocks(seed: int, height: int = 48, width: int = 64) -> MaskFrame:
    """Classes in squares of 8 pixels."""
    values = np.array([0, 1, 2, UNLABELED], np.uint8)
    coarse = np.random.default_rng(seed).choice(values, (-(-height // 8), -(-width // 8)))
    return painted(coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])


class MemoryMasks(InMemory, MaskDataset):
    name, labels, read = "masks in memory", ("a", "b", "c"), 0

    def __getitem__(self, index: int) -> MaskFrame:
        self.read += 1
        return super().__getitem__(index)


def mixture(frames: Sequence[MaskFrame], pasted: Sequence[int] = (), memory: int = 1 << 30) -> MaskMixture:
    dataset = MemoryMasks(frames)
    return MaskMixture([Frames(dataset, range(len(frames)), np.arange(3), 3, memory)], [1.0], pasted)


@settings(max_examples=60)
@given(
    st.integers(0, 9999), st.floats(0.3, 1.0), st.floats(1.0, 3.0), st.floats(1.0, 1.5),
    st.sampled_from([(32, 32), (48, 64), (40, 24)]),
)  # fmt: skip
def test_classes_stay_on_their_pixels(
    seed: int, smallest: float, largest: float, aspect: float, size: tuple[int, int]
) -> None:
    amount = MaskAugmentation(smallest=smallest, largest=largest, aspect=aspect, color=0.0)
    rng = np.random.default_rng(seed)
    image, mask = augment(blocks(seed), size, (48, 64), amount, rng)
    assert image.shape == (*size, 3) and mask.shape == size and image.dtype == mask.dtype == np.uint8
    # Where all pixels around are of one class, there is its shade and nothing else's.
    around = np.lib.stride_tricks.sliding_window_view(np.pad(mask, 2, constant_values=UNLABELED), (5, 5))
    inner = (around == mask[..., None, None]).all(axis=(2, 3)) & (mask != UNLABELED)
    assert (np.abs(image[..., 0].astype(int) - SHADES[np.minimum(mask, 3)])[inner] <= 1).all()


def test_a_whole_frame_is_seen_as_the_network_sees_it() -> None:
    frame = blocks(3)
    seen = {augment(frame, (48, 64), (48, 64), STILL, np.random.default_rng(seed))[1].tobytes() for seed in range(9)}
    assert seen == {frame.mask.tobytes(), np.ascontiguousarray(frame.mask[:, ::-1]).tobytes()}
    halved = augment(frame, (24, 32), (24, 32), STILL, np.random.default_rng(0))[1]
    assert (halved == frame.mask[1::2, 1::2]).all() or (halved == frame.mask[1::2, ::-1][:, 1::2]).all()


def test_a_small_frame_lies_in_grey_without_a_class() -> None:
    amount = MaskAugmentation(smallest=0.5, largest=0.5, color=0.5)
    image, mask = augment(painted(np.ones((48, 64), np.uint8)), (48, 64), (48, 64), amount, np.random.default_rng(0))
    covered = mask == 1
    assert covered.sum() == 24 * 32 and (mask[~covered] == UNLABELED).all() and (image[~covered] == GREY).all()


@given(st.integers(0, 999), st.floats(0.5, 2.0))
def test_a_crop_shows_the_pixel_that_it_is_made_around(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((48, 64), np.uint8)
    row, column = int(rng.integers(48)), int(rng.integers(64))
    mask[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = 1
    amount = MaskAugmentation(smallest=scale, largest=scale, color=0.0)
    assert (augment(painted(mask), (24, 24), (48, 64), amount, rng, (row, column))[1] == 1).any()


def test_rare_classes_are_found() -> None:
    common, rare = np.zeros((48, 64), np.uint8), np.zeros((48, 64), np.uint8)
    rare[40:46, 50:56] = 2
    frames = mixture([painted(common)] * 19 + [painted(rare)])
    shares = []
    for amount in (0.0, 1.0):
        how = MaskAugmentation(rare=amount, color=0.0)
        masks = [frames.batch(step, 0, 8, (24, 24), (48, 64), how)[1] for step in range(20)]
        shares.append(np.mean([(mask == 2).any() for batch in masks for mask in batch.numpy()]))
    assert shares[0] < 0.1 and 0.4 < shares[1] < 0.6, "of two classes that occur one is drawn as often as the other"
    assert frames.pixels.tolist() == pytest.approx([48 * 64 - 36 / 20, 0, 36 / 20])


@given(st.integers(0, 9999))
def test_what_is_pasted_stays_whole_and_as_high_as_it_was(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((48, 64), np.uint8)
    row, column = int(rng.integers(0, 40)), int(rng.integers(0, 58))
    mask[row : row + 8, column : column + 6] = 2
    mask[row, column] = 0
    frame = painted(np.ones((48, 64), np.uint8))
    pasted = paste(frame, painted(mask), 2, rng)
    assert (pasted.mask == 2).sum() == 47 and (pasted.mask == 0).sum() == 0
    assert (np.flatnonzero((pasted.mask == 2).any(axis=1)) == np.arange(row, row + 8)).all()
    inner = (pasted.rgb == SHADES[2]).all(axis=2)
    assert 20 <= inner.sum() <= 47 and (pasted.mask[inner] == 2).all(), "edges are soft"
    assert (frame.mask == 1).all() and (frame.rgb == SHADES[1]).all(), "the frame is kept in memory, as it was"
    small = painted(np.zeros((24, 32), np.uint8))
    assert paste(frame, small, 0, rng) is frame and paste(frame, painted(mask), 1, rng) is frame


def test_batches_are_a_function_of_seed_and_step() -> None:
    amount = MaskAugmentation(rare=0.5, paste=2, hue=0.1)
    frames = mixture([blocks(seed) for seed in range(5)], pasted=(1, 2))
    first, again, other = (frames.batch(step, 0, 4, (32, 40), (48, 64), amount) for step in (3, 3, 4))
    assert first[0].shape == (4, 3, 32, 40) and first[1].shape == (4, 32, 40) and first[1].dtype == first[0].dtype
    assert all((a == b).all() for a, b in zip(first, again, strict=True)) and (first[0] != other[0]).any()


def test_frames_stay_in_memory_as_far_as_it_reaches() -> None:
    dataset = MemoryMasks([blocks(seed) for seed in range(4)])
    frames = Frames(dataset, [0, 2, 3], np.array([1, UNLABELED, 0]), 2, memory=2 * 4 * 48 * 64)
    assert dataset.read == 3 and len(frames) == 3
    for index, number in enumerate((0, 2, 3)):
        truth = dataset.samples[number].mask
        assert (frames[index].mask == np.array([1, UNLABELED, 0, UNLABELED])[np.minimum(truth, 3)]).all()
    assert dataset.read == 4, "the third did not fit"
    assert frames.spare == 0
    assert Frames(dataset, [0], np.arange(3), 3, memory=5 * 48 * 64).spare == 48 * 64, "for the next source"
    for index, counts in enumerate(frames.pixels):
        assert counts.tolist() == [(frames[index].mask == place).sum() for place in (0, 1)]


def test_classes_that_no_frame_shows_are_refused_before_training() -> None:
    ground = painted(np.zeros((48, 64), np.uint8))
    with pytest.raises(ValueError, match="no training frame shows 20 pixels of the classes 1, 2, to be pasted"):
        mixture([ground], pasted=(0, 1, 2))
    with pytest.raises(ValueError, match="no training frame shows 20 pixels of any class"):
        mixture([painted(np.full((48, 64), UNLABELED, np.uint8))])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"smallest": 2.0, "largest": 1.0}, "smallest is 2.0 and largest 1.0; they are factors, in this order"),
        ({"aspect": 0.5}, "aspect is 0.5; it is a factor"),
        ({"rare": 1.5}, "rare is 1.5; it must lie between 0 and 1"),
        ({"hue": 0.7}, "hue is 0.7; it must lie between 0 and 0.5"),
        ({"paste": -1}, "paste is -1; it is a number of classes"),
    ],
)
def test_impossible_amounts_are_refused(fields: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MaskAugmentation(**fields)

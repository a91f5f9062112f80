"""Pairs that stay pairs however they are varied, and photographs that become dark."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from perception.evaluation.frames import PairFrame  # noqa: E402
from perception.tasks.darkening import ELECTRONS, READ_NOISE  # noqa: E402
from perception.tasks.image import to_light  # noqa: E402
from perception.training.pair_data import (  # noqa: E402
    PairAugmentation,
    PairMixture,
    PairSource,
    Photographs,
    augment,
    choose_window,
)

SIZE = (20, 30)
STRONG = PairAugmentation(crop=0.8, smallest=0.3, turn=0.6)


def pair(seed: int, size: tuple[int, int] = (40, 60), factor: int = 4) -> PairFrame:
    """Smooth shades, the bright ones `factor` times the dark ones."""
    small = np.random.default_rng(seed).integers(5, 60, (4, 6, 3)).astype(np.uint8)
    dark = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC).clip(2, 60)
    return PairFrame(dark, dark * np.uint8(factor), name=str(seed))


@settings(max_examples=40)
@given(st.integers(0, 9999), st.integers(24, 90), st.integers(24, 90))
def test_both_images_of_a_pair_are_varied_alike(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    frame = pair(seed, (height, width))
    dark, bright = augment(frame, SIZE, STRONG, rng, PairSource([frame]))
    assert dark.shape == bright.shape == (*SIZE, 3) and dark.dtype == bright.dtype == np.uint8
    apart = np.abs(dark.astype(int) * 4 - bright)
    assert apart.max() <= 8 and apart.mean() < 2.5, "rounding, up to twice, and four times as much"


def test_without_variation_all_of_the_image_is_seen() -> None:
    frame = pair(3)
    source = PairSource([frame])
    found = [augment(frame, (40, 60), PairAugmentation(crop=0), np.random.default_rng(s), source)[1] for s in range(8)]
    kinds = {bytes(image.tobytes()) for image in found}
    assert kinds == {frame.target.tobytes(), cv2.flip(frame.target, 1).tobytes()}


@settings(max_examples=60)
@given(st.integers(0, 9999), st.integers(5, 300), st.integers(5, 300), st.floats(0.05, 1))
def test_a_window_has_the_networks_aspect_and_lies_in_the_image(
    seed: int, height: int, width: int, smallest: float
) -> None:
    rows, columns = choose_window((height, width), SIZE, smallest, np.random.default_rng(seed))
    sides = rows.stop - rows.start, columns.stop - columns.start
    assert 0 <= rows.start < rows.stop <= height and 0 <= columns.start < columns.stop <= width
    largest = min(height / SIZE[0], width / SIZE[1])
    for side, want in zip(sides, SIZE, strict=True):
        assert max(1, largest * want * smallest**0.5 - 1) <= side <= largest * want + 1


def test_less_light_leaves_the_bright_image() -> None:
    frame = pair(5, SIZE)
    amount = PairAugmentation(crop=0, light=2.0)
    ratios = []
    for seed in range(20):
        dark, bright = augment(frame, SIZE, amount, np.random.default_rng(seed), PairSource([frame]))
        assert bright.mean() == pytest.approx(frame.target.mean())
        ratios.append(to_light(dark / 255).mean() / to_light(frame.rgb / 255).mean())
    assert 0.2 < min(ratios) < 0.5 and 2 < max(ratios) < 4.4


def test_a_photograph_is_darkened_as_before_it_became_small() -> None:
    """Of 16 pixels each, one has the light of one and a quarter of its noise."""
    flat = np.full((80, 120, 3), 220, np.uint8)
    source = PairSource([PairFrame(flat, flat)], pairs=False, exposure=(0.05, 0.05))
    dark, bright = augment(source.frames[0], (40, 60), PairAugmentation(crop=0), np.random.default_rng(0), source)
    light = 0.05 * float(to_light(np.array(220 / 255)))
    values = to_light(dark / 255)
    assert (bright == 220).all() and values.mean() == pytest.approx(light, rel=0.02)
    noise = (light / ELECTRONS + (READ_NOISE / ELECTRONS) ** 2) / 4
    step = np.diff(to_light(np.arange(256) / 255))[int(np.median(dark))]
    assert values.var() == pytest.approx(noise + step**2 / 12, rel=0.15)


def test_batches_are_the_same_for_the_same_step_and_mix_by_share(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "more").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "more" / f"{number}.png"), np.full((50, 50, 3), 200 + number, np.uint8))
    photographs = Photographs(tmp_path)
    assert len(photographs) == 3 and (photographs[1].rgb == 201).all()
    mixture = PairMixture(
        [
            PairSource([pair(1), pair(2)], 0.5),
            PairSource(photographs, 0.25, pairs=False),
            PairSource(photographs, 0.25, pairs=False, exposure=(0.01, 0.1)),
        ]
    )
    dark, bright, undone = mixture.batch(7, 0, 64, SIZE, STRONG)
    again = mixture.batch(7, 0, 64, SIZE, STRONG)
    assert all((a == b).all() for a, b in zip((dark, bright, undone), again, strict=True))
    assert not torch.equal(mixture.batch(8, 0, 64, SIZE, STRONG)[1], bright)
    assert dark.shape == bright.shape == (64, 3, *SIZE) and dark.dtype == torch.uint8
    photograph = bright.float().mean((1, 2, 3)) > 199
    assert 20 < photograph.sum() < 44 and 6 < undone.sum() < 27 and (photograph | ~undone).all()
    assert torch.equal(dark[undone], bright[undone])
    assert (dark[photograph & ~undone].float().mean((1, 2, 3)) < 100).all()


def test_what_is_not_possible_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crop is 2"):
        PairAugmentation(crop=2)
    with pytest.raises(ValueError, match="light is -1"):
        PairAugmentation(light=-1)
    with pytest.raises(ValueError, match="a share of the light"):
        PairSource([], pairs=False, exposure=(0, 0.1))
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match="not a readable image"):
        Photographs(tmp_path)[0]

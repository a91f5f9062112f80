"""Dark images and bright ones of the same view, augmented and batched. A batch is a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from perception.evaluation.frames import PairFrame
from perception.evaluation.labels import find_photographs
from perception.evaluation.layouts import read_rgb
from perception.tasks.darkening import ELECTRONS, READ_NOISE, check_exposure, darken, scale_light
from perception.tasks.image import resize
from perception.training.data import QUARTERS, stack_images

Images = tuple[np.ndarray, np.ndarray]
"""A dark image and the bright one, uint8 (height, width, 3) RGB."""


@dataclass(frozen=True)
class PairAugmentation:
    """How strongly a pair is varied, both images alike but for `light`. Half of all are mirrored."""

    crop: float = 0.5
    """Share of pairs of which a crop is seen, of the network's aspect; of the others all is, as nodes see images."""
    smallest: float = 0.4
    """Area of the smallest crop, as a share of the largest one of that aspect."""
    turn: float = 0.0
    """Share of pairs that are turned, by a quarter to either side or upside down."""
    light: float = 0.0
    """Largest change of a dark image's light, either way, in factors of two; the bright one stays, since a scene is to
    look the same however little light there was."""

    def __post_init__(self) -> None:
        for name in ("crop", "smallest", "turn"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share and must lie between 0 and 1")
        if self.light < 0:
            raise ValueError(f"light is {self.light}; it is a number of factors of two, 0 or more")


class Photographs(Sequence[PairFrame]):
    """The photographs in a folder and the folders in it, read when they are drawn: bright images, in place of dark ones
    too.

    Raises:
        ValueError: no image there.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = find_photographs(folder)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> PairFrame:  # type: ignore[override]
        rgb = read_rgb(self._paths[index])
        return PairFrame(rgb, rgb, name=self._paths[index].stem)


@dataclass(frozen=True)
class PairSource:
    """Training frames. `share` is that of a batch. Where `pairs` is False there are bright images alone, which are
    darkened: here to exposures between the two of `exposure` (see `darken`), or by a troublemaker where it is None.
    """

    frames: Sequence[PairFrame]
    share: float = 1.0
    pairs: bool = True
    exposure: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for exposure in self.exposure or ():
            check_exposure(exposure)


@dataclass(frozen=True)
class PairMixture:
    """Sources of training frames."""

    sources: Sequence[PairSource]

    def batch(
        self, step: int, seed: int, count: int, size: tuple[int, int], amount: PairAugmentation
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Dark and bright images uint8 (count, 3, *size) of one step, and bool (count,): which of the dark ones still
        have to be made of the bright ones."""
        rng = np.random.default_rng((seed, step))
        shares = np.array([source.share for source in self.sources])
        pairs, undone = [], []
        for _ in range(count):
            source = self.sources[rng.choice(len(shares), p=shares / shares.sum())]
            frame = source.frames[int(rng.integers(len(source.frames)))]
            pairs.append(augment(frame, size, amount, rng, source))
            undone.append(not source.pairs and source.exposure is None)
        dark, bright = (stack_images(images) for images in zip(*pairs, strict=True))
        return dark, bright, torch.tensor(undone)


def augment(
    frame: PairFrame, size: tuple[int, int], amount: PairAugmentation, rng: np.random.Generator, source: PairSource
) -> Images:
    """One training pair of size = (height, width)."""
    images: tuple[np.ndarray, ...] = (frame.rgb, frame.target) if source.pairs else (frame.target,)
    if rng.random() < amount.turn:
        turn = QUARTERS[int(rng.integers(1, 4))]
        images = tuple(cv2.rotate(image, turn) for image in images)
    if rng.random() < amount.crop:
        window = choose_window(images[0].shape[:2], size, amount.smallest, rng)
        images = tuple(image[window] for image in images)
    pixels = images[0].shape[0] * images[0].shape[1]
    images = tuple(resize(np.ascontiguousarray(image), size, "area") for image in images)
    if rng.random() < 0.5:
        images = tuple(cv2.flip(image, 1) for image in images)
    bright = images[-1]
    if source.pairs:
        dark = images[0]
        return (scale_light(dark, 2 ** rng.uniform(-amount.light, amount.light)) if amount.light else dark), bright
    return (bright if source.exposure is None else _darkened(bright, source.exposure, pixels, rng)), bright


def choose_window(
    source: tuple[int, int], size: tuple[int, int], smallest: float, rng: np.random.Generator
) -> tuple[slice, slice]:
    """Rows and columns of a crop of an image of `source` = (height, width), of the aspect of `size`."""
    scale = min(have / want for have, want in zip(source, size, strict=True)) * rng.uniform(smallest, 1) ** 0.5
    sides = [max(1, min(have, round(scale * want))) for have, want in zip(source, size, strict=True)]
    starts = [int(rng.integers(have - side + 1)) for have, side in zip(source, sides, strict=True)]
    rows, columns = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return rows, columns


def _darkened(bright: np.ndarray, exposure: tuple[float, float], pixels: int, rng: np.random.Generator) -> np.ndarray:
    """As if all the `pixels` had been darkened before they became fewer: each now has the electrons of several."""
    several = max(1.0, pixels / (bright.shape[0] * bright.shape[1]))
    drawn = float(np.exp(rng.uniform(*np.log(exposure))))
    return darken(bright, drawn, rng, ELECTRONS * several, READ_NOISE * several**0.5)

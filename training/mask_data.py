"""Frames with masks, augmented and batched for training. Every batch is a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from tqdm import tqdm

from perception.evaluation.frames import MaskFrame
from perception.evaluation.masks import MaskDataset
from perception.tasks.config import GREY
from perception.tasks.labels import UNLABELED
from perception.training.data import MEMORY, View, stack_images, vary_color

LEAST = 20
"""Pixels of a class that a frame must have to be drawn for it."""
INNER = 0.1
"""A pixel that a crop is made around stays so far from its edges, as a share of its sides."""


@dataclass(frozen=True)
class MaskAugmentation:
    """How strongly a training frame is varied. Half of all are mirrored."""

    smallest: float = 0.5
    """Factor by which things are seen smaller than the trained network sees them, at most; grey lies around a frame
    that does not fill the crop then."""
    largest: float = 2.0
    """Factor by which they are seen larger, at most. All factors between have the same chance, by their logarithms."""
    aspect: float = 1.0
    """Largest factor between width and height of things."""
    rare: float = 0.0
    """Share of crops that are made around a pixel of a class which is drawn first, all classes with the same chance,
    however rare they are."""
    paste: int = 0
    """The most classes of which what another frame shows is laid over a frame; from none to so many are as likely."""
    color: float = 0.3
    """Largest relative change of brightness, contrast and saturation; gamma and white balance change by half of it."""
    hue: float = 0.0
    """Largest turn of colours around the axis of greys, in turns."""

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest:
            raise ValueError(f"smallest is {self.smallest} and largest {self.largest}; they are factors, in this order")
        if self.aspect < 1:
            raise ValueError(f"aspect is {self.aspect}; it is a factor and must be 1 or more")
        for name, most in (("rare", 1), ("color", 1), ("hue", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and {most:g}")
        if self.paste < 0:
            raise ValueError(f"paste is {self.paste}; it is a number of classes, 0 or more")


STILL = MaskAugmentation(smallest=1.0, largest=1.0, color=0.0)
"""The frame as it is, or mirrored."""


def augment(
    frame: MaskFrame,
    size: tuple[int, int],
    whole: tuple[int, int],
    amount: MaskAugmentation,
    rng: np.random.Generator,
    pixel: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One training pair: a crop of size = (height, width), image uint8 (height, width, 3) RGB and mask uint8.

    Args:
        whole: (height, width) over which the network has a whole frame stretched where it runs: scale 1.
        pixel: row and column of the frame that the crop has to show.
    """
    scale = np.exp(rng.uniform(np.log(amount.smallest), np.log(amount.largest)))
    stretch = amount.aspect ** rng.uniform(-0.5, 0.5)
    height, width = frame.mask.shape
    h = size[0] * height / (whole[0] * scale / stretch)
    w = size[1] * width / (whole[1] * scale * stretch)
    row, column = (None, None) if pixel is None else pixel
    y, x = _corner(height, h, row, rng), _corner(width, w, column, rng)
    image, mask = np.full((*size, 3), GREY, np.uint8), np.full(size, UNLABELED, np.uint8)
    view = View.of((x, y, w, h), (height, width), size)
    view.show(frame.rgb, image)
    view.show(frame.mask, mask, nearest=True)
    if amount.color or amount.hue:
        part = image[view.covered]  # what lies around stays as grey as nodes make it
        part[:] = vary_color(part, amount.color, rng, amount.hue)
    return (cv2.flip(image, 1), cv2.flip(mask, 1)) if rng.random() < 0.5 else (image, mask)


def _corner(length: int, shown: float, place: int | None, rng: np.random.Generator) -> float:
    """Where a crop of `shown` pixels begins on an axis of `length`: within it, or around all of it."""
    low, high = sorted((0.0, length - shown))
    if place is not None:
        near = place + 0.5 - (1 - INNER) * shown, place + 0.5 - INNER * shown
        low, high = (float(np.clip(edge, low, high)) for edge in near)
    return float(rng.uniform(low, high))


def paste(frame: MaskFrame, other: MaskFrame, place: int, rng: np.random.Generator) -> MaskFrame:
    """The frame with all that another one of the same size shows of a class: as high up in the image as there, since
    that tells how far things are away, but mirrored or not, and anywhere across (after Ghiasi et al., CVPR 2021).
    """
    if frame.mask.shape != other.mask.shape:
        return frame
    region, rgb = other.mask == place, other.rgb
    if rng.random() < 0.5:
        region, rgb = region[:, ::-1], rgb[:, ::-1]
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return frame
    width = frame.mask.shape[1]
    shift = int(rng.integers(-columns[0], width - columns[-1]))  # all of it stays within the image
    top, bottom = max(0, rows[0] - 1), rows[-1] + 2
    left, right = max(0, columns[0] - 1, -shift), min(columns[-1] + 2, width, width - shift)
    part = np.s_[top:bottom, left:right]
    there = np.s_[top:bottom, left + shift : right + shift]
    cover = cv2.blur(region[part].astype(np.float32), (3, 3))[..., None]  # an edge as soft as a lens makes it
    pixels, mask = frame.rgb.copy(), frame.mask.copy()
    under = pixels[there]
    under[:] = under + (rgb[part] - under.astype(np.float32)) * cover + 0.5
    mask[there][region[part]] = place
    return MaskFrame(pixels, mask, name=frame.name)


class Frames(Sequence[MaskFrame]):
    """Some frames of a data set, their masks in the network's classes; in memory as far as `memory` bytes reach.

    `pixels` is int64 (frames, classes): how many pixels of each class a frame has. `spare` are the bytes that are left.

    Args:
        chosen: numbers of the frames.
        places: the network's class of each of the data set's, `UNLABELED` where it has none.

    Raises:
        ValueError, OSError: a broken sample.
    """

    def __init__(
        self, dataset: MaskDataset, chosen: Sequence[int], places: np.ndarray, classes: int, memory: int = MEMORY
    ) -> None:
        self.dataset, self.chosen = dataset, chosen
        self._places = np.full(256, UNLABELED, np.uint8)
        self._places[: len(places)] = places
        self._kept: dict[int, MaskFrame] = {}
        self.pixels = np.zeros((len(chosen), classes), np.int64)
        for index in tqdm(range(len(chosen)), desc=f"read {dataset.name}"):
            frame = self[index]
            self.pixels[index] = np.bincount(frame.mask.ravel(), minlength=256)[:classes]
            size = frame.rgb.nbytes + frame.mask.nbytes
            if size > memory:
                memory = 0  # the first frames are kept
                continue
            self._kept[index], memory = frame, memory - size
        self.spare = memory

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> MaskFrame:  # type: ignore[override]
        if index in self._kept:
            return self._kept[index]
        frame = self.dataset[self.chosen[index]]
        return MaskFrame(frame.rgb, cv2.LUT(frame.mask, self._places), name=frame.name)


class MaskMixture:
    """Sources of training frames.

    Args:
        shares: each source's in a batch.
        pasted: classes of which what a frame shows may be laid over others.

    Raises:
        ValueError: a class that is to be pasted, and that no frame shows enough of (the message has its place in the
            recipe's labels); no class at all.
    """

    def __init__(self, sources: Sequence[Frames], shares: Sequence[float], pasted: Sequence[int] = ()) -> None:
        self.sources, self.shares, self.pasted = sources, np.asarray(shares) / np.sum(shares), list(pasted)
        self.pixels = sum(
            share * source.pixels.mean(axis=0) for share, source in zip(self.shares, sources, strict=True)
        )
        """Of each class in a frame as it is drawn, on average; float64 (classes,)."""
        self._showing = [
            [
                (number, int(index))
                for number, source in enumerate(sources)
                for index in np.flatnonzero(source.pixels[:, place] >= LEAST)
            ]
            for place in range(sources[0].pixels.shape[1])
        ]
        self._known = [place for place, frames in enumerate(self._showing) if frames]
        if not self._known or (hidden := sorted(set(self.pasted) - set(self._known))):
            what = f"of the classes {', '.join(map(str, hidden))}, to be pasted" if self._known else "of any class"
            raise ValueError(f"no training frame shows {LEAST} pixels {what}; take other data, or paste other classes")

    def batch(
        self, step: int, seed: int, count: int, size: tuple[int, int], whole: tuple[int, int], amount: MaskAugmentation
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images uint8 (count, 3, *size) and masks uint8 (count, *size) of one step; see `augment`."""
        rng = np.random.default_rng((seed, step))
        pairs = []
        for _ in range(count):
            frame, pixel = self._draw(amount, rng)
            pairs.append(augment(frame, size, whole, amount, rng, pixel))
        images = stack_images([image for image, _ in pairs])
        return images, torch.from_numpy(np.stack([mask for _, mask in pairs]))

    def _draw(self, amount: MaskAugmentation, rng: np.random.Generator) -> tuple[MaskFrame, tuple[int, int] | None]:
        """A frame, and the pixel that its crop is made around, if any."""
        place = int(rng.choice(self._known)) if rng.random() < amount.rare else None
        if place is None:
            source = self.sources[int(rng.choice(len(self.sources), p=self.shares))]
            frame = source[int(rng.integers(len(source)))]
        else:
            frame = self._showing_frame(place, rng)
        for _ in range(rng.integers(amount.paste + 1) if self.pasted else 0):
            other = int(rng.choice(self.pasted))
            frame = paste(frame, self._showing_frame(other, rng), other, rng)
        if place is None or not len(pixels := np.flatnonzero(frame.mask == place)):  # pasted over
            return frame, None
        row, column = divmod(int(rng.choice(pixels)), frame.mask.shape[1])
        return frame, (row, column)

    def _showing_frame(self, place: int, rng: np.random.Generator) -> MaskFrame:
        number, index = self._showing[place][int(rng.integers(len(self._showing[place])))]
        return self.sources[number][index]

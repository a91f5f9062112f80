"""Frames with depth, augmented and batched for training. Every batch is a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from perception.evaluation.frames import RGBDFrame
from perception.tasks.geometry import Fit
from perception.tasks.image import lay
from perception.training.data import stack_images, vary_color


@dataclass(frozen=True)
class Augmentation:
    """How strongly a training frame is varied."""

    zoom: float = 2.2
    """Largest factor by which a crop narrows the view. Depth is scaled as the lens rule of `Fit.depth_scale` asks."""
    zoom_power: float = 2.0
    """How rare large zooms are: the zoom is the largest one to the power of a number that is evenly spread from 0 to 1,
    raised to this. 1 gives every zoom its chance; with 2, half of all crops zoom by no more than the largest one's
    fourth root, since whole views are what a robot sees most."""
    pad: float = 0.0
    """Share of frames whose crop is laid into the canonical view, grey around, as nodes lay a narrow view into it (see
    `Fit`); the others' are stretched over the image. Of the padded every zoom has its chance, since it does not move
    depth. A model trained with any says so in its config."""
    aspect: float = 1.25
    """Largest factor between the crop's horizontal and vertical zoom, beyond the network's own squeeze."""
    rotation: float = 5.0
    """Degrees to either side."""
    color: float = 0.3
    """Largest relative change of brightness, contrast and saturation; gamma and white balance change by half of it."""

    def __post_init__(self) -> None:
        if not 0 <= self.pad <= 1:
            raise ValueError(f"pad is {self.pad}; it must lie between 0 and 1")


STILL = Augmentation(zoom=1.0, aspect=1.0, rotation=0.0, color=0.0)
"""The frame as it is, or mirrored."""


def augment(
    frame: RGBDFrame, size: tuple[int, int], focal: tuple[float, float], amount: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One training pair from one frame.

    Args:
        size: (height, width) of the network's image.
        focal: the canonical camera, (fx / width, fy / height): depth comes out as seen through it.

    Returns:
        image uint8 (height, width, 3) RGB, grey around a padded crop; depth float32 (height, width) canonical metres, 0
        where unknown: there, and everywhere for a frame without depth. Negative depth is relative (see
        `RelativeFrames`) and stays as it is.
    """
    height, width = frame.rgb.shape[:2]
    pads = amount.pad > 0 and frame.camera is not None and rng.random() < amount.pad
    zoom = amount.zoom ** rng.uniform() ** (1.0 if pads else amount.zoom_power)
    stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log(amount.aspect))
    w = int(min(width, width / zoom * stretch))
    h = int(min(height, height / zoom / stretch))
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    window = np.s_[y : y + h, x : x + w]
    camera = frame.camera.cropped(x, y, w, h) if frame.camera else None  # a relative frame has none
    fit = Fit((h, w), size, camera, focal, pads)
    columns, rows = (part.stop - part.start for part in reversed(fit.window))
    image = cv2.resize(frame.rgb[window], (columns, rows), interpolation=cv2.INTER_AREA)
    if frame.depth is None:
        depth = np.zeros((rows, columns), np.float32)
    else:
        depth = cv2.resize(frame.depth[window], (columns, rows), interpolation=cv2.INTER_NEAREST) / fit.depth_scale
        depth = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
    if rng.random() < 0.5:
        image, depth = image[:, ::-1], depth[:, ::-1]
    turn = cv2.getRotationMatrix2D((columns / 2, rows / 2), rng.uniform(-1, 1) * amount.rotation, 1.0)
    image = cv2.warpAffine(np.ascontiguousarray(image), turn, (columns, rows), borderMode=cv2.BORDER_REFLECT_101)
    depth = cv2.warpAffine(np.ascontiguousarray(depth), turn, (columns, rows), flags=cv2.INTER_NEAREST)
    image = vary_color(image, amount.color, rng)
    return lay(image, fit.window, size), lay(depth, fit.window, size, around=0)


@dataclass(frozen=True)
class Mixture:
    """Sources of training frames, the share of each in a batch, and the chances of its frames (see `evened`), None
    where those are all the same."""

    sources: Sequence[Sequence[RGBDFrame]]
    shares: Sequence[float]
    chances: Sequence[np.ndarray | None]

    def batch(
        self,
        step: int,
        seed: int,
        count: int,
        size: tuple[int, int],
        focal: tuple[float, float],
        amount: Augmentation,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images uint8 (count, 3, *size) and depths float (count, 1, *size) of one step."""
        rng = np.random.default_rng((seed, step))
        pairs = []
        for source in rng.choice(len(self.sources), count, p=np.asarray(self.shares) / np.sum(self.shares)):
            frames = self.sources[source]
            chances = self.chances[source]
            index = rng.integers(len(frames)) if chances is None else rng.choice(len(frames), p=chances)
            pairs.append(augment(frames[int(index)], size, focal, amount, rng))
        return to_tensors(pairs)

    def kept_back(self, count: int) -> tuple[Sequence[RGBDFrame], Mixture]:
        """The last `count` frames of the first source, and the mixture without them."""
        first, *others = self.sources
        chances, *others_chances = self.chances
        if chances is not None:
            chances = chances[:-count] / chances[:-count].sum()
        return first[-count:], Mixture([first[:-count], *others], self.shares, [chances, *others_chances])


BAND = 0.25
"""Width of a band of `evened`, as a difference of logarithms: a little under 30 %."""


def evened(frames: Sequence[RGBDFrame], focal: tuple[float, float], amount: float) -> np.ndarray:
    """Chances of frames, summing to 1, by which near and far scenes come more equally often than they were recorded.

    Most rooms are 2 to 4 m deep, and a network that sees little else says so of closets and halls too. A frame belongs
    to a band of how far its far end (90th percentile) lies behind the canonical camera; its chance falls with the power
    `amount` of the number of frames in its band: 0 leaves all frames alike, 1 all bands.

    Raises:
        ValueError: a frame without metric depth.
    """
    ends = []
    for frame in frames:
        known = np.empty(0) if frame.depth is None else frame.depth[::4, ::4]
        known = known[np.isfinite(known) & (known > 0)]
        if not len(known):
            raise ValueError(f"frame {frame.name!r} has no metric depth, by which near and far ones are made even")
        size = frame.rgb.shape[0], frame.rgb.shape[1]
        ends.append(np.percentile(known, 90) / Fit(size, size, frame.camera, focal).depth_scale)
    _, bands, counts = np.unique(np.floor(np.log(ends) / BAND), return_inverse=True, return_counts=True)
    weights = counts[bands] ** -float(amount)
    return weights / weights.sum()


def to_tensors(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of `augment` as a batch: images uint8 (N, 3, H, W), depths float (N, 1, H, W)."""
    return stack_images([image for image, _ in pairs]), torch.from_numpy(np.stack([depth for _, depth in pairs]))[
        :, None
    ]

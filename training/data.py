"""What every task does with its images, and batches that are made while others are trained on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from perception.tasks.config import ModelConfig

Batch = TypeVar("Batch")
MEMORY = 4 << 30
"""Bytes of decoded images that are kept, of all sources; the rest is read from disk whenever it is drawn."""
NEIGHBOURS = 8
"""Frames in a row that are held out together: the next frame of a video shows what the last one did."""
Window = tuple[float, float, float, float]
"""x, y, width, height in an image's pixels; it may reach beyond the image."""


@dataclass(frozen=True)
class View:
    """Which pixels of an image a window shows, and where they come to lie when it is stretched over a place.

    Whole pixels, at least one either way; arrays are x, y. What the window shows beyond the image is not covered.
    """

    first: np.ndarray
    """Of the image's pixels."""
    end: np.ndarray
    low: np.ndarray
    """Corner of what they cover of the place."""
    high: np.ndarray

    @classmethod
    def of(cls, window: Window, image: tuple[int, int], place: tuple[int, int]) -> View:
        """The view through a window of an image of (height, width) over a place of (height, width)."""
        x, y, w, h = window
        size, sides = np.array(image[::-1]), np.array(place[::-1])
        scale = sides / (w, h)
        first = np.maximum(0, np.round((x, y))).astype(int)
        end = np.minimum(size, np.maximum(first + 1, np.round((x + w, y + h)))).astype(int)
        low = np.round((first - (x, y)) * scale).astype(int).clip(0)
        high = np.minimum(np.round((end - (x, y)) * scale).astype(int), sides)
        return cls(first, end, np.minimum(low, high - 1), high)

    @property
    def scale(self) -> np.ndarray:
        """Pixels of the place for one of the image, (across, down), as rounding has made it."""
        return (self.high - self.low) / (self.end - self.first)

    @property
    def covered(self) -> tuple[slice, slice]:
        """Rows and columns of the place."""
        return slice(self.low[1], self.high[1]), slice(self.low[0], self.high[0])

    def show(self, image: np.ndarray, place: np.ndarray, nearest: bool = False) -> None:
        """Draw what the window shows of an image onto the place.

        Args:
            nearest: take single pixels, as of a mask; otherwise they are averaged or interpolated.
        """
        part = image[self.first[1] : self.end[1], self.first[0] : self.end[0]]
        shrinks = self.scale.min() < 0.8
        way = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        columns, rows = (int(side) for side in self.high - self.low)
        place[self.covered] = cv2.resize(part, (columns, rows), interpolation=way)


QUARTERS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
"""What turns an image by so many quarters against the clock."""


def vary_color(image: np.ndarray, amount: float, rng: np.random.Generator, hue: float = 0.0) -> np.ndarray:
    """Brightness, contrast, saturation, gamma and white balance, then rounded back to uint8 as a camera gives it.

    Args:
        image: uint8 (H, W, 3) RGB.
        amount: the largest relative change; half of it for gamma and white balance.
        hue: the largest turn around the axis of greys, in turns: 0.5 makes any colour of any other.
    """
    brightness, contrast, saturation = 1 + amount * rng.uniform(-1, 1, 3)
    balance = 1 + amount / 2 * rng.uniform(-1, 1, 3)
    gamma = 1 + amount / 2 * rng.uniform(-1, 1)
    pixels = cv2.LUT(image, (np.arange(256, dtype=np.float32) / 255) ** np.float32(gamma))
    # All but gamma is linear: one matrix for each pixel, which contrast pulls from the mean or towards it.
    mix = np.diag(balance * brightness) @ (saturation * np.eye(3) + (1 - saturation) / 3)
    if hue:
        mix = mix @ _hue_turn(hue * rng.uniform(-1, 1))
    mean = (mix @ cv2.mean(pixels)[:3]).mean()
    affine = 255 * np.column_stack([contrast * mix, np.full(3, (1 - contrast) * mean)])
    affine[:, 3] += 0.5
    return np.clip(cv2.transform(pixels, affine), 0, 255).astype(np.uint8)


def _hue_turn(turns: float) -> np.ndarray:
    """The rotation of RGB around the axis of greys (Rodrigues' formula), which leaves greys as they are."""
    rotation, _ = cv2.Rodrigues(np.full(3, 2 * np.pi * turns / np.sqrt(3)))
    return np.asarray(rotation)


def hold_out(count: int, parts: int) -> tuple[list[int], list[int]]:
    """Numbers of frames to train on and of those that are held out: one of every `parts` runs of neighbours.

    Raises:
        ValueError: too few frames for one to be held out.
    """
    held = [index for index in range(count) if index // NEIGHBOURS % parts == parts // 2]
    if not held:
        raise ValueError(
            f"of {count} frames none are held out, since that is done by runs of {NEIGHBOURS}, one of {parts}; take "
            f"{NEIGHBOURS * (parts // 2) + 1} frames or more, or lower hold_out"
        )
    return sorted(set(range(count)) - set(held)), held


def stack_images(images: Sequence[np.ndarray]) -> torch.Tensor:
    """Images uint8 (H, W, 3) as a batch uint8 (N, 3, H, W): a quarter of the bytes that floats have on their way."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """A batch of `stack_images` as float32 in [0, 1]."""
    return images.float() / 255


class Normalize(nn.Module):
    """An image in [0, 1] as a model's config wants it; shapes (N, 3, H, W)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


def prefetch(make: Callable[[int], Batch], steps: Iterable[int], workers: int = 1, ahead: int = 3) -> Iterator[Batch]:
    """`make(step)` for every step, in order, made in threads while the last one is trained on.

    Args:
        ahead: how many batches may wait.
    """
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(workers, "prefetch") as pool:
        try:
            for step in steps:
                waiting.append(pool.submit(make, step))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for batch in waiting:
                batch.cancel()


def prefetch_in_processes(make: Callable[[int], Batch], steps: Sequence[int]) -> Iterator[Batch]:
    """The same from one process a core, which it takes to keep a GPU busy: threads of Python wait for each other.

    The processes are forked, so that they share what the data set has in memory; nothing in `make` may hold threads.
    """
    loader = DataLoader(
        _Made(make), batch_size=None, sampler=steps, num_workers=len(os.sched_getaffinity(0)),
        pin_memory=torch.cuda.is_available(), multiprocessing_context="fork",
    )  # fmt: skip
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # now: a fork has no threads, and would wait for those of OpenCV's pool without end
    try:
        batches = iter(loader)
    finally:
        cv2.setNumThreads(threads)
    return _checked(batches)


def _checked(batches: Iterator[Batch | Exception]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, Exception):
            raise batch
        yield batch


class _Made(Dataset["Batch | Exception"], Generic[Batch]):
    """What `make` gives for a step, as the data set that a loader wants, which would bury an error in a traceback."""

    def __init__(self, make: Callable[[int], Batch]) -> None:
        self.make = make

    def __getitem__(self, step: int) -> Batch | Exception:
        try:
            return self.make(step)
        except Exception as error:
            return error

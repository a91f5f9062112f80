"""What every task does with its images, and batches that are made while others are trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from perception.tasks.config import ModelConfig

Batch = TypeVar("Batch")


def vary_color(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation, gamma and white balance, then rounded back to uint8 as a camera gives it."""
    brightness, contrast, saturation = 1 + amount * rng.uniform(-1, 1, 3)
    balance = 1 + amount / 2 * rng.uniform(-1, 1, 3).astype(np.float32)
    pixels = (image.astype(np.float32) / 255) ** np.float32(1 + amount / 2 * rng.uniform(-1, 1))
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = (grey + (pixels - grey) * np.float32(saturation)) * balance * np.float32(brightness)
    mean = pixels.mean()
    pixels = mean + (pixels - mean) * np.float32(contrast)
    return np.clip(pixels * 255 + 0.5, 0, 255).astype(np.uint8)


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

"""A data set in memory, and estimates that cost nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perception.evaluation.frames import Dataset, RGBDFrame
from perception.tasks.geometry import Camera

CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)


class InMemory:
    """What a data set, the class that follows among the bases, is with frames at hand; a string instead of a frame is a
    broken sample with that message."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def label(self, index: int) -> str:
        return f"s{index}"

    def files(self, index: int) -> tuple[Path, ...]:
        return ()

    def __getitem__(self, index: int) -> Any:
        sample = self.samples[index]
        if isinstance(sample, str):
            raise ValueError(sample)
        return sample


class MemoryDataset(InMemory, Dataset[RGBDFrame]):
    """Frames at hand, with depth."""

    name = "memory"

    def __init__(
        self, samples: Sequence[RGBDFrame | str], sequence: bool = False, training: Dataset[RGBDFrame] | None = None
    ):
        super().__init__(samples)
        self._sequence, self._training = sequence, training

    @property
    def sequence(self) -> bool:
        return self._sequence

    def training(self) -> Dataset[RGBDFrame] | None:
        return self._training


def flat(depth: float, shade: int = 20, pose: np.ndarray | None = None, camera: Camera | None = CAMERA) -> RGBDFrame:
    """A wall at `depth` metres."""
    size = (camera.height, camera.width) if camera else (48, 64)
    rgb = np.full((*size, 3), shade, np.uint8)
    return RGBDFrame(rgb, np.full(size, depth, np.float32), camera, pose, name=f"{depth:g} m")


def says(metres: float) -> Callable[[RGBDFrame], tuple[np.ndarray, float]]:
    """An estimate that is the same everywhere."""
    return lambda frame: (np.full(frame.rgb.shape[:2], metres, np.float32), math.nan)

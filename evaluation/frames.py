"""The frame that every data set of images with depth yields, and what a data set is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.tasks.geometry import Camera


@dataclass(frozen=True)
class RGBDFrame:
    """An image and, as far as they are known, its depth, camera, pose and time.

    `rgb` is uint8 of shape (height, width, 3); `depth` float32 metres along camera Z of the same height and width, NaN
    where unknown; `pose` camera to world, float64 4x4, metres, optical frame; `stamp` seconds.
    """

    rgb: np.ndarray
    depth: np.ndarray | None = None
    camera: Camera | None = None
    pose: np.ndarray | None = None
    stamp: float | None = None
    name: str = ""


class Dataset(ABC):
    """Frames with true depth, by number."""

    name: str

    @property
    def sequence(self) -> bool:
        """Whether neighbouring frames are neighbours in time, so that stability can be measured."""
        return False

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are, the broken ones included."""

    @abstractmethod
    def __getitem__(self, index: int) -> RGBDFrame:
        """Sample `index`.

        Raises:
            ValueError, OSError: it is broken; the message says what about it.
        """

    @abstractmethod
    def label(self, index: int) -> str:
        """The name of sample `index`, which need not be readable."""

    @abstractmethod
    def files(self, index: int) -> tuple[Path, ...]:
        """The files that sample `index` follows from; none where it is computed."""

    def training(self) -> Dataset | None:
        """The split to train on, None where there is none."""
        return None

    def __iter__(self) -> Iterator[RGBDFrame]:
        return (self[index] for index in range(len(self)))

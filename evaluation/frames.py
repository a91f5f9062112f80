"""The frames that data sets yield, one kind for each kind of truth, and what a data set is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import numpy as np

from perception.tasks.geometry import Camera


@dataclass(frozen=True)
class Frame:
    """An image: `rgb` is uint8 of shape (height, width, 3)."""

    rgb: np.ndarray
    name: str = field(default="", kw_only=True)

    def truth(self) -> tuple[np.ndarray, ...]:
        """The arrays that say what is true of the image, as far as they are known."""
        return ()


@dataclass(frozen=True)
class RGBDFrame(Frame):
    """An image and, as far as they are known, its depth, camera, pose and time.

    `depth` is float32 metres along camera Z of the image's height and width, NaN where unknown; `pose` camera to world,
    float64 4x4, metres, optical frame; `stamp` seconds.
    """

    depth: np.ndarray | None = None
    camera: Camera | None = None
    pose: np.ndarray | None = None
    stamp: float | None = None

    def truth(self) -> tuple[np.ndarray, ...]:
        """Depth."""
        return () if self.depth is None else (self.depth,)


@dataclass(frozen=True)
class BoxFrame(Frame):
    """An image and the boxes of the objects in it.

    `boxes` is float32 (N, 4), x1, y1, x2, y2 in pixels, outer edges: a box of the full image is 0, 0, width, height.
    `labels` is int64 (N,), places in the data set's `labels`. `ignore` is bool (N,): COCO's crowds and VOC's difficult
    objects, which need not be found, and are no mistake if they are, however often. `areas` is float32 (N,), pixels
    within an object's outline, by which COCO tells small from large; None where no outline is known: then it is the box
    that counts. `scores` is float32 (N,), how sure the network was that drew the boxes; None where people did. `crowd`
    is bool (N,), which of those to be ignored are many objects in one box, so that it is enough to lie in it; None:
    none is.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray | None = None
    scores: np.ndarray | None = None
    crowd: np.ndarray | None = None

    def truth(self) -> tuple[np.ndarray, ...]:
        """Boxes, labels, ignore, areas, scores and crowd."""
        more = (values for values in (self.areas, self.scores, self.crowd) if values is not None)
        return self.boxes, self.labels, self.ignore, *more


@dataclass(frozen=True)
class MaskFrame(Frame):
    """An image and the class of each pixel.

    `mask` is uint8 of the image's height and width: places in the data set's `labels`, 255 where nothing is to be said.
    """

    mask: np.ndarray

    def truth(self) -> tuple[np.ndarray, ...]:
        """The mask."""
        return (self.mask,)


@dataclass(frozen=True)
class ClassFrame(Frame):
    """An image and what it shows as a whole: `label`, a place in the data set's `labels`, -1 where it is not known."""

    label: int

    def truth(self) -> tuple[np.ndarray, ...]:
        """The label."""
        return (np.array(self.label),)


@dataclass(frozen=True)
class PairFrame(Frame):
    """A dark image, and the same view in good light: `target` is uint8 of the image's shape."""

    target: np.ndarray

    def truth(self) -> tuple[np.ndarray, ...]:
        """The bright image."""
        return (self.target,)


@dataclass(frozen=True)
class PosedFrame(RGBDFrame):
    """One view of a scene of which there are more; `mask` is uint8 of the image's height and width: 0 what stands
    around, and from 1 on the objects of the scene, each by the same number in every view; None where nobody says."""

    mask: np.ndarray | None = None


@dataclass(frozen=True)
class ViewFrame(Frame):
    """An image, and what the scene looks like from elsewhere.

    `pose` is where the target camera stands in the input camera's optical frame, float64 4x4, metres; `target` what it
    sees, uint8 (height, width, 3). Depths are as in `RGBDFrame`, and masks as in `PosedFrame`, of either image.
    """

    camera: Camera
    pose: np.ndarray
    target: np.ndarray
    target_camera: Camera
    depth: np.ndarray | None = None
    mask: np.ndarray | None = None
    target_depth: np.ndarray | None = None
    target_mask: np.ndarray | None = None

    def truth(self) -> tuple[np.ndarray, ...]:
        """The target's pose and image, and depths and masks as far as they are known."""
        more = (values for values in (self.depth, self.mask, self.target_depth, self.target_mask) if values is not None)
        return self.pose, self.target, *more


F = TypeVar("F", bound=Frame, covariant=True)


class Dataset(ABC, Generic[F]):
    """Frames whose truth is known, by number."""

    name: str
    task: ClassVar[str] = "depth"
    """Whose models it can judge, by what is true of its frames: the name of a task."""

    @property
    def sequence(self) -> bool:
        """Whether neighbouring frames are neighbours in time, so that stability can be measured."""
        return False

    @abstractmethod
    def __len__(self) -> int:
        """How many samples there are, the broken ones included."""

    @abstractmethod
    def __getitem__(self, index: int) -> F:
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

    def training(self) -> Dataset[F] | None:
        """The split to train on, None where there is none."""
        return None

    def __iter__(self) -> Iterator[F]:
        return (self[index] for index in range(len(self)))

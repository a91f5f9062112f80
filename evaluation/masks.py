"""What data sets of images with masks have in common, whatever their files look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from perception.evaluation.frames import Dataset, MaskFrame
from perception.tasks.labels import UNLABELED

STRANGE = -1
"""The class of values that a mask must not have."""
WHOLE = np.s_[:, :]


@dataclass(frozen=True)
class Coding:
    """What the values in files of masks mean.

    `classes` is int16 (256,), the class of each value: a place in `labels`, `UNLABELED` or `STRANGE`. `window` are the
    rows and columns of the files that are a photograph.
    """

    labels: tuple[str, ...]
    classes: np.ndarray
    window: tuple[slice, slice] = WHOLE

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        values: Mapping[int, int] | None = None,
        unlabeled: Sequence[int] = (),
        window: tuple[slice, slice] = WHOLE,
    ) -> Coding:
        """The coding with these classes by value (None: values are places in `labels`); 255 and `unlabeled` are none.

        Raises:
            ValueError: more labels than a mask can tell apart.
        """
        if len(labels) > UNLABELED:
            raise ValueError(f"{len(labels)} labels; a mask of 8 bits tells at most {UNLABELED} classes apart")
        classes = np.full(256, STRANGE, np.int16)
        for value, place in (dict(enumerate(range(len(labels)))) if values is None else values).items():
            classes[value] = place
        classes[[*unlabeled, 255]] = UNLABELED
        return cls(tuple(labels), classes, window)


class MaskDataset(Dataset[MaskFrame]):
    """Images with masks."""

    task: ClassVar[str] = "segmentation"
    labels: tuple[str, ...]
    """Names of the classes, which the values of frames' masks are places in."""


class MaskFiles(MaskDataset):
    """Images and masks, each a file. One that cannot be read, or a mask with strange values, is a broken sample.

    Args:
        pairs: image and mask of each sample.
    """

    def __init__(self, name: str, pairs: Sequence[tuple[Path, Path]], coding: Coding) -> None:
        self.name, self.coding, self.labels = name, coding, coding.labels
        self.pairs = tuple(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def label(self, index: int) -> str:
        """The image's file name without its suffix."""
        return self.pairs[index][0].stem

    def files(self, index: int) -> tuple[Path, ...]:
        """Image and mask."""
        return self.pairs[index]

    def __getitem__(self, index: int) -> MaskFrame:
        image, mask = self.pairs[index]
        # A mask is of the pixels as they are stored, whichever way up the camera was held.
        bgr = cv2.imread(str(image), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if bgr is None:
            raise ValueError(f"{image} is not a readable image; remove or restore it")
        classes = self._classes(mask)
        if classes.shape != bgr.shape[:2]:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (bgr.shape, classes.shape)]
            raise ValueError(f"{image} is {sizes[0]} and its mask {sizes[1]}; restore the image that was annotated")
        window = self.coding.window
        rgb = cv2.cvtColor(np.ascontiguousarray(bgr[window]), cv2.COLOR_BGR2RGB)
        return MaskFrame(rgb, np.ascontiguousarray(classes[window]), name=image.stem)

    def _classes(self, path: Path) -> np.ndarray:
        """The classes in a file, uint8 (height, width)."""
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if values is None:
            raise ValueError(f"the mask {path} cannot be read as an image; restore it")
        if values.ndim != 2 or values.dtype != np.uint8:
            raise ValueError(
                f"the mask {path} is {values.dtype} of shape {values.shape}; accepted are images of one channel of 8 "
                "bits that hold the classes' numbers, not their colours or a palette"
            )
        seen = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        if len(strange := seen[self.coding.classes[seen] == STRANGE]):
            raise ValueError(
                f"the mask {path} has the values {', '.join(map(str, strange))}, which are no class of "
                f"{len(self.labels)}, nor {UNLABELED} for none; complete the list of names"
            )
        return self.coding.classes.astype(np.uint8)[values]

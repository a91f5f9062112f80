"""What data sets of images with masks have in common, whatever their files look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from perception.evaluation.frames import Dataset, MaskFrame
from perception.tasks.labels import UNLABELED

STRANGE = -1
"""The class of values that a mask must not have."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Window:
    """The rows and columns that are a photograph, of files of a size = (height, width)."""

    size: tuple[int, int]
    rows: slice
    columns: slice


@dataclass(frozen=True)
class Coding:
    """What the values in files of masks mean.

    `classes` is int16 (256,), the class of each value: a place in `labels`, `UNLABELED` or `STRANGE`. `window` is what
    is used of the files, all where it is None. `parts` are names of finer classes, all of which a model may know in
    place of `labels`, and of each the label that it is a part of.
    """

    labels: tuple[str, ...]
    classes: np.ndarray
    window: Window | None = None
    parts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        values: Mapping[int, int] | None = None,
        unlabeled: Sequence[int] = (),
        window: Window | None = None,
        parts: Mapping[str, str] | None = None,
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
        return cls(tuple(labels), classes, window, parts or {})


class MaskDataset(Dataset[MaskFrame]):
    """Images with masks."""

    task: ClassVar[str] = "segmentation"
    labels: tuple[str, ...]
    """Names of the classes, which the values of frames' masks are places in."""
    parts: Mapping[str, str] = {}
    """See `Coding`."""


class MaskFiles(MaskDataset):
    """Images and masks, each a file. One that cannot be read, or a mask with strange values, is a broken sample.

    Args:
        pairs: image and mask of each sample.
    """

    def __init__(self, name: str, pairs: Sequence[tuple[Path, Path]], coding: Coding) -> None:
        self.name, self.coding = name, coding
        self.labels, self.parts = coding.labels, coding.parts
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
        if window := self.coding.window:
            if classes.shape != window.size:
                raise ValueError(
                    f"{mask} is {classes.shape[1]}x{classes.shape[0]}, and which part is a photograph is known of "
                    f"{window.size[1]}x{window.size[0]}; restore the original, or name the classes in labels.txt of "
                    "its folder, and all of it is used"
                )
            bgr, classes = bgr[window.rows, window.columns], classes[window.rows, window.columns]
        rgb = cv2.cvtColor(np.ascontiguousarray(bgr), cv2.COLOR_BGR2RGB)
        return MaskFrame(rgb, np.ascontiguousarray(classes), name=image.stem)

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
        if bits := _stretched(path):
            raise ValueError(
                f"the mask {path} has {bits} bits a pixel, which readers stretch to 8 so that classes change their "
                "numbers; save it as an image of 8 bits that hold the classes' numbers"
            )
        seen = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        if len(strange := seen[self.coding.classes[seen] == STRANGE]):
            raise ValueError(
                f"the mask {path} has the values {', '.join(map(str, strange))}, which are no class of "
                f"{len(self.labels)}, nor {UNLABELED} for none; complete the list of names"
            )
        return self.coding.classes.astype(np.uint8)[values]


def _stretched(path: Path) -> int:
    """The bits of a pixel of a PNG file of grey levels, where they are less than 8; 0 of all other files."""
    with path.open("rb") as file:
        head = file.read(26)  # signature; length, name, width and height of the first chunk; bits; type of colour
    grey = head.startswith(SIGNATURE) and head[25] == 0
    return head[24] if grey and head[24] < 8 else 0

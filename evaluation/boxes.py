"""What data sets of images with boxes have in common, whatever their files look like."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from perception.evaluation.frames import BoxFrame, Dataset


@dataclass(frozen=True)
class Annotation:
    """What a file says of the boxes of an image; arrays as in `BoxFrame`.

    `size` is the image's (height, width) in pixels; where it is None, the boxes are shares of the image's sides.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray | None = None
    size: tuple[int, int] | None = None
    scores: np.ndarray | None = None
    crowd: np.ndarray | None = None

    def clipped(self) -> Annotation:
        """Without what lies outside of the image, and without the boxes of which nothing is left then."""
        height, width = self.size or (1, 1)
        boxes = np.clip(self.boxes, 0, (width, height, width, height))
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        areas, scores, crowd = (
            None if values is None else values[kept] for values in (self.areas, self.scores, self.crowd)
        )
        return Annotation(boxes[kept], self.labels[kept], self.ignore[kept], areas, self.size, scores, crowd)


class BoxDataset(Dataset[BoxFrame]):
    """Images with boxes.

    A file that cannot be read is a broken sample; boxes are cut at the image's edges.
    """

    task: ClassVar[str] = "detection"
    labels: tuple[str, ...]
    """Names of the classes, which the frames' `labels` are places in."""

    @abstractmethod
    def annotation(self, index: int) -> Annotation:
        """The boxes of sample `index`, for which no image is read.

        Raises:
            ValueError, OSError: its file is broken.
        """

    @property
    def dropped(self) -> int:
        """How many boxes have no area within their image; they are left out."""
        count = 0
        for index in range(len(self)):
            try:
                annotation = self.annotation(index)
            except (ValueError, OSError):
                continue
            count += len(annotation.boxes) - len(annotation.clipped().boxes)
        return count

    def label(self, index: int) -> str:
        """The image's file name without its suffix."""
        return self.files(index)[0].stem

    def __getitem__(self, index: int) -> BoxFrame:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        path, annotation = self.files(index)[0], self.annotation(index).clipped()
        # Annotations in pixels are of the pixels as they are stored, whichever way up the camera was held.
        upright = 0 if annotation.size is None else cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imread(str(path), cv2.IMREAD_COLOR | upright)
        if image is None:
            raise ValueError(f"{path} is not a readable image; remove or restore it")
        height, width = image.shape[:2]
        if annotation.size not in (None, (height, width)):
            raise ValueError(
                f"{path} is {width}x{height} and its boxes are of {annotation.size[1]}x{annotation.size[0]} pixels; "
                "restore the image that was annotated"
            )
        scale = (width, height, width, height) if annotation.size is None else 1
        return BoxFrame(
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB),
            (annotation.boxes * scale).astype(np.float32),
            annotation.labels,
            annotation.ignore,
            annotation.areas,
            annotation.scores,
            annotation.crowd,
            name=path.stem,
        )


def no_boxes() -> np.ndarray:
    """The boxes of an image without objects."""
    return np.zeros((0, 4), np.float64)

"""Images in folders that are called as what they show: CIFAR-10, ImageNet, and folders of your own."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from perception.evaluation.frames import ClassFrame, Dataset
from perception.evaluation.layouts import split_names
from perception.evaluation.rgbd_folder import IMAGE_SUFFIXES

OTHERS = frozenset({"images", "masks", "rgb", "depth", "label", "labels", "JPEGImages"})
"""Folders of images that are called as what kind they are: of other data sets."""


@dataclass(frozen=True)
class ClassImage:
    """An image file, or a part of an archive: `length` bytes from `start` on. `label` is the name of its folder."""

    path: Path
    label: str
    name: str
    start: int = 0
    length: int | None = None

    def read(self) -> np.ndarray:
        """The image, uint8 RGB (height, width, 3).

        Raises:
            ValueError, OSError: it is none.
        """
        with self.path.open("rb") as file:
            file.seek(self.start)
            data = np.frombuffer(file.read(-1 if self.length is None else self.length), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if image is None:
            raise ValueError(f"{self.name} in {self.path} is not a readable image; remove or restore it")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class ClassDataset(Dataset[ClassFrame]):
    """Images of which each shows one of some classes."""

    task: ClassVar[str] = "classification"
    labels: tuple[str, ...]
    """Names of the classes, which the labels of frames are places in."""


class ClassFolder(ClassDataset):
    """A split: a folder for each class with images in it, in the folder or archive of the split, `eval/` or `eval.tar`;
    or in the data set's own, which is then the split `eval`. Classes are in the order of their names.

    Raises:
        ValueError: no such split.
    """

    def __init__(self, root: Path, split: str = "eval") -> None:
        found = self.find(root, split)
        if found is None:
            raise ValueError(
                f"{root} has no split {split!r}; expected {split}/CLASS/*.jpg or {split}.tar with CLASS/*.jpg in it; "
                "without a folder or archive of a split there is one alone, CLASS/*.jpg, which is called eval"
            )
        self.root, self.split = root, split
        self.name = root.resolve().name if found == root else f"{root.resolve().name} {split}"
        self.images: Sequence[ClassImage] = _in_archive(found) if found.is_file() else _in_folder(found)
        self.labels = tuple(sorted({image.label for image in self.images}))
        self._places = {label: place for place, label in enumerate(self.labels)}

    @staticmethod
    def find(root: Path, split: str) -> Path | None:
        """The folder or archive of a split; None where there is none."""
        for name in split_names(split):
            if _has_classes(root / name):
                return root / name
            if (archive := root / f"{name}.tar").is_file():
                return archive
        return root if split == "eval" and _has_classes(root) else None

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether there is such a folder or archive, of whichever split."""
        return any(cls.find(root, split) for split in ("eval", "train"))

    def __len__(self) -> int:
        return len(self.images)

    def label(self, index: int) -> str:
        """The class and the file's name without its suffix."""
        return self.images[index].name

    def files(self, index: int) -> tuple[Path, ...]:
        """The image, or the archive that it is in."""
        return (self.images[index].path,)

    def __getitem__(self, index: int) -> ClassFrame:
        image = self.images[index]
        return ClassFrame(image.read(), self._places[image.label], name=image.name)

    def training(self) -> ClassFolder | None:
        """The split `train`, where there is one."""
        return ClassFolder(self.root, "train") if self.find(self.root, "train") else None


def _has_classes(folder: Path) -> bool:
    """Whether images lie in folders in it."""
    if not folder.is_dir():
        return False
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    if not inner or OTHERS.intersection(path.name for path in inner):
        return False
    return any(_is_image(path) for path in inner[0].iterdir())


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _in_folder(folder: Path) -> list[ClassImage]:
    paths = sorted(path for path in folder.glob("*/*") if _is_image(path))
    return [ClassImage(path, path.parent.name, f"{path.parent.name}/{path.stem}") for path in paths]


def _in_archive(archive: Path) -> list[ClassImage]:
    """The images of a .tar file that is not compressed, by name."""
    try:
        with tarfile.open(archive, "r:") as file:
            members = [(Path(one.name), one.offset_data, one.size) for one in file if one.isfile()]
    except tarfile.TarError as error:
        raise ValueError(f"{archive} is no .tar file, or compressed ({error}); unpack it") from error
    found = sorted(one for one in members if _is_image(one[0]) and len(one[0].parts) > 1)
    if not found:
        raise ValueError(f"{archive} holds no image in the folder of a class, such as cat/1.jpg; make it anew")
    return [
        ClassImage(archive, path.parent.name, f"{path.parent.name}/{path.stem}", start, length)
        for path, start, length in found
    ]

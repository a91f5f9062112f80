"""Boxes as PASCAL VOC keeps them (Everingham et al., IJCV 2010): an XML file an image, and lists of names as splits."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perception.evaluation.boxes import Annotation, BoxDataset
from perception.evaluation.layouts import read_labels
from perception.evaluation.rgbd_folder import IMAGE_SUFFIXES

SPLITS = (("train_clips", "val_clips"), ("trainval", "test"), ("train", "val"))
"""Lists to train on and to evaluate on, the ones to be preferred first: see `clips` for those."""


class VocObject(NamedTuple):
    """An object as it is written."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class VocBoxes(BoxDataset):
    """`Annotations/*.xml`, `JPEGImages/*.jpg` and `ImageSets/Main/<split>.txt`.

    VOC's corners are whole numbers of pixels from 1 that belong to the box; where a data set has fractions, they are
    its edges already. Difficult objects are to be ignored.

    Args:
        split: a list's name; see `find_list`.
        labels: names of the classes; None: those of `labels.txt` in the folder, else all that occur in it, sorted.

    Raises:
        ValueError: no such split, or an object of a class that is not among the labels.
    """

    def __init__(self, root: Path, split: str, labels: tuple[str, ...] | None = None) -> None:
        self.root, self.split = root, split
        self.name = f"{root.resolve().name} {self.split}"
        self._names = read_names(root, self.split)
        labels = labels or read_labels(root)
        others = () if labels else (path.stem for path in (root / "Annotations").glob("*.xml"))
        wanted = set(self._names)
        read = {name: _try_read(self._xml(name)) for name in wanted.union(others)}
        objects = [entry for found in read.values() if not isinstance(found, str) for entry in found[0]]
        names = {entry.name for entry in objects}
        self.labels = labels or tuple(sorted(names))
        if strangers := sorted(names - set(self.labels)):
            raise ValueError(f"{root} has objects called {', '.join(strangers)}, and labels {', '.join(self.labels)}")
        places = {name: place for place, name in enumerate(self.labels)}
        self._annotations = {
            name: found if isinstance(found, str) else _annotation(*found, places)
            for name, found in read.items()
            if name in wanted
        }

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether a folder looks like VOC."""
        return (folder / "Annotations").is_dir() and (folder / "ImageSets" / "Main").is_dir()

    def _xml(self, name: str) -> Path:
        return self.root / "Annotations" / f"{name}.xml"

    def __len__(self) -> int:
        return len(self._names)

    def files(self, index: int) -> tuple[Path, ...]:
        """Image and annotation."""
        name = self._names[index]
        images = [self.root / "JPEGImages" / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES]
        return next((path for path in images if path.is_file()), images[0]), self._xml(name)

    def annotation(self, index: int) -> Annotation:
        """As its file has it."""
        found = self._annotations[self._names[index]]
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def training(self) -> BoxDataset | None:
        """The list to train on that goes with this one."""
        train = next((train for train, held_out in SPLITS if self.split == held_out), "")
        exists = train and (self.root / "ImageSets" / "Main" / f"{train}.txt").is_file()
        return VocBoxes(self.root, train, self.labels) if exists else None


def read_names(root: Path, split: str) -> list[str]:
    """The images of a list.

    Raises:
        ValueError: there is no such list; the message names those that are there.
    """
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))) or "none"
        raise ValueError(f"{root} has no split {split!r}: {path} is not there; lists that are: {known}")
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]


def find_list(root: Path, split: str) -> str:
    """The list that "train" or "eval" means: of the first of `SPLITS` that is there, whole if any is. Another name is
    a list's own.
    """
    if split not in ("train", "eval"):
        return split
    lists = {path.stem for path in (root / "ImageSets" / "Main").glob("*.txt")}
    pairs = sorted(SPLITS, key=lambda pair: not lists.issuperset(pair))
    return next((pair[split == "eval"] for pair in pairs if pair[split == "eval"] in lists), split)


def read_objects(path: Path) -> tuple[list[VocObject], tuple[int, int]]:
    """The objects of an XML file, and the (height, width) of its image.

    Raises:
        ValueError, OSError: it is damaged, or lacks a name, a corner or the image's size.
    """
    try:
        top = ElementTree.parse(path).getroot()
        height, width = (int(_text(top, f"size/{side}")) for side in ("height", "width"))
        objects = []
        for entry in top.iter("object"):
            x1, y1, x2, y2 = (float(_text(entry, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
            difficult = (entry.findtext("difficult") or "0").strip() == "1"
            objects.append(VocObject(_text(entry, "name").strip(), (x1, y1, x2, y2), difficult))
        return objects, (height, width)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path} is not an annotation of PASCAL VOC: {error}") from error


def _text(entry: ElementTree.Element, name: str) -> str:
    text = entry.findtext(name)
    if text is None:
        raise ValueError(f"{name} is missing")
    return text


def _try_read(path: Path) -> tuple[list[VocObject], tuple[int, int]] | str:
    """Instead of a broken file's content what is wrong with it: one file does not make a data set useless."""
    try:
        return read_objects(path)
    except (ValueError, OSError) as error:
        return str(error)


def _annotation(objects: list[VocObject], size: tuple[int, int], places: dict[str, int]) -> Annotation:
    """Edges of boxes. Corners that are whole numbers throughout a file are pixels counted from 1, as VOC has them."""
    first = int(all(value.is_integer() for entry in objects for value in entry.box))
    boxes = np.array([entry.box for entry in objects], np.float64).reshape(-1, 4)
    boxes[:, :2] -= first
    labels = np.array([places[entry.name] for entry in objects], np.int64)
    return Annotation(boxes, labels, np.array([entry.difficult for entry in objects], bool), None, size)

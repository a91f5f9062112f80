"""Boxes as text files beside images, as YOLO's (Redmon et al., CVPR 2016): `class cx cy w h`, shares of the image.

Where a network drew the boxes, a sixth number says how sure it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from perception.evaluation.boxes import Annotation, BoxDataset, no_boxes
from perception.evaluation.layouts import NAMES, described, find_folders, images_in, read_labels
from perception.tasks.labels import COCO_LABELS

LAYOUTS = (("{}/rgb", "{}/label"), ("images/{}", "labels/{}"), ("{}/images", "{}/labels"))
"""Where images and texts of a split lie."""
YAML = "data.yaml"
"""What else may say how the classes are called."""
LABELS = {"coco": COCO_LABELS, "penn_fudan": ("person",)}
"""Of folders that are known by name and bring no list."""


class YoloBoxes(BoxDataset):
    """A folder of images and a folder of texts with equal names; an image without a text is one without objects.

    Labels come from `labels.txt`, `classes.txt` or `data.yaml` in the folder, else by its name from `LABELS`.

    Raises:
        ValueError: no such split, no images in it, or nothing says what the classes are called.
    """

    def __init__(self, root: Path, split: str = "eval") -> None:
        found = self.find(root, split)
        if found is None:
            raise ValueError(f"{root} has no split {split!r}; expected {described(LAYOUTS, split)}")
        self.root, self.split, (images, self._texts) = root, split, found
        self.name = f"{root.resolve().name} {split}"
        self.labels = _labels(root)
        self._images = images_in(images)

    @staticmethod
    def find(root: Path, split: str) -> tuple[Path, Path] | None:
        """The folders of images and of texts of a split; None where there are none."""
        return find_folders(root, split, LAYOUTS, "*.txt")

    def __len__(self) -> int:
        return len(self._images)

    def files(self, index: int) -> tuple[Path, ...]:
        """Image, text, and the file of the names."""
        image = self._images[index]
        named = (path for name in (*NAMES, YAML) if (path := self.root / name).is_file())
        return image, self._texts / f"{image.stem}.txt", *named

    def annotation(self, index: int) -> Annotation:
        """As its text has it.

        Raises:
            ValueError: a line that is not five numbers, or six in every line, or a class that has no name.
        """
        path = self.files(index)[1]
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()] if path.is_file() else []
        columns = {len(row) for row in rows} or {5}
        if columns not in ({5}, {6}):
            raise ValueError(f"{path}: every line needs five numbers: class cx cy w h, the last four as shares")
        try:
            values = np.array(rows, np.float64).reshape(-1, *columns)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; every line needs five numbers: class cx cy w h") from error
        labels = values[:, 0].astype(np.int64)
        if (labels != values[:, 0]).any() or not ((labels >= 0) & (labels < len(self.labels))).all():
            raise ValueError(f"{path} has a class outside of 0..{len(self.labels) - 1}; complete the list of names")
        centres, halves = values[:, 1:3], values[:, 3:5] / 2
        boxes = np.hstack([centres - halves, centres + halves]) if rows else no_boxes()
        scores = values[:, 5].astype(np.float32) if columns == {6} else None
        return Annotation(boxes, labels, np.zeros(len(rows), bool), scores=scores)

    def training(self) -> BoxDataset | None:
        """The split `train`."""
        return YoloBoxes(self.root, "train") if self.find(self.root, "train") else None


class YoloWriter:
    """Writes a new folder of images with boxes, all of its split `train`; `YoloBoxes` reads it.

    Args:
        licence, source: what the folder's data.yaml says of its content beside the names of the classes.

    Raises:
        ValueError: the folder exists already.
    """

    def __init__(self, folder: Path, labels: Sequence[str], licence: str, source: str) -> None:
        if folder.exists():
            raise ValueError(f"{folder} exists already; choose another folder, or remove it")
        self.folder, self.count = folder, 0
        self._images, self._texts = (folder / kind / "train" for kind in ("images", "labels"))
        for part in (self._images, self._texts):
            part.mkdir(parents=True)
        about = {"path": ".", "train": "images/train", "names": list(labels), "licence": licence, "source": source}
        (folder / YAML).write_text(yaml.safe_dump(about, sort_keys=False))

    def write_image(self, image: Path, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> None:
        """Add a copy of an image.

        Args:
            boxes: (N, 4), x1, y1, x2, y2 as shares of the image.
            labels: int (N,), places in the folder's labels.
            scores: (N,), how sure the network is of each.
        """
        name = f"{self.count:06d}"
        shutil.copyfile(image, self._images / f"{name}{image.suffix.lower()}")
        centred = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
        lines = [
            f"{label} {' '.join(f'{value:.6f}' for value in box)} {score:.3f}\n"
            for label, box, score in zip(labels, centred, scores, strict=True)
        ]
        (self._texts / f"{name}.txt").write_text("".join(lines))
        self.count += 1


def _labels(root: Path) -> tuple[str, ...]:
    """Names of the classes.

    Raises:
        ValueError: nothing says them.
    """
    if labels := read_labels(root):
        return labels
    if (path := root / "data.yaml").is_file():
        names = (yaml.safe_load(path.read_text()) or {}).get("names", ())
        return tuple(str(names[key]) for key in sorted(names)) if isinstance(names, dict) else tuple(map(str, names))
    if (name := root.resolve().name) in LABELS:
        return LABELS[name]
    raise ValueError(f"{root} does not say what its classes are called; put their names into labels.txt, one a line")

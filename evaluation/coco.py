"""Boxes as COCO keeps them (Lin et al., ECCV 2014): one JSON file a split, and a folder of images beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from perception.evaluation.boxes import Annotation, BoxDataset, no_boxes

SPLITS = {"eval": "val"}
PREFIX = "instances_"


class CocoBoxes(BoxDataset):
    """`annotations/instances_<split>.json`. Images without objects count; crowds are to be ignored.

    Labels are the categories in the order of their ids, which may have gaps.

    Args:
        path: the JSON file.

    Raises:
        ValueError: not such a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"{_home(path).resolve().name} {path.stem.removeprefix(PREFIX)}"
        content = _read(path)
        categories = sorted(content["categories"], key=lambda category: category["id"])
        self.labels = tuple(str(category["name"]) for category in categories)
        self._images = sorted(content["images"], key=lambda image: image["id"])
        places = {category["id"]: place for place, category in enumerate(categories)}
        objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in self._images}
        for entry in content["annotations"]:
            if entry["image_id"] not in objects or entry["category_id"] not in places:
                raise ValueError(f"{path}: annotation {entry.get('id')} is of an image or category that is not listed")
            objects[entry["image_id"]].append(entry)
        self._annotations = [_annotation(image, objects[image["id"]], places) for image in self._images]
        self._folder = self._find_images()

    @staticmethod
    def find(folder: Path, split: str) -> Path | None:
        """The file of a split below a folder: the one called so, else the one that begins so; None: there is none.

        Raises:
            ValueError: several begin so.
        """
        for name in (split, SPLITS.get(split, split)):
            paths = sorted((folder / "annotations").glob(f"{PREFIX}{name}*.json"))
            exact = [path for path in paths if path.stem == f"{PREFIX}{name}"]
            if len(paths) > 1 and not exact:
                names = " or ".join(path.name for path in paths)
                raise ValueError(f"{split!r} may be {names} of {folder}; name one as the split, as in --split val2017")
            if paths:
                return (exact or paths)[0]
        return None

    def _find_images(self) -> Path:
        """Where the first image lies; where none is found, where it should."""
        home, split = _home(self.path), self.path.stem.removeprefix(PREFIX)
        places = [home / split, home / "images" / split, home / "images", home, self.path.parent]
        first = self._images[0]["file_name"] if self._images else ""
        return next((place for place in places if (place / first).is_file()), places[0])

    def __len__(self) -> int:
        return len(self._images)

    def files(self, index: int) -> tuple[Path, ...]:
        """Image, and the file of all annotations."""
        return self._folder / self._images[index]["file_name"], self.path

    def annotation(self, index: int) -> Annotation:
        """As the file has it."""
        return self._annotations[index]

    def training(self) -> BoxDataset | None:
        """The split `train`."""
        path = self.find(_home(self.path), "train") if self.path.parent.name == "annotations" else None
        return CocoBoxes(path) if path else None


def _home(path: Path) -> Path:
    """The folder of the data set."""
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def _read(path: Path) -> dict[str, Any]:
    """The file's content, of which the parts that are used are there.

    Raises:
        ValueError: it is another file.
    """
    try:
        content = json.loads(path.read_text())
        for part, names in (
            ("categories", ("id", "name")),
            ("images", ("id", "file_name", "width", "height")),
            ("annotations", ("image_id", "category_id", "bbox")),
        ):
            for entry in content[part]:
                for name in names:
                    entry[name]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not COCO's JSON of boxes ({error!r}); it needs categories, images and annotations with bbox"
        ) from error
    return content


def _annotation(image: dict[str, Any], objects: list[dict[str, Any]], places: dict[int, int]) -> Annotation:
    """COCO's x, y, width, height as edges."""
    boxes = np.array([entry["bbox"] for entry in objects], np.float64).reshape(-1, 4) if objects else no_boxes()
    boxes[:, 2:] += boxes[:, :2]
    crowd = np.array([bool(entry.get("iscrowd")) for entry in objects], bool)
    return Annotation(
        boxes,
        np.array([places[entry["category_id"]] for entry in objects], np.int64),
        crowd,
        np.array([entry.get("area", entry["bbox"][2] * entry["bbox"][3]) for entry in objects], np.float32),
        (int(image["height"]), int(image["width"])),
        crowd=crowd,
    )

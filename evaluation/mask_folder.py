"""Masks as images beside images, with equal names: CamVid, NYU Depth v2, and folders of your own."""

from __future__ import annotations

from pathlib import Path

from perception.evaluation.layouts import (
    NAMES,
    Layout,
    described,
    find_folders,
    images_in,
    read_labels,
    split_names,
)
from perception.evaluation.masks import Coding, MaskFiles
from perception.evaluation.nyu import COLUMNS, ROWS
from perception.tasks.labels import CAMVID_LABELS, NYU13_LABELS, NYU_LABELS

LAYOUTS: tuple[Layout, ...] = (("{}/rgb", "{}/label"), ("images/{}", "masks/{}"), ("{}/images", "{}/masks"))
"""Where images and masks of a split lie."""
PLAIN: Layout = ("images", "masks")
"""Where those of all splits may lie, which lists of names, SPLIT.txt, then divide."""
NYU13 = (11, 4, 5, 0, 3, 8, 9, 11, 12, 5, 7, 5, 12, 9, 5, 12, 5, 6, 6, 4, 6, 2, 1, 5, 10, *[6] * 6, 5, *[6] * 6, 5)
"""Of each of `NYU_LABELS` the place in `NYU13_LABELS`, as class13Mapping.mat of github.com/ankurhanda/nyuv2-meta-data
has it, with which SceneNet RGB-D was measured (McCormac et al., ICCV 2017)."""
CODINGS = {
    "camvid": Coding.of(CAMVID_LABELS, unlabeled=(11,)),
    "nyu_depth_v2": Coding.of(NYU_LABELS, unlabeled=(39,), window=(ROWS, COLUMNS)),
    "nyu_depth_v2:13": Coding.of(NYU13_LABELS, dict(enumerate(NYU13)), (39,), (ROWS, COLUMNS)),
}
"""Of folders that are known by name; what follows a colon is another way to read one."""


class MaskFolder(MaskFiles):
    """A split of a folder: images, and masks of one channel in PNG files of equal names.

    Labels come from `labels.txt` or `classes.txt` in the folder, one a line: a pixel's value is the line of its class,
    from 0 on, and 255 where it has none. `CODINGS` know some folders by name.

    Args:
        split: "train" or "eval", or any other that has a folder or list. A folder that has neither is one split,
            whatever it is called.
        reading: which of several ways to read the folder; see `CODINGS`.

    Raises:
        ValueError: no such split or reading, no images, or nothing says what the classes are called.
    """

    def __init__(self, root: Path, split: str = "eval", reading: str = "") -> None:
        found = self.find(root, split)
        if found is None:
            raise ValueError(f"{root} has no split {split!r}; expected {described((*LAYOUTS, PLAIN), split)}")
        self.root, self.split, self.reading = root, split, reading
        images, masks = found
        paths = images_in(images)
        if images == root / PLAIN[0] and (listed := read_list(root, split)) is not None:
            paths = [path for path in paths if path.stem in listed]
        name = root.resolve().name + (f":{reading}" if reading else "")
        super().__init__(f"{name} {split}", [(path, masks / f"{path.stem}.png") for path in paths], _coding(root, name))

    @staticmethod
    def find(root: Path, split: str) -> tuple[Path, Path] | None:
        """The folders of images and of masks of a split; None where there are none."""
        if found := find_folders(root, split, LAYOUTS, "*.png"):
            return found
        listed = any(read_list(root, other) is not None for other in (split, "train", "eval"))
        if listed and read_list(root, split) is None:
            return None
        return find_folders(root, split, (PLAIN,), "*.png")

    def files(self, index: int) -> tuple[Path, ...]:
        """Image, mask, and the file of the names."""
        return *self.pairs[index], *(path for name in NAMES if (path := self.root / name).is_file())

    def training(self) -> MaskFolder | None:
        """The split `train`, where it is another one."""
        if self.find(self.root, "train") is None:
            return None
        training = MaskFolder(self.root, "train", self.reading)
        return training if training.pairs != self.pairs else None


def _coding(root: Path, name: str) -> Coding:
    """Of the folder that is called `name` with its reading."""
    if name in CODINGS:
        return CODINGS[name]
    if ":" in name:
        known = ", ".join(known for known in CODINGS if ":" in known)
        raise ValueError(f"{name!r}: what follows the colon is no way to read this folder; known are {known}")
    if labels := read_labels(root):
        return Coding.of(labels)
    raise ValueError(f"{root} does not say what its classes are called; put their names into labels.txt, one a line")


def read_list(root: Path, split: str) -> set[str] | None:
    """Names of the images of a split without their suffixes, where a list says them; None where none does."""
    paths = (root / f"{name}.txt" for name in split_names(split))
    path = next((path for path in paths if path.is_file()), None)
    return None if path is None else {Path(line.strip()).stem for line in path.read_text().splitlines() if line.strip()}

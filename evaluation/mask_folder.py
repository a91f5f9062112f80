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
from perception.evaluation.masks import Coding, MaskFiles, Window
from perception.evaluation.nyu import COLUMNS, ROWS, SIZE
from perception.evaluation.rgbd_folder import IMAGE_SUFFIXES
from perception.tasks.labels import CAMVID_LABELS, NYU13_LABELS, NYU_LABELS

LAYOUTS: tuple[Layout, ...] = (("{}/rgb", "{}/label"), ("images/{}", "masks/{}"), ("{}/images", "{}/masks"))
"""Where images and masks of a split lie."""
PLAIN: Layout = ("images", "masks")
"""Where those of all splits may lie, which lists of names, SPLIT.txt, then divide."""
NYU13 = (11, 4, 5, 0, 3, 8, 9, 11, 12, 5, 7, 5, 12, 9, 5, 12, 5, 6, 6, 4, 6, 2, 1, 5, 10, *[6] * 6, 5, *[6] * 6, 5)
"""Of each of `NYU_LABELS` the place in `NYU13_LABELS`, as class13Mapping.mat of github.com/ankurhanda/nyuv2-meta-data
has it, with which SceneNet RGB-D was measured (McCormac et al., ICCV 2017)."""
_NYU = Window(SIZE, ROWS, COLUMNS)
_MERGED = {name: NYU13_LABELS[place] for name, place in zip(NYU_LABELS, NYU13, strict=True)}
CODINGS = {
    "camvid": Coding.of(CAMVID_LABELS, unlabeled=(11,)),
    "nyu_depth_v2": Coding.of(NYU_LABELS, unlabeled=(39,), window=_NYU),
    "nyu_depth_v2:13": Coding.of(NYU13_LABELS, dict(enumerate(NYU13)), (39,), _NYU, _MERGED),
}
"""Of folders that are known by name, where they have no list of names; what follows a colon is another way to read one,
whatever it has."""


class MaskFolder(MaskFiles):
    """A split of a folder: images, and masks of one channel in PNG files of equal names.

    Labels come from `labels.txt` or `classes.txt` in the folder, one a line: a pixel's value is the line of its class,
    from 0 on, and 255 where it has none. Without one, `CODINGS` know some folders by name, a link by its own, too.

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
            there = {path.stem: path for path in paths}
            paths = [there.get(name, images / f"{name}.*") for name in listed]  # what is not there is a broken sample
        name, coding = _coding(root, reading)
        super().__init__(f"{name} {split}", [(path, masks / f"{path.stem}.png") for path in paths], coding)

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


def _coding(root: Path, reading: str) -> tuple[str, Coding]:
    """What a folder is called, with its reading, and its coding."""
    names = [name + (f":{reading}" if reading else "") for name in (root.resolve().name, root.absolute().name)]
    if not reading and (labels := read_labels(root)):
        return names[0], Coding.of(labels)
    if known := next((name for name in names if name in CODINGS), None):
        return known, CODINGS[known]
    if reading:
        known = ", ".join(known for known in CODINGS if ":" in known)
        raise ValueError(f"{names[0]!r}: what follows the colon is no way to read this folder; known are {known}")
    raise ValueError(f"{root} does not say what its classes are called; put their names into labels.txt, one a line")


def read_list(root: Path, split: str) -> list[str] | None:
    """Names of the images of a split without their suffixes, sorted, where a list says them; None where none does."""
    paths = (root / f"{name}.txt" for name in split_names(split))
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    names = (Path(line.strip()) for line in path.read_text().splitlines() if line.strip())
    return sorted({name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name for name in names})

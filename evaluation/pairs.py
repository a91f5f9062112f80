"""Pairs of a dark image and a bright one of the same view, in two folders, as LOL's (Wei et al., BMVC 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from perception.evaluation.frames import Dataset, PairFrame
from perception.evaluation.rgbd_folder import IMAGE_SUFFIXES

LAYOUTS = (("low", "high"), ("Low", "Normal"), ("dark", "bright"), ("input", "target"))
"""Folders of the dark and of the bright images, in that of the split."""
SPLITS = {"eval": ("eval", "val", "test", "eval15", "Test"), "train": ("train", "our485", "Train")}
"""What splits are called; the last ones are those of LOL as it was published, version 1 and 2."""


class PairDataset(Dataset[PairFrame]):
    """A folder of dark images and one of bright images with equal names, but for the folder's own before them.

    The folders lie in that of a split, or in `root` itself, which then is all one split. A dark image without a bright
    one, or with one of another size, is a broken sample.

    Raises:
        ValueError: no such split, or no image in it.
    """

    task: ClassVar[str] = "enhancement"

    def __init__(self, root: Path, split: str = "eval") -> None:
        found = self.find(root, split)
        if found is None:
            layouts = ", ".join(f"{split}/{dark} with {split}/{bright}" for dark, bright in LAYOUTS)
            raise ValueError(f"{root} has no split {split!r}; expected {layouts}, or such folders without {split}/")
        self.root, self.split, (dark, bright) = root, split, found
        self.name = f"{root.resolve().name} {split}" if dark.parent != root else root.resolve().name
        self._bright_folder, self._bright = bright, {_key(path): path for path in _images(bright)}
        self._dark = _images(dark)
        if not self._dark:
            raise ValueError(f"{dark} holds no image; accepted: {', '.join(IMAGE_SUFFIXES)}")

    @staticmethod
    def find(root: Path, split: str) -> tuple[Path, Path] | None:
        """The folders of dark and of bright images of a split; None where there are none."""
        for folder in (*(root / name for name in SPLITS.get(split, (split,))), root):
            for layout in LAYOUTS:
                dark, bright = (folder / name for name in layout)
                if dark.is_dir() and bright.is_dir():
                    return dark, bright
        return None

    def __len__(self) -> int:
        return len(self._dark)

    def label(self, index: int) -> str:
        """The dark image's file name without its suffix."""
        return self._dark[index].stem

    def files(self, index: int) -> tuple[Path, ...]:
        """The dark image and, where there is one, the bright one."""
        bright = self._bright.get(_key(self._dark[index]))
        return (self._dark[index],) if bright is None else (self._dark[index], bright)

    def __getitem__(self, index: int) -> PairFrame:
        paths = self.files(index)
        if len(paths) < 2:
            raise ValueError(
                f"{paths[0]} has no bright image of the same name in {self._bright_folder}; add or drop it"
            )
        dark, bright = map(_read, paths)
        if dark.shape != bright.shape:
            sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in (dark, bright))
            raise ValueError(f"{paths[0]} and its bright image are of {sizes} pixels; they must show the same view")
        return PairFrame(dark, bright, name=self.label(index))

    def training(self) -> PairDataset | None:
        """The split `train`, where there are splits."""
        found = self.find(self.root, "train")
        return PairDataset(self.root, "train") if found and found[0].parent != self.root else None


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    if image is None:
        raise ValueError(f"{path} is not a readable image; remove or restore it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _key(path: Path) -> str:
    """What the names of a pair have in common: LOL's second version calls them low00001 and normal00001."""
    return path.stem.lower().removeprefix(path.parent.name.lower())

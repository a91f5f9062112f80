"""Pairs of a dark image and a bright one of the same view, in two folders, as LOL's (Wei et al., BMVC 2018)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from perception.evaluation.frames import Dataset, PairFrame
from perception.evaluation.layouts import Layout, described, find_folders, images_in, read_rgb

PLAIN: tuple[Layout, ...] = (("low", "high"), ("Low", "Normal"), ("dark", "bright"), ("input", "target"))
"""Folders of the dark and of the bright images, in that of the split, or in the data set's own: the split "eval"."""
LAYOUTS: tuple[Layout, ...] = tuple((f"{{}}/{dark}", f"{{}}/{bright}") for dark, bright in PLAIN)
PUBLISHED = {"eval": ("eval15", "Test"), "train": ("our485", "Train")}
"""What LOL's splits are called as it was published, version 1 and 2."""


class PairDataset(Dataset[PairFrame]):
    """A folder of dark images and one of bright images with equal names; the folder's own may stand before them.

    A dark image without a bright one, with several, or with one of another size, is a broken sample.

    Raises:
        ValueError: no such split, or no image in it.
    """

    task: ClassVar[str] = "enhancement"

    def __init__(self, root: Path, split: str = "eval") -> None:
        found = self.find(root, split)
        if found is None:
            raise ValueError(
                f"{root} has no split {split!r}; expected {described(LAYOUTS, split)}; without a folder of a split "
                "there is one alone, which is called eval"
            )
        self.root, self.split, (dark, self._bright_folder) = root, split, found
        self.name = f"{root.resolve().name} {split}" if dark.parent != root else root.resolve().name
        self._dark = images_in(dark)
        self._bright: list[dict[str, list[Path]]] = [defaultdict(list) for _ in NAMED]
        for path in images_in(self._bright_folder):
            for name, paths in zip(NAMED, self._bright, strict=True):
                paths[name(path)].append(path)

    @staticmethod
    def find(root: Path, split: str) -> tuple[Path, Path] | None:
        """The folders of dark and of bright images of a split; None where there are none."""
        for name in (split, *PUBLISHED.get(split, ())):
            if found := find_folders(root, name, LAYOUTS, "*"):
                return found
        return find_folders(root, split, PLAIN, "*") if split == "eval" else None

    @classmethod
    def is_at(cls, root: Path) -> bool:
        """Whether there are such folders, of whichever split."""
        return any(cls.find(root, split) for split in PUBLISHED)

    def __len__(self) -> int:
        return len(self._dark)

    def label(self, index: int) -> str:
        """The dark image's file name without its suffix."""
        return self._dark[index].stem

    def files(self, index: int) -> tuple[Path, ...]:
        """The dark image and the bright one; without that, or with all that might be it, where none is sure."""
        dark = self._dark[index]
        found = (paths[key] for name, paths in zip(NAMED, self._bright, strict=True) if (key := name(dark)) in paths)
        return dark, *next(found, ())

    def __getitem__(self, index: int) -> PairFrame:
        dark_path, *others = self.files(index)
        if len(others) != 1:
            what = f"{' and '.join(path.name for path in others)} as bright images" if others else "no bright image"
            raise ValueError(f"{dark_path} has {what} of the same name in {self._bright_folder}; one is needed")
        dark, bright = read_rgb(dark_path), read_rgb(others[0])
        if dark.shape != bright.shape:
            sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in (dark, bright))
            raise ValueError(f"{dark_path} and its bright image are of {sizes} pixels; they must show the same view")
        return PairFrame(dark, bright, name=self.label(index))

    def training(self) -> PairDataset | None:
        """The split `train`, where there is one."""
        return PairDataset(self.root, "train") if self.find(self.root, "train") else None


def _bare(path: Path) -> str:
    """LOL's second version calls a pair low00001 and normal00001, in folders called Low and Normal."""
    return path.stem.lower().removeprefix(path.parent.name.lower())


NAMED: tuple[Callable[[Path], str], ...] = (lambda path: path.name, lambda path: path.stem.lower(), _bare)
"""What the two of a pair may have in common, the surest first."""

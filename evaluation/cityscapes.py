"""Cityscapes (Cordts et al., CVPR 2016) as it is published: leftImg8bit/SPLIT/CITY and gtFine/SPLIT/CITY."""

from __future__ import annotations

from pathlib import Path

from perception.evaluation.layouts import split_names
from perception.evaluation.masks import Coding, MaskFiles
from perception.tasks.labels import CITYSCAPES_LABELS

IMAGES, MASKS = "leftImg8bit", "gtFine"
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label ids of the 19 classes; those of others, up to 33, are not evaluated."""
CODINGS = {
    "labelTrainIds": Coding.of(CITYSCAPES_LABELS),
    "labelIds": Coding.of(
        CITYSCAPES_LABELS, dict(zip(IDS, range(19), strict=True)), [value for value in range(34) if value not in IDS]
    ),
}
"""By the end of a mask's name; train ids first, since somebody made them."""


class Cityscapes(MaskFiles):
    """A split: its images, and as masks the files that end in `_labelTrainIds.png`, or else in `_labelIds.png`.

    Args:
        split: "train", "eval", which is the data set's `val`, or another one's folder.

    Raises:
        ValueError: no such split, or no images in it.
    """

    def __init__(self, root: Path, split: str = "eval") -> None:
        self.root = root
        folder = next((name for name in split_names(split) if (root / IMAGES / name).is_dir()), split)
        images = sorted((root / IMAGES / folder).glob(f"*/*_{IMAGES}.png"))
        if not images:
            raise ValueError(f"{root} has no split {split!r}: there is no {IMAGES}/{folder}/CITY/*_{IMAGES}.png")
        masks = root / MASKS / folder
        kind = next((kind for kind in CODINGS if next(masks.glob(f"*/*_{kind}.png"), None)), "labelIds")
        ends = f"_{IMAGES}.png", f"_{MASKS}_{kind}.png"
        pairs = [(path, masks / path.parent.name / path.name.replace(*ends)) for path in images]
        super().__init__(f"{root.resolve().name} {split}", pairs, CODINGS[kind])

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether a folder looks like Cityscapes."""
        return (folder / IMAGES).is_dir() and (folder / MASKS).is_dir()

    def training(self) -> Cityscapes | None:
        """The split `train`, where it is another one."""
        training = Cityscapes(self.root, "train") if (self.root / IMAGES / "train").is_dir() else None
        return training if training and training.pairs != self.pairs else None

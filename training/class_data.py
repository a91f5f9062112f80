"""Images of classes, augmented and batched for training. Every batch is a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from perception.evaluation.class_folder import ClassDataset
from perception.evaluation.frames import ClassFrame
from perception.tasks.config import GREY
from perception.tasks.image import Image, resize
from perception.tasks.messages import encode
from perception.training.data import MEMORY, stack_images, vary_color


@dataclass(frozen=True)
class ClassAugmentation:
    """How strongly an image is varied."""

    shift: float = 0.125
    """Largest way that an image moves, as a share of its sides; what comes into view is its mirror image."""
    zoom: float = 1.0
    """Factor by which it is seen larger or smaller, at most."""
    turn: float = 0.0
    """Largest turn to either side, in degrees."""
    color: float = 0.2
    """Largest relative change of brightness, contrast and saturation; gamma and white balance change by half of it."""
    hue: float = 0.0
    """Largest turn of colours around the axis of greys, in turns."""
    jpeg: float = 0.0
    """Share of images that are compressed as JPEG first, which much of what cameras and data sets hold has been."""
    erase: float = 0.0
    """Share of images of which a rectangle becomes grey (Zhong et al., AAAI 2020)."""
    mixup: float = 0.0
    """Share of images that become a mean of two, weighted anew each time (Zhang et al., ICLR 2018)."""
    cutmix: float = 0.0
    """Share of images over which a rectangle of another is laid (Yun et al., ICCV 2019)."""

    def __post_init__(self) -> None:
        for name in ("shift", "color", "jpeg", "erase", "mixup", "cutmix"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share and must lie between 0 and 1")
        if self.mixup + self.cutmix > 1:
            raise ValueError(f"mixup is {self.mixup} and cutmix {self.cutmix}; no image is in both, so 1 is the most")
        if self.zoom < 1 or not 0 <= self.turn <= 180 or not 0 <= self.hue <= 0.5:
            raise ValueError(
                f"zoom is {self.zoom}, turn {self.turn} and hue {self.hue}; accepted: a factor of 1 or more, 0 to 180 "
                "degrees, 0 to 0.5 turns"
            )


JPEG_QUALITIES = (50, 96)
"""Of images that are compressed: from the first to below the second."""
STILL = ClassAugmentation(shift=0.0, color=0.0)
"""The image as it is."""


def augment(
    image: np.ndarray, size: tuple[int, int], amount: ClassAugmentation, rng: np.random.Generator, mirror: bool
) -> np.ndarray:
    """One training image uint8 (*size, 3): all of `image`, stretched as nodes do, then moved, turned, recoloured, and
    mirrored if it is to be."""
    if image.shape[0] > size[0] or image.shape[1] > size[1]:
        image = resize(image, size, "area")
    if amount.jpeg and rng.random() < amount.jpeg:
        image = _compressed(image, int(rng.integers(*JPEG_QUALITIES)))
    height, width = image.shape[:2]
    zoom = amount.zoom ** rng.uniform(-1, 1)
    angle = np.deg2rad(amount.turn) * rng.uniform(-1, 1)
    down, across = amount.shift * rng.uniform(-1, 1, 2) * (height, width)
    # From the pixels of the result, counted from its middle, to those of the image.
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    matrix = turn @ np.diag([(-1 if mirror else 1) * width / size[1], height / size[0]])
    middle = np.array([width, height]) / 2 + (across, down) - 0.5
    affine = np.column_stack([matrix, middle - matrix @ ((np.array(size[::-1]) - 1) / 2)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(image, affine, size[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    if amount.color or amount.hue:
        image = vary_color(image, amount.color, rng, amount.hue)
    if rng.random() < amount.erase:
        image[_rectangle(size, rng.uniform(0.02, 0.25), rng)] = GREY
    return image


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """What JPEG leaves of an image, uint8 (H, W, 3)."""
    code, _ = encode(Image(image, "rgb8"), "jpeg", quality)
    return cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)  # type: ignore[arg-type]


def _rectangle(size: tuple[int, int], area: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a share of an image, anywhere; what lies beyond its edges is cut off."""
    stretch = 2 ** rng.uniform(-1, 1)
    slices = []
    for length, share in zip(size, ((area * stretch) ** 0.5, (area / stretch) ** 0.5), strict=True):
        middle, half = rng.uniform(0, length), share * length / 2
        slices.append(slice(max(0, round(middle - half)), min(length, max(1, round(middle + half)))))
    return slices[0], slices[1]


class Images(Sequence[ClassFrame]):
    """Some images of a data set with the network's class of each, in memory as far as `memory` bytes reach.

    `labels` is int64 (images,). `spare` are the bytes that are left.

    Args:
        chosen: numbers of images.
        places: the network's class of each of the data set's, -1 where it has none: such images are left out.

    Raises:
        ValueError, OSError: a broken sample.
    """

    def __init__(self, dataset: ClassDataset, chosen: Sequence[int], places: np.ndarray, memory: int = MEMORY) -> None:
        self.dataset, self.chosen, labels = dataset, list[int](), list[int]()
        self._kept: dict[int, np.ndarray] = {}
        for number in tqdm(chosen, desc=f"read {dataset.name}"):
            frame = dataset[number]
            if places[frame.label] < 0:
                continue
            if frame.rgb.nbytes > memory:
                memory = 0  # the first images are kept
            else:
                self._kept[len(labels)], memory = frame.rgb, memory - frame.rgb.nbytes
            self.chosen.append(number)
            labels.append(int(places[frame.label]))
        self.labels, self.spare = np.array(labels, np.int64), memory

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> ClassFrame:  # type: ignore[override]
        kept = self._kept.get(index)
        rgb = self.dataset[self.chosen[index]].rgb if kept is None else kept
        return ClassFrame(rgb, int(self.labels[index]))


class ClassMixture:
    """Sources of training images.

    Args:
        shares: each source's in a batch.
        gathered: the class of which `part` of the images drawn are, however many there are; None: there is none.

    Raises:
        ValueError: no images in a source, or none of a class.
    """

    def __init__(
        self,
        sources: Sequence[Images],
        shares: Sequence[float],
        classes: int,
        gathered: int | None = None,
        part: float = 0.5,
    ) -> None:
        self.sources, self.shares = sources, np.asarray(shares) / np.sum(shares)
        counts = sum(np.bincount(source.labels, minlength=classes) for source in sources)
        if not np.all(counts) or not all(map(len, sources)):
            places = ", ".join(map(str, np.flatnonzero(counts == 0)))
            raise ValueError(f"no training image shows the classes number {places or '-'}, or a source has none at all")
        self._before = [0, *np.cumsum([len(source) for source in sources])[:-1].tolist()]
        """How many images the sources before each have."""
        self._chances = [_chances(source.labels, gathered, part) for source in sources]

    def batch(
        self, step: int, seed: int, count: int, size: tuple[int, int], amount: ClassAugmentation
    ) -> tuple[torch.Tensor, ...]:
        """Images uint8 (count, 3, *size) of one step, half of them mirrored; the classes of the one or two that each
        consists of, int64 (count,) twice; the first one's share, float32 (count,); and which the first one is, int64
        (count,): twice its number among the images of all sources, and 1 more if it is mirrored. The second one is the
        first one of the next."""
        rng = np.random.default_rng((seed, step))
        pictures, labels, which = [], [], []
        for _ in range(count):
            number = int(rng.choice(len(self.shares), p=self.shares))
            source, chances = self.sources[number], self._chances[number]
            index = int(np.searchsorted(chances, rng.random(), side="right"))
            index, mirror = min(index, len(source) - 1), bool(rng.random() < 0.5)
            frame = source[index]
            pictures.append(augment(frame.rgb, size, amount, rng, mirror))
            labels.append(frame.label)
            which.append(2 * (self._before[number] + index) + mirror)
        mixed, shares = zip(*(_mix(pictures, i, amount, rng) for i in range(count)), strict=True)
        first = torch.tensor(labels)
        share = torch.tensor(shares, dtype=torch.float32)
        return stack_images(mixed), first, first.roll(-1), share, torch.tensor(which)


def _chances(labels: np.ndarray, gathered: int | None, part: float) -> np.ndarray:
    """Of drawing one of the images up to each, float64 (images,)."""
    weights = np.ones(len(labels))
    if gathered is not None and part and 0 < (count := int((labels == gathered).sum())) < len(labels):
        weights = np.where(labels == gathered, part / count, (1 - part) / (len(labels) - count))
    return np.cumsum(weights / weights.sum())


def _mix(
    pictures: Sequence[np.ndarray], index: int, amount: ClassAugmentation, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Image `index` with what it gets of the next one, and its own share."""
    kind = rng.random()
    mine, other = pictures[index], pictures[(index + 1) % len(pictures)]
    share = rng.random()
    if kind < amount.mixup:
        return cv2.addWeighted(mine, share, other, 1 - share, 0), share
    if kind < amount.mixup + amount.cutmix:
        size = mine.shape[:2]
        place = _rectangle(size, 1 - share, rng)
        mine = mine.copy()
        mine[place] = other[place]
        covered = np.zeros(size, bool)
        covered[place] = True
        return mine, 1 - float(covered.mean())
    return mine, 1.0


class Relabelled(ClassDataset):
    """A data set with a network's labels in place of its own.

    Args:
        places: as for `Images`.
        chosen: numbers of the images. Broken samples count.
    """

    def __init__(self, dataset: ClassDataset, labels: Sequence[str], places: np.ndarray, chosen: Sequence[int]) -> None:
        self.name, self.labels = dataset.name, tuple(labels)
        self._dataset, self._places, self._chosen = dataset, places, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> ClassFrame:
        frame = self._dataset[self._chosen[index]]
        return ClassFrame(frame.rgb, int(self._places[frame.label]), name=frame.name)

    def label(self, index: int) -> str:
        """See `Dataset`."""
        return self._dataset.label(self._chosen[index])

    def files(self, index: int) -> tuple[Path, ...]:
        """See `Dataset`."""
        return self._dataset.files(self._chosen[index])

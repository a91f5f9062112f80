"""Names of classes of well-known data sets, in their order."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

COCO_LABELS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 classes of COCO."""
CIFAR10_LABELS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
"""The 10 classes of CIFAR-10 (Krizhevsky, 2009)."""
CAMVID_LABELS = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
"""The 11 classes of CamVid as SegNet grouped them (Badrinarayanan et al., TPAMI 2017)."""
CITYSCAPES_LABELS = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""The 19 classes of Cityscapes that count, by train id."""
NYU_LABELS = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture",
)  # fmt: skip
"""The 40 classes of NYU Depth v2 (Gupta et al., CVPR 2013) without the last, other objects."""
NYU13_LABELS = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "television",
    "wall", "window",
)  # fmt: skip
"""The 13 classes into which those of NYU Depth v2 are merged (Couprie et al., ICLR 2013)."""
FOD_LABELS = (
    "AdjustableClamp", "AdjustableWrench", "Battery", "Bolt", "BoltNutSet", "BoltWasher", "ClampPart", "Cutter",
    "FuelCap", "Hammer", "Hose", "Label", "LuggagePart", "LuggageTag", "MetalPart", "MetalSheet", "Nail", "Nut",
    "PaintChip", "Pen", "PlasticPart", "Pliers", "Rock", "Screw", "Screwdriver", "SodaCan", "Tape", "Washer", "Wire",
    "Wood", "Wrench",
)  # fmt: skip
"""The 31 classes of FOD-A, debris on runways (Munyer et al., SPIE 2022), as its files write them."""
UNUSED = ""
"""The name of a class that a network has a score for and that nothing belongs to."""
UNLABELED = 255
"""What a mask says of a pixel without a class; as vision_msgs reserves it, and data sets use it."""
_COCO_GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82)


def coco_slots() -> tuple[str, ...]:
    """COCO's 90 category ids, from 1 on, as TensorFlow's detectors number them: ten of them are `UNUSED`."""
    names = list(COCO_LABELS)
    for gap in _COCO_GAPS:
        names.insert(gap, UNUSED)
    return tuple(names)


NAMED_LABELS: Mapping[str, tuple[str, ...]] = {
    "coco": COCO_LABELS,
    "coco_slots": coco_slots(),
    "cifar10": CIFAR10_LABELS,
    "camvid": CAMVID_LABELS,
    "cityscapes": CITYSCAPES_LABELS,
    "nyu": NYU_LABELS,
    "nyu13": NYU13_LABELS,
    "fod": FOD_LABELS,
}
"""Lists of classes that a description can name."""


@lru_cache(maxsize=64)  # every frame asks again
def chosen(names: str, labels: tuple[str, ...]) -> np.ndarray | None:
    """Which of `labels` are named, bool (labels,); None where `names` is empty.

    Args:
        names: as in `labels`, separated by commas: a name may have spaces.

    Raises:
        ValueError: a name that is none of `labels`; the message says which are like it.
    """
    wanted = [name for name in (part.strip() for part in names.split(",")) if name]
    for name in wanted:
        if name not in labels:
            raise ValueError(f"class {name!r} is unknown here; {_alike(name, labels)}")
    if not wanted:
        return None
    result = np.array([label in wanted for label in labels])
    result.flags.writeable = False
    return result


def _alike(name: str, labels: Sequence[str]) -> str:
    """What may have been meant, or all that could be."""
    known = [label for label in labels if label != UNUSED]
    words = name.lower().split()
    shared = [label for label in known if set(words) & set(label.lower().split())]
    lower = {label.lower(): label for label in known}
    alike = [lower[text] for text in difflib.get_close_matches(name.lower(), lower)]
    if found := [repr(label) for label in dict.fromkeys([*alike, *shared])]:
        return f"like it are {', '.join(found)} (separate names by commas)"
    return f"accepted are, separated by commas: {', '.join(known)}"

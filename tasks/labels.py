"""Names of classes of well-known data sets, in their order."""

from __future__ import annotations

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
UNUSED = ""
"""The name of a class that a network has a score for and that nothing belongs to."""
_COCO_GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82)


def coco_slots() -> tuple[str, ...]:
    """COCO's 90 category ids, from 1 on, as TensorFlow's detectors number them: ten of them are `UNUSED`."""
    names = list(COCO_LABELS)
    for gap in _COCO_GAPS:
        names.insert(gap, UNUSED)
    return tuple(names)

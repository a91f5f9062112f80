"""What is true of images on topics, and how a pipeline's results are held against it: as in an evaluation."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from perception.evaluation import true_boxes
from perception.evaluation.assessment import find_assessment
from perception.evaluation.detection import Prediction
from perception.evaluation.frames import BoxFrame, Dataset, F, RGBDFrame
from perception.evaluation.harness import measure
from perception.tasks.detection import Detections
from perception.tasks.messages import IMAGE_TYPES, NamedBoxes, boxes_from_message, image_from_message, metres_of

STRIDE = 4
"""Of depth every fourth row and column: keeping whole maps would cost memory, and scoring them time."""


class Truth(Dataset[F]):
    """Frames of a topic, by their stamps; nothing is kept of their images."""

    name = "the truth"
    kinds: ClassVar[tuple[str, ...]]
    """Types of messages with results that can be held against it."""

    def __init__(self, frames: Mapping[int, F]) -> None:
        self._frames = frames
        self.stamps = sorted(frames)

    def __len__(self) -> int:
        return len(self.stamps)

    def __getitem__(self, index: int) -> F:
        return self._frames[self.stamps[index]]

    def knows(self, stamp: int) -> bool:
        """Whether there is a frame of this stamp."""
        return stamp in self._frames

    def label(self, index: int) -> str:
        """The stamp in seconds."""
        return f"{self.stamps[index] / 1e9:.6f}"

    def files(self, index: int) -> tuple[Path, ...]:
        """None: all is in memory."""
        return ()

    @abstractmethod
    def read(self, message: Any) -> Any:
        """What is kept of a result.

        Raises:
            MessageError: it is none that can be compared.
        """

    def scores(self, found: Mapping[int, Any]) -> dict[str, Any]:
        """`metrics` and `ci95` of the task's assessment by its usual options, over the frames of which a result came
        and could be measured; how many those are, `frames`, and the `task`.

        Args:
            found: what `read` kept of results, by stamp.

        Raises:
            ValueError: nothing can be compared; the message says why.
        """
        assessment = find_assessment(self.task)()
        rows = [
            measure(partial(_came, found[stamp]), self, place, assessment)[0]
            for place, stamp in enumerate(self.stamps)
            if stamp in found
        ]
        if not rows:
            raise ValueError("no result has the stamp of a true frame")
        if all("error" in row for row in rows):
            raise ValueError(f"none of {len(rows)} results can be compared; the first: {rows[0]['error']}")
        summary = assessment.summarise(rows)
        measured = {name: summary[name] for name in ("metrics", "ci95")}
        return {"task": self.task, **measured, "frames": len(rows) - len(summary["failed"])}


def _came(result: Any, frame: Any) -> tuple[Any, float]:
    """As `Estimate`: what a pipeline made of a frame, in a time that is measured elsewhere."""
    return result, math.nan


class DepthTruth(Truth[RGBDFrame]):
    """True depth: maps of metres by stamp, float32, of every `STRIDE`th row and column."""

    task, kinds = "depth", IMAGE_TYPES

    def __init__(self, maps: Mapping[int, np.ndarray]) -> None:
        dark = np.zeros(3, np.uint8)
        super().__init__(
            {stamp: RGBDFrame(np.broadcast_to(dark, (*metres.shape, 3)), metres) for stamp, metres in maps.items()}
        )

    @staticmethod
    def read(message: Any) -> np.ndarray:
        """The map of a sensor_msgs/Image or CompressedImage.

        Raises:
            MessageError: no image of depth.
        """
        return metres_of(image_from_message(message))[::STRIDE, ::STRIDE].copy()


class BoxTruth(Truth[BoxFrame]):
    """True boxes by stamp. Classes of both sides are the same where their names are; others are not looked for."""

    task, kinds = "detection", (true_boxes.KIND,)

    def __init__(self, boxes: Mapping[int, NamedBoxes]) -> None:
        self.labels = tuple(sorted({name for one in boxes.values() for name in one.names}))
        super().__init__({stamp: true_boxes.frame_of(one, self.labels) for stamp, one in boxes.items()})

    def read(self, message: Any) -> NamedBoxes:
        """Of a vision_msgs/Detection2DArray."""
        return boxes_from_message(message)

    def scores(self, found: Mapping[int, NamedBoxes]) -> dict[str, Any]:
        """See `Truth`. What is true and was not found under its name is missed."""
        names = {name for one in found.values() for name in one.names}
        if names and names.isdisjoint(self.labels):
            raise ValueError(
                f"no class in common: the results are called {_listed(names)}, the true boxes {_listed(self.labels)}"
            )
        return super().scores({stamp: self._prediction(one) for stamp, one in found.items()})

    def _prediction(self, boxes: NamedBoxes) -> Any:
        kept = np.array([name in self.labels for name in boxes.names], bool)
        places = [self.labels.index(name) for name in boxes.names if name in self.labels]
        found = Detections(boxes.boxes[kept], boxes.scores[kept], np.array(places, np.int64))
        return Prediction(found, np.ones(len(self.labels), bool))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def accuracy_text(scores: Mapping[str, Any]) -> str:
    """What `Truth.scores` gave, as a person reads it: e.g. "mAP 0.512 ± 0.021, AP50 …"."""
    assessment = find_assessment(scores["task"])
    return ", ".join(map(" ".join, zip(assessment.columns, assessment.cells(scores), strict=True)))

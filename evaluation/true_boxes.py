"""True boxes as messages tell them: vision_msgs/Detection2DArray on the topic `detections_true` beside the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perception.evaluation.frames import BoxFrame
from perception.tasks.messages import NamedBoxes

KIND = "vision_msgs/msg/Detection2DArray"
TOPIC = "detections_true"
"""In the namespace of the images."""
CROWD, DIFFICULT = "crowd", "difficult"
"""Ids of what is to be ignored (see `BoxFrame`): the message has no field for it."""


def named(frame: BoxFrame, labels: Sequence[str]) -> NamedBoxes:
    """A frame's boxes as a message tells them; `labels` are those of its data set."""
    count = len(frame.labels)
    crowd = np.zeros(count, bool) if frame.crowd is None else frame.crowd
    ids = np.where(crowd, CROWD, np.where(frame.ignore, DIFFICULT, ""))
    scores = np.ones(count, np.float32) if frame.scores is None else frame.scores
    return NamedBoxes(frame.boxes, scores, tuple(labels[label] for label in frame.labels), tuple(ids.tolist()))


def frame_of(boxes: NamedBoxes, labels: Sequence[str]) -> BoxFrame:
    """What `named` made a message of, without the image; `labels` has all names."""
    crowd, difficult = (np.array([name == word for name in boxes.ids], bool) for word in (CROWD, DIFFICULT))
    places = np.array([labels.index(name) for name in boxes.names], np.int64)
    return BoxFrame(np.zeros((0, 0, 3), np.uint8), boxes.boxes, places, crowd | difficult, crowd=crowd)

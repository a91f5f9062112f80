"""vision_msgs: detections, classifications and names of classes as messages, and the outputs that publish them.

Version 4.1 and later, which apt has for Humble and all ROS 2 since; before 4.0 a box's centre had other fields.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Header
from vision_msgs.msg import Classification as ClassificationMessage
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    VisionClass,
)

from perception.nodes.outputs import LATCHED, RESULTS, Output
from perception.tasks.classification import Classification
from perception.tasks.detection import Detections
from perception.tasks.labels import UNUSED


class DetectionsMessage:
    """Makes vision_msgs/Detection2DArray of detections. Parts of messages are used again: to make one takes longer than
    all that is written into it, above all for the 36 covariances of a pose that no box has.
    """

    def __init__(self) -> None:
        self._parts: list[Detection2D] = []

    def fill(self, detections: Detections, labels: Sequence[str], header: Header) -> Detection2DArray:
        """The message, valid until the next call; `header` goes in as it is, into every detection too.

        Each has one hypothesis, whose class_id is the name in `labels`, and as id its number if tracking gave it one.
        """
        while len(self._parts) < len(detections):
            self._parts.append(Detection2D(results=[ObjectHypothesisWithPose()]))
        parts = self._parts[: len(detections)]
        boxes = detections.boxes.astype(float)
        centers, sizes = ((boxes[:, :2] + boxes[:, 2:]) / 2).tolist(), (boxes[:, 2:] - boxes[:, :2]).tolist()
        scores, tracks = detections.scores.tolist(), [0] * len(parts)
        if detections.tracks is not None:
            tracks = detections.tracks.tolist()
        for part, center, size, score, label, track in zip(
            parts, centers, sizes, scores, detections.labels.tolist(), tracks, strict=True
        ):
            part.header = header
            part.id = str(track) if track else ""
            hypothesis = part.results[0].hypothesis
            hypothesis.class_id, hypothesis.score = labels[label], score
            position = part.bbox.center.position
            position.x, position.y = center
            part.bbox.size_x, part.bbox.size_y = size
        return Detection2DArray(header=header, detections=parts)


def labels_to_message(labels: Sequence[str], threshold: float, header: Header) -> LabelInfo:
    """vision_msgs/LabelInfo: the place and name of every class that something can belong to."""
    message = LabelInfo(header=header, threshold=threshold)
    named = [(number, name) for number, name in enumerate(labels) if name != UNUSED]
    message.class_map = [VisionClass(class_id=number, class_name=name) for number, name in named]
    return message


class DetectionsOutput(Output):
    """vision_msgs/Detection2DArray. Nodes of the process get the `Detections`, the names of classes, and the header."""

    message_type = Detection2DArray
    exchanges = True

    def __init__(self, node: Node, topic: str, qos: QoSProfile = RESULTS) -> None:
        super().__init__(node, topic, qos)
        self._message = DetectionsMessage()

    def publish(self, detections: Detections, labels: tuple[str, ...], header: Header) -> None:
        """`detections` must not change any more; `labels` are names by number."""
        self._exchange.send(self.topic, detections, labels, header)
        if self._sends:
            self._send(self._message.fill(detections, labels, header))


class ClassificationOutput(Output):
    """vision_msgs/Classification."""

    message_type = ClassificationMessage

    def publish(self, found: Classification, labels: Sequence[str], header: Header, most: int) -> None:
        """The `most` likeliest of `labels` and their chances, best first."""
        best = np.argsort(-found.scores, kind="stable")[:most].tolist()
        results = [ObjectHypothesis(class_id=labels[number], score=float(found.scores[number])) for number in best]
        self._send(ClassificationMessage(header=header, results=results))


class LabelsOutput(Output):
    """vision_msgs/LabelInfo, latched."""

    message_type = LabelInfo

    def __init__(self, node: Node, topic: str, qos: QoSProfile = LATCHED) -> None:
        super().__init__(node, topic, qos)
        self._last: tuple[tuple[str, ...], float] | None = None
        self._alone = True

    @property
    def wanted(self) -> bool:
        """False: no image need be looked at for it."""
        return False

    def publish(self, labels: tuple[str, ...], threshold: float) -> None:
        """Names of classes by number, and the score from which on something is reported, if they have changed.

        Warns, once, where another node publishes such a table there: who reads it would mix them up.
        """
        if self._alone and self._node.count_publishers(self.topic) > 1:
            self._alone = False
            self._node.get_logger().warning(
                f"another node publishes {self.topic} too, and whoever reads it takes the names of one for those of "
                "the other; give one of them another topic (labels:=mask/labels of a pipeline, -r labels:=mask/labels)"
            )
        if self._last != (labels, threshold):
            self._last = labels, threshold
            self._send(labels_to_message(labels, threshold, Header(stamp=self._node.get_clock().now().to_msg())))

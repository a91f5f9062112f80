"""Frames of one camera as messages of a recording."""

from __future__ import annotations

from typing import Any

import numpy as np

from perception.evaluation import bags, true_boxes
from perception.tasks.calibration import Calibration
from perception.tasks.image import Image
from perception.tasks.messages import NamedBoxes

COMPRESSIONS = ("none", "jpeg", "png")


class FrameWriter:
    """Appends frames to a bag: pose, calibration and truth before the image that they belong to, under one stamp.

    Topics are `image_raw` (or `image_raw/compressed`), `camera_info`, `depth_true` (32FC1 metres, REP 118),
    `detections_true` (see `true_boxes`) and `pose` in the camera's namespace, and `/tf`. The poses are those of the
    optical frame in the frame `world`.

    Args:
        namespace: of the camera; its slashes become underscores in the name of the optical frame.
        compression: of the images, one of `COMPRESSIONS`.
        quality: of a JPEG, 1 to 100.

    Raises:
        ValueError: unknown compression.
    """

    def __init__(
        self, bag: bags.BagWriter, namespace: str = "camera", compression: str = "none", quality: int = 90
    ) -> None:
        if compression not in COMPRESSIONS:
            raise ValueError(f"compression {compression!r} is unknown; accepted: {', '.join(COMPRESSIONS)}")
        name = namespace.strip("/")
        self._bag, self._compression, self._quality = bag, compression, quality
        self._prefix = f"/{name}/" if name else "/"
        self.frame_id = f"{name.replace('/', '_') or 'camera'}_color_optical_frame"

    def write(
        self,
        stamp: int,
        image: Image,
        calibration: Calibration | None = None,
        depth: np.ndarray | None = None,
        pose: np.ndarray | None = None,
        boxes: NamedBoxes | None = None,
    ) -> None:
        """Append a frame.

        Args:
            stamp: nanoseconds, of the headers and of the recording.
            depth: float32 metres (height, width), NaN where unknown.
            pose: camera to world, 4x4.
        """
        head = bags.header(stamp, self.frame_id)
        if pose is not None:
            stamped, transform = bags.pose_messages(pose, bags.header(stamp, "world"), self.frame_id)
            self._bag.write(f"{self._prefix}pose", stamped, stamp)
            self._bag.write("/tf", transform, stamp)
        if calibration is not None:
            self._bag.write(f"{self._prefix}camera_info", bags.info_message(calibration, head), stamp)
        if depth is not None:
            self._bag.write(f"{self._prefix}depth_true", bags.image_message(Image(depth, "32FC1"), head), stamp)
        if boxes is not None:
            self._bag.write(f"{self._prefix}{true_boxes.TOPIC}", detections_message(boxes, head), stamp)
        if self._compression == "none":
            self._bag.write(f"{self._prefix}image_raw", bags.image_message(image, head), stamp)
        else:
            message = bags.compressed_message(image, head, self._compression, self._quality)
            self._bag.write(f"{self._prefix}image_raw/compressed", message, stamp)


def detections_message(boxes: NamedBoxes, head: Any) -> Any:
    """vision_msgs/Detection2DArray; the header goes into every detection too."""
    make, package, pose = bags.message, "vision_msgs/msg", _pose()
    centres, sides = (boxes.boxes[:, :2] + boxes.boxes[:, 2:]) / 2, boxes.boxes[:, 2:] - boxes.boxes[:, :2]
    detections = []
    for (x, y), (width, height), score, name, number in zip(
        centres.tolist(), sides.tolist(), boxes.scores.tolist(), boxes.names, boxes.ids, strict=True
    ):
        hypothesis = make(f"{package}/ObjectHypothesis", class_id=name, score=score)
        centre = make(f"{package}/Pose2D", position=make(f"{package}/Point2D", x=x, y=y), theta=0.0)
        result = make(f"{package}/ObjectHypothesisWithPose", hypothesis=hypothesis, pose=pose)
        bbox = make(f"{package}/BoundingBox2D", center=centre, size_x=width, size_y=height)
        detections.append(make(f"{package}/Detection2D", header=head, results=[result], bbox=bbox, id=number))
    return make(true_boxes.KIND, header=head, detections=detections)


def _pose() -> Any:
    """Of no meaning: a box has none."""
    origin = bags.message("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0)
    upright = bags.message("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    pose = bags.message("geometry_msgs/msg/Pose", position=origin, orientation=upright)
    return bags.message("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36))

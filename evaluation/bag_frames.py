"""A rosbag with ground truth as a data set: images, depth, calibration and poses, matched by stamp."""

from __future__ import annotations

import bisect
from pathlib import Path
from typing import Any

import numpy as np

from perception.evaluation import true_boxes
from perception.evaluation.bags import Bag, choose_images, only_depth_topic, true_depth_topic
from perception.evaluation.frames import Dataset, RGBDFrame
from perception.evaluation.truth import BoxTruth, DepthTruth, Truth
from perception.tasks.calibration import Calibration
from perception.tasks.image import to_color
from perception.tasks.messages import boxes_from_message, calibration_from_message, image_from_message, metres_of
from perception.tasks.poses import rotation_of

SLOP = 20_000_000
"""Nanoseconds by which the stamps of an image and its depth may differ: less than a frame of 30 Hz."""


class BagFrames(Dataset[RGBDFrame]):
    """Colour images of a bag with the depth beside them (`depth_true`, or the bag's only depth topic).

    Depth must be registered to the colour image; images with lens distortion are rectified, and so is the depth. Each
    image is matched with the depth, and the pose, whose stamp is nearest, up to `SLOP`.

    Args:
        topic: of the images, "" where there is only one.

    Raises:
        ValueError: the bag has no such images, no depth, or several topics to choose from.
    """

    def __init__(self, path: Path, topic: str = "") -> None:
        self.path, self.name = path, path.resolve().stem
        self._bag = Bag(path)
        self.topic = choose_images(self._bag, topic)
        self.depth_topic = true_depth_topic(self._bag, self.topic) or only_depth_topic(self._bag)
        if self.depth_topic is None:
            raise ValueError(
                f"{path} has no depth beside {self.topic}: expected depth_true in its namespace, or exactly one topic "
                "with depth images; make such a bag with `perception record`"
            )
        self._images = self._index(self.topic)
        self._depths = sorted(self._index(self.depth_topic))
        self._poses = self._read_poses()
        info = self._bag.camera_info_topic(self.topic)
        self.calibration: Calibration | None = None
        if info:
            self.calibration = calibration_from_message(next(self._bag.messages([info])).message)

    @property
    def sequence(self) -> bool:
        """A recording is one."""
        return True

    def __len__(self) -> int:
        return len(self._images)

    def label(self, index: int) -> str:
        """The image's stamp in seconds."""
        return f"{self._images[index][0] / 1e9:.6f}"

    def files(self, index: int) -> tuple[Path, ...]:
        """All files of the bag."""
        return tuple(sorted(self.path.iterdir())) if self.path.is_dir() else (self.path,)

    def __getitem__(self, index: int) -> RGBDFrame:
        stamp, recorded = self._images[index]
        rgb = to_color(image_from_message(self._read(self.topic, recorded)))
        place = _nearest([depth for depth, _ in self._depths], stamp)
        if place is None:
            raise ValueError(f"no depth within {SLOP / 1e6:g} ms of the image at {self.label(index)} s")
        assert self.depth_topic is not None
        depth = metres_of(image_from_message(self._read(self.depth_topic, self._depths[place][1])))
        camera = self.calibration.camera if self.calibration else None
        if self.calibration and self.calibration.distorted:
            rectifier = self.calibration.rectifier()
            rgb, depth, camera = rectifier(rgb), rectifier.nearest(depth), rectifier.camera
        pose = _nearest([time for time, _ in self._poses], stamp)
        return RGBDFrame(
            np.ascontiguousarray(rgb),
            depth,
            camera,
            None if pose is None else self._poses[pose][1],
            stamp / 1e9,
            name=self.label(index),
        )

    def _index(self, topic: str) -> list[tuple[int, int]]:
        """(stamp, time of recording) of every message."""
        return [(recorded.stamp or recorded.time, recorded.time) for recorded in self._bag.messages([topic])]

    def _read(self, topic: str, time: int) -> Any:
        return next(self._bag.messages([topic], time, time + 1)).message

    def _read_poses(self) -> list[tuple[int, np.ndarray]]:
        """Stamps and camera-to-world matrices of the PoseStamped topic beside the images, if there is one."""
        topic = self._bag.beside(self.topic, "pose", ("geometry_msgs/msg/PoseStamped",))
        if topic is None:
            return []
        poses = []
        for recorded in self._bag.messages([topic]):
            pose = recorded.message.pose
            matrix = np.eye(4)
            matrix[:3, :3] = rotation_of([getattr(pose.orientation, axis) for axis in "xyzw"])
            matrix[:3, 3] = [getattr(pose.position, axis) for axis in "xyz"]
            poses.append((recorded.stamp or recorded.time, matrix))
        return sorted(poses, key=lambda row: row[0])


def _nearest(stamps: list[int], stamp: int) -> int | None:
    """Place of the nearest of the sorted `stamps`; None where none lies within `SLOP`."""
    place = bisect.bisect_left(stamps, stamp)
    near = [i for i in (place - 1, place) if 0 <= i < len(stamps) and abs(stamps[i] - stamp) <= SLOP]
    return min(near, key=lambda i: abs(stamps[i] - stamp)) if near else None


def outline(bag: Bag, images: str) -> dict[str, Any]:
    """What a report says of a bag and its topic of images."""
    image = image_from_message(next(bag.messages([images])).message)
    return {
        "name": bag.path.name,
        "topic": images,
        "images": bag.counts[images],
        "form": f"{image.size[1]}x{image.size[0]} {image.encoding}",
        "seconds": bag.duration / 1e9,
    }


def find_truths(bag: Bag, images: str) -> list[Truth]:
    """What the bag says is true of the images of a topic, beside it: `depth_true`, `detections_true`.

    Raises:
        MessageError: such a message cannot be read.
    """
    truths: list[Truth] = []
    if topic := true_depth_topic(bag, images):
        maps = {recorded.stamp: DepthTruth.read(recorded.message) for recorded in bag.messages([topic])}
        truths.append(DepthTruth(maps))
    if topic := bag.beside(images, true_boxes.TOPIC, (true_boxes.KIND,)):
        boxes = {recorded.stamp: boxes_from_message(recorded.message) for recorded in bag.messages([topic])}
        truths.append(BoxTruth(boxes))
    return truths

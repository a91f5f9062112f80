"""What a replay sees of a pipeline, task by task: its results, figures of them, and a picture."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image as ImageMessage
from vision_msgs.msg import LabelInfo

from perception.evaluation.animation import write_animation
from perception.evaluation.truth import DepthTruth
from perception.nodes.convert import image_from_message
from perception.nodes.inputs import SENSOR_DATA
from perception.nodes.outputs import LATCHED
from perception.nodes.rig import NODES
from perception.nodes.session import Observer, Session
from perception.nodes.transforms import pose_to_message
from perception.tasks import depth, enhancement
from perception.tasks.image import Image, to_color
from perception.tasks.labels import UNLABELED
from perception.tasks.messages import stamp_of
from perception.tasks.poses import orbit_pose

NAMESPACE = "/perception"
NO_CLASS, NAMELESS = "no class", "ids without a name"
"""Of pixels in figures."""
RECENT = 8
"""Images of a topic that are kept for the picture."""
ASKED, COLUMNS, TURN = 24, 6, 3.0
"""Views of a still image, so many of them side by side, and the seconds in which an animation shows them."""
ORBIT = 6.0, 2.0
"""Degrees and metres, see `orbit_pose`."""
STILL = 600.0
"""Seconds for which a still image may be asked about, on a slow machine."""


class ResultObserver(Observer):
    """Notes when a node's results arrive, and keeps of them what `report` and the picture need."""

    task: ClassVar[str]
    shown: ClassVar[tuple[str, ...]]
    """Topics of the picture, the input first."""
    parameters: ClassVar[Mapping[str, Any]] = {}
    """Of the node, without which nothing could be seen."""

    def __init__(self) -> None:
        super().__init__("replay", NAMESPACE)
        self.arrivals: list[float] = []
        self.views: dict[str, dict[int, Image]] = {topic: {} for topic in self.shown}
        node = NODES[self.task]
        self.create_subscription(node.message_type, node.topic, self._on_result, SENSOR_DATA)
        self._view_subscriptions: list[Any] = []

    def keep(self, message: Any) -> None:
        """Take what is needed out of a result."""
        raise AttributeError(f"{type(self).__name__} must define keep")

    def report(self) -> dict[str, Any]:
        """Figures of the results so far."""
        raise AttributeError(f"{type(self).__name__} must define report")

    def picture(self, stamp: int) -> list[np.ndarray]:
        """What is shown of one frame, of which all views are there: BGR, of one height."""
        return [to_color(self.views[topic][stamp], "bgr") for topic in self.shown]

    def more_pictures(self, session: Session, folder: Path) -> dict[str, str]:
        """What else can be shown once the source has stopped: paths below `folder`, by what they are."""
        return {}

    def watch_views(self) -> None:
        """Subscribe to what the picture shows; only after measuring, because it costs the node time."""
        for topic in self.views:
            self._view_subscriptions.append(
                self.create_subscription(ImageMessage, topic, lambda m, t=topic: self._on_view(t, m), SENSOR_DATA)
            )

    def complete_view(self) -> list[np.ndarray] | None:
        """The picture of the newest frame of which everything has come."""
        stamps = set.intersection(*(set(seen) for seen in self.views.values()))
        return self.picture(max(stamps)) if stamps else None

    def _on_result(self, message: Any) -> None:
        self.arrivals.append(time.monotonic())
        self.keep(message)

    def _on_view(self, topic: str, message: ImageMessage) -> None:
        recent = self.views[topic] | {stamp_of(message): image_from_message(message)}
        self.views[topic] = dict(list(recent.items())[-RECENT:])


class DepthObserver(ResultObserver):
    """Keeps depth maps and, where they are published, the true ones, by stamp."""

    task = "depth"
    shown = ("image", "depth", "depth/overlay")

    def __init__(self) -> None:
        super().__init__()
        self.depth: dict[int, np.ndarray] = {}
        self.truth: dict[int, np.ndarray] = {}
        self._truth = self.create_subscription(ImageMessage, "depth_true", self._on_truth, SENSOR_DATA)

    def keep(self, message: Any) -> None:
        self.depth[stamp_of(message)] = DepthTruth.read(message)

    def _on_truth(self, message: ImageMessage) -> None:
        self.truth[stamp_of(message)] = DepthTruth.read(message)

    def report(self) -> dict[str, Any]:
        """Accuracy, if there is truth."""
        try:
            return {"accuracy": DepthTruth(self.truth).scores(self.depth)}
        except ValueError:
            return {}

    def picture(self, stamp: int) -> list[np.ndarray]:
        """Input, depth in colours that span this frame's depths, and overlay."""
        image, metres, overlay = (self.views[topic][stamp] for topic in self.shown)
        finite = metres.data[np.isfinite(metres.data)]
        near, far = np.percentile(finite, (1, 99)) if finite.size else (0.5, 8.0)
        return [to_color(image, "bgr"), depth.colorize(metres.data, near, far), to_color(overlay, "bgr")]


class DetectionObserver(ResultObserver):
    """Counts objects by the names of their classes."""

    task = "detection"
    shown = ("image", "detections/overlay")

    def __init__(self) -> None:
        super().__init__()
        self.objects: Counter[str] = Counter()
        self.images_with: Counter[str] = Counter()

    def keep(self, message: Any) -> None:
        names = Counter(found.results[0].hypothesis.class_id for found in message.detections)
        self.objects += names
        self.images_with += Counter(names.keys())

    def report(self) -> dict[str, Any]:
        """Objects of each class, and images with any of it."""
        ranked = self.objects.most_common()
        return {"objects": {name: {"found": count, "images": self.images_with[name]} for name, count in ranked}}


class EnhancementObserver(ResultObserver):
    """Notes how bright the images are that come out."""

    task = "enhancement"
    shown = ("image", "image_enhanced")

    def __init__(self) -> None:
        super().__init__()
        self.brightness: list[float] = []

    def keep(self, message: Any) -> None:
        self.brightness.append(enhancement.brightness(image_from_message(message)))

    def report(self) -> dict[str, Any]:
        """Mean intensity of the results."""
        return {"brightness": round(float(np.mean(self.brightness)), 3)}


class SegmentationObserver(ResultObserver):
    """Counts pixels by the names of their classes."""

    task = "segmentation"
    shown = ("image", "mask/overlay")

    def __init__(self) -> None:
        super().__init__()
        self.pixels = np.zeros(256, np.int64)
        self._names: dict[int, str] = {}
        self.create_subscription(LabelInfo, "labels", self._on_labels, LATCHED)

    def keep(self, message: Any) -> None:
        self.pixels += np.bincount(image_from_message(message).data.ravel(), minlength=256)

    def _on_labels(self, message: LabelInfo) -> None:
        self._names = {entry.class_id: entry.class_name for entry in message.class_map}

    def report(self) -> dict[str, Any]:
        """The share of each class in the pixels of all images; ids that have no name count together."""
        total, shares = max(int(self.pixels.sum()), 1), Counter[str]()
        for number in map(int, np.flatnonzero(self.pixels)):
            name = self._names.get(number, NO_CLASS if number == UNLABELED else NAMELESS)
            shares[name] += self.pixels[number] / total
        return {"classes": {name: float(share) for name, share in shares.most_common()}}


class ViewSynthesisObserver(ResultObserver):
    """Sees the views of the node's orbit; and asks for views of a still image, one after the other."""

    task = "view_synthesis"
    shown = ("image", "view", "view/depth")
    parameters: ClassVar[Mapping[str, Any]] = {"orbit": True, "input_timeout": STILL}

    def __init__(self) -> None:
        super().__init__()
        self._newest: Any = None
        self._poses = self.create_publisher(PoseStamped, "target_pose", 1)

    def keep(self, message: Any) -> None:
        self._newest = message

    def report(self) -> dict[str, Any]:
        """Nothing: what is true is not known."""
        return {}

    def picture(self, stamp: int) -> list[np.ndarray]:
        """Input, view, and the view's depth in colours, black where the input does not show what is there."""
        image, view, metres = (self.views[topic][stamp] for topic in self.shown)
        return [to_color(image, "bgr"), to_color(view, "bgr"), depth.colorize(metres.data)]

    def more_pictures(self, session: Session, folder: Path) -> dict[str, str]:
        """The still image from all around its line of sight: an animation, where Pillow is installed, and a sheet."""
        poses = [orbit_pose(number / ASKED, *ORBIT) for number in range(ASKED)]
        views = [to_color(image_from_message(self._view(session, pose))) for pose in poses]
        views = [cv2.resize(view, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for view in views]
        rows = [np.hstack(views[start : start + COLUMNS]) for start in range(0, ASKED, COLUMNS)]
        sheet, moving = folder / "views.png", folder / "orbit.gif"
        cv2.imwrite(str(sheet), np.vstack(rows)[..., ::-1])
        made = {"sheet": str(sheet)}
        with contextlib.suppress(ImportError):
            write_animation(moving, views, TURN / ASKED)
            made["animation"] = str(moving)
        return made

    def _view(self, session: Session, pose: np.ndarray) -> Any:
        """The answer to a pose."""
        self._newest = None
        self._poses.publish(PoseStamped(pose=pose_to_message(pose)))
        return session.wait(lambda: self._newest, 30, "a view that was asked for")


OBSERVERS: dict[str, type[ResultObserver]] = {
    NODES[kind.task].executable: kind
    for kind in (DepthObserver, DetectionObserver, EnhancementObserver, SegmentationObserver, ViewSynthesisObserver)
}
"""By the executable of the node."""

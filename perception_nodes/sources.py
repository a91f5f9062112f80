"""Where images come from besides topics: folders, RGB-D folders, videos, bags, cameras. No ROS is needed here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from perception.tasks.calibration import Calibration
from perception.tasks.image import Image
from perception.tasks.messages import MessageError, NamedBoxes, calibration_from_message, image_from_message, metres_of

if TYPE_CHECKING:
    from perception.evaluation.boxes import BoxDataset
    from perception.evaluation.frames import Dataset, F

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v", ".mjpeg")
GSTREAMER = "gstreamer:"
RETRY_SECONDS = 1.0
PAIRING_WINDOW = 10
"""How many images of a bag wait for the true depth of the same stamp."""
ACCEPTED = (
    "a folder of images, of RGB-D frames, of 7-Scenes or of a data set of boxes (COCO, VOC, YOLO), a video file, a "
    "rosbag (folder, .mcap, .db3, .bag), /dev/videoN, or gstreamer:PIPELINE ! appsink"
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class SourceFrame:
    """An image and what its source knows about it.

    `stamp` is in seconds of the source's own time, None for live cameras. `depth_true` is float32 metres of shape
    (height, width), NaN where unknown (REP 118). `pose` is camera to world, 4x4. `boxes_true` are those of objects.
    """

    image: Image
    stamp: float | None = None
    calibration: Calibration | None = None
    depth_true: np.ndarray | None = None
    pose: np.ndarray | None = None
    boxes_true: NamedBoxes | None = None


class Source(Protocol):
    """Frames in order. Every iteration starts anew, except with a live camera, which goes on."""

    fps: float
    """Frames a second, as far as the source knows it; else 30."""
    live: bool
    """Whether frames come at their own pace and end never."""
    length: int | None
    """Number of frames, where it is known."""
    calibrated: bool
    """Whether frames come with a calibration."""

    def __iter__(self) -> Iterator[SourceFrame]: ...

    def close(self) -> None:
        """Free files and devices; ends a running iteration. May be called from another thread, and twice."""


def open_source(
    text: str, calibration: Calibration | None = None, topic: str = "", report: Report = print, split: str = "eval"
) -> Source:
    """The source that `text` names.

    Args:
        text: one of `ACCEPTED`.
        calibration: of the camera; goes before what the source itself knows.
        topic: of a bag's images; empty: its only colour image topic.
        report: called with a sentence when a camera vanishes, when it is back, and when a frame is skipped.
        split: of a data set of boxes.

    Raises:
        FileNotFoundError: nothing there, or a folder without images.
        ValueError: not readable; the message says what is accepted.
    """
    if not text:
        raise ValueError(f"the source is empty; accepted: {ACCEPTED}")
    if text.startswith(GSTREAMER):
        return CameraSource(text.removeprefix(GSTREAMER), cv2.CAP_GSTREAMER, calibration, report)
    if text.startswith("/dev/"):
        return CameraSource(text, cv2.CAP_V4L2, calibration, report)
    path = Path(text).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"source {text} does not exist; accepted: {ACCEPTED}")
    from perception.evaluation.datasets import find_boxes, is_bag  # cameras need none of it

    if is_bag(path):
        return BagSource(path, calibration, topic, report)
    if (boxes := find_boxes(path, split)) is not None:
        return BoxSource(boxes, calibration, report)
    if path.is_dir():
        return FolderSource(path, calibration, report)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(path, calibration)
    raise ValueError(
        f"source {text} is of no known kind; accepted: {ACCEPTED}; videos end in {', '.join(VIDEO_SUFFIXES)}"
    )


class FolderSource:
    """A folder of images, of RGB-D frames (`perception.evaluation.rgbd_folder`) or of 7-Scenes."""

    live = False

    def __init__(self, path: Path, calibration: Calibration | None, report: Report) -> None:
        from perception.evaluation.rgbd_folder import RGBDFolder
        from perception.evaluation.seven_scenes import SevenScenes

        self._frames = SevenScenes(path) if SevenScenes.is_at(path) else RGBDFolder(path)
        self.fps = self._frames.fps
        self.length: int | None = len(self._frames)
        self.calibrated = bool(calibration or self._frames.camera)
        self._calibration, self._report, self._closed = calibration, report, False

    def __iter__(self) -> Iterator[SourceFrame]:
        for _, frame in _readable(self._frames, self._report):
            if self._closed:
                return
            calibration = self._calibration or (Calibration(frame.camera) if frame.camera else None)
            yield SourceFrame(Image(frame.rgb, "rgb8"), frame.stamp, calibration, frame.depth, frame.pose)

    def close(self) -> None:
        self._closed = True


class BoxSource:
    """The images of a data set of boxes, and the boxes."""

    live = False
    fps = 30.0

    def __init__(self, frames: BoxDataset, calibration: Calibration | None, report: Report) -> None:
        self._frames, self._calibration, self._report, self._closed = frames, calibration, report, False
        self.length: int | None = len(frames)
        self.calibrated = calibration is not None

    def __iter__(self) -> Iterator[SourceFrame]:
        from perception.evaluation.true_boxes import named

        for index, frame in _readable(self._frames, self._report):
            if self._closed:
                return
            boxes = named(frame, self._frames.labels)
            image, stamp = Image(frame.rgb, "rgb8"), index / self.fps
            yield SourceFrame(image, stamp, self._calibration, boxes_true=boxes)

    def close(self) -> None:
        self._closed = True


def _readable(frames: Dataset[F], report: Report) -> Iterator[tuple[int, F]]:
    """Samples that are not broken, with their numbers."""
    for index in range(len(frames)):
        try:
            frame = frames[index]
        except (ValueError, OSError) as error:
            report(f"frame {index} is skipped: {error}")
        else:
            yield index, frame


class VideoSource:
    """A video file, decoded by OpenCV.

    Raises:
        ValueError: OpenCV cannot decode it.
    """

    live = False

    def __init__(self, path: Path, calibration: Calibration | None) -> None:
        self._path, self._calibration, self._closed = path, calibration, False
        self.calibrated = calibration is not None
        capture = cv2.VideoCapture(str(path))
        readable, _ = capture.read()
        rate, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if not readable:
            raise ValueError(f"video {path} cannot be decoded; convert it to H.264 or MJPEG in .mp4 or .avi")
        self.fps = rate if np.isfinite(rate) and rate > 0 else 30.0
        self.length: int | None = count if count > 0 else None

    def __iter__(self) -> Iterator[SourceFrame]:
        capture = cv2.VideoCapture(str(self._path))
        index = 0
        try:
            while not self._closed:
                there, pixels = capture.read()
                if not there:
                    return
                yield SourceFrame(Image(pixels, "bgr8"), index / self.fps, self._calibration)
                index += 1
        finally:
            capture.release()

    def close(self) -> None:
        self._closed = True


class CameraSource:
    """A V4L2 device or a GStreamer pipeline. When it vanishes, it is reported once, and frames go on when it is back.

    Args:
        address: /dev/videoN, or a pipeline that ends in appsink.
        backend: cv2.CAP_V4L2 or cv2.CAP_GSTREAMER.

    Raises:
        ValueError: this OpenCV was built without the backend.
    """

    live = True
    length: int | None = None

    def __init__(self, address: str, backend: int, calibration: Calibration | None, report: Report) -> None:
        names = {cv2.CAP_V4L2: "V4L2", cv2.CAP_GSTREAMER: "GStreamer"}
        if not cv2.videoio_registry.hasBackend(backend):
            raise ValueError(
                f"this OpenCV {cv2.__version__} was built without {names[backend]}; use the python3-opencv of the "
                "system (apt), or a camera driver node such as gscam, v4l2_camera or camera_ros"
            )
        self._address, self._backend, self._calibration, self._report = address, backend, calibration, report
        self._stop = threading.Event()
        self.fps = 30.0
        self.calibrated = calibration is not None

    def __iter__(self) -> Iterator[SourceFrame]:
        missing = False
        while not self._stop.is_set():
            capture = cv2.VideoCapture(self._address, self._backend)
            rate = capture.get(cv2.CAP_PROP_FPS)
            if np.isfinite(rate) and rate > 0:
                self.fps = rate
            try:
                for frame in self._read(capture):
                    if missing:
                        self._report(f"camera {self._address} is back")
                        missing = False
                    yield frame
            finally:
                capture.release()
            if not missing and not self._stop.is_set():
                self._report(
                    f"camera {self._address} gives no frames; check the cable, the name and the permissions (group "
                    f"video), and whether another program has it; trying again every {RETRY_SECONDS:g} s"
                )
                missing = True
            self._stop.wait(RETRY_SECONDS)

    def _read(self, capture: cv2.VideoCapture) -> Iterator[SourceFrame]:
        while not self._stop.is_set():
            there, pixels = capture.read()
            if not there:
                return
            yield SourceFrame(Image(pixels, "bgr8" if pixels.ndim == 3 else "mono8"), None, self._calibration)

    def close(self) -> None:
        self._stop.set()


class BagSource:
    """The images of one topic of a bag, with the camera_info beside it and the true depth of the same stamp.

    Raises:
        ValueError: the bag has no colour image, or several and none was chosen.
    """

    live = False

    def __init__(self, path: Path, calibration: Calibration | None, topic: str, report: Report) -> None:
        from perception.evaluation.bags import Bag, choose_images, true_depth_topic

        self._path, self._calibration, self._report, self._closed = path, calibration, report, False
        with Bag(path) as bag:
            self.topic = choose_images(bag, topic)
            self._depth_topic = true_depth_topic(bag, self.topic)
            self._info_topic = bag.camera_info_topic(self.topic)
            self.calibrated = bool(calibration or self._info_topic)
            self.length: int | None = bag.counts[self.topic]
            times = [recorded.time for recorded in islice(bag.messages([self.topic]), 31)]
        seconds = (times[-1] - times[0]) / 1e9
        self.fps = (len(times) - 1) / seconds if seconds > 0 else 30.0

    def __iter__(self) -> Iterator[SourceFrame]:
        from perception.evaluation.bags import Bag

        with Bag(self._path) as bag:
            waiting: dict[int, SourceFrame] = {}
            depths: dict[int, np.ndarray] = {}
            topics = {topic for topic in (self.topic, self._info_topic, self._depth_topic) if topic}
            calibration = self._calibration or self._first_calibration(bag)
            for recorded in bag.messages(topics):
                if self._closed:
                    return
                stamp = recorded.stamp or recorded.time
                try:
                    if recorded.topic == self._info_topic:
                        calibration = self._calibration or calibration_from_message(recorded.message)
                    elif recorded.topic == self._depth_topic:
                        depths[stamp] = metres_of(image_from_message(recorded.message))
                    else:
                        waiting[stamp] = SourceFrame(image_from_message(recorded.message), stamp / 1e9, calibration)
                except MessageError as error:
                    self._report(f"a message of {recorded.topic} is skipped: {error}")
                yield from self._ready(waiting, depths, PAIRING_WINDOW if self._depth_topic else 0)
            yield from self._ready(waiting, depths, 0)

    def _first_calibration(self, bag: Any) -> Calibration | None:
        """Images may have been recorded before the camera_info that belongs to them."""
        if self._info_topic is None:
            return None
        try:
            return calibration_from_message(next(bag.messages([self._info_topic])).message)
        except MessageError:
            return None  # reported when the iteration comes to it

    @staticmethod
    def _ready(waiting: dict[int, SourceFrame], depths: dict[int, np.ndarray], window: int) -> Iterator[SourceFrame]:
        """Frames in order whose depth has come or that have waited long enough."""
        while waiting and (len(waiting) > window or next(iter(waiting)) in depths):
            stamp = next(iter(waiting))
            yield replace(waiting.pop(stamp), depth_true=depths.pop(stamp, None))
        while len(depths) > PAIRING_WINDOW:
            depths.pop(next(iter(depths)))

    def close(self) -> None:
        self._closed = True

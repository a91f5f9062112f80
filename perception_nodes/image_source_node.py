"""Publishes the images of a folder, video, bag or camera, with their calibration and, where it is known, true depth."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from perception.nodes.convert import image_to_compressed
from perception.nodes.node import BaseNode, NodeParameters, run_node
from perception.nodes.outputs import CalibrationOutput, ImageOutput, Output
from perception.nodes.parameters import parameter
from perception.nodes.sources import Source, SourceFrame, open_source
from perception.nodes.transforms import TransformOutput
from perception.tasks.calibration import load_calibration
from perception.tasks.image import Image
from perception.tasks.poses import pose_of

OPTICAL = pose_of((0, 0, 0), (-0.5, 0.5, -0.5, 0.5))
"""Of a frame with z forward and y down in one with x forward and z up (REP 103)."""
LINGER = 0.5
"""Seconds from the last image to the end of the process, in which the middleware delivers it."""
STOP_SECONDS = 1.0
"""How long a source may take to end; a camera that has stalled takes as long as its driver waits for an image."""
LIVE_TIMEOUT = 2.0
"""Seconds without an image after which a live camera is a problem."""


@dataclass(frozen=True)
class ImageSourceParameters(NodeParameters):
    source: str = parameter("", "Folder, RGB-D folder, video, bag, /dev/videoN, or gstreamer:PIPELINE ! appsink.")
    topic: str = parameter("", "Topic of a bag's images; empty takes its only one.")
    rate: float = parameter(
        0.0, "Images a second; 0 takes the source's own rate. A camera keeps its own.", minimum=0.0, maximum=10000.0
    )
    loop: bool = parameter(False, "Start again at the end.")
    cache: int = parameter(
        0, "MiB for decoded frames of a loop, for rates above what decoding allows.", minimum=0, maximum=65536
    )
    exit_at_end: bool = parameter(False, "End the process at the end of the source.")
    stamps: str = parameter(
        "now", "Stamp an image with the node's time, or the source's own.", choices=("now", "source")
    )
    frame_id: str = parameter("camera_optical", "Frame of the images: z forward, y down (REP 103).")
    parent_frame: str = parameter("", "Publish that the camera stands in this frame, looking along its x; empty: not.")
    camera_info_url: str = parameter("", "Calibration: path, file:// or package:// URL; goes before the source's own.")
    image_transport: str = parameter(
        "raw", "Which images: raw, compressed (JPEG), or both.", choices=("raw", "compressed", "both")
    )
    jpeg_quality: int = parameter(90, "Quality of compressed images.", live=True, minimum=1, maximum=100)
    publish_depth_true: bool = parameter(True, "Publish true depth where the source has it.")


class CompressedOutput(Output):
    """sensor_msgs/CompressedImage, as JPEG."""

    message_type = CompressedImage

    def publish(self, image: Image, header: Header, quality: int) -> None:
        self._send(image_to_compressed(image, header, "jpeg", quality))


class Pace:
    """Turns at a steady rate. After falling behind by more than one, the turns start anew: frames come in no bursts."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._due = time.monotonic()

    def wait(self, stopped: threading.Event) -> float | None:
        """Wait for the next turn; by how many seconds it is late, or None if `stopped`."""
        if stopped.wait(max(0.0, self._due - time.monotonic())):
            return None
        now = time.monotonic()
        late = now - self._due
        self._due = max(self._due, now - self._period) + self._period
        return late


class ImageSourceNode(BaseNode):
    """Publishes `image`, `camera_info` and `depth_true` (32FC1 metres, REP 118); those of one frame have one stamp."""

    parameters_type = ImageSourceParameters
    parameters: ImageSourceParameters

    def __init__(self, name: str = "image_source_node", **options: Any) -> None:
        super().__init__(name, **options)
        self._outputs: dict[str, Any] = {}
        self._transform: TransformOutput | None = None
        self._source: Source | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._state = ""
        self._last = time.monotonic()

    def setup(self) -> None:
        self._source = self._open()
        transport = self.parameters.image_transport
        # A topic that stays empty would keep those waiting who must not see images without their calibration.
        self._outputs = {"camera_info": CalibrationOutput(self, "camera_info")} if self._source.calibrated else {}
        if transport != "compressed":
            self._outputs["image"] = ImageOutput(self, "image")
        if transport != "raw":
            # image_transport's convention is a suffix of the image topic's name after remapping.
            self._outputs["compressed"] = CompressedOutput(self, f"{self.resolve_topic_name('image')}/compressed")
        if self.parameters.publish_depth_true:
            self._outputs["depth_true"] = ImageOutput(self, "depth_true")
        if self.parameters.parent_frame:
            self._publish_parent_frame()

    def teardown(self) -> None:
        for output in self._outputs.values():
            output.close()
        self._outputs = {}
        if self._transform:
            self._transform.close()
        self._transform = None
        if self._source:
            self._source.close()
        self._source = None

    def start(self) -> None:
        self._source = self._source or self._open()
        self._stopped = threading.Event()  # a new one: the last thread may still have to see its own
        self._state, self._last = "", time.monotonic()
        arguments = self._source, self._stopped
        self._thread = threading.Thread(target=self._run, args=arguments, name="source", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._source and self._thread:
            self._source.close()  # ends the iteration; the next `start` opens it again
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive() and self.context.ok():  # when its frame comes it sends nothing any more
                self.get_logger().warning(f"source {self.parameters.source} has stalled, and is not waited for")
            self._source = self._thread = None

    def watch(self) -> list[str]:
        silence = time.monotonic() - self._last
        if self._source and self._source.live and silence > LIVE_TIMEOUT:
            return [f"no image from {self.parameters.source} for {silence:.0f} s"]
        return [self._state] if self._state else []

    def describe(self) -> dict[str, str]:
        return {"source": self.parameters.source}

    def _open(self) -> Source:
        url = self.parameters.camera_info_url
        calibration = load_calibration(url) if url else None
        return open_source(self.parameters.source, calibration, self.parameters.topic, self.get_logger().warning)

    def _run(self, source: Source, stopped: threading.Event) -> None:
        """Send frames until the source ends or `stopped`; in a thread of its own, so that pacing blocks nobody."""
        try:
            rate = self.parameters.rate or source.fps
            pace = Pace(0.0 if source.live else 1 / rate)
            # The next frame is read before its turn has come, so that reading does not delay it.
            for frame in self._frames(source, stopped):
                late = pace.wait(stopped)
                if late is None:
                    return
                start = time.monotonic()
                self._send(frame)
                self.statistics.time({"publish": time.monotonic() - start} | ({} if source.live else {"late": late}))
                self._last = start
        except Exception as error:
            if not self.context.ok():  # a signal shut ROS down in the middle of a frame
                return
            if not stopped.is_set():
                self.statistics.fail("failed", str(error))
                self.get_logger().error(f"source {self.parameters.source} ends early: {error}")
        if not stopped.is_set():
            self._end(stopped)

    def _frames(self, source: Source, stopped: threading.Event) -> Iterator[SourceFrame]:
        """The source's frames, again and again if they are to loop; from memory where all of them fit in the cache."""
        kept: list[SourceFrame] | None = [] if self.parameters.loop else None
        free = self.parameters.cache << 20
        while True:
            count = 0
            for frame in source:
                yield frame
                count += 1
                free -= frame.image.data.nbytes + (0 if frame.depth_true is None else frame.depth_true.nbytes)
                if kept is not None and free >= 0:
                    kept.append(frame)
            if count == 0 and not stopped.is_set():
                raise ValueError("it has no usable frame")
            if not self.parameters.loop or stopped.is_set():
                return
            while kept and len(kept) == count:
                yield from kept
            kept = None

    def _send(self, frame: SourceFrame) -> None:
        """Publish a frame to those who listen, under one header."""
        outputs = {name: output for name, output in self._outputs.items() if output.wanted}
        header = Header(frame_id=self.parameters.frame_id, stamp=self._stamp(frame))
        self.statistics.count("received")
        # The calibration first: whoever has the image then has what belongs to it.
        if "camera_info" in outputs and frame.calibration:
            outputs["camera_info"].publish(frame.calibration, header)
        if "image" in outputs:
            outputs["image"].publish(frame.image, header)
        if "compressed" in outputs:
            outputs["compressed"].publish(frame.image, header, self.parameters.jpeg_quality)
        if "depth_true" in outputs and frame.depth_true is not None:
            outputs["depth_true"].publish(Image(frame.depth_true, "32FC1"), header)
        self.statistics.count("published")

    def _stamp(self, frame: SourceFrame) -> Time:
        if self.parameters.stamps == "now" or frame.stamp is None:  # a live camera's frame is taken now
            return self.get_clock().now().to_msg()
        seconds, nanoseconds = divmod(round(frame.stamp * 1e9), 1_000_000_000)
        return Time(sec=seconds, nanosec=nanoseconds)

    def _end(self, stopped: threading.Event) -> None:
        self._state = f"source {self.parameters.source} has ended after {self.statistics.counts['published']} images"
        if not self.parameters.exit_at_end:
            self.get_logger().info(f"{self._state}; the node stays. Set loop:=true to start it again each time")
            return
        self.get_logger().info(f"{self._state}, and so does the node")
        stopped.wait(LINGER)
        self.context.try_shutdown()  # wakes the executor, which then returns

    def _publish_parent_frame(self) -> None:
        parent, child = self.parameters.parent_frame, self.parameters.frame_id
        try:
            self._transform = TransformOutput(self, static=True)
        except ImportError:
            self.get_logger().warning(
                f"parent_frame = {parent!r} is not published: the package tf2_msgs is not installed; run: ros2 run "
                "tf2_ros static_transform_publisher --roll -1.5708 --yaw -1.5708 "
                f"--frame-id {parent} --child-frame-id {child}"
            )
            return
        self._transform.publish(OPTICAL, Header(frame_id=parent, stamp=self.get_clock().now().to_msg()), child)


def main() -> int:
    return run_node(ImageSourceNode)


if __name__ == "__main__":
    sys.exit(main())

"""Where a node's frames come from: an image topic, raw or compressed, and its calibration."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from perception.nodes.convert import MessageError, calibration_from_message, image_from_message
from perception.nodes.exchange import Inlet, exchange_of
from perception.nodes.receiver import Receiver
from perception.tasks.calibration import Calibration
from perception.tasks.geometry import Camera
from perception.tasks.image import Image

TRANSPORTS = ("raw", "compressed")
SENSOR_DATA = QoSProfile(
    history=qos_profile_sensor_data.history, depth=1, reliability=qos_profile_sensor_data.reliability
)
"""Best effort, keep last 1 (REP 2003): compatible with every publisher, and never more than the newest."""
STAMP_END = 12
"""Bytes of a serialised message before its header's frame: 4 of encapsulation, 8 of the stamp (OMG DDSI-RTPS, 10.2)."""


def durations_of(info: Mapping[str, int]) -> dict[str, float]:
    """Seconds since a message was sent, "transport", and since it was received, as far as the middleware tells."""
    # The middleware's stamps are system time; all that follows is timed by the steady clock. A stamp of the future,
    # from a clock that was set back or from another machine's that is ahead, tells no duration.
    now = time.time_ns()
    return {
        stage: (now - info[stamp]) * 1e-9
        for stage, stamp in (("transport", "source_timestamp"), ("receive", "received_timestamp"))
        if 0 < info.get(stamp, 0) <= now
    }


@dataclass
class Frame:
    """One image on its way through a node. `header` is its own and goes into every output as it is."""

    header: Header
    source: Any
    """A message, or what a node of this process published."""
    calibration: Calibration | None
    info: CameraInfo | Calibration | Camera | None
    """What `calibration` was read from, as it came, usable or not; of no header."""
    calibration_due: bool
    """Whether somebody publishes a calibration of which none has come yet."""
    stages: dict[str, float]
    """Durations in seconds so far, by stage."""
    arrived: float = field(default_factory=time.perf_counter)
    """When the callback had it, seconds of the steady clock."""

    @cached_property
    def image(self) -> Image:
        """The decoded image; raises MessageError if the message is not usable."""
        return self.source if isinstance(self.source, Image) else image_from_message(self.source)


class ImageInput:
    """Subscribes to `image` (or `image/compressed`) and `camera_info`, and hands on frames with their calibration.

    What a node of this process publishes, raw images and their calibration, comes through the exchange instead.

    Args:
        prefix: of the topics' names, such as "front/"; empty for the only camera of a node.
        deliver: called with every frame, in the receiver's or the publishing node's thread; must return at once.
        refuse: called in the same threads with "failed" for an image that is lost, or with "bad_calibration", and a
            sentence.
    """

    def __init__(
        self,
        node: Node,
        transport: str,
        deliver: Callable[[Frame], None],
        refuse: Callable[[str, str], None],
        prefix: str = "",
        calibrated: bool = True,
    ) -> None:
        self._node, self._deliver, self._refuse = node, deliver, refuse
        self._type = CompressedImage if transport == "compressed" else ImageMessage
        suffix = "/compressed" if transport == "compressed" else ""
        self.topic = node.resolve_topic_name(f"{prefix}image") + suffix
        self._info_name = f"{prefix}camera_info"
        self.info_topic = node.resolve_topic_name(self._info_name)
        # rclpy remaps every name it is given, so a resolved one may fall under a second rule. Only image_transport's
        # suffix, which comes after remapping, leaves no other way.
        self._name = self.topic if suffix else f"{prefix}image"
        self._calibration: Calibration | None = None
        self._came: CameraInfo | Calibration | Camera | None = None
        self._informed = not calibrated  # as if the only one had come
        self._info = b""
        self._refusal = ""
        self._last = time.monotonic()
        self._silence_reported = False
        self._due_since: float | None = None
        self._receiver = Receiver(node, self._on_lost)
        self._infos: Any = None
        self._images: Any = None
        self._exchange = exchange_of(node)
        # The calibration comes first: where both wait, the receiver serves them in this order.
        self._inlets = [Inlet(self.info_topic, self._on_calibration, self._switch_infos)] if calibrated else []
        if transport == "raw":
            self._inlets.append(Inlet(self.topic, self._on_pixels, self._switch_images))
        try:
            for inlet in self._inlets:
                self._exchange.join(inlet)
            if transport != "raw":
                self._switch_images(here=False)
        except BaseException:  # overridden QoS that is none
            self.close()
            raise

    def close(self) -> None:
        """Unsubscribe."""
        for inlet in self._inlets:
            self._exchange.leave(inlet)
        self._receiver.close()

    def _switch_infos(self, here: bool) -> None:
        """Subscribe to calibrations unless a node of this process publishes them."""
        if self._infos:
            self._receiver.remove(self._infos)
        self._infos = None
        self._info, self._refusal = b"", ""
        if not here and self._node.context.ok():  # after a signal nothing can be created
            self._infos = self._receiver.add(CameraInfo, self._info_name, self._on_info, SENSOR_DATA, raw=True)

    def _switch_images(self, here: bool) -> None:
        """Subscribe to images unless a node of this process publishes them."""
        if self._images:
            self._receiver.remove(self._images)
        self._images = None
        if here or not self._node.context.ok():
            return
        options = QoSOverridingOptions.with_default_policies()
        qos = copy.copy(SENSOR_DATA)  # rclpy writes overrides into the profile that it is given
        self._images = self._receiver.add(self._type, self._name, self._on_image, qos, qos_overriding_options=options)

    def _on_image(self, message: Any, info: Mapping[str, int]) -> None:
        self._hand_on(message.header, message, durations_of(info))

    def _on_pixels(self, image: Image, header: Header) -> None:
        """An image from a node of this process, which takes no time."""
        self._hand_on(header, image, {"transport": 0.0, "receive": 0.0})

    def _hand_on(self, header: Header, source: Any, stages: dict[str, float]) -> None:
        self._last = time.monotonic()
        self._silence_reported = False
        due = not self._informed and self._node.count_publishers(self.info_topic) > 0
        self._due_since = (self._due_since or self._last) if due else None
        self._deliver(Frame(header, source, self._calibration, self._came, due, stages))

    def _on_lost(self, topic: str, reason: str) -> None:
        """A message that could not be taken from a topic."""
        self._refuse("bad_calibration" if topic == self.info_topic else "failed", reason)

    def _on_calibration(self, came: CameraInfo | Calibration | Camera) -> None:
        """From a node of this process."""
        if isinstance(came, CameraInfo):
            if came is not self._came:
                self._read(came)
            return
        self._came, self._informed = came, True
        self._calibration = Calibration(came) if isinstance(came, Camera) else came

    def _on_info(self, serialized: bytes, _middleware: Mapping[str, int]) -> None:
        # One comes with every image and nearly all are equal but for the stamp, which is first: not worth unpacking.
        if serialized[STAMP_END:] == self._info[STAMP_END:]:
            return
        self._info = serialized
        self._read(deserialize_message(serialized, CameraInfo))

    def _read(self, message: CameraInfo) -> None:
        """A calibration that was not the last one's, or one that cannot be used."""
        self._came, self._informed = message, True
        refusal = ""
        try:
            self._calibration = calibration_from_message(message)
        except MessageError as error:
            self._calibration = None
            refusal = f"{error} (topic {self.info_topic}, frame {message.header.frame_id!r})"
            if refusal != self._refusal:  # a publisher may fill the gaps between fields with anything
                self._refuse("bad_calibration", refusal)
        self._refusal = refusal

    def waiting(self, timeout: float) -> str:
        """That images have waited for a calibration for longer than `timeout` seconds; empty if they do not."""
        since = self._due_since
        if since is None or time.monotonic() - since < timeout:
            return ""
        return (
            f"images on {self.topic} wait for a calibration: {self.info_topic} has a publisher and no message came; "
            "calibrate the camera, or remap `camera_info` to a topic that nobody publishes to do without"
        )

    def silence(self, timeout: float) -> str:
        """Why no image came for `timeout` seconds, said in the log once; empty if images come. Call now and then."""
        seconds = time.monotonic() - self._last
        if seconds < timeout:
            return ""
        reason = f"no image on {self.topic} for {seconds:.0f} s: {self._publishers()}"
        if not self._silence_reported:
            self._silence_reported = True
            self._node.get_logger().warning(reason)
        return reason

    def _publishers(self) -> str:
        """What is known of the topic's publishers."""
        if not self._images:
            return "a node of this process publishes it but is silent"
        publishers = self._node.get_publishers_info_by_topic(self._name)
        if not publishers:
            return f"nobody publishes it; start the camera, or remap `{self._name}` to its topic"
        found = []
        for publisher in publishers:
            who = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
            wanted = f"{self._type.__module__.split('.')[0]}/msg/{self._type.__name__}"
            if publisher.topic_type != wanted:
                found.append(f"{who} publishes {publisher.topic_type}, but {wanted} is expected (image_transport)")
                continue
            qos = self._images.qos_profile
            compatibility, why = qos_check_compatible(publisher.qos_profile, qos)
            if (
                compatibility != QoSCompatibility.ERROR
            ):  # a warning only says that some policy is left to the middleware
                found.append(f"{who} publishes it with matching QoS but is silent")
            else:
                found.append(f"{who}'s QoS {_qos_text(publisher.qos_profile)} does not match {_qos_text(qos)}: {why}")
        return "; ".join(found)


def _qos_text(qos: QoSProfile) -> str:
    return f"{qos.reliability.name.lower()}, {qos.durability.name.lower()}"

"""A bag made from another: cut in time and by topic, stamped anew, its images compressed or unpacked."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.convert.converter import ConverterError
from rosbags.convert.converter import convert as migrate

from perception.evaluation import bags
from perception.evaluation.bags import IMAGE_TYPES, Bag, BagWriter, Raw
from perception.tasks.messages import MessageError, image_from_message, stamp_in, with_stamp

REORDERED = 5_000_000_000
"""Nanoseconds by which messages may have been recorded too late and still be written in order."""
STAMPS = ("keep", "recorded", "header")
IMAGES = ("keep", "raw", "jpeg", "png")


@dataclass(frozen=True)
class Conversion:
    """What is kept of a bag, and what becomes of it."""

    topics: tuple[str, ...] = ()
    """Those that are kept; none: all."""
    start: float = 0.0
    """Seconds after the bag's first message from which on messages are kept, by the time of their recording; what
    latched topics said before that comes with the first of them."""
    duration: float | None = None
    """Seconds that are kept; None: to the end."""
    stamps: str = "keep"
    """"recorded": headers get the time of the recording, as for a driver that stamps nothing or wrongly. "header": the
    recording gets the time of the headers, as for a bag that was recorded late or played through another machine."""
    begin: float | None = None
    """Seconds since 1970 at which the first message was recorded, then; all stamps move along. None: they stay."""
    images: str = "keep"
    """"jpeg" or "png": raw images become compressed ones, on the topic with /compressed behind it; depth does so as png
    where it is in millimetres, and stays raw otherwise. "raw": compressed images become raw ones."""
    quality: int = 90
    """Of a JPEG, 1 to 100."""

    def __post_init__(self) -> None:
        for name, accepted in (("stamps", STAMPS), ("images", IMAGES)):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; accepted: {', '.join(accepted)}")
        if self.start < 0 or (self.duration is not None and self.duration <= 0):
            raise ValueError(
                f"start {self.start:g} s and duration {self.duration} s are not possible; a start is 0 or more, a "
                "duration more than 0"
            )
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality {self.quality} is not possible; give 1 to 100")


def to_ros2(path: Path, scratch: Path) -> Path:
    """The bag itself, or what `rosbags` makes of one of ROS 1 in the folder `scratch`: messages of the same name.

    Raises:
        ValueError: it cannot be read.
    """
    if path.suffix != ".bag" or not path.is_file():
        return path
    made = scratch / path.stem
    try:
        migrate([path], made, "sqlite3", 8, None, "file", None, bags.TYPES, [], [], [], [])
    except ConverterError as error:
        raise ValueError(f"{path} cannot be read as a ROS bag: {error}") from error
    return made


def convert(bag: Bag, writer: BagWriter, conversion: Conversion, report: Callable[[str], None] = print) -> int:
    """Write what the conversion makes of a bag of ROS 2, in the order of the new times; the number of messages.

    Messages that need no change are copied byte by byte, whatever their type. An image that cannot be read keeps its
    form, and is reported.

    Raises:
        ValueError: a topic that the bag lacks or that two others would become.
    """
    targets = _targets(bag, conversion)
    start = bag.start + round(1e9 * conversion.start)
    stop = None if conversion.duration is None else start + round(1e9 * conversion.duration)
    # Messages without a header, of transforms for instance, go with the last one that has one: here, the first.
    lag = next((lag for raw in bag.raw(targets, start, stop) if (lag := _lag(raw, conversion)) is not None), 0)
    move: int | None = None
    count = 0
    waiting: list[tuple[int, int, Raw]] = []
    for raw, earlier in _kept(bag, targets, start, stop):
        own = None if earlier else _lag(raw, conversion)
        lag = lag if own is None else own
        if move is None:
            move = 0 if conversion.begin is None else round(1e9 * conversion.begin) - (raw.time - lag)
        changed = _restamped(bag, raw, conversion, move, report).replace(time=raw.time - lag + move)
        if targets[raw.topic] != raw.topic:
            changed = _other_image(bag, changed, targets[raw.topic], conversion, report)
        heapq.heappush(waiting, (changed.time, count, changed))
        count += 1
        while waiting[0][0] < changed.time - REORDERED:
            writer.copy(heapq.heappop(waiting)[-1])
    while waiting:
        writer.copy(heapq.heappop(waiting)[-1])
    return count


def _kept(bag: Bag, topics: Collection[str], start: int, stop: int | None) -> Iterator[tuple[Raw, bool]]:
    """Messages in the order of their recording; True with those of latched topics from before `start`, which come as if
    recorded with the first of the others."""
    earlier = list(bag.raw({topic for topic in topics if bags.latched(bag, topic)}, None, start))
    for raw in bag.raw(topics, start, stop):
        yield from ((said.replace(time=raw.time), True) for said in earlier)
        earlier = []
        yield raw, False


def _targets(bag: Bag, conversion: Conversion) -> dict[str, str]:
    """What each topic that is kept is called afterwards."""
    targets = {}
    for topic in conversion.topics or sorted(bag.types):
        kind = bag.types.get(topic)
        if conversion.images == "raw" and kind == IMAGE_TYPES[1]:
            name = topic.removesuffix("/compressed")
            targets[topic] = name if name != topic else f"{topic}_raw"  # where its camera_info stays beside it
        elif conversion.images in ("jpeg", "png") and kind == IMAGE_TYPES[0] and not _is_metric(bag, topic):
            targets[topic] = f"{topic}/compressed"
        else:
            targets[topic] = topic
    for topic, target in targets.items():
        if target != topic and target in targets:
            raise ValueError(
                f"{topic} would become {target}, which {bag.path} has too; name the topics to keep, one of these"
            )
    return targets


def _is_metric(bag: Bag, topic: str) -> bool:
    """Whether a topic's images are depth in metres, which no compressed image holds."""
    return bag.counts[topic] > 0 and bags.encoding_of(bag, topic) == "32FC1"


def _lag(raw: Raw, conversion: Conversion) -> int | None:
    """How much later than its header says a message was recorded; None if that is not asked for or not said."""
    if conversion.stamps != "header":
        return 0
    if not raw.begins_with_header:
        return None
    stamp = stamp_in(raw.data)
    return raw.time - stamp if stamp else None


def _restamped(bag: Bag, raw: Raw, conversion: Conversion, move: int, report: Callable[[str], None]) -> Raw:
    """A message with its headers as the conversion wants them; as it is where it cannot be read."""
    if conversion.stamps != "recorded" and not move:
        return raw
    try:
        message = bag.read(raw)
    except MessageError as error:
        report(f"a message keeps its stamp: {error}")
        return raw
    for stamp in _stamps(message):
        own = raw.time if conversion.stamps == "recorded" else stamp.sec * 1_000_000_000 + stamp.nanosec
        if own:  # zero: never set
            stamp.sec, stamp.nanosec = divmod(own + move, 1_000_000_000)
    return bags.packed(raw, message)


def moved(bag: Bag, raw: Raw, nanoseconds: int) -> Raw:
    """A message of a bag of ROS 2 as if all had happened so much later: its recording, and its headers that are set.

    An image is not unpacked for that: where the header comes first, its bytes are changed.
    """
    if not nanoseconds:
        return raw
    later = raw.replace(time=raw.time + nanoseconds)
    if not raw.begins_with_header:
        return _restamped(bag, later, Conversion(), nanoseconds, lambda _: None)
    stamp = stamp_in(raw.data)
    return later.replace(data=with_stamp(raw.data, stamp + nanoseconds)) if stamp else later


def _other_image(bag: Bag, raw: Raw, target: str, conversion: Conversion, report: Callable[[str], None]) -> Raw:
    """An image in the form, and on the topic, that it is to have; as it is where it cannot be read."""
    try:
        message = bag.read(raw)
        image = image_from_message(message)
    except MessageError as error:
        report(f"a message of {raw.topic} stays as it is: {error}")
        return raw
    if conversion.images == "raw":
        made = bags.image_message(image, message.header)
    else:
        kind = "png" if image.data.dtype.itemsize > 1 else conversion.images  # JPEG has 8 bits
        made = bags.compressed_message(image, message.header, kind, conversion.quality)
    return bags.packed(raw, made).replace(topic=target)


def _stamps(message: Any) -> Iterator[Any]:
    """Of every std_msgs/Header in a message."""
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        for item in value if isinstance(value, list) else [value]:
            kind = getattr(item, "__msgtype__", "")
            if kind == "std_msgs/msg/Header":
                yield item.stamp
            elif kind:
                yield from _stamps(item)

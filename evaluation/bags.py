"""Recordings: reading ROS 2 bags (mcap, sqlite3) and ROS 1 bags, writing ROS 2 bags; without ROS, through `rosbags`."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection, ConnectionExtRosbag2, Qos, QosDurability
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from perception.tasks.calibration import Calibration
from perception.tasks.geometry import Camera
from perception.tasks.image import COLOR_ENCODINGS, DEPTH_ENCODINGS, Image
from perception.tasks.messages import (
    IMAGE_TYPES,
    MessageError,
    encode,
    image_fields,
    image_from_message,
    info_fields,
    stamp_of,
)
from perception.tasks.poses import quaternion_of
from perception.tasks.resources import share

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd  # a dependency of rosbags

INFO_TYPE = "sensor_msgs/msg/CameraInfo"
STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # a message in CDR begins with 0
TYPES = get_typestore(Stores.ROS2_HUMBLE)  # these messages are the same in every later distribution
for _path in share("tools/vision_msgs/msg").glob("*.msg"):  # not among them
    TYPES.register(get_types_from_msg(_path.read_text(), f"vision_msgs/msg/{_path.stem}"))


@dataclass(frozen=True)
class Recorded:
    """One message of a bag. `time` is when it was recorded, `stamp` its header's; nanoseconds; stamp 0: none."""

    topic: str
    time: int
    stamp: int
    message: Any


@dataclass(frozen=True)
class Raw:
    """One message of a bag as it lies there: in CDR, or in ROS 1's format."""

    topic: str
    kind: str
    time: int
    """Nanoseconds, of its recording."""
    data: bytes
    connection: Connection
    types: Typestore
    """Knows its type."""

    @property
    def begins_with_header(self) -> bool:
        """Whether the message's first field is a std_msgs/Header, as that of images is."""
        _, fields = self.types.fielddefs[self.kind]
        return bool(fields) and fields[0][0] == "header"

    def replace(self, **changes: Any) -> Raw:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


class Bag:
    """A recording that is open for reading; a context manager.

    Args:
        path: a folder with metadata.yaml, or a single .mcap, .db3 or .bag file.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: not a bag that can be read; the message says why.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise FileNotFoundError(f"bag {path} does not exist; give a bag folder or a .mcap, .db3 or .bag file")
        try:
            self._reader = AnyReader([path], default_typestore=TYPES)
            self._reader.open()
        except Exception as error:  # a damaged file makes rosbags fail in many ways
            raise ValueError(f"{path} cannot be read as a ROS bag: {error}; try `ros2 bag reindex`") from error
        self.connections = self._reader.connections
        self.types = {connection.topic: _full_type(connection.msgtype) for connection in self.connections}
        self.counts = {name: info.msgcount for name, info in self._reader.topics.items()}
        self.duration = max(0, self._reader.duration) if self._reader.message_count else 0
        self.start = self._reader.start_time if self._reader.message_count else 0

    def close(self) -> None:
        """Close the files; further calls do nothing."""
        if self._reader.stack is not None:
            self._reader.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def notes(self) -> dict[str, str]:
        """What the maker of the bag wrote into its metadata."""
        metadata = getattr(getattr(self._reader.readers[0], "storage", None), "metadata", None)
        return dict(getattr(metadata, "custom", None) or {})

    def image_topics(self) -> list[str]:
        """Topics with raw or compressed images that hold messages, sorted."""
        return sorted(topic for topic, kind in self.types.items() if kind in IMAGE_TYPES and self.counts[topic])

    def beside(self, image_topic: str, name: str, kinds: Collection[str]) -> str | None:
        """The topic called `name` beside an image, if it holds messages of one of these types: both /camera/image_raw
        and /camera/image_raw/compressed have /camera/NAME.
        """
        namespace = image_topic.rpartition("/")[0]
        namespaces = [namespace]
        if self.types[image_topic] == IMAGE_TYPES[1]:
            namespaces.append(namespace.rpartition("/")[0])
        candidates = [f"{namespace}/{name}" for namespace in namespaces]
        return next((topic for topic in candidates if self.types.get(topic) in kinds and self.counts[topic]), None)

    def camera_info_topic(self, image_topic: str) -> str | None:
        """The camera_info beside an image."""
        return self.beside(image_topic, "camera_info", (INFO_TYPE,))

    def messages(
        self, topics: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[Recorded]:
        """Messages of `topics` in the order of their recording; of those recorded in [start, stop), nanoseconds.

        Raises:
            ValueError: the bag has no such topic, or a message cannot be deserialised.
        """
        for raw in self.raw(topics, start, stop):
            message = self.read(raw)
            yield Recorded(raw.topic, raw.time, stamp_of(message) if hasattr(message, "header") else 0, message)

    def raw(self, topics: Collection[str], start: int | None = None, stop: int | None = None) -> Iterator[Raw]:
        """As `messages`, not yet deserialised."""
        if missing := sorted(set(topics) - self.types.keys()):
            raise ValueError(f"{self.path} has no topic {', '.join(missing)}; it has {', '.join(sorted(self.types))}")
        connections = [connection for connection in self.connections if connection.topic in topics]
        if not connections:
            return
        try:
            for connection, time, data in self._reader.messages(connections, start, stop):
                # A single .mcap file of a bag that was recorded with message compression does not say so anywhere.
                unpacked = zstd.decompress(data) if bytes(data[:4]) == ZSTD_MAGIC else data
                kind = _full_type(connection.msgtype)
                yield Raw(connection.topic, kind, time, unpacked, connection, self._reader.typestore)
        except Exception as error:  # see __init__
            raise ValueError(f"{self.path} is damaged: {error!r}; try `ros2 bag reindex`") from error

    def read(self, raw: Raw) -> Any:
        """The message.

        Raises:
            MessageError: it is damaged.
        """
        try:
            return self._reader.deserialize(raw.data, raw.kind)
        except Exception as error:  # see __init__
            raise MessageError(f"{raw.kind} on {raw.topic} in {self.path} is damaged: {error}") from error


def choose_images(bag: Bag, topic: str = "") -> str:
    """The topic of the colour images: `topic`, or the bag's only one.

    Raises:
        ValueError: the bag has no colour image, or several and none was chosen.
    """
    candidates = bag.image_topics()
    if topic and topic not in candidates:
        raise ValueError(f"{bag.path} has no images on {topic!r}; it has {', '.join(candidates) or 'none'}")
    if topic:
        return topic
    colors = [name for name in candidates if encoding_of(bag, name) in COLOR_ENCODINGS]
    if not colors:
        raise ValueError(
            f"{bag.path} has no readable colour images; its image topics: {', '.join(candidates) or 'none'}"
        )
    # The same pictures raw and compressed: raw.
    distinct = [name for name in colors if name.removesuffix("/compressed") not in set(colors) - {name}]
    if len(distinct) > 1:
        raise ValueError(f"{bag.path} has several image topics: {', '.join(distinct)}; choose one")
    return distinct[0]


def true_depth_topic(bag: Bag, images: str) -> str | None:
    """The topic depth_true beside the topic `images`."""
    return bag.beside(images, "depth_true", IMAGE_TYPES)


def only_depth_topic(bag: Bag) -> str | None:
    """The bag's topic with depth images, if there is just one."""
    depths = [name for name in bag.image_topics() if encoding_of(bag, name) in DEPTH_ENCODINGS]
    return depths[0] if len(depths) == 1 else None


def latched(bag: Bag, topic: str) -> bool:
    """Whether those who recorded the topic got what had been published before, as with /tf_static."""
    return any(
        profile.durability == QosDurability.TRANSIENT_LOCAL
        for connection in bag.connections
        if connection.topic == topic and isinstance(connection.ext, ConnectionExtRosbag2)
        for profile in connection.ext.offered_qos_profiles
    )


def encoding_of(bag: Bag, topic: str) -> str:
    """Of the first image; empty where it cannot be read."""
    try:
        return image_from_message(next(bag.messages([topic])).message).encoding
    except MessageError:
        return ""


def _full_type(name: str) -> str:
    """Early ROS 2 wrote sensor_msgs/Image for sensor_msgs/msg/Image."""
    package, _, kind = name.partition("/")
    return name if kind.startswith(("msg/", "srv/", "action/")) else f"{package}/msg/{kind}"


class BagWriter:
    """Writes a ROS 2 bag that Humble and later play; a context manager. Nothing is left behind after an error.

    Args:
        path: the bag's folder; must not exist.
        storage: "mcap" or "sqlite3".
        notes: written into the bag's metadata.

    Raises:
        FileExistsError: `path` exists.
        ValueError: unknown storage.
    """

    def __init__(self, path: Path, storage: str = "mcap", notes: dict[str, str] | None = None) -> None:
        if storage not in STORAGES:
            raise ValueError(f"bag storage {storage!r} is unknown; accepted: {', '.join(STORAGES)}")
        if path.exists():
            raise FileExistsError(f"{path} exists; remove it or give another name")
        self.path, self._partial = path, path.with_name(f".{path.name}.partial")
        shutil.rmtree(self._partial, ignore_errors=True)
        self._writer = Writer(self._partial / path.name, version=8, storage_plugin=STORAGES[storage])
        for key, value in (notes or {}).items():
            self._writer.set_custom_data(key, value)
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._writer.close()
                (self._partial / self.path.name).rename(self.path)
            else:
                self._writer.abort()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def write(self, topic: str, message: Any, stamp: int) -> None:
        """Append a message that was made by `message` or a function below; `stamp` in nanoseconds."""
        kind = message.__msgtype__
        self._append(topic, kind, stamp, TYPES.serialize_cdr(message, kind), TYPES)

    def copy(self, raw: Raw) -> None:
        """Append a message in CDR, on a topic of the QoS that it was recorded with."""
        extension = raw.connection.ext
        profiles = extension.offered_qos_profiles if isinstance(extension, ConnectionExtRosbag2) else ()
        self._append(raw.topic, raw.kind, raw.time, raw.data, raw.types, profiles)

    def _append(
        self,
        topic: str,
        kind: str,
        time: int,
        data: bytes | memoryview,
        types: Typestore,
        profiles: Sequence[Qos] = (),
    ) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=types, offered_qos_profiles=profiles
            )
        self._writer.write(self._connections[topic], time, data)


def packed(raw: Raw, message: Any) -> Raw:
    """`raw` with another message in it, of the same type or made by a function below, in CDR."""
    kind = message.__msgtype__
    types = raw.types if kind == raw.kind else TYPES
    return raw.replace(kind=kind, data=bytes(types.serialize_cdr(message, kind)), types=types)


def message(kind: str, **fields: Any) -> Any:
    """A message of the type `kind`, e.g. "geometry_msgs/msg/Point"; all fields must be given."""
    return TYPES.types[kind](**fields)


def header(stamp: int, frame_id: str) -> Any:
    """std_msgs/Header; `stamp` in nanoseconds."""
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    return message(
        "std_msgs/msg/Header",
        stamp=message("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds),
        frame_id=frame_id,
    )


def image_message(image: Image, head: Any) -> Any:
    """sensor_msgs/Image."""
    data = np.ascontiguousarray(image.data).reshape(-1).view(np.uint8)
    return message(IMAGE_TYPES[0], header=head, data=data, **image_fields(image))


def compressed_message(image: Image, head: Any, kind: str = "jpeg", quality: int = 90) -> Any:
    """sensor_msgs/CompressedImage, as `perception.tasks.messages.encode` makes it."""
    data, description = encode(image, kind, quality)
    return message(IMAGE_TYPES[1], header=head, format=description, data=data)


def info_message(calibration: Calibration | Camera, head: Any) -> Any:
    """sensor_msgs/CameraInfo."""
    fields = info_fields(calibration)
    fields["d"] = np.asarray(fields["d"], np.float64)
    whole = message("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return message(INFO_TYPE, header=head, binning_x=0, binning_y=0, roi=whole, **fields)


def pose_messages(pose: np.ndarray, head: Any, child: str) -> tuple[Any, Any]:
    """The 4x4 pose of the frame `child` in the header's frame, as geometry_msgs/PoseStamped and tf2_msgs/TFMessage."""
    x, y, z = map(float, pose[:3, 3])
    quaternion = dict(zip("xyzw", map(float, quaternion_of(pose[:3, :3])), strict=True))
    rotation = message("geometry_msgs/msg/Quaternion", **quaternion)
    position = message("geometry_msgs/msg/Point", x=x, y=y, z=z)
    translation = message("geometry_msgs/msg/Vector3", x=x, y=y, z=z)
    stamped = message(
        "geometry_msgs/msg/PoseStamped",
        header=head,
        pose=message("geometry_msgs/msg/Pose", position=position, orientation=rotation),
    )
    transform = message(
        "geometry_msgs/msg/TransformStamped",
        header=head,
        child_frame_id=child,
        transform=message("geometry_msgs/msg/Transform", translation=translation, rotation=rotation),
    )
    return stamped, message("tf2_msgs/msg/TFMessage", transforms=[transform])

"""Message conversion without ROS: reads any object with the fields of sensor_msgs (rclpy's, those of a recording), and
gives the fields of messages that `perception.nodes.convert` (rclpy) and `perception.evaluation.bags` (recordings) make.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import cv2
import numpy as np

from perception.tasks.calibration import Calibration, calibration_from_arrays, projection
from perception.tasks.geometry import Camera
from perception.tasks.image import DEPTH_ENCODINGS, Image, layout, to_color

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
JPEG_MAGIC, JPEG_SCAN, JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 1 << 28
"""Larger images are taken for damaged sizes: 2^28 pixels are 16384 x 16384."""


class MessageError(ValueError):
    """A message that cannot be used: what came, what is accepted, what to do."""


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image that are read here."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedImageMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage that are read here."""

    format: str
    data: Any


@dataclass(frozen=True)
class NamedBoxes:
    """What a vision_msgs/Detection2DArray says.

    `boxes` is float32 (N, 4), x1, y1, x2, y2 in pixels, outer edges; `scores` float32 (N,); `names` are the N classes,
    and `ids` what the detections are called, "" where they are not.
    """

    boxes: np.ndarray
    scores: np.ndarray
    names: tuple[str, ...]
    ids: tuple[str, ...]


def image_from_message(message: ImageMessage | CompressedImageMessage) -> Image:
    """The image of a sensor_msgs/Image or CompressedImage.

    A raw image is a read-only view of the message's data, padding at the ends of rows included, and keeps it alive. It
    is copied only where its numbers are in foreign byte order or not aligned. JPEG and PNG are decoded: colour to bgr8
    or bgra8, grey to mono8, 16 bits to the mono16 or 16UC1 that `format` names (16UC1 if it names neither).

    Raises:
        MessageError: unknown encoding, sizes that do not fit each other, truncated or corrupt data.
    """
    if hasattr(message, "format"):
        return _decode(cast(CompressedImageMessage, message))
    return _view(message)


def _view(message: ImageMessage) -> Image:
    height, width, step = int(message.height), int(message.width), int(message.step)
    shape, dtype = _checked_layout(message.encoding, height, width)
    pixel = dtype.itemsize * (shape[2] if len(shape) == 3 else 1)
    row = width * pixel
    what = f"image of {width}x{height} pixels in {message.encoding}"
    if step < row:
        raise MessageError(f"{what} with step {step} does not fit: a row has {row} bytes; correct the publisher's step")
    buffer = _bytes_of(message.data)
    needed = step * (shape[0] - 1) + row
    if buffer.size < needed:
        raise MessageError(
            f"{what} with step {step} is truncated: {buffer.size} bytes came, {needed} are needed; "
            "look for lost fragments between publisher and here"
        )
    if dtype.itemsize > 1 and bool(message.is_bigendian) != (sys.byteorder == "big"):
        dtype = dtype.newbyteorder("S")
    strides = (step, pixel, dtype.itemsize)[: len(shape)]
    view: np.ndarray = np.ndarray(shape, dtype, buffer, strides=strides)
    if not (dtype.isnative and view.flags.aligned):
        view = view.astype(dtype.newbyteorder("="))
    view.flags.writeable = False
    return Image(view, message.encoding)


def _decode(message: CompressedImageMessage) -> Image:
    data = bytes(_bytes_of(message.data))
    came = f"compressed image of format {message.format!r} with {len(data)} bytes"
    if "compressedDepth" in message.format:
        raise MessageError(
            f"{came} is compressedDepth; accepted: jpeg and png; subscribe to the raw depth topic instead"
        )
    jpeg, png = data.startswith(JPEG_MAGIC), data.startswith(PNG_MAGIC)
    if not (jpeg or png):
        raise MessageError(f"{came} starts with {data[:4].hex(' ') or 'nothing'}; accepted: jpeg and png")
    # Older OpenCV fills what is missing of a JPEG with grey and says nothing. An embedded preview has an end of its
    # own, but the picture's scan comes after it.
    if jpeg and data.rfind(JPEG_END) < data.rfind(JPEG_SCAN):
        raise MessageError(f"{came} is truncated: its end marker is missing; look for lost fragments or a full buffer")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise MessageError(f"{came} cannot be decoded: {error.err}; check the publisher") from error
    if pixels is None:
        raise MessageError(f"{came} is corrupt and cannot be decoded; accepted: jpeg and png; check the publisher")
    pixels.flags.writeable = False
    return Image(pixels, _encoding_of(pixels, message.format))


def _encoding_of(pixels: np.ndarray, message_format: str) -> str:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype == np.uint16 and channels == 1:
        return "mono16" if message_format.startswith("mono16") else "16UC1"
    encodings = {1: "mono8", 3: "bgr8", 4: "bgra8"}
    if pixels.dtype != np.uint8 or channels not in encodings:
        raise MessageError(
            f"compressed image of format {message_format!r} holds {channels} channels of {pixels.dtype}; "
            "accepted: grey and colour of 8 bits, grey of 16 bits"
        )
    # A Bayer mosaic travels as a grey PNG.
    named = message_format.partition(";")[0].strip()
    return named if channels == 1 and named.startswith("bayer_") else encodings[channels]


def calibration_from_message(message: Any) -> Calibration:
    """The calibration of a sensor_msgs/CameraInfo, for images as they are published: cut to `roi`, then binned.

    Raises:
        MessageError: zero or NaN focal length (a camera that was never calibrated), sizes that are not possible, or an
            unknown distortion model.
    """
    # ROS 1 recordings have capital letters.
    d, k, p = (
        cast(Sequence[float], getattr(message, name if hasattr(message, name) else name.upper())) for name in "dkp"
    )
    try:
        full = calibration_from_arrays(message.width, message.height, k, d, message.distortion_model, p)
        camera = _published(full.camera, message)
        rectified = _published(full.rectified, message) if full.rectified else None
    except ValueError as error:
        raise MessageError(
            f"camera_info of {message.width}x{message.height} with K {[float(x) for x in k]} is not usable: {error}"
        ) from error
    return Calibration(camera, full.model, full.distortion, rectified)


def _published(camera: Camera, message: Any) -> Camera:
    roi = message.roi
    if roi.width and roi.height:
        camera = camera.cropped(roi.x_offset, roi.y_offset, roi.width, roi.height)
    if message.binning_x > 1 or message.binning_y > 1:
        camera = camera.resized(camera.width // max(message.binning_x, 1), camera.height // max(message.binning_y, 1))
    return camera


def metres_of(image: Image) -> np.ndarray:
    """Depth as float32 metres, NaN where unknown, of a 32FC1 or 16UC1 image (REP 118).

    Raises:
        MessageError: not a depth image.
    """
    if image.encoding == "32FC1":
        return image.data
    if image.encoding == "16UC1":
        return np.where(image.data == 0, np.nan, image.data / np.float32(1000)).astype(np.float32)
    raise MessageError(f"encoding {image.encoding!r} is no depth; accepted: {', '.join(DEPTH_ENCODINGS)}")


def boxes_from_message(message: Any) -> NamedBoxes:
    """The boxes of a vision_msgs/Detection2DArray (version 4.0 and later), of each the likeliest class.

    Raises:
        MessageError: a detection without a class, or whose box is turned or not finite.
    """
    rows, best = [], []
    for place, detection in enumerate(message.detections):
        center, width, height = detection.bbox.center, detection.bbox.size_x, detection.bbox.size_y
        x, y = center.position.x, center.position.y
        if not detection.results or center.theta or not np.isfinite((x, y, width, height)).all():
            raise MessageError(
                f"detection {place} has {len(detection.results)} classes and a box of {width:g}x{height:g} at {x:g}, "
                f"{y:g} turned by {center.theta:g}; accepted: one class or more, and a finite box that is not turned"
            )
        rows.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        best.append(max((result.hypothesis for result in detection.results), key=lambda found: found.score))
    return NamedBoxes(
        np.array(rows, np.float32).reshape(-1, 4),
        np.array([found.score for found in best], np.float32),
        tuple(found.class_id for found in best),
        tuple(detection.id for detection in message.detections),
    )


def stamp_of(message: Any) -> int:
    """Nanoseconds of a message's header stamp; 0 where it was never set."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def stamp_in(data: bytes | bytearray | memoryview) -> int:
    """Nanoseconds of the stamp of a serialised message that begins with a header (OMG DDSI-RTPS, 10.2)."""
    order: Any = "little" if data[1] & 1 else "big"
    seconds, nanoseconds = (int.from_bytes(bytes(data[at : at + 4]), order) for at in (4, 8))
    return seconds * 1_000_000_000 + nanoseconds


def with_stamp(data: bytes | memoryview, stamp: int) -> bytes:
    """A serialised message that begins with a header, under another stamp, nanoseconds."""
    order: Any = "little" if data[1] & 1 else "big"
    changed = bytearray(data)
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    changed[4:12] = seconds.to_bytes(4, order) + nanoseconds.to_bytes(4, order)
    return bytes(changed)


def image_fields(image: Image) -> dict[str, Any]:
    """The fields of a sensor_msgs/Image besides header and data, rows packed, in this machine's byte order."""
    height, width = image.size
    return {
        "height": height,
        "width": width,
        "encoding": image.encoding,
        "is_bigendian": int(sys.byteorder == "big"),
        "step": image.data.nbytes // image.data.shape[0],
    }


def info_fields(calibration: Calibration | Camera) -> dict[str, Any]:
    """The fields of a sensor_msgs/CameraInfo that describe the camera; K, R and P are flat float64 arrays, D a list."""
    if isinstance(calibration, Camera):
        calibration = Calibration(calibration)
    camera = calibration.camera
    return {
        "height": camera.height,
        "width": camera.width,
        "distortion_model": calibration.model,
        "d": list(calibration.distortion) or [0.0] * 5,
        "k": camera.matrix.ravel(),
        "r": np.eye(3).ravel(),
        "p": projection(calibration.rectified or camera).ravel(),
    }


def encode(image: Image, kind: str = "jpeg", quality: int = 90) -> tuple[np.ndarray, str]:
    """The data (uint8) and the `format` of a sensor_msgs/CompressedImage, as image_transport writes them.

    Args:
        kind: "jpeg" for what has colours or grey of 8 bits; "png", lossless, for mono16 and 16UC1 too.
        quality: of a JPEG, 0 to 100.

    Raises:
        ValueError: an unknown `kind`, or an encoding that it cannot hold.
    """
    if kind not in ("jpeg", "png"):
        raise ValueError(f"compression {kind!r} is unknown; accepted: jpeg, png")
    wide = image.data.dtype.itemsize > 1
    if image.encoding == "32FC1" or (wide and kind == "jpeg"):
        raise ValueError(f"{image.encoding} cannot be held by {kind}; publish it raw (or 16 bit as png)")
    if wide or image.encoding == "mono8":
        pixels, target = image.data, image.encoding
    else:
        pixels, target = to_color(image, "bgr"), "bgr8"
    suffix, options = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality]) if kind == "jpeg" else (".png", [])
    _, data = cv2.imencode(suffix, pixels, options)
    return data.ravel(), f"{image.encoding}; {kind} compressed {target}"


def _bytes_of(data: Any) -> np.ndarray:
    """uint8 view of array.array, bytes, memoryview or array."""
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise MessageError(f"data of type {type(data).__name__} are no bytes: {error}") from error


def _checked_layout(encoding: str, height: int, width: int) -> tuple[tuple[int, ...], np.dtype]:
    if height * width > MAX_PIXELS:
        raise MessageError(f"image of {width}x{height} pixels is larger than {MAX_PIXELS} pixels; its size is damaged")
    try:
        return layout(encoding, (height, width))
    except ValueError as error:
        raise MessageError(f"{error}; convert the image or change the camera driver's output encoding") from error

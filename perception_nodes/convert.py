"""ROS messages from arrays; the other direction is `perception.tasks.messages`, which needs no ROS."""

from __future__ import annotations

import array

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, PointCloud2, PointField
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from perception.tasks.calibration import Calibration
from perception.tasks.geometry import Camera
from perception.tasks.image import Image
from perception.tasks.messages import (
    MessageError,
    calibration_from_message,
    encode,
    image_fields,
    image_from_message,
    info_fields,
)

__all__ = [
    "MessageError",
    "bytes_of",
    "calibration_from_message",
    "calibration_to_message",
    "image_from_message",
    "image_to_compressed",
    "image_to_message",
    "points_to_message",
]


def bytes_of(pixels: np.ndarray) -> array.array[int]:
    """The array's bytes in row-major order, copied once.

    Messages take an array.array as it is; from bytes or a list they convert every element, 30 times as slow.
    """
    data = array.array("B")
    # A memoryview keeps this a single copy; tobytes() would be a second one.
    data.frombytes(np.ascontiguousarray(pixels).reshape(-1).data.cast("B"))
    return data


def image_to_message(image: Image, header: Header) -> ImageMessage:
    """sensor_msgs/Image with rows packed, in this machine's byte order; `header` goes in as it is."""
    message = ImageMessage(header=header, **image_fields(image))
    message.data = bytes_of(image.data)  # the constructor would copy it once more
    return message


def image_to_compressed(image: Image, header: Header, kind: str = "jpeg", quality: int = 90) -> CompressedImage:
    """sensor_msgs/CompressedImage; `kind` is "jpeg" (quality 0..100) or "png" (lossless, 16 bit too).

    Raises:
        ValueError: an encoding that `kind` cannot hold.
    """
    data, description = encode(image, kind, quality)
    message = CompressedImage(header=header, format=description)
    message.data = bytes_of(data)
    return message


def calibration_to_message(calibration: Calibration | Camera, header: Header) -> CameraInfo:
    """sensor_msgs/CameraInfo; a bare `Camera` is one without distortion."""
    return CameraInfo(header=header, **info_fields(calibration))


def points_to_message(points: np.ndarray, header: Header, bgr: np.ndarray | None = None) -> PointCloud2:
    """An organised sensor_msgs/PointCloud2 with x, y, z and, where `bgr` is given, rgb packed as PCL does.

    Args:
        points: float32 of shape (height, width, 3), metres; NaN marks what is unknown and stays.
        bgr: uint8 of shape (height, width, 3).

    Raises:
        ValueError: shapes that do not fit each other.
    """
    if points.ndim != 3 or points.shape[2] != 3 or (bgr is not None and bgr.shape != points.shape):
        raise ValueError(
            f"points of shape {points.shape} with colours of shape {None if bgr is None else bgr.shape}; "
            "expected (height, width, 3) for both"
        )
    height, width = points.shape[:2]
    points = points.astype(np.float32, copy=False)
    names = ("x", "y", "z") if bgr is None else ("x", "y", "z", "rgb")
    data = bytes_of(points) if bgr is None else _colored(points, bgr)
    step = 4 * len(names)
    message = PointCloud2(header=header, height=height, width=width, point_step=step, row_step=step * width)
    message.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(names)
    ]
    message.data = data
    message.is_dense = False
    return message


def _colored(points: np.ndarray, bgr: np.ndarray) -> array.array[int]:
    """The bytes of x, y, z and 0x00RRGGBB for every pixel, written straight into what the message holds."""
    height, width = points.shape[:2]
    color = cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA).view(np.uint32)
    color &= 0x00FFFFFF
    data: array.array[int] = array.array("B", b"\0") * (height * width * 16)
    content = np.frombuffer(data, np.float32).reshape(height, width, 4)
    cv2.mixChannels([points, color.view(np.float32)], [content], [0, 0, 1, 1, 2, 2, 3, 3])
    return data

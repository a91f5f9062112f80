"""Images as arrays with an encoding, and the way from any of them to the network's input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from perception.tasks.config import GREY, ModelConfig
from perception.tasks.geometry import Fit

# Conversions to three-channel RGB or BGR, (to rgb, to bgr); None: already there. Names are those of
# sensor_msgs/image_encodings. OpenCV names a Bayer pattern by the second and third pixel of its second row, so that
# ROS's RGGB is OpenCV's BG.
_TO_COLOR: dict[str, tuple[int | None, int | None]] = {
    "rgb8": (None, cv2.COLOR_RGB2BGR),
    "bgr8": (cv2.COLOR_BGR2RGB, None),
    "rgba8": (cv2.COLOR_RGBA2RGB, cv2.COLOR_RGBA2BGR),
    "bgra8": (cv2.COLOR_BGRA2RGB, cv2.COLOR_BGRA2BGR),
    "mono8": (cv2.COLOR_GRAY2RGB, cv2.COLOR_GRAY2BGR),
    "yuv422": (cv2.COLOR_YUV2RGB_UYVY, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": (cv2.COLOR_YUV2RGB_UYVY, cv2.COLOR_YUV2BGR_UYVY),  # the name of yuv422 since ROS 2 Iron
    "yuv422_yuy2": (cv2.COLOR_YUV2RGB_YUY2, cv2.COLOR_YUV2BGR_YUY2),
    "yuyv": (cv2.COLOR_YUV2RGB_YUY2, cv2.COLOR_YUV2BGR_YUY2),  # the name of yuv422_yuy2 since ROS 2 Iron
    "nv12": (cv2.COLOR_YUV2RGB_NV12, cv2.COLOR_YUV2BGR_NV12),
    "bayer_rggb8": (cv2.COLOR_BayerBG2RGB, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr8": (cv2.COLOR_BayerRG2RGB, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": (cv2.COLOR_BayerGR2RGB, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg8": (cv2.COLOR_BayerGB2RGB, cv2.COLOR_BayerGB2BGR),
}
COLOR_ENCODINGS = (*_TO_COLOR, "mono16")
DEPTH_ENCODINGS = ("16UC1", "32FC1")  # millimetres and metres (REP 118)
ENCODINGS = (*COLOR_ENCODINGS, *DEPTH_ENCODINGS)
_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "yuv422": 2, "uyvy": 2, "yuv422_yuy2": 2, "yuyv": 2}
_DTYPES: dict[str, type[np.generic]] = {"mono16": np.uint16, "16UC1": np.uint16, "32FC1": np.float32}
RESIZABLE = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")
"""Encodings in which every pixel stands for itself, so that resizing or rectifying may come before colours."""
_INTERPOLATION = {"nearest": cv2.INTER_NEAREST_EXACT, "linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


@lru_cache(maxsize=64)  # every message asks again
def layout(encoding: str, size: tuple[int, int]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of the array of an image of size = (height, width).

    Raises:
        ValueError: an unknown encoding, or a size that the encoding does not allow.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"image encoding {encoding!r} is unknown; accepted: {', '.join(ENCODINGS)}")
    height, width = size
    if height <= 0 or width <= 0:
        raise ValueError(f"image of {width}x{height} pixels is empty; both sides must be positive")
    channels = _CHANNELS.get(encoding, 1)
    nv12 = encoding == "nv12"
    if (width % 2 and (nv12 or channels == 2)) or (height % 2 and nv12):
        raise ValueError(
            f"image of {width}x{height} pixels cannot be {encoding}: two pixels share a colour; use even sides"
        )
    if encoding.startswith("bayer") and min(size) < 3:
        raise ValueError(f"image of {width}x{height} pixels is too small for {encoding}: at least 3x3 is needed")
    rows = height * 3 // 2 if nv12 else height
    shape: tuple[int, ...] = (rows, width) if channels == 1 else (rows, width, channels)
    return shape, np.dtype(_DTYPES.get(encoding, np.uint8))


@dataclass(frozen=True)
class Image:
    """Pixels and what they mean.

    `data` is (height, width) or (height, width, channels), of the dtype that `encoding` (a name of
    sensor_msgs/image_encodings) asks for; nv12 is (height * 3 / 2, width) and yuv422 (height, width, 2).

    Raises:
        ValueError: the array's shape or dtype is not that of `encoding`.
    """

    data: np.ndarray
    encoding: str

    def __post_init__(self) -> None:
        if self.data.ndim < 2:
            raise ValueError(f"array of shape {self.data.shape} is not an image: it needs rows and columns")
        shape, dtype = layout(self.encoding, self.size)
        if self.data.shape != shape or self.data.dtype != dtype:
            raise ValueError(
                f"array of {self.data.dtype} {self.data.shape} is not a {self.encoding} image; expected {dtype} {shape}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        rows, columns = self.data.shape[:2]
        return (rows * 2 // 3 if self.encoding == "nv12" else rows), columns


def to_color(image: Image, order: str = "rgb") -> np.ndarray:
    """The image as uint8 of shape (height, width, 3) in the order "rgb" or "bgr"; a view where nothing changes.

    Raises:
        ValueError: an encoding that holds no colours or grey values of 8 or 16 bits (a depth image, say).
    """
    data, encoding = image.data, image.encoding
    if encoding == "mono16":
        data, encoding = (data >> 8).astype(np.uint8), "mono8"
    if encoding not in _TO_COLOR:
        raise ValueError(
            f"encoding {image.encoding!r} is not an image in colour or grey; accepted: {', '.join(COLOR_ENCODINGS)}"
        )
    code = _TO_COLOR[encoding][order == "bgr"]
    return data if code is None else cv2.cvtColor(data, code)


def resize(
    array: np.ndarray, size: tuple[int, int], interpolation: str = "linear", out: np.ndarray | None = None
) -> np.ndarray:
    """`array` stretched to size = (height, width), in `out` if given; the same object where it has that size already.

    "area" takes means of two pixels as often as they leave enough of them, and interpolates the rest of the way.
    OpenCV's own average over fractions of pixels looks the same and takes up to 8 times as long; it serves where an odd
    number of pixels cannot be halved.
    """
    if array.shape[:2] == size:
        return array
    if interpolation == "area":
        while (halves := tuple(map(_halved, array.shape[:2], size))) != array.shape[:2]:
            # The mean of two pixels is what linear interpolation says in their middle, in a quarter of the time.
            array = cv2.resize(array, halves[::-1], interpolation=cv2.INTER_LINEAR)
        if array.shape[0] < 2 * size[0] and array.shape[1] < 2 * size[1]:
            interpolation = "linear"  # a step of less than two needs no average
    return cv2.resize(array, (size[1], size[0]), out, interpolation=_INTERPOLATION[interpolation])


def _halved(have: int, want: int) -> int:
    """Half of `have` pixels where that is a whole number and not less than `want`, else all of them."""
    return have // 2 if have % 2 == 0 and have >= 2 * want else have


def to_light(signal: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values, float32, both in [0, 1] (IEC 61966-2-1)."""
    return np.where(signal < 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_signal(light: np.ndarray) -> np.ndarray:
    """The inverse of `to_light`."""
    curve = 1.055 * np.maximum(light, 1e-6) ** (1 / 2.4) - 0.055
    return np.where(light < 0.0031308, 12.92 * light, curve).astype(np.float32)


def preprocess(image: Image, config: ModelConfig, fit: Fit) -> np.ndarray:
    """The network's input: uint8 of shape (1, height, width, 3) in the model's colour order.

    Normalisation is part of the graph. Where pixels are independent the image shrinks before its colours are converted,
    because the smaller image is the cheaper one to convert.

    Args:
        fit: where in the input the image lies, grey around; `parse` takes the same one.
    """
    rows, columns = fit.window
    size = rows.stop - rows.start, columns.stop - columns.start
    if image.encoding in RESIZABLE:
        image = Image(resize(image.data, size, config.interpolation), image.encoding)
        pixels = to_color(image, config.color)
    else:
        pixels = resize(to_color(image, config.color), size, config.interpolation)
    return np.ascontiguousarray(lay(pixels, fit.window, config.input_size, config.pad_value))[None]


def lay(pixels: np.ndarray, window: tuple[slice, slice], size: tuple[int, int], around: float = GREY) -> np.ndarray:
    """`pixels` in the `window` of an array of size = (height, width); the same object where they cover all of it."""
    if pixels.shape[:2] == size:
        return pixels
    laid = np.full((*size, *pixels.shape[2:]), around, pixels.dtype)
    laid[window] = pixels
    return laid

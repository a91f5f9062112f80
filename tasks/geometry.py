"""Cameras, and how the original image and the network's image map onto each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import cv2
import numpy as np

from perception.tasks.config import PAD_GRID, ModelConfig

DISTORTION_MODELS = ("plumb_bob", "rational_polynomial", "equidistant")


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion: focal lengths and principal point in pixels of a width x height image.

    Pixel centres lie at integer coordinates, as in sensor_msgs/CameraInfo.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.height > 0):
            raise ValueError(f"camera size {self.width}x{self.height} is not possible: both must be positive")
        values = (self.fx, self.fy, self.cx, self.cy)
        if not (all(map(math.isfinite, values)) and self.fx > 0 and self.fy > 0):
            raise ValueError(
                f"camera calibration fx={self.fx}, fy={self.fy}, cx={self.cx}, cy={self.cy} is not usable: "
                "focal lengths must be finite and positive, the principal point finite; calibrate the camera"
            )

    @classmethod
    def canonical(cls, focal: tuple[float, float], size: tuple[int, int]) -> Camera:
        """The camera of a config's `focal` = (fx / width, fy / height), in images of (height, width), looking ahead."""
        height, width = size
        return cls(width, height, focal[0] * width, focal[1] * height, (width - 1) / 2, (height - 1) / 2)

    @property
    def matrix(self) -> np.ndarray:
        """K, 3x3 float64."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same view resampled to width x height (outer edges of the image stay where they are)."""
        sx, sy = width / self.width, height / self.height
        return Camera(width, height, self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5)

    def cropped(self, x: int, y: int, width: int, height: int) -> Camera:
        """The camera of the width x height window whose top left pixel is (x, y)."""
        return Camera(width, height, self.fx, self.fy, self.cx - x, self.cy - y)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """(x / z per column, y / z per row): float32 of shapes (width,) and (height,), optical frame (REP 103)."""
        columns = (np.arange(self.width, dtype=np.float64) - self.cx) / self.fx
        rows = (np.arange(self.height, dtype=np.float64) - self.cy) / self.fy
        return columns.astype(np.float32), rows.astype(np.float32)


@dataclass(frozen=True)
class Fit:
    """How a source image lies in the network's image, both as (height, width).

    It is stretched over all of it, or over a window of it: a network that `pads` narrow views sees, along each
    axis by which the source shows clearly less than the training camera did, things as large as training showed them.
    A telephoto lens then costs resolution, and not the meaning of sizes. With a `letterbox` the window has the source's
    aspect.
    """

    source: tuple[int, int]
    network: tuple[int, int]
    camera: Camera | None = None
    """The source's."""
    focal: tuple[float, float] | None = None
    """The training camera's, (fx / width, fy / height); None where the model does not depend on the lens."""
    pads: bool = False
    letterbox: str = ""
    """As in `ModelConfig`."""

    NARROW: ClassVar[float] = 1.05
    """From this ratio of focal lengths on a view is narrow. Less is stretched, as the crops of training were."""

    def __post_init__(self) -> None:
        if self.camera and (self.camera.height, self.camera.width) != self.source:
            raise ValueError(
                f"camera calibrated for {self.camera.width}x{self.camera.height} does not fit an image of "
                f"{self.source[1]}x{self.source[0]}; use the calibration of this resolution"
            )

    @classmethod
    def of(cls, source: tuple[int, int], config: ModelConfig, camera: Camera | None = None) -> Fit:
        """The fit of an image of this size to a model's input."""
        return cls(source, config.input_size, camera, config.focal, config.pads_narrow_views, config.letterbox)

    @cached_property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the network's image that the source covers."""
        if self.letterbox:
            scale = min(length / have for length, have in zip(self.network, self.source, strict=True))
            sizes = [max(1, round(scale * have)) for have in self.source]
            starts = [0, 0]
            if self.letterbox == "center":
                starts = [(length - size) // 2 for length, size in zip(self.network, sizes, strict=True)]
            rows, columns = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
            return rows, columns
        ratios = (1.0, 1.0) if self._ratios is None or not self.pads else self._ratios
        rows, columns = (self._share(length, ratio) for length, ratio in zip(self.network, ratios, strict=True))
        return rows, columns

    def covered(self, values: np.ndarray) -> np.ndarray:
        """The part of a map of the network's image, (h, w, ...) of any resolution, that shows the source."""
        rows, columns = (
            slice(part.start * size // length, part.stop * size // length)
            for part, size, length in zip(self.window, values.shape[:2], self.network, strict=True)
        )
        return values[rows, columns]

    @cached_property
    def depth_scale(self) -> float:
        """Factor from the network's metres to metres behind this camera.

        A network sees angles only through pixels: behind a lens of twice the focal length everything looks twice as
        near. Training happened at `focal`, so the metres grow with the ratio, less what the window takes back. The two
        axes can differ because the source is stretched; their geometric mean keeps the apparent area of things.
        1.0 without a camera or where the model does not depend on the lens.
        """
        if self._ratios is None:
            return 1.0
        shares = ((part.stop - part.start) / length for part, length in zip(self.window, self.network, strict=True))
        return math.sqrt(math.prod(ratio * share for ratio, share in zip(self._ratios, shares, strict=True)))

    @cached_property
    def _ratios(self) -> tuple[float, float] | None:
        """Focal length over that of training, (vertical, horizontal), the image stretched over the whole input."""
        if self.camera is None or self.focal is None:
            return None
        return self.camera.fy / self.camera.height / self.focal[1], self.camera.fx / self.camera.width / self.focal[0]

    def _share(self, length: int, ratio: float) -> slice:
        if ratio <= self.NARROW:
            return slice(0, length)
        covered = max(PAD_GRID, round(length / ratio / PAD_GRID) * PAD_GRID)
        start = (length - covered) // 2
        return slice(start, start + covered)


class Rectifier:
    """Undoes lens distortion through maps that are computed once for a calibration.

    Args:
        matrix: K of the distorted camera, 3x3.
        coefficients: D as in sensor_msgs/CameraInfo for `model`.
        model: "plumb_bob", "rational_polynomial" or "equidistant".
        size: (height, width) of the images.

    Raises:
        ValueError: unknown distortion model, or a calibration that is not usable.
    """

    def __init__(self, matrix: np.ndarray, coefficients: np.ndarray, model: str, size: tuple[int, int]) -> None:
        if model not in DISTORTION_MODELS:
            raise ValueError(f"distortion model {model!r} is unknown; accepted: {', '.join(DISTORTION_MODELS)}")
        height, width = size
        self.camera = Camera(width, height, matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2])
        undistort = cv2.fisheye.initUndistortRectifyMap if model == "equidistant" else cv2.initUndistortRectifyMap
        self._maps = undistort(matrix, coefficients, np.eye(3), self.camera.matrix, (width, height), cv2.CV_16SC2)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The rectified image, seen by `self.camera`."""
        return cv2.remap(image, *self._maps, cv2.INTER_LINEAR)

    def nearest(self, depth: np.ndarray) -> np.ndarray:
        """Rectified depth, each value being that of one pixel: a mean across an edge is no depth. NaN outside."""
        return cv2.remap(depth, *self._maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan)


def back_project(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Points of a depth map in the camera's optical frame (x right, y down, z forward; REP 103).

    Args:
        depth: metres along Z (REP 118), float32 of shape (camera.height, camera.width).

    Returns:
        float32 of shape (height, width, 3) in metres; NaN where depth is not finite (REP 117).
    """
    if depth.shape != (camera.height, camera.width):
        raise ValueError(f"depth of shape {depth.shape} does not fit the camera's {camera.height, camera.width}")
    columns, rows = camera.rays()
    points = np.empty((*depth.shape, 3), dtype=np.float32)
    z = points[..., 2]
    z[...] = depth
    z[~np.isfinite(z)] = np.nan
    np.multiply(z, columns, out=points[..., 0])
    np.multiply(z, rows[:, None], out=points[..., 1])
    return points

"""Calibrations of real cameras: with lens distortion, from camera_info messages and calibration files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np

from perception.tasks.geometry import DISTORTION_MODELS, Camera, Rectifier

_MODEL_NAMES = {"": "plumb_bob", "fisheye": "equidistant"}  # what some drivers write


@dataclass(frozen=True)
class Calibration:
    """What sensor_msgs/CameraInfo says about one camera.

    Attributes:
        camera: K, the pinhole part of the camera that takes the unrectified image.
        model: name of the distortion model, one of `geometry.DISTORTION_MODELS`.
        distortion: D, as many coefficients as the model has; empty without distortion.
        rectified: P, the camera that seems to take the rectified image (image_rect); None: like `camera`.

    Raises:
        ValueError: unknown distortion model, or coefficients that are not finite.
    """

    camera: Camera
    model: str = "plumb_bob"
    distortion: tuple[float, ...] = ()
    rectified: Camera | None = None

    def __post_init__(self) -> None:
        if self.model not in DISTORTION_MODELS:
            raise ValueError(
                f"distortion model {self.model!r} is unknown; accepted: {', '.join(DISTORTION_MODELS)}; "
                "rectify the image before it comes here, or calibrate again with one of these"
            )
        if not all(map(math.isfinite, self.distortion)):
            raise ValueError(f"distortion coefficients {self.distortion} are not finite; calibrate the camera")

    @property
    def distorted(self) -> bool:
        """Whether images need rectifying before they obey `camera`."""
        return any(self.distortion)

    def rectifier(self) -> Rectifier:
        """The map from images of this camera to images without distortion, seen by `rectifier().camera`."""
        size = self.camera.height, self.camera.width
        return Rectifier(self.camera.matrix, np.asarray(self.distortion, np.float64), self.model, size)


def calibration_from_arrays(
    width: int, height: int, k: Sequence[float], d: Sequence[float], model: str, p: Sequence[float] | None = None
) -> Calibration:
    """A calibration from the row-major numbers of CameraInfo: K has 9, P 12 (all zero or None: unknown).

    Raises:
        ValueError: numbers that are no usable calibration, with what came.
    """
    if len(k) != 9 or (p is not None and len(p) != 12):
        raise ValueError(
            f"calibration with {len(k)} numbers in K and {0 if p is None else len(p)} in P; expected 9 and 12"
        )
    camera = Camera(int(width), int(height), float(k[0]), float(k[4]), float(k[2]), float(k[5]))
    rectified = None
    if p is not None and any(p):
        rectified = Camera(camera.width, camera.height, float(p[0]), float(p[5]), float(p[2]), float(p[6]))
    return Calibration(camera, _MODEL_NAMES.get(model, model), tuple(map(float, d)), rectified)


def load_calibration(url: str) -> Calibration:
    """Read a file of ROS's camera_calibration (YAML): a path, file:///path or package://name/path.

    Raises:
        ValueError: the file is not a calibration; the message says what is missing.
        OSError: it cannot be read.
    """
    import yaml  # only calibration files need it

    path = resolve_url(url)
    try:
        content = yaml.safe_load(path.read_text())
        width, height = content["image_width"], content["image_height"]
        k = _numbers(content, "camera_matrix")
        d = _numbers(content, "distortion_coefficients")
        p = _numbers(content, "projection_matrix") if "projection_matrix" in content else None
        return calibration_from_arrays(width, height, k, d, content.get("distortion_model", ""), p)
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a camera calibration ({type(error).__name__}: {error}); expected YAML as ROS's "
            "camera_calibration writes it: image_width, image_height, camera_matrix, distortion_coefficients, ..."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def save_calibration(calibration: Calibration, path: Path, name: str = "camera") -> None:
    """Write the file that `load_calibration` and ROS's camera drivers read."""
    import yaml

    camera, rectified = calibration.camera, calibration.rectified or calibration.camera
    content = {
        "image_width": camera.width,
        "image_height": camera.height,
        "camera_name": name,
        "camera_matrix": {"rows": 3, "cols": 3, "data": camera.matrix.ravel().tolist()},
        "distortion_model": calibration.model,
        "distortion_coefficients": {
            "rows": 1,
            "cols": len(calibration.distortion),
            "data": list(calibration.distortion),
        },
        "rectification_matrix": {"rows": 3, "cols": 3, "data": np.eye(3).ravel().tolist()},
        "projection_matrix": {"rows": 3, "cols": 4, "data": projection(rectified).ravel().tolist()},
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def projection(camera: Camera) -> np.ndarray:
    """P of CameraInfo for a camera on its own: 3x4 float64, K with a column of zeros."""
    return np.hstack([camera.matrix, np.zeros((3, 1))])


def resolve_url(url: str) -> Path:
    """The file behind a path, a file:// or a package:// URL (as in camera_info_manager).

    Raises:
        ValueError: another kind of URL, or a package that is not installed here.
    """
    parts = urlparse(url)
    if parts.scheme == "":
        return Path(url).expanduser()
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme != "package":
        raise ValueError(f"calibration URL {url!r} is not supported; give a path, file:///path or package://name/path")
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    for prefix in filter(None, prefixes):
        share = Path(prefix) / "share" / parts.netloc
        if share.is_dir():
            return share / unquote(parts.path).lstrip("/")
    raise ValueError(f"package {parts.netloc!r} of {url!r} is not installed in AMENT_PREFIX_PATH={':'.join(prefixes)}")


def _numbers(content: dict[str, Any], name: str) -> list[float]:
    return [float(value) for value in content[name]["data"]]

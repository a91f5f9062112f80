"""Views from where the camera is not: results, how far from the camera they may be, and parity.

A view is told by `pose`, where the target camera stands in the input camera's optical frame (x right, y down, z
forward; float64 4x4, metres), and by the target's `Camera`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from perception.tasks.config import ModelConfig
from perception.tasks.geometry import Camera, Fit
from perception.tasks.image import resize
from perception.tasks.poses import angle_of, check_pose, distance_of, pose_of

PARITY_BOUNDS: Mapping[str, float] = {"fp32": 0.002, "fp16": 0.01, "bf16": 0.04, "int8": 0.08}
"""Largest accepted `disagreement` with the float32 definition, frame by frame."""
ACCURACY_DROPS: Mapping[str, float] = {"fp32": 0.02, "fp16": 0.05, "bf16": 0.2, "int8": 0.5}
"""Largest accepted loss of PSNR in dB against the float32 definition, over a data set."""

TYPICAL_FOCAL, TYPICAL_DISTANCE, TYPICAL_ANGLE = 0.9, 2.0, 5.0
"""Of a camera, over its width; metres to the middle of a scene; degrees that a view is turned."""


@dataclass(frozen=True)
class View:
    """What the target camera sees: `image` is uint8 RGB (height, width, 3); `depth` float32 (height, width), metres
    along its Z, NaN where nothing is known; `mask` bool (height, width), where objects are, None where nobody says."""

    image: np.ndarray
    depth: np.ndarray
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Reach:
    """How far from the input camera a view may be: beyond, a picture would be invented.

    Attributes:
        distance: metres between the cameras.
        angle: degrees that the target camera is turned, about whichever axis.
    """

    distance: float = 1.0
    angle: float = 30.0

    def check(self, pose: np.ndarray) -> None:
        """Whether a view is within reach.

        Raises:
            ValueError: it is not, or `pose` is none; the message says by how much.
        """
        check_pose(pose)
        distance, angle = distance_of(pose), angle_of(pose)
        if distance > self.distance or angle > self.angle:
            raise ValueError(
                f"the view is {distance:.2f} m and {angle:.0f} degrees from the camera, and at most "
                f"{self.distance:g} m and {self.angle:g} degrees are accepted: what lies beyond would be invented; ask "
                "for a nearer view, or allow more"
            )


def parse(outputs: Mapping[str, np.ndarray], fit: Fit, config: ModelConfig) -> View:
    """The view at the target camera's resolution.

    Args:
        outputs: "view", float32 (1, 3, h, w), RGB in [0, 1], and "depth", float32 (1, 1, h, w), metres, not positive
            or not finite where nothing is known.
        fit: how the target camera's image lies in what the network renders; undone here.

    Raises:
        ValueError: the image has values that are no numbers.
    """
    image = np.ascontiguousarray(fit.covered(outputs["view"][0].transpose(1, 2, 0)))
    if not np.isfinite(image).all():
        raise ValueError("the network's view has values that are no numbers; try another precision of the engine")
    depth = fit.covered(outputs["depth"][0, 0]).astype(np.float32)
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))
    pixels = cv2.convertScaleAbs(np.clip(resize(image, fit.source), 0, 1), alpha=255)
    return View(pixels, resize(depth, fit.source, "nearest"))


def lens_numbers(camera: Camera, *distance: float) -> np.ndarray:
    """A camera as networks take it: float32 (1, 4), fx / width, fy / height, (cx + 0.5) / width, (cy + 0.5) / height.

    Of the input camera (1, 5): with the `distance` in metres from it to the middle of the scene.
    """
    across = camera.fx / camera.width, camera.fy / camera.height
    middle = (camera.cx + 0.5) / camera.width, (camera.cy + 0.5) / camera.height
    return np.array([[*across, *middle, *distance]], np.float32)


def typical_inputs(config: ModelConfig, number: int) -> dict[str, np.ndarray]:
    """What goes into a network beside image `number`: a view a step aside of a room, the same for the same number."""
    height, width = config.input_size
    random = np.random.default_rng(number)
    camera = Camera.canonical((TYPICAL_FOCAL, TYPICAL_FOCAL * width / height), config.input_size)
    axis = random.normal(size=3)
    turn = np.radians(TYPICAL_ANGLE / 2)
    pose = pose_of(tuple(random.uniform(-0.1, 0.1, 3)), (*(np.sin(turn) * axis / np.linalg.norm(axis)), np.cos(turn)))
    floor = np.linspace(3.0, 1.0, height)[:, None].repeat(width, 1)
    objects = (np.arange(height)[:, None] * 3 // height) * (np.arange(width) % 3)
    told = {
        "camera": lens_numbers(camera, TYPICAL_DISTANCE),
        "target": lens_numbers(camera),
        "pose": pose[None],
        "seen_depth": floor[None, None],
        "instances": objects[None, None],
    }
    return {tensor.name: told[tensor.name].astype(np.float32) for tensor in config.more_inputs}


def disagreement(
    reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray], config: ModelConfig
) -> float:
    """The largest over the outputs of mean |candidate - reference| over mean |reference|; Inf if any is not finite.

    So are fields judged, of which the outputs are planes and lines, and views.
    """
    shares = [0.0]
    for name, expected in reference.items():
        got = candidate[name]
        if expected.shape != got.shape or not np.isfinite(got).all():
            return float("inf")
        shares.append(float(np.abs(got - expected).mean() / max(float(np.abs(expected).mean()), 1e-6)))
    return max(shares)

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

BEHIND = 0.1
"""By this share of its distance a point lies behind what an image shows there before it counts as hidden: depths of
models are not exact."""
TYPICAL_FOCAL, TYPICAL_ANGLE = 0.9, 5.0
"""Of a camera, over its width; degrees that a view is turned."""
UNKNOWN = 0.0
"""Metres, in place of those that nobody knows."""


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
        outputs: "view", float32 (1, 3, h, w), RGB in [0, 1], "depth", float32 (1, 1, h, w), metres, not positive
            or not finite where nothing is known; and "mask", float32 (1, 1, h, w), the chance of each pixel to show an
            object, if the network says that.
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
    mask = None
    if "mask" in outputs:
        mask = resize(np.ascontiguousarray(fit.covered(outputs["mask"][0, 0])), fit.source) > 0.5
    return View(pixels, resize(depth, fit.source, "nearest"), mask)


def is_shown(depth: np.ndarray, camera: Camera, pose: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
    """Which pixels of a view the input image shows, bool (height, width): a network renders something everywhere.

    Args:
        depth: of the view, (height, width), metres, NaN where unknown.
        camera: of both.
        seen: the depth of the image, if that is known, like `depth`; what lies behind it is hidden.
    """
    columns, rows = camera.rays()
    ahead = depth.astype(np.float32)
    x, y = columns * ahead, rows[:, None] * ahead
    turn, place = pose[:3, :3].astype(np.float32), pose[:3, 3].astype(np.float32)
    across, down, distance = (a * x + b * y + c * ahead + d for (a, b, c), d in zip(turn, place, strict=True))
    before = distance > 0
    distance = np.where(before, distance, np.float32(1))
    u, v = camera.fx * across / distance + camera.cx, camera.fy * down / distance + camera.cy
    shown = before & (u > -0.5) & (u < camera.width - 0.5) & (v > -0.5) & (v < camera.height - 0.5)
    if seen is not None:
        found = cv2.remap(seen, u.astype(np.float32), v.astype(np.float32), cv2.INTER_NEAREST, borderValue=np.nan)
        shown &= ~(distance > (1 + BEHIND) * found)
    return shown  # type: ignore[no-any-return]


def lens_numbers(camera: Camera, *distance: float) -> np.ndarray:
    """A camera as networks take it: float32 (1, 4), fx / width, fy / height, (cx + 0.5) / width, (cy + 0.5) / height.

    Of the input camera (1, 5): with the `distance` from it to the middle of the scene, see `scene_distance`.
    """
    across = camera.fx / camera.width, camera.fy / camera.height
    middle = (camera.cx + 0.5) / camera.width, (camera.cy + 0.5) / camera.height
    return np.array([[*across, *middle, *distance]], np.float32)


def scene_distance(depth: np.ndarray | None) -> float:
    """Metres from a camera to the middle of the scene, as networks are told: the median of the depth of its image,
    whoever knows that, a sensor or a model for depth; `UNKNOWN` where nobody does.

    Args:
        depth: metres along Z; not finite or not positive where unknown.
    """
    known = np.empty(0) if depth is None else depth[np.isfinite(depth) & (depth > 0)]
    return float(np.median(known)) if len(known) else UNKNOWN


def source_inputs(
    config: ModelConfig, camera: Camera, depth: np.ndarray | None = None, instances: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """What a network takes beside the input image, by name, as far as `config` has it among its inputs.

    Args:
        camera: the image's.
        depth: of the image, metres along Z, of any resolution; not finite or not positive where unknown; None: nobody
            knows any.
        instances: numbers of objects, 0 being none, of any resolution; None: nobody knows of any.
    """
    told = {"camera": lens_numbers(camera, scene_distance(depth))}
    for name, values in (("seen_depth", depth), ("instances", instances)):
        given = np.zeros(config.input_size, np.float32)
        if values is not None:
            given = resize(values.astype(np.float32), config.input_size, "nearest")
        told[name] = np.where(np.isfinite(given) & (given > 0), given, np.float32(UNKNOWN))[None, None]
    return _taken(told, config)


def target_inputs(config: ModelConfig, camera: Camera, pose: np.ndarray) -> dict[str, np.ndarray]:
    """What a network takes to know which view is wanted, by name, as far as `config` has it among its inputs.

    Args:
        camera, pose: the target camera, and where it stands in the input camera's optical frame, 4x4, metres.
    """
    return _taken({"target": lens_numbers(camera), "pose": pose[None].astype(np.float32)}, config)


def _taken(told: Mapping[str, np.ndarray], config: ModelConfig) -> dict[str, np.ndarray]:
    return {tensor.name: told[tensor.name] for tensor in config.more_inputs if tensor.name in told}


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
    told = source_inputs(config, camera, floor, objects) | target_inputs(config, camera, pose)
    return {tensor.name: told[tensor.name] for tensor in config.more_inputs}


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

"""Enhancement of images taken in low light: results, parity, and what a video needs beyond single images.

A network brightens a small image of the scene. What the camera sees beyond that size comes back from the camera's own
image: the result is gain * image + offset, whose maps are smooth and fitted at the network's size (`_guided`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from perception.tasks.config import ModelConfig
from perception.tasks.darkening import darken
from perception.tasks.geometry import Fit
from perception.tasks.image import RESIZABLE, Image, preprocess, resize, to_color

PARITY_BOUNDS: Mapping[str, float] = {"fp32": 0.001, "fp16": 0.004, "bf16": 0.015, "int8": 0.03}
"""Largest accepted mean difference to the float32 definition, frame by frame, of intensities in [0, 1]."""
ACCURACY_DROPS: Mapping[str, float] = {"fp32": 0.02, "fp16": 0.05, "bf16": 0.2, "int8": 0.5}
"""Largest accepted loss of PSNR in dB against the float32 definition, over a data set."""
RADIUS = 2
"""Of the windows in which gains are fitted, in the network's pixels: 5x5."""
NOISE = 0.01
"""Standard deviation up to which what differs within a window is noise, and not brightened: of an image in [0, 1]."""
SAMPLED = 8
TYPICAL_EXPOSURE = 0.02
"""Share of the light that makes the shipped clip dark; half of LOL's dark images have less."""


@dataclass(frozen=True)
class Enhancement:
    """A brightened image: `image` is uint8 RGB (height, width, 3) in the original image's pixels."""

    image: np.ndarray


def parse(
    outputs: Mapping[str, np.ndarray],
    fit: Fit,
    config: ModelConfig,
    image: np.ndarray | None = None,
    factor: float = 1.0,
    tensor: np.ndarray | None = None,
) -> Enhancement:
    """The brightened image at the source's resolution.

    Args:
        outputs: "enhanced", float32 (1, 3, h, w), RGB in [0, 1].
        fit: how the source was laid into the network's input; undone here.
        image: uint8 RGB (height, width, 3), the source, from which details come that the network did not see. Without
            it, or where the network saw as much, the network's image is resized.
        factor: by which the result is brighter still; see `Exposure`.
        tensor: what `preprocess` made of the source, uint8 (1, h, w, 3); without it the source is made small again.

    Raises:
        ValueError: an image of another size than the source's.
    """
    covered = fit.covered(outputs["enhanced"][0].transpose(1, 2, 0))
    bright = np.multiply(covered, np.float32(255 * factor), order="C")
    if not np.isfinite(bright).all():
        raise ValueError("the network's image has values that are no numbers; try another precision of the engine")
    if image is None or (bright.shape[0] >= fit.source[0] and bright.shape[1] >= fit.source[1]):
        return Enhancement(cv2.convertScaleAbs(np.maximum(resize(bright, fit.source, "area"), 0)))
    if image.shape != (*fit.source, 3):
        raise ValueError(f"an image of shape {image.shape} is not the source of {fit.source[0]}x{fit.source[1]} pixels")
    if tensor is None:
        tensor = preprocess(Image(image, "rgb8"), config, fit)
    seen = fit.covered(tensor[0]) if config.color == "rgb" else fit.covered(tensor[0])[..., ::-1]
    return Enhancement(_guided(bright, resize(seen, bright.shape[:2], config.interpolation), image))


def _guided(bright: np.ndarray, seen: np.ndarray, image: np.ndarray) -> np.ndarray:
    """`bright`, made of `seen`, at the size of `image` with its details: uint8 (height, width, 3), cut at 0 and 255.

    As the fast guided filter (He and Sun, 2015), channel by channel, but for the offset, which is what the gain leaves
    of `bright` in each pixel, not its mean: what the network saw is enlarged then, and not blurred. Of LOL's images,
    brightened by a perfect network of 160x240, 36.0 dB are left so, and 32.8 dB where they are only enlarged.
    """
    seen = seen.astype(np.float32)
    mean_seen, mean_bright = _mean(seen), _mean(bright)
    variance = _mean(seen * seen) - mean_seen * mean_seen
    covariance = _mean(seen * bright) - mean_seen * mean_bright
    gain = _mean(covariance / (variance + np.float32((255 * NOISE) ** 2)))
    size = image.shape[:2]
    scaled = cv2.multiply(image, resize(gain, size), dtype=cv2.CV_32F)
    result: np.ndarray = cv2.add(scaled, resize(bright - gain * seen, size), dtype=cv2.CV_8U)
    return result


def _mean(values: np.ndarray) -> np.ndarray:
    side = 2 * RADIUS + 1
    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)


def disagreement(
    reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray], config: ModelConfig
) -> float:
    """Mean of |candidate - reference| over all intensities; Inf if any is not finite."""
    expected, got = reference["enhanced"], candidate["enhanced"]
    if expected.shape != got.shape or not np.isfinite(got).all():
        return float("inf")
    return float(np.mean(np.abs(got - expected)))


def typical(image: np.ndarray, number: int) -> np.ndarray:
    """The shipped clip's image as a camera has it in the dark, always the same: see `perception.tasks.darkening`."""
    return darken(image, TYPICAL_EXPOSURE, np.random.default_rng(number))


def brightness(image: Image) -> float:
    """Mean intensity in [0, 1] of an image in any encoding of colours, of every `SAMPLED`-th row and column."""
    if image.encoding in RESIZABLE:
        image = Image(image.data[::SAMPLED, ::SAMPLED], image.encoding)
        return float(to_color(image).mean() / 255)
    return float(to_color(image)[::SAMPLED, ::SAMPLED].mean() / 255)


class Exposure:
    """Damps flicker: from image to image the gain changes no faster than with a time constant.

    What is damped is the factor by which images become brighter on the whole, in stops (factors of 2). Where it jumps
    by more than `JUMP`, a light was switched or another scene begins, and it is taken as it is.
    """

    JUMP: ClassVar[float] = 1.0

    def __init__(self) -> None:
        self._stops: float | None = None
        self._stamp = 0

    def factor(self, before: float, after: float, stamp: int, seconds: float) -> float:
        """By what the brightened image is to be multiplied.

        Args:
            before, after: mean of an image and of what the network makes of it, > 0 if anything is to be damped.
            stamp: nanoseconds; one before the last one's, as when a recording starts over, begins anew.
            seconds: the time constant; 0 damps nothing.
        """
        if min(before, after) <= 0:
            return 1.0
        stops = math.log2(after / before)
        last, elapsed = self._stops, stamp - self._stamp
        self._stops, self._stamp = stops, stamp
        if last is None or elapsed < 0 or abs(stops - last) > self.JUMP or not seconds:
            return 1.0
        self._stops = last + (stops - last) * -math.expm1(-elapsed * 1e-9 / seconds)
        return float(2 ** (self._stops - stops))

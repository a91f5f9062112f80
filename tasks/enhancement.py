"""Enhancement of images taken in low light: results, parity, and what a video needs beyond single images.

A network brightens a small image of the scene. What the camera sees beyond that size comes back from the camera's own
image: its brightness becomes gain * brightness + offset, whose maps are smooth and fitted at the network's size
(`_guided`). Colours are the network's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

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
WINDOW = 3
"""Side of the windows in which gains are fitted, in pixels of half the network's size."""
NOISE = 0.007
"""Standard deviation up to which what differs within a window is noise, and not brightened: of grey in [0, 1]."""
_CODES: Mapping[str, tuple[int | None, int | None, int | None]] = {
    "rgb8": (None, cv2.COLOR_RGB2GRAY, cv2.COLOR_YCrCb2RGB),
    "bgr8": (cv2.COLOR_RGB2BGR, cv2.COLOR_BGR2GRAY, cv2.COLOR_YCrCb2BGR),
    "mono8": (cv2.COLOR_RGB2GRAY, None, None),
}
"""Conversions of an encoding: from RGB, to grey, from YCrCb. None: already there."""
ENCODINGS = tuple(_CODES)
"""Of images that `parse` brightens; see `accepted`."""
SAMPLED = 16
JUMP = 1.0
"""Change from one image to the next, in stops (factors of 2), above which a light was switched or another scene begins:
it is followed at once."""
REST = 0.02
"""What a fade may leave of itself: it ends there."""
TYPICAL_EXPOSURE = 0.02
"""Share of the light that makes the shipped clip dark; half of LOL's dark images have less."""


@dataclass(frozen=True)
class Enhancement:
    """A brightened image: `image` is uint8 (height, width, 3), or (height, width) if grey, in the original image's
    pixels and in the encoding of the source that `parse` was given; RGB where it was given none."""

    image: np.ndarray


def accepted(image: Image) -> Image:
    """The image as `parse` takes it: the same object where its encoding is one of `ENCODINGS`, else as bgr8."""
    return image if image.encoding in ENCODINGS else Image(to_color(image, "bgr"), "bgr8")


def parse(
    outputs: Mapping[str, np.ndarray],
    fit: Fit,
    config: ModelConfig,
    image: Image | None = None,
    factor: float = 1.0,
    tensor: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> Enhancement:
    """The brightened image at the source's resolution.

    Args:
        outputs: "enhanced", float32 (1, 3, h, w), RGB in [0, 1].
        fit: how the source was laid into the network's input; undone here.
        image: the source, in one of `ENCODINGS`, from which details come that the network did not see. Without it, or
            where the network saw as much, the network's image is resized.
        factor: by which the result is brighter still; see `Exposure`.
        tensor: what `preprocess` made of the source, uint8 (1, h, w, 3); without it the source is made small again.
        out: an array of the result's shape where it may go; not the source's.

    Raises:
        ValueError: an image of another size than the source's, or of another encoding.
    """
    if image and (image.encoding not in ENCODINGS or image.size != fit.source):
        raise ValueError(
            f"a {image.encoding} image of {image.size[1]}x{image.size[0]} pixels is not the source of "
            f"{fit.source[1]}x{fit.source[0]} as one of {', '.join(ENCODINGS)}"
        )
    planes = outputs["enhanced"][0]
    if not np.isfinite(planes).all():
        raise ValueError("the network's image has values that are no numbers; try another precision of the engine")
    bright = cv2.merge([cv2.multiply(fit.covered(plane), 255.0 * factor, dtype=cv2.CV_8U) for plane in planes])
    from_rgb, _, _ = _CODES[image.encoding if image else "rgb8"]
    if image is None or (bright.shape[0] >= fit.source[0] and bright.shape[1] >= fit.source[1]):
        bright = resize(bright, fit.source, "area")
        return Enhancement(bright if from_rgb is None else cv2.cvtColor(bright, from_rgb, out))
    seen = fit.covered(preprocess(image, config, fit)[0] if tensor is None else tensor[0])
    seen = resize(_grey(seen, f"{config.color}8"), bright.shape[:2], config.interpolation)
    return Enhancement(_guided(bright, seen, image, out))


def _grey(pixels: np.ndarray, encoding: str) -> np.ndarray:
    code = _CODES[encoding][1]
    return pixels if code is None else cv2.cvtColor(pixels, code)


def _guided(bright: np.ndarray, seen: np.ndarray, image: Image, out: np.ndarray | None) -> np.ndarray:
    """`bright`, RGB, made of `seen`, in grey, at the size of `image` with its details, and in its encoding: uint8.

    As the fast guided filter (He and Sun, 2015), but for the offset, which is what the gain leaves of `bright` in each
    pixel, not its mean: what the network saw is enlarged then, and not blurred. Of LOL's eval images, brightened by a
    perfect network of 160x240, 32.6 dB are left so, and 29.2 dB where they are only enlarged. Filtering each channel
    takes twice as long and leaves 32.5 dB: in the dark, what differs in colour from pixel to pixel is mostly noise.
    """
    luma, red, blue = cv2.split(cv2.cvtColor(bright, cv2.COLOR_RGB2YCrCb))
    gain, offset = _fitted(seen.astype(np.float32), luma.astype(np.float32))
    size, from_ycrcb = image.size, _CODES[image.encoding][2]
    scaled = cv2.multiply(_grey(image.data, image.encoding), resize(gain, size), dtype=cv2.CV_32F)
    luma = cv2.add(scaled, resize(offset, size), out if from_ycrcb is None else None, dtype=cv2.CV_8U)
    if from_ycrcb is None:
        return luma
    return cv2.cvtColor(cv2.merge((luma, resize(red, size), resize(blue, size))), from_ycrcb, out)


def _fitted(seen: np.ndarray, bright: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset that make `bright` of `seen`: all float32 (h, w)."""
    half = (seen.shape[0] + 1) // 2, (seen.shape[1] + 1) // 2
    mean_seen, mean_bright, mean_square, mean_product = (
        _mean(resize(values, half)) for values in (seen, bright, seen * seen, seen * bright)
    )
    variance = mean_square - mean_seen * mean_seen
    covariance = mean_product - mean_seen * mean_bright
    gain = _mean(covariance / (variance + np.float32((255 * NOISE) ** 2)))
    gain = resize(gain, seen.shape[:2])
    return gain, bright - gain * seen


def _mean(values: np.ndarray) -> np.ndarray:
    return cv2.blur(values, (WINDOW, WINDOW), borderType=cv2.BORDER_REFLECT)


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
    """Mean intensity in [0, 1] of an image in any encoding of colours, of every `SAMPLED`-th row."""
    if image.encoding == "mono8":
        return cv2.mean(image.data[::SAMPLED])[0] / 255
    pixels = image.data if image.encoding in RESIZABLE else to_color(image)
    red, green, blue, _ = cv2.mean(pixels[::SAMPLED])  # or blue first, which is no matter
    return (red + green + blue) / 3 / 255


class _Damped:
    """A number that follows another one with a time constant, by stamps in nanoseconds.

    It begins with the first, and anew where a stamp lies before the last one's, as when a recording starts over.
    """

    def __init__(self) -> None:
        self.value: float | None = None
        self._stamp = 0

    def follow(self, target: float, stamp: int, seconds: float, jumped: bool) -> float:
        """What it is then; the target itself after a jump, or where `seconds`, the time constant, are 0."""
        last, elapsed = self.value, stamp - self._stamp
        self.value, self._stamp = target, stamp
        if last is not None and elapsed >= 0 and seconds and not jumped:
            self.value = last + (target - last) * -math.expm1(-elapsed * 1e-9 / seconds)
        return self.value


class Exposure:
    """Damps flicker: from image to image the gain changes no faster than with a time constant.

    What is damped is the factor by which images become brighter on the whole, in stops. Where it jumps by more than
    `JUMP` it is taken as it is.
    """

    def __init__(self) -> None:
        self._stops = _Damped()

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
        last = self._stops.value
        jumped = last is not None and abs(stops - last) > JUMP
        return float(2 ** (self._stops.follow(stops, stamp, seconds, jumped) - stops))


class Fade:
    """Damps the change between images as they came and brightened ones: what is shown passes from the one to the other.

    Where the images' brightness jumps by more than `JUMP` it changes at once: what was right for the image before may
    be black or glaring now.
    """

    def __init__(self) -> None:
        self._weight = _Damped()
        self._level = 0.0

    def weight(self, dark: bool, level: float, stamp: int, seconds: float) -> float:
        """The share in [0, 1] that the brightened image has in what is shown; the image as it came has the rest.

        Args:
            dark: whether the image is to be brightened: where the share is moving to.
            level: the image's `brightness`.
            stamp: nanoseconds; one before the last one's, as when a recording starts over, begins anew.
            seconds: the time constant; 0 damps nothing.
        """
        target = float(dark)
        jumped = max(level, self._level) > 2**JUMP * min(level, self._level)
        self._level = level
        weight = self._weight.follow(target, stamp, seconds, jumped)
        if abs(weight - target) < REST:
            weight = self._weight.value = target
        return weight

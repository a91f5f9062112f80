"""How near an enhanced image is to a bright one of the same view: PSNR, SSIM, brightness, and the order of lightness.

Images are uint8 RGB of shape (height, width, 3), as nodes publish them, and count as values in [0, 1].
"""

from __future__ import annotations

import cv2
import numpy as np

WINDOW, SIGMA = 11, 1.5
"""Of SSIM's Gaussian window, pixels (Wang et al., IEEE Transactions on Image Processing, 2004)."""
C1, C2 = 0.01**2, 0.03**2
"""Which keep SSIM's quotients finite, of values up to 1 (same paper)."""
COMPARED = 50
"""Pixels of the shorter side of the images whose order of lightness is compared (Wang et al. 2013)."""


def psnr(image: np.ndarray, target: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, dB; Inf for equal images.

    Raises:
        ValueError: images of other shapes, here and below.
    """
    _check(image, target)
    difference = image.astype(np.float64) - target
    error = float(np.mean(difference * difference)) / 255**2
    return float(-10 * np.log10(error)) if error else float("inf")


def fitted_psnr(image: np.ndarray, target: np.ndarray) -> float:
    """PSNR after the image was scaled to the target's mean, as some papers report it: how right an image is but for its
    brightness. A robot has no target to take the mean from, so it is not the accuracy of anything.
    """
    _check(image, target)
    scaled = np.rint(image * (target.mean() / max(float(image.mean()), 1e-6)))
    return psnr(np.clip(scaled, 0, 255).astype(np.uint8), target)


def ssim(image: np.ndarray, target: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004): the mean over channels, and over the pixels whose window lies within
    the image.

    Raises:
        ValueError: an image that is smaller than the window, too.
    """
    _check(image, target)
    if min(image.shape[:2]) < WINDOW:
        raise ValueError(f"image of shape {image.shape} is too small for SSIM: {WINDOW} pixels each way are needed")
    x, y = (array.astype(np.float64) / 255 for array in (image, target))
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x) - mean_x**2 + _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return float(np.mean(likeness / ((mean_x**2 + mean_y**2 + C1) * (variances + C2))))


def lightness_order_error(image: np.ndarray, dark: np.ndarray) -> float:
    """LOE (Wang et al., IEEE Transactions on Image Processing, 2013), which needs no target: the share of pairs of
    pixels of which the enhanced image shows the other one as the lighter than the dark image did.

    Lightness is the largest channel. The paper counts pairs for each pixel; a share does not grow with the image. Of
    measures without a target it is one that fits to nothing: NIQE, for one, is what natural images one takes for it.
    """
    _check(image, dark)
    height, width = image.shape[:2]
    scale = min(1.0, COMPARED / min(height, width))
    size = round(width * scale), round(height * scale)
    before, after = (
        cv2.resize(array.max(axis=2), size, interpolation=cv2.INTER_AREA).ravel() for array in (dark, image)
    )
    changed = (before[:, None] >= before) != (after[:, None] >= after)
    return float(changed.mean())


def brightness_error(image: np.ndarray, target: np.ndarray) -> float:
    """The image's mean minus the target's, of values in [0, 1]: over 0 where it is too bright."""
    _check(image, target)
    return float(image.mean() - target.mean()) / 255


def _blurred(values: np.ndarray) -> np.ndarray:
    """Means by SSIM's window, where it lies within the image."""
    kernel = cv2.getGaussianKernel(WINDOW, SIGMA, cv2.CV_64F)
    edge = WINDOW // 2
    return cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel)[edge:-edge, edge:-edge]


def _check(image: np.ndarray, other: np.ndarray) -> None:
    if image.shape != other.shape:
        raise ValueError(f"image of shape {image.shape} and the one that it is held against, {other.shape}, differ")

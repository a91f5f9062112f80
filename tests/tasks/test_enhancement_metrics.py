"""Metrics of enhancement, worked out by hand and by plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.tasks.enhancement_metrics import (
    C1,
    C2,
    SIGMA,
    WINDOW,
    brightness_error,
    fitted_psnr,
    lightness_order_error,
    psnr,
    ssim,
)


def noise(seed: int, shape: tuple[int, int] = (14, 17), low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (*shape, 3)).astype(np.uint8)


def test_psnr_by_hand() -> None:
    target = np.full((2, 2, 3), 100, np.uint8)
    image = target.copy()
    image[0, 0, 0] = 130  # 30^2 over 12 values
    assert psnr(image, target) == pytest.approx(10 * math.log10(255**2 / (900 / 12)))
    assert psnr(target, image) == psnr(image, target) and psnr(target, target) == math.inf
    assert psnr(np.zeros_like(target), np.full_like(target, 255)) == 0


def test_a_fitted_mean_leaves_what_is_not_brightness() -> None:
    target = noise(0, low=40, high=120)
    assert fitted_psnr((target // 2 * 2).astype(np.uint8), target) > 45
    half = (target / 2).astype(np.uint8)
    assert psnr(half, target) < 18 < 40 < fitted_psnr(half, target)
    assert brightness_error(half, target) == pytest.approx(-target.mean() / 2 / 255, abs=0.003)
    assert fitted_psnr(np.zeros_like(target), target) == psnr(np.zeros_like(target), target)


def plain_ssim(image: np.ndarray, target: np.ndarray) -> float:
    """Window by window, from the definition."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    line = np.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = np.outer(line, line) / line.sum() ** 2
    found = []
    for channel in range(3):
        for row in range(image.shape[0] - WINDOW + 1):
            for column in range(image.shape[1] - WINDOW + 1):
                x, y = (
                    a[row : row + WINDOW, column : column + WINDOW, channel].astype(float) / 255
                    for a in (image, target)
                )
                mx, my = (weights * x).sum(), (weights * y).sum()
                vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
                both = (weights * (x - mx) * (y - my)).sum()
                found.append((2 * mx * my + C1) * (2 * both + C2) / ((mx**2 + my**2 + C1) * (vx + vy + C2)))
    return float(np.mean(found))


@settings(max_examples=10)
@given(st.integers(0, 9999), st.floats(0, 1))
def test_ssim_is_that_of_the_definition(seed: int, share: float) -> None:
    target = noise(seed)
    image = np.rint(share * target + (1 - share) * noise(seed + 1)).astype(np.uint8)
    assert ssim(image, target) == pytest.approx(plain_ssim(image, target), abs=1e-9)


def test_ssim_of_equal_and_of_inverted_images() -> None:
    assert ssim(noise(1), noise(1)) == pytest.approx(1)
    assert ssim(255 - noise(1), noise(1)) < -0.5


def plain_loe(image: np.ndarray, dark: np.ndarray) -> float:
    before, after = ([int(max(pixel)) for pixel in array.reshape(-1, 3)] for array in (dark, image))
    places = range(len(before))
    changed = sum((before[a] >= before[b]) != (after[a] >= after[b]) for a in places for b in places)
    return changed / len(before) ** 2


@settings(max_examples=20)
@given(st.integers(0, 9999))
def test_loe_is_that_of_the_definition(seed: int) -> None:
    dark, image = noise(seed, (6, 7), high=20), noise(seed + 1, (6, 7))
    assert lightness_order_error(image, dark) == pytest.approx(plain_loe(image, dark))


def test_loe_sees_the_order_and_not_the_brightness() -> None:
    dark = np.repeat(np.arange(80, dtype=np.uint8)[None, :, None], 40, 0).repeat(3, 2)
    assert lightness_order_error(dark * 3, dark) == 0
    assert lightness_order_error(255 - dark, dark) > 0.95
    large = np.kron(dark, np.ones((4, 4, 1), np.uint8))  # each 4x4 pixels are seen as one, and some more
    assert lightness_order_error(255 - large, large) > 0.95


def test_images_must_be_of_one_shape_and_large_enough() -> None:
    for measure in (psnr, fitted_psnr, ssim, lightness_order_error, brightness_error):
        with pytest.raises(ValueError, match="differ"):
            measure(noise(0), noise(0)[1:])
    with pytest.raises(ValueError, match="too small for SSIM"):
        ssim(noise(0, (10, 30)), noise(1, (10, 30)))

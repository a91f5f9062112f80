"""Images in less light: how much arrives, how noisy it is, and what the eye of a camera makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks.darkening import ELECTRONS, READ_NOISE, darken
from perception.tasks.image import to_light, to_signal


def flat(shade: int) -> np.ndarray:
    return np.full((200, 200, 3), shade, np.uint8)


@given(st.floats(0, 1))
def test_light_and_signal_are_each_others_inverse(value: float) -> None:
    assert to_signal(to_light(np.array([value]))) == pytest.approx(value, abs=1e-5)


def test_srgb_at_known_values() -> None:
    assert to_light(np.array([0.0, 0.02, 0.5, 1.0])) == pytest.approx([0, 0.02 / 12.92, 0.214041, 1], abs=1e-6)


@pytest.mark.parametrize("exposure", [1.0, 0.3, 0.1])
def test_so_much_light_is_left(exposure: float) -> None:
    light = to_light(darken(flat(200), exposure, np.random.default_rng(0)) / 255).mean()
    assert light == pytest.approx(exposure * float(to_light(np.array(200 / 255))), rel=0.02)


@pytest.mark.parametrize("shade", [120, 250])
def test_noise_is_that_of_photons_and_electronics(shade: int) -> None:
    """Beside it there is that of rounding: 1 / 12 of a squared step."""
    exposure = 0.2
    dark = darken(flat(shade), exposure, np.random.default_rng(1))
    light = exposure * float(to_light(np.array(shade / 255)))
    step = (to_light(to_signal(np.array(light)) + 0.5 / 255) - to_light(to_signal(np.array(light)) - 0.5 / 255)).item()
    expected = light / ELECTRONS + (READ_NOISE / ELECTRONS) ** 2 + step**2 / 12
    assert to_light(dark / 255).var() == pytest.approx(expected, rel=0.05)


def test_the_same_draw_gives_the_same_image_and_no_light_is_black() -> None:
    image = np.random.default_rng(2).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    first, again, other = (darken(image, 0.05, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.dtype == np.uint8 and first.shape == image.shape
    assert (first == again).all() and (first != other).any()
    assert darken(flat(0), 1.0, np.random.default_rng(5), read_noise=0).max() == 0


@pytest.mark.parametrize("exposure", [0, -1, 1.5, float("nan")])
def test_an_exposure_is_a_share(exposure: float) -> None:
    with pytest.raises(ValueError, match="a share of the light"):
        darken(flat(9), exposure, np.random.default_rng(0))

"""What a camera would have delivered with less light: for data with truth in the dark, and for demonstrations.

An image is taken back to light, of which less arrives; photons and electronics add their noise, and the camera rounds
to 8 bits as before. Its tone curve is taken for sRGB's, its colours for unmixed, and the noise that it has already for
none. The model of noise is Foi et al.'s (IEEE Transactions on Image Processing, 2008): Poisson's and Gauss's.
"""

from __future__ import annotations

import numpy as np

from perception.tasks.image import to_light, to_signal

ELECTRONS = 6000.0
"""Which white brings into a pixel of a small sensor at full exposure. LOL's images are as noisy as with 12,000."""
READ_NOISE = 3.0
"""Standard deviation of what the electronics add, in electrons."""
_LIGHT = to_light(np.arange(256, dtype=np.float32) / 255)


def darken(
    image: np.ndarray,
    exposure: float,
    rng: np.random.Generator,
    electrons: float = ELECTRONS,
    read_noise: float = READ_NOISE,
) -> np.ndarray:
    """The image as a shorter exposure, or the same in less light, would have been: uint8 of its shape.

    Noise below black is cut off, as cameras without a black level do, and so lifts the mean of what is black.

    Args:
        image: uint8 of any shape, in sRGB.
        exposure: share of the light, over 0 and up to 1; nine tenths of LOL's dark images have 0.004 to
            0.15 of their pairs', half of them less than 0.02.
        electrons, read_noise: see `ELECTRONS` and `READ_NOISE`.

    Raises:
        ValueError: an exposure that is no such share.
    """
    check_exposure(exposure)
    arrived = rng.poisson(_LIGHT[image] * (exposure * electrons)).astype(np.float32)
    arrived += read_noise * rng.standard_normal(image.shape, dtype=np.float32)
    return np.rint(255 * to_signal(np.clip(arrived / electrons, 0, 1))).astype(np.uint8)


def scale_light(image: np.ndarray, factor: float) -> np.ndarray:
    """The image with all its light multiplied, clipped at white: uint8 of its shape. Noise is multiplied as well."""
    return np.rint(255 * to_signal(np.minimum(_LIGHT * np.float32(factor), 1))).astype(np.uint8)[image]


def check_exposure(exposure: float) -> None:
    """Whether images can be darkened so.

    Raises:
        ValueError: it is no share.
    """
    if not 0 < exposure <= 1:
        raise ValueError(f"exposure {exposure} is not possible; accepted: a share of the light, over 0 and up to 1")

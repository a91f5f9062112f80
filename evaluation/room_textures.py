"""Procedural textures of the simulated rooms. Each function gives a square sRGB image that tiles at its borders."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from perception.evaluation.room_style import Draw

SIZE = 256


def noise(draw: Draw, slope: float, stretch: tuple[float, float] = (1, 1), size: int = SIZE) -> np.ndarray:
    """Tileable noise of zero mean and unit deviation, float32 (size, size).

    The amplitude falls as frequency ** -slope (0 white, 1 cloudy, 2 soft); `stretch` = (along u, along v) lengthens it.
    """
    fv = np.fft.fftfreq(size)[:, None] * stretch[1]
    fu = np.fft.rfftfreq(size)[None] * stretch[0]
    frequency = np.hypot(fu, fv)
    frequency[0, 0] = np.inf
    spectrum = frequency**-slope * np.exp(2j * np.pi * draw.rng.random(frequency.shape))
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(size, size))
    return (field / field.std()).astype(np.float32)


def _grid(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """u and v in [0, 1) of every texel."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return np.broadcast_to(axis, (size, size)), np.broadcast_to(axis[:, None], (size, size))


def _shaded(colour: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return np.clip(colour * factor[..., None], 0, 1).astype(np.float32)


def _mixed(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`first` where weight is 0, `second` where it is 1; both a colour or an image."""
    return (first + (second - first) * np.clip(weight, 0, 1)[..., None]).astype(np.float32)


def paint(draw: Draw, colour: np.ndarray) -> np.ndarray:
    return _shaded(colour, 1 + 0.006 * noise(draw, 1.2) + 0.006 * noise(draw, 0.2))


def wood(draw: Draw, colour: np.ndarray) -> np.ndarray:
    """Grain along u."""
    _, v = _grid()
    rings = np.sin(2 * np.pi * (draw.integer(3, 7) * v + 0.35 * noise(draw, 1.8, (6, 1))))
    grain = noise(draw, 0.7, (24, 1))
    return _shaded(colour, 1 + draw.uniform(0.04, 0.1) * rings + draw.uniform(0.04, 0.09) * grain)


def _cells(draw: Draw, columns: int, rows: int, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Running bond: a random number per cell, and the place inside the cell along u and v in [0, 1)."""
    u, v = _grid(2 * SIZE)
    row = np.floor(v * rows).astype(int)
    along = u * columns + shift * row
    column = np.floor(along).astype(int) % columns
    return draw.rng.random((rows, columns)).astype(np.float32)[row, column], along % 1, v * rows % 1


def _joint(along: np.ndarray, across: np.ndarray, width_along: float, width_across: float) -> np.ndarray:
    """1 in the joints between cells, 0 inside."""
    inside = (np.abs(along - 0.5) < 0.5 - width_along) & (np.abs(across - 0.5) < 0.5 - width_across)
    return cv2.GaussianBlur((~inside).astype(np.float32), (0, 0), 0.7)


def planks(draw: Draw, colour: np.ndarray) -> np.ndarray:
    tone, along, across = _cells(draw, draw.integer(1, 3), 12, draw.uniform(0.3, 0.5))
    grain = noise(draw, 0.8, (20, 1), 2 * SIZE) * 0.07 + 0.05 * noise(draw, 1.6, (10, 1), 2 * SIZE)
    image = _shaded(colour, 0.85 + 0.3 * tone * draw.uniform(0.4, 1) + grain)
    return _mixed(image, image * 0.35, _joint(along, across, 0.004, 0.02))


def herringbone(draw: Draw, colour: np.ndarray) -> np.ndarray:
    u, v = _grid(2 * SIZE)
    band = np.floor(u * 8).astype(int)
    across = (v * 16 + np.where(band % 2, 1, -1) * (u * 8 % 1) * 2) % 16
    tone = draw.rng.random((16, 8)).astype(np.float32)[np.floor(across).astype(int) % 16, band % 8]
    image = _shaded(colour, 0.82 + 0.3 * tone + 0.06 * noise(draw, 0.9, (1, 6), 2 * SIZE))
    return _mixed(image, image * 0.4, _joint(u * 8 % 1, across % 1, 0.015, 0.03))


def tiles(draw: Draw, colour: np.ndarray, contrast: float = 0.0) -> np.ndarray:
    """Square tiles; `contrast` darkens every other one."""
    count = 2 * draw.integer(2, 3)
    tone, along, across = _cells(draw, count, count, 0)
    u, v = _grid(2 * SIZE)
    odd = (np.floor(u * count) + np.floor(v * count)) % 2
    mottle = draw.uniform(0.01, 0.06) * noise(draw, 1.3, size=2 * SIZE)
    image = _shaded(colour, (0.96 + 0.08 * tone + mottle) * (1 - contrast * odd))
    return _mixed(image, colour * draw.choice((0.55, 0.7, 1.15)), _joint(along, across, 0.012, 0.012))


def checker(draw: Draw, colour: np.ndarray) -> np.ndarray:
    return tiles(draw, colour, draw.uniform(0.3, 0.7))


def slabs(draw: Draw, colour: np.ndarray) -> np.ndarray:
    tone, along, across = _cells(draw, 2, 4, 0.5)
    image = _shaded(colour, 0.93 + 0.14 * tone + 0.05 * noise(draw, 1.4, (3, 1), 2 * SIZE))
    return _mixed(image, colour * 0.6, _joint(along, across, 0.005, 0.01))


def bricks(draw: Draw, colour: np.ndarray) -> np.ndarray:
    tone, along, across = _cells(draw, 4, 12, 0.5)
    image = _shaded(colour, 0.8 + 0.35 * tone + 0.06 * noise(draw, 0.6, size=2 * SIZE))
    return _mixed(image, 0.75 * colour + 0.15, _joint(along, across, 0.03, 0.08))


def carpet(draw: Draw, colour: np.ndarray) -> np.ndarray:
    return _shaded(colour, 1 + 0.08 * noise(draw, 0.1) + 0.05 * noise(draw, 1))


def fabric(draw: Draw, colour: np.ndarray, kind: str) -> np.ndarray:
    u, v = _grid()
    thread = 0.04 * np.sin(128 * np.pi * u) * np.sin(128 * np.pi * v) + 0.05 * noise(draw, 0.4)
    image = _shaded(colour, 1 + thread)
    other = draw.colour("fabric")
    count = draw.integer(3, 8)
    if kind == "stripes":
        return _mixed(image, image * 0.3 + other * 0.7, (u * count % 1 < draw.uniform(0.2, 0.5)).astype(np.float32))
    if kind == "plaid":
        bands = 0.4 * (u * count % 1 < 0.3) + 0.4 * (v * count % 1 < 0.3)
        return _mixed(image, image * 0.2 + other * 0.8, bands.astype(np.float32))
    if kind == "chevron":
        zigzag = (v * 2 * count + 2 * np.abs(u * count % 1 - 0.5)) % 1 < 0.4
        return _mixed(image, image * 0.4 + other * 0.6, zigzag.astype(np.float32))
    if kind == "melange":
        return _shaded(colour, 1 + thread + 0.1 * noise(draw, 0.6, (1, 3)))
    return image


def wallpaper(draw: Draw, colour: np.ndarray, kind: str) -> np.ndarray:
    u, v = _grid()
    base = paint(draw, colour)
    other = colour * draw.choice((0.82, 0.9, 1.06))
    count = draw.integer(2, 5)
    if kind == "stripes":
        mask = u * count % 1 < draw.uniform(0.15, 0.5)
    elif kind == "dots":
        mask = np.hypot(u * count % 1 - 0.5, v * count % 1 - 0.5) < draw.uniform(0.12, 0.25)
    elif kind == "trellis":
        mask = np.abs((u + v) * count % 1 - 0.5) + np.abs((u - v) * count % 1 - 0.5) > 0.85
    elif kind == "bands":
        mask = v * count % 1 < 0.08
    elif kind == "panels":
        mask = u * count % 1 < 0.04
    else:
        return base
    return _mixed(base, other, cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8))


def stone(draw: Draw, colour: np.ndarray) -> np.ndarray:
    image = _shaded(colour, 1 + 0.05 * noise(draw, 1))
    for factor in (0.5, 1.35):
        image = _mixed(image, np.clip(image * factor, 0, 1), (noise(draw, 0.5) - 1.0) * 3)
    return image


def metal(draw: Draw, colour: np.ndarray) -> np.ndarray:
    return _shaded(colour, 1 + 0.03 * noise(draw, 0.6, (12, 1)))


def leaf(draw: Draw, colour: np.ndarray) -> np.ndarray:
    return _shaded(colour, 1 + 0.15 * noise(draw, 1))


def rug(draw: Draw, colour: np.ndarray) -> np.ndarray:
    """One rug from edge to edge: a border and a repeated motif."""
    u, v = _grid()
    edge = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    second, third = draw.colour("fabric"), draw.colour("fabric")
    count = draw.integer(3, 7)
    du, dv = np.abs(u * count % 1 - 0.5), np.abs(v * count % 1 - 0.5)
    motif = draw.choice((du + dv < 0.3, np.hypot(du, dv) < 0.3, np.maximum(du, dv) < 0.22))
    image = _mixed(np.broadcast_to(colour, (*u.shape, 3)), second, motif.astype(np.float32) * 0.8)
    image = _mixed(image, third, (edge < draw.uniform(0.06, 0.14)).astype(np.float32))
    image = _mixed(image, second, (np.abs(edge - 0.04) < 0.012).astype(np.float32))
    return np.clip(image * (1 + 0.08 * noise(draw, 0.2))[..., None], 0, 1).astype(np.float32)


def picture(draw: Draw, kind: str) -> np.ndarray:
    """A painting or poster, seen upright: the last row is the top."""
    u, v = _grid()
    image = np.broadcast_to(draw.colour("object"), (*u.shape, 3)).astype(np.float32)
    if kind == "landscape":
        image = _mixed(draw.colour("sky"), draw.colour("sky") * 0.8, v)
        for level in (0.6, 0.42, 0.25):
            ridge = level + 0.06 * np.cumsum(noise(draw, 1.5)[0]) / 12
            image = _mixed(image, draw.colour("leaf") * (1.4 - level), (v < ridge[None]).astype(np.float32))
    elif kind == "waves":
        for level in np.linspace(0.85, 0.1, draw.integer(4, 7)):
            crest = level + 0.05 * np.sin(2 * np.pi * (u * draw.integer(1, 3) + draw.uniform(0, 1)))
            image = _mixed(image, draw.colour("object"), (v < crest).astype(np.float32))
    elif kind == "rings":
        for _ in range(draw.integer(4, 9)):
            radius = np.hypot(u - draw.uniform(0.1, 0.9), v - draw.uniform(0.1, 0.9)) / draw.uniform(0.08, 0.3)
            image = _mixed(image, draw.colour("object"), ((radius < 1) & (radius > draw.uniform(0, 0.7))) * 0.9)
    else:
        slope = draw.uniform(0.5, 1.5) if kind == "triangles" else 0.0
        for _ in range(draw.integer(5, 12)):
            left, low = draw.uniform(-0.1, 0.8), draw.uniform(-0.1, 0.8)
            inside = (u > left + slope * (v - low)) & (u < left + draw.uniform(0.1, 0.5) - slope * (v - low))
            inside = inside & (v > low) & (v < low + draw.uniform(0.1, 0.5))
            image = _mixed(image, draw.colour("object"), inside.astype(np.float32))
    return np.clip(image * (1 + 0.05 * noise(draw, 0.8))[..., None], 0, 1).astype(np.float32)


def printed(draw: Draw, colour: np.ndarray) -> np.ndarray:
    """A page, label or cover: blocks and lines of text on `colour`."""
    u, v = _grid()
    image = np.broadcast_to(colour, (*u.shape, 3)).astype(np.float32)
    ink = draw.colour("object") if draw.chance(0.5) else np.float32(0.15) * np.ones(3, np.float32)
    lines = draw.integer(8, 22)
    words = draw.rng.random((lines, 24))[np.floor(v * lines).astype(int), np.floor(u * 24).astype(int)] > 0.25
    text = words & (v * lines % 1 < 0.45) & (np.abs(u - 0.5) < 0.4) & (np.abs(v - 0.4) < 0.3)
    image = _mixed(image, ink, text * 0.8)
    block = (np.abs(u - 0.5) < draw.uniform(0.15, 0.42)) & (np.abs(v - 0.82) < draw.uniform(0.04, 0.12))
    return _mixed(image, draw.colour("object"), block.astype(np.float32))


def screen(draw: Draw) -> np.ndarray:
    """What a switched-on monitor shows."""
    u, v = _grid()
    image = _mixed(draw.colour("object") * 0.5, draw.colour("object") * 0.8, v)
    for _ in range(draw.integer(1, 3)):
        left, low = draw.uniform(0.02, 0.5), draw.uniform(0.1, 0.5)
        window = (u > left) & (u < left + draw.uniform(0.3, 0.5)) & (v > low) & (v < low + draw.uniform(0.3, 0.5))
        image = _mixed(image, printed(draw, np.array([0.93, 0.93, 0.95], dtype=np.float32)), window.astype(np.float32))
    return image


def outdoors(draw: Draw) -> np.ndarray:
    """The view through a window: sky, trees and houses, out of focus."""
    u, v = _grid()
    image = _mixed(draw.colour("sky") * 0.9, draw.colour("sky"), v)
    for level in (0.55, 0.4):
        tops = level + 0.12 * noise(draw, 1.1)[0]
        image = _mixed(image, draw.colour("leaf") * (0.4 + level), (v < tops[None]).astype(np.float32))
    if draw.chance(0.5):
        left = draw.uniform(0, 0.6)
        house = (u > left) & (u < left + draw.uniform(0.2, 0.4)) & (v < draw.uniform(0.4, 0.8))
        image = _mixed(image, draw.colour("wall") * 0.8, house.astype(np.float32))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), draw.uniform(1, 5)), dtype=np.float32)


FLOORS: dict[str, tuple[Callable[[Draw, np.ndarray], np.ndarray], str, float, float]] = {
    # kind: texture, palette, metres that one texture covers, gloss
    "planks": (planks, "wood", 1.44, 0.04),
    "herringbone": (herringbone, "wood", 1.3, 0.04),
    "tiles": (tiles, "floor", 1.6, 0.06),
    "checker": (checker, "floor", 1.6, 0.06),
    "slabs": (slabs, "floor", 2.1, 0.05),
    "carpet": (carpet, "floor", 0.6, 0.0),
}

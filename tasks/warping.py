"""Novel views without a network: an image is warped by its depth, and what it does not show is filled from behind.

Depth goes forward into the target's pixels, where the nearest of surfaces that meet wins. Then each target pixel looks
its colour up in the image, so that surfaces stay closed and sharp however they are stretched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from perception.tasks.config import GREY
from perception.tasks.geometry import Camera, back_project
from perception.tasks.poses import check_pose, inverse
from perception.tasks.view_synthesis import View

NEAREST = 1e-3
"""Metres before the target camera up to which nothing is seen."""
SAME_SURFACE = 0.06
"""Relative difference of depths up to which they are of one surface: a floor differs by half as much from one row of a
small image to the next."""
BEHIND = 0.9
"""Share of the farthest depth around a hole from which on a surface counts as what is behind."""
LARGEST_SQUARE = 8
"""Pixels across that one pixel becomes at most, as it comes nearer."""
LEVELS = 65535
"""Of log depth, by which points are ordered: whole numbers of 16 bits are sorted by radix, in a third of the time."""
SOFTENED = 20
"""Of what is filled, details are lost that are less than this share of the image's height."""
SAMPLED = 4
"""Of so many rows and columns one tells how far surfaces are stretched."""

Maps = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Column, row and depth of each pixel in another camera, float32 (height, width), NaN where there is none."""


def warp(
    image: np.ndarray,
    depth: np.ndarray,
    source: Camera,
    target: Camera,
    pose: np.ndarray,
    mask: np.ndarray | None = None,
) -> View:
    """What the target camera sees of an image. Where depth is unknown, that of what is behind is taken.

    Args:
        image: uint8 RGB (source.height, source.width, 3).
        depth: float32 metres along the source's Z, of the image's size; not finite or not positive: unknown.
        pose: where the target stands in the source's optical frame, float64 (4, 4), metres.
        mask: bool of the image's size, what is an object; the view has one, too, then.

    Returns:
        The view; its depth is NaN and its mask False where the image does not show what the target sees.

    Raises:
        ValueError: sizes that do not fit, or a pose that is none.
    """
    size = source.height, source.width
    if image.shape != (*size, 3) or depth.shape != size or (mask is not None and mask.shape != size):
        raise ValueError(
            f"image of shape {image.shape} and depth of shape {depth.shape} do not fit a camera of "
            f"{source.width}x{source.height} pixels; image, depth, mask and camera must be of one size"
        )
    check_pose(pose)
    known = np.isfinite(depth) & (depth > 0)
    whole = np.where(known, depth, np.float32(np.nan)).astype(np.float32)
    fill_holes(whole)
    metres, place = _looked_up(whole, source, target, pose)
    seen = np.isfinite(metres)
    colours = cv2.remap(image, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    fill_holes(metres.copy(), colours)
    sure = seen & _nearest(known, place)
    objects = None if mask is None else seen & _nearest(mask, place)
    return View(colours, np.where(sure, metres, np.float32(np.nan)), objects)


def warp_depth(depth: np.ndarray, source: Camera, target: Camera, pose: np.ndarray) -> np.ndarray:
    """A depth map as another camera sees it: forward, with a z-buffer.

    Each pixel goes to the nearest pixel of the target; where several meet, the nearest surface wins. Surfaces stay
    closed where they do not become larger.

    Args:
        depth: metres along the source's Z, (source.height, source.width), NaN unknown.
        pose: where the target stands in the source's optical frame, 4x4, metres.

    Returns:
        float32 (target.height, target.width), metres along the target's Z; NaN where the source shows nothing.
    """
    return _z_buffers(_projected(depth, source, target, pose), target, (1,))[0]


def fill_holes(depth: np.ndarray, image: np.ndarray | None = None) -> None:
    """Give pixels of unknown depth that of what is behind, and its colours: both arrays are changed.

    A hole opens where something near hid something far. So of the first known pixels to the left, to the right, above
    and below, those count that are nearly as far as the farthest of them, the nearer ones in the image the more.

    Args:
        depth: float32 metres (height, width), NaN where unknown; stays so only where all of it is unknown.
        image: uint8 (height, width, 3); softened, since nobody knows; grey where all is unknown.
    """
    holes = ~np.isfinite(depth)
    if not holes.any():
        return
    for _ in range(2):  # the second time for pixels in whose row and column nothing is known
        _fill(depth, image)
    if image is not None:
        side = 2 * (len(image) // SOFTENED // 2) + 1
        image[holes] = cv2.blur(image, (side, side))[holes]
        image[~np.isfinite(depth)] = GREY


def _fill(depth: np.ndarray, image: np.ndarray | None) -> None:
    known = np.isfinite(depth)
    rows, columns = np.nonzero(~known)
    r, c, distance = _around(known, rows, columns)
    around = np.where(np.isfinite(distance), depth[r, c], 0)
    weight = np.where(around >= BEHIND * around.max(axis=0), 1 / distance, 0).astype(np.float32)
    total = weight.sum(axis=0)
    found = total > 0
    weight = weight[:, found] / total[found]
    rows, columns, r, c = rows[found], columns[found], r[:, found], c[:, found]
    depth[rows, columns] = (weight * around[:, found]).sum(axis=0)
    if image is not None:
        image[rows, columns] = np.rint((weight[..., None] * image[r, c]).sum(axis=0))


def _around(known: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and distance of the first known pixels to the left, to the right, above and below of N pixels.

    All (4, N); the distance is Inf where there is none.
    """
    height, width = known.shape
    x, y = np.arange(width, dtype=np.int32), np.arange(height, dtype=np.int32)[:, None]
    left = np.maximum.accumulate(np.where(known, x, -1), axis=1)[rows, columns]
    right = np.minimum.accumulate(np.where(known, x, width)[:, ::-1], axis=1)[:, ::-1][rows, columns]
    above = np.maximum.accumulate(np.where(known, y, -1), axis=0)[rows, columns]
    below = np.minimum.accumulate(np.where(known, y, height)[::-1], axis=0)[::-1][rows, columns]
    r, c = np.stack([rows, rows, above, below]), np.stack([left, right, columns, columns])
    found = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    distance = np.where(found, np.abs(r - rows) + np.abs(c - columns), np.inf)
    return np.where(found, r, 0), np.where(found, c, 0), distance


def _projected(depth: np.ndarray, source: Camera, target: Camera, pose: np.ndarray) -> Maps:
    """Where each pixel of the source lies in the target."""
    points = cv2.transform(back_project(depth, source), inverse(pose)[:3].astype(np.float32))
    z = np.where(points[..., 2] > NEAREST, points[..., 2], np.float32(np.nan))
    u = points[..., 0] / z * np.float32(target.fx) + np.float32(target.cx)
    v = points[..., 1] / z * np.float32(target.fy) + np.float32(target.cy)
    return u, v, z


def _z_buffers(maps: Maps, camera: Camera, sides: Sequence[int]) -> list[np.ndarray]:
    """For each of the sides: depth of the nearest point that each pixel shows where points are squares of that many
    pixels across, float32 (height, width); NaN where there is none."""
    edge = max(sides)
    height, width = camera.height + 2 * edge, camera.width + 2 * edge
    u, v, z = maps
    with np.errstate(invalid="ignore"):
        inside = (u > -edge / 2) & (u < camera.width + edge / 2) & (v > -edge / 2) & (v < camera.height + edge / 2)
    u, v, z = u[inside], v[inside], z[inside]
    order = _from_far_to_near(z)
    u, v, z = u[order] + np.float32(edge), v[order] + np.float32(edge), z[order]
    buffers = []
    for side in sides:
        back = np.float32((side - 1) / 2)
        first = np.rint(v - back).astype(np.int32) * width + np.rint(u - back).astype(np.int32)
        nearest = np.full(height * width, np.inf, np.float32)
        nearest[first] = z  # what is written last stays
        square = np.ones((side, side), np.uint8)
        nearest = cv2.erode(nearest.reshape(height, width), square, anchor=(side - 1, side - 1))
        nearest[np.isinf(nearest)] = np.nan
        buffers.append(nearest[edge : edge + camera.height, edge : edge + camera.width])
    return buffers


def _from_far_to_near(z: np.ndarray) -> np.ndarray:
    """The order of N depths, all positive."""
    logs = np.log(z)
    low, high = (float(logs.min()), float(logs.max())) if len(z) else (0.0, 0.0)
    codes = ((high - logs) * (LEVELS / max(high - low, 1e-6))).astype(np.uint16)
    return np.argsort(codes, kind="stable")


def _looked_up(
    depth: np.ndarray, source: Camera, target: Camera, pose: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Depth in the target, NaN where the source does not show what is there; and each pixel's place in the source."""
    maps = _projected(depth, source, target, pose)
    metres = np.full((target.height, target.width), np.nan, np.float32)
    place = np.zeros_like(metres), np.zeros_like(metres)
    # Squares close surfaces, and widen them by half a pixel: there the source shows what is behind, and the pixel is
    # taken for what it shows by itself.
    for found in _z_buffers(maps, target, (_stretch(maps), 1)):
        x, y, far = _projected(found, target, source, inverse(pose))
        there = cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan)
        with np.errstate(invalid="ignore"):
            taken = (np.abs(there / far - 1) < SAME_SURFACE) & np.isnan(metres)
        for into, values in ((metres, found), (place[0], x), (place[1], y)):
            np.copyto(into, values, where=taken)
    return metres, place


def _stretch(maps: Maps) -> int:
    """Pixels across of the squares that close surfaces, at least 2: those that hold a cell of the source's grid."""
    values = np.stack(maps)
    rows, columns = (length // SAMPLED for length in values.shape[1:])
    here, right, below = (values[:, y::SAMPLED, x::SAMPLED][:, :rows, :columns] for y, x in ((0, 0), (0, 1), (1, 0)))
    with np.errstate(invalid="ignore"):
        same = (np.abs(right[2] / here[2] - 1) < SAME_SURFACE) & (np.abs(below[2] / here[2] - 1) < SAME_SURFACE)
    if not same.any():
        return 2
    cells = (np.abs(right - here) + np.abs(below - here))[:2, same].max(axis=0)
    return min(max(2, math.ceil(float(np.percentile(cells, 99)) - 1e-3)), LARGEST_SQUARE)


def _nearest(flags: np.ndarray, place: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return cv2.remap(flags.astype(np.uint8), *place, cv2.INTER_NEAREST) > 0

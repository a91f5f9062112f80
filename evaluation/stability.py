"""How steady depth is: from frame to frame of a sequence, and behind another lens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from perception.evaluation.frames import RGBDFrame
from perception.tasks.geometry import Camera

SAME_SURFACE = 0.02
"""Relative difference of two true depths up to which they are of the same surface."""


def scale_of(metres: np.ndarray, truth: np.ndarray) -> float:
    """Median of prediction over truth; NaN where nothing can be compared. Its jitter in time is flicker."""
    known = np.isfinite(metres) & np.isfinite(truth) & (truth > 0)
    return float(np.median(metres[known] / truth[known])) if known.any() else float("nan")


def relative_change(earlier: RGBDFrame, before: np.ndarray, frame: RGBDFrame, metres: np.ndarray) -> float:
    """Median relative change of predicted depth between two frames, seen from the later one.

    Each pixel of the later frame is looked up in the earlier one through its true depth, the poses and the camera; the
    earlier prediction there is carried back into the later view, and compared. Only pixels where the earlier frame's
    true depth says that it saw the same surface count, so that occlusion and motion do not.

    Args:
        before, metres: predictions of `earlier` and `frame`, metres.

    Returns:
        NaN without poses, camera or common surface. An unchanging error counts as steady.
    """
    if earlier.pose is None or frame.pose is None or earlier.camera is None or frame.camera is None:
        return float("nan")
    if earlier.depth is None or frame.depth is None or earlier.camera != frame.camera:
        return float("nan")
    camera = frame.camera
    to_earlier = np.linalg.inv(earlier.pose) @ frame.pose
    rows, columns = np.nonzero(np.isfinite(frame.depth) & (frame.depth > 0) & np.isfinite(metres))
    points = _rays(camera, columns, rows) * frame.depth[rows, columns, None]
    moved = points @ to_earlier[:3, :3].T + to_earlier[:3, 3]
    ahead = moved[:, 2] > 1e-3
    rows, columns, moved = rows[ahead], columns[ahead], moved[ahead]
    u = np.rint(camera.fx * moved[:, 0] / moved[:, 2] + camera.cx).astype(np.intp)
    v = np.rint(camera.fy * moved[:, 1] / moved[:, 2] + camera.cy).astype(np.intp)
    inside = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    rows, columns, moved, u, v = rows[inside], columns[inside], moved[inside], u[inside], v[inside]
    with np.errstate(invalid="ignore"):
        same = np.abs(earlier.depth[v, u] / moved[:, 2] - 1) < SAME_SURFACE
    same &= np.isfinite(before[v, u])
    if not same.any():
        return float("nan")
    rows, columns, u, v = rows[same], columns[same], u[same], v[same]
    back = np.linalg.inv(to_earlier)
    carried = (_rays(camera, u, v) * before[v, u, None]) @ back[2, :3] + back[2, 3]
    return float(np.median(np.abs(metres[rows, columns] - carried) / np.maximum(carried, 1e-3)))


def _rays(camera: Camera, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Directions (n, 3) with z = 1 through pixels."""
    x, y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    return np.stack([x, y, np.ones_like(x)], axis=1)


def half_view(frame: RGBDFrame) -> tuple[RGBDFrame, tuple[slice, slice]]:
    """The central half of a frame, rescaled to the frame's size, with its camera; and its rows and columns.

    Raises:
        ValueError: the frame has no camera.
    """
    if frame.camera is None:
        raise ValueError(f"frame {frame.name!r} has no camera; the lens test needs one")
    height, width = frame.rgb.shape[:2]
    top, left, rows, columns = height // 4, width // 4, height // 2, width // 2
    window = slice(top, top + rows), slice(left, left + columns)
    rgb = cv2.resize(np.ascontiguousarray(frame.rgb[window]), (width, height), interpolation=cv2.INTER_LINEAR)
    camera = frame.camera.cropped(left, top, columns, rows).resized(width, height)
    return replace(frame, rgb=rgb, depth=None, camera=camera), window


def half_view_change(
    estimate: Callable[[RGBDFrame], np.ndarray], frame: RGBDFrame, metres: np.ndarray
) -> dict[str, float]:
    """The lens test: how the metres of the same pixels change when half the field of view is seen.

    Args:
        estimate: a frame to metres in its pixels.
        metres: what it says of the whole frame.

    Returns:
        `shift`, the median of the relative changes: all things together come nearer or go away, as they do where the
        lens is not followed (1 where it is ignored). `change`, the median of their sizes: single things move, since
        less of the scene is seen around them. NaN where nothing can be compared.

    Raises:
        ValueError: the frame has no camera.
    """
    view, window = half_view(frame)
    whole = metres[window]
    narrow = cv2.resize(estimate(view), (whole.shape[1], whole.shape[0]), interpolation=cv2.INTER_NEAREST)
    known = np.isfinite(whole) & np.isfinite(narrow) & (whole > 0)
    if not known.any():
        return {"shift": float("nan"), "change": float("nan")}
    changes = narrow[known] / whole[known] - 1
    return {"shift": float(np.median(changes)), "change": float(np.median(np.abs(changes)))}

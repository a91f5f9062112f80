"""Poses: where one frame stands in another, as 4x4 float64 matrices of a rotation and metres, and as quaternions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pose_of(position: Sequence[float], quaternion: Sequence[float]) -> np.ndarray:
    """The 4x4 pose at (x, y, z) metres, turned by (x, y, z, w), which need not have length 1.

    Raises:
        ValueError: a number that is not finite, or a quaternion of length 0, which is no rotation.
    """
    values = np.asarray([*position, *quaternion], np.float64)
    if values.shape != (7,) or not np.isfinite(values).all():
        raise ValueError(
            f"pose with position {_told(position)} and quaternion {_told(quaternion)} is not usable: 3 and 4 finite "
            "numbers are needed; look at what publishes it"
        )
    if np.linalg.norm(values[3:]) < 1e-6:
        raise ValueError(
            f"pose with quaternion {_told(quaternion)} is not usable: its length is 0, so that it is no rotation; no "
            "rotation at all is (0, 0, 0, 1)"
        )
    pose = translated(values[:3])
    pose[:3, :3] = rotation_of(quaternion)
    return pose


def check_pose(pose: np.ndarray) -> None:
    """Whether an array is a pose.

    Raises:
        ValueError: it is not 4x4, not finite, or its 3x3 part no rotation.
    """
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError(f"a pose must be 4x4 and finite, and not of shape {pose.shape}: {_told(pose.ravel())}")
    turn = pose[:3, :3]
    if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-3 or np.linalg.det(turn) < 0 or (pose[3] != (0, 0, 0, 1)).any():
        raise ValueError(
            f"a pose must be a rotation and a shift, its last row 0, 0, 0, 1; {_told(pose.ravel())} also scales, "
            "shears or mirrors"
        )


def translated(offset: Sequence[float] | np.ndarray) -> np.ndarray:
    """4x4 pose of a frame that stands at `offset` with the same orientation."""
    pose = np.eye(4)
    pose[:3, 3] = offset
    return pose


def inverse(pose: np.ndarray) -> np.ndarray:
    """The pose of the other frame in this one."""
    back = np.eye(4)
    back[:3, :3] = pose[:3, :3].T
    back[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return back


def relative_pose(reference: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where `target` stands in the frame of `reference`, both being poses in a common frame."""
    return inverse(reference) @ target


def distance_of(pose: np.ndarray) -> float:
    """Metres between the two frames' origins."""
    return float(np.linalg.norm(pose[:3, 3]))


def angle_of(pose: np.ndarray) -> float:
    """Degrees by which one frame must turn, about whichever axis, to look as the other does: 0 to 180."""
    turn = pose[:3, :3]
    sine = np.linalg.norm([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    return float(np.degrees(np.arctan2(sine, np.trace(turn) - 1)))  # good near 0 and 180, as the cosine alone is not


def orbit_pose(turn: float, angle: float, distance: float) -> np.ndarray:
    """A camera that goes around the line of sight of this one and looks at the point `distance` metres ahead of both.

    Args:
        turn: how far it has gone, 1 being once around.
        angle: degrees between the two lines of sight, all the way.
    """
    along, half = 2 * np.pi * turn, np.radians(angle) / 2
    ahead = translated((0, 0, distance))
    leant = pose_of((0, 0, 0), (np.sin(half) * np.cos(along), np.sin(half) * np.sin(along), 0, np.cos(half)))
    return ahead @ leant @ inverse(ahead)


def quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """(x, y, z, w) with w >= 0 of a 3x3 rotation: the eigenvector of Bar-Itzhack's matrix (J. Guidance 2000)."""
    r = np.asarray(rotation, np.float64)
    symmetric = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    vector = np.linalg.eigh(symmetric)[1][:, -1]  # eigh reads the lower triangle
    return -vector if vector[3] < 0 else vector


def rotation_of(quaternion: Sequence[float] | np.ndarray) -> np.ndarray:
    """The 3x3 rotation of (x, y, z, w), which need not have length 1."""
    x, y, z, w = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _told(values: Sequence[float] | np.ndarray) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"

"""Where cameras look from in a simulated room: single views as people take them, and a robot's drive."""

from __future__ import annotations

import math

import numpy as np

from perception.evaluation.room_style import Draw
from perception.evaluation.rooms import Room
from perception.tasks.geometry import Camera


def camera_pose(x: float, y: float, z: float, yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Camera to world, 4x4: at (x, y, z) metres, looking along yaw (about z, from x) and pitch (up), in radians."""
    forward = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)])
    level = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    below = np.cross(forward, level)
    right = math.cos(roll) * level + math.sin(roll) * below
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = x, y, z
    return pose


def single_views(room: Room, camera: Camera, draw: Draw, count: int) -> list[np.ndarray]:
    """Up to `count` poses of a hand-held camera 0.9 to 1.8 m above the floor that see enough of the room."""
    small = camera.resized(32, 24)
    poses: list[np.ndarray] = []
    for _ in range(60 * count):
        if len(poses) == count:
            break
        x, y = draw.uniform(0.2, room.size[0] - 0.2), draw.uniform(0.2, room.size[1] - 0.2)
        z = draw.uniform(0.9, 1.8)
        if room.clearance(x, y, above=z - 0.25) < 0.25:
            continue
        pose = camera_pose(
            x,
            y,
            z,
            draw.uniform(-math.pi, math.pi),
            math.radians(draw.uniform(-25, 5)),
            math.radians(draw.rng.normal(0, 1.5)),
        )
        if any(np.linalg.norm((pose - other)[:3, 3]) < 0.8 and pose[:3, 2] @ other[:3, 2] > 0.8 for other in poses):
            continue
        near, middle, far = np.percentile(room.scene.depth(small, pose), [3, 50, 97])
        counts = np.unique(room.scene.parts_seen(small, pose), return_counts=True)[1]
        varied = counts.max() < 0.5 * counts.sum() and len(counts) >= draw.integer(6, 20)
        if varied and near > 0.45 and 1.2 < middle < 5.5 and far < 10:
            poses.append(pose)
    return poses


def drive(room: Room, camera: Camera, draw: Draw, frames: int, fps: float, tries: int = 1000) -> list[np.ndarray]:
    """A robot's camera along a smooth, collision-free drive: of those that were found, the one that sees most.

    Raises:
        ValueError: the room is too full for such a drive.
    """
    best, richest = None, 0
    small, materials = camera.resized(32, 24), np.array([part.material.texture for part in room.parts])
    for _ in range(tries):
        track = _track(room, draw, frames, fps)
        if track is None:
            continue
        height, pitch = draw.uniform(0.85, 1.15), math.radians(draw.uniform(-14, -5))
        poses = [camera_pose(x, y, height, yaw, pitch) for x, y, yaw in track]
        views = [
            (room.scene.parts_seen(small, pose), room.scene.depth(small, pose))
            for pose in poses[:: max(1, frames // 6)]
        ]
        if any(np.percentile(depth, 3) < 0.5 or np.median(depth) < 1.6 for _, depth in views):
            continue
        # Counted by material: a shelf of many books is one thing to see.
        seen = sum(len(np.unique(materials[parts])) for parts, _ in views)
        if seen > richest:
            best, richest = poses, seen
    if best is None:
        raise ValueError(f"no free drive of {frames / fps:.1f} s in this {room.kind}; try another room or fewer frames")
    shake = _smooth_noise(draw, frames, fps)
    return [pose @ _wobble(*shake[:, i]) for i, pose in enumerate(best)]


def _wobble(pitch: float, roll: float, lift: float) -> np.ndarray:
    """The wobble of a driving robot: radians about the camera's x and z axes, metres along y."""
    pose = np.eye(4)
    cp, sp, cr, sr = math.cos(pitch), math.sin(pitch), math.cos(roll), math.sin(roll)
    pose[:3, :3] = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]) @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    pose[1, 3] = lift
    return pose


def _track(room: Room, draw: Draw, frames: int, fps: float) -> np.ndarray | None:
    """(x, y, yaw) per frame of a unicycle that keeps 0.4 m from everything; None if this one does not."""
    time = np.arange(frames) / fps
    speed = draw.uniform(0.25, 0.5) * (1 - np.exp(-time / 0.4))
    turn = draw.uniform(-0.25, 0.25) + draw.uniform(0.1, 0.35) * np.sin(
        2 * np.pi * (time / draw.uniform(4, 9) + draw.uniform(0, 1))
    )
    yaw = draw.uniform(-math.pi, math.pi) + np.cumsum(turn) / fps
    x = draw.uniform(0.4, room.size[0] - 0.4) + np.cumsum(speed * np.cos(yaw)) / fps
    y = draw.uniform(0.4, room.size[1] - 0.4) + np.cumsum(speed * np.sin(yaw)) / fps
    if any(room.clearance(x[i], y[i]) < 0.4 for i in (0, -1, *range(0, frames, 6))):
        return None
    return np.column_stack([x, y, yaw])


def _smooth_noise(draw: Draw, frames: int, fps: float) -> np.ndarray:
    """Pitch, roll (radians) and lift (metres) of a robot on an even floor, (3, frames)."""
    white = draw.rng.standard_normal((3, frames + 30))
    kernel = np.hanning(max(3, int(0.25 * fps)))
    smooth = np.stack([np.convolve(row, kernel / np.sqrt((kernel**2).sum()), mode="same") for row in white])
    return smooth[:, 15 : 15 + frames] * np.array([[0.0015], [0.001], [0.0008]])

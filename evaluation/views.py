"""Data sets of novel views: an image, and what the same scene looks like from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from perception.evaluation.frames import Dataset, PosedFrame, RGBDFrame, ViewFrame
from perception.tasks.poses import angle_of, relative_pose

NEAR, FAR, ANGLE = 0.1, 0.3, 30.0
"""Metres that two views of a recording lie apart at least and at most, and degrees that they are turned at most."""


class ViewDataset(Dataset[ViewFrame]):
    """Images with views from elsewhere."""

    task: ClassVar[str] = "view_synthesis"
    metric: bool = True
    """Whether lengths are metres; otherwise in a unit of the scene that nobody knows."""


class Posed(Protocol):
    """Frames with poses, all of which are known without reading an image."""

    name: str

    @property
    def poses(self) -> np.ndarray:
        """Camera to world, float64 (N, 4, 4), optical frames; NaN where unknown."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RGBDFrame: ...

    def label(self, index: int) -> str: ...

    def files(self, index: int) -> tuple[Path, ...]: ...


def view_of(source: RGBDFrame, target: RGBDFrame, name: str) -> ViewFrame:
    """The two as one frame.

    Raises:
        ValueError: of one of them camera or pose is not known.
    """
    for frame in (source, target):
        if frame.camera is None or frame.pose is None:
            raise ValueError(f"frame {frame.name!r} has no camera or no pose; both are needed for views")
    masks = [frame.mask if isinstance(frame, PosedFrame) else None for frame in (source, target)]
    assert source.camera and target.camera and source.pose is not None and target.pose is not None
    return ViewFrame(
        source.rgb,
        source.camera,
        relative_pose(source.pose, target.pose),
        target.rgb,
        target.camera,
        source.depth,
        masks[0],
        target.depth,
        masks[1],
        name=name,
    )


def choose_pairs(
    poses: np.ndarray, near: float = NEAR, far: float = FAR, angle: float = ANGLE, seed: int = 0
) -> list[tuple[int, int]]:
    """For each view that has any, one of the others within these bounds: (input, target), drawn, the same each time.

    Args:
        poses: camera to world, (N, 4, 4); what is not finite is left out.
        near, far: metres.
        angle: degrees.
    """
    pairs = []
    places = poses[:, :3, 3]
    for index, pose in enumerate(poses):
        distances = np.linalg.norm(places - places[index], axis=1)  # NaN is within no bounds
        found = [
            int(other)
            for other in np.flatnonzero((distances >= near) & (distances <= far))
            if other != index and angle_of(relative_pose(pose, poses[other])) <= angle
        ]
        if found:
            pairs.append((index, found[int(np.random.default_rng((seed, index)).integers(len(found)))]))
    return pairs


class PairedViews(ViewDataset):
    """Pairs of posed frames.

    Args:
        near, far, angle: as in `choose_pairs`.
        metric: as in `ViewDataset`.

    Raises:
        ValueError: there is no pair.
    """

    def __init__(
        self, frames: Posed, near: float = NEAR, far: float = FAR, angle: float = ANGLE, metric: bool = True
    ) -> None:
        self.frames, self.name, self.metric = frames, f"{frames.name} views", metric
        self.pairs = choose_pairs(frames.poses, near, far, angle)
        if not self.pairs:
            raise ValueError(
                f"{frames.name} has no two views {near:g} to {far:g} apart and turned by at most {angle:g} degrees, "
                "whose poses are known"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def label(self, index: int) -> str:
        """Both frames' names."""
        return " to ".join(map(self.frames.label, self.pairs[index]))

    def files(self, index: int) -> tuple[Path, ...]:
        """Those of both frames."""
        source, target = self.pairs[index]
        return self.frames.files(source) + self.frames.files(target)

    def __getitem__(self, index: int) -> ViewFrame:
        source, target = self.pairs[index]
        return view_of(self.frames[source], self.frames[target], self.label(index))

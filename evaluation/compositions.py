"""Compositions: a few objects amid a simulated room, and cameras around them, in the manner of MOVIS's C3DFS.

Three to five objects, twelve views of each scene, depth, and a mask of which object is seen where. Scenes of different
splits share nothing, as rooms do not (see `rooms`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np

from perception.evaluation import room_furniture as furniture
from perception.evaluation import room_objects as objects
from perception.evaluation.frames import PosedFrame
from perception.evaluation.photograph import Sensor
from perception.evaluation.room_parts import Assembly, Materials, pose
from perception.evaluation.room_style import Draw
from perception.evaluation.room_views import camera_pose
from perception.evaluation.rooms import Room
from perception.tasks.geometry import Camera
from perception.tasks.poses import angle_of, relative_pose

VIEWS, NEAR_VIEWS = 12, 5
"""Of a scene: the first is the one to start from, the next ones are near it, and the rest all around."""
NEAR = 30.0
"""Degrees that the near views are turned at most from the first."""
FOCAL = 0.7, 1.35
"""Of the camera of a scene, focal length over image height."""
WIDEST = 0.65
"""Metres from an object's middle to its edge at most: cameras are near, and others are to be seen beside it."""
LOW = 0.8
"""Metres up to which a scene is low; cameras come nearer to it then."""
HIGHEST = 1.75
"""Metres above the floor where cameras are at most: lamps hang above."""
TRIES = 200
FULL, OTHERS = 1_000_000, 8
"""By so much greater is the number of the scene that stands for one whose room is too full; so many are tried."""


def _table(stuff: Materials) -> Assembly:
    draw = stuff.draw
    return furniture.table(stuff, draw.length(0.45, 0.8), draw.length(0.4, 0.6), draw.length(0.4, 0.74))


THINGS: tuple[Callable[[Materials], Assembly], ...] = (
    furniture.chair,
    furniture.chair,
    _table,
    furniture.night_table,
    lambda stuff: furniture.sofa(stuff, 1),
    lambda stuff: objects.plant(stuff, True),
    objects.carton,
    objects.bag,
)


class Composition(Room):
    """Objects in the middle of a room, with free space around for cameras."""

    SIZES: ClassVar = ((4.8, 6.5), (4.8, 6.5), (2.4, 3.0))

    def __init__(self, split: str, seed: int, number: int = 0) -> None:
        self.spans: list[tuple[int, int]] = []
        """Of each object, the parts that it consists of: first, and behind the last."""
        self.seed, self.number = seed, number
        super().__init__(split, seed, number, "composition")
        self.views = Draw(split, seed, number, "views")
        self.sensor = replace(Sensor.drawn(self.views), vignette=0.0)
        """All views are taken by one camera; a view of a place has no dark corners of a lens."""
        self.focal = self.views.uniform(*FOCAL)
        self.poses = self._cameras()
        self._gain = self._exposure()

    @classmethod
    def first(cls, split: str, seed: int, number: int) -> Composition:
        """The scene of this number, or the one that stands for it.

        Raises:
            ValueError: all of these are too full.
        """
        for attempt in range(OTHERS):
            try:
                return cls(split, seed, number + attempt * FULL)
            except ValueError as error:
                full = error
        raise full

    def _furnish(self) -> None:
        draw, stuff = self.draw, self.stuff
        x, y = (side / 2 + draw.uniform(-0.15, 0.15) for side in self.size[:2])
        if draw.chance(0.5):
            self._rug(x, y, draw.length(1.2, 2.2), draw.length(1.2, 2.2))
        for _ in range(draw.integer(3, 5)):
            self._add(self._thing(), x, y)
        for _ in range(draw.integer(0, 3)):
            self._against_wall(lambda: draw.choice((furniture.sideboard, furniture.wardrobe))(stuff))

    def _thing(self) -> Assembly:
        while True:
            thing = self.draw.choice(THINGS)(self.stuff)
            if thing.radius <= WIDEST:
                return thing

    def _add(self, thing: Assembly, x: float, y: float) -> None:
        """Put a thing as near to (x, y) as it happens to fit, with something on top."""
        draw, first = self.draw, len(self.parts)
        for attempt in range(TRIES):
            reach, turn = draw.uniform(0, 0.4 + 0.01 * attempt), draw.uniform(-math.pi, math.pi)
            place = pose(x + reach * math.cos(turn), y + reach * math.sin(turn), 0.001, draw.uniform(-math.pi, math.pi))
            if self._stand(thing, place, -0.03):
                self._clutter(thing, place, draw.integer(0, 3))
                self.spans.append((first, len(self.parts)))
                return

    def _cameras(self) -> list[np.ndarray]:
        """Poses of all views, camera to world.

        Raises:
            ValueError: the room is too full.
        """
        blocks = [np.concatenate([part.triangles for part in self.parts[a:b]]).reshape(-1, 3) for a, b in self.spans]
        low, high = (np.array([edge(block, axis=0) for block in blocks]) for edge in (np.min, np.max))
        centre, height = ((low + high) / 2).mean(axis=0), float(high[:, 2].max())
        centre[2] = 0.4 * height
        azimuth = 0.0
        poses: list[np.ndarray] = []
        for _ in range(TRIES * VIEWS):
            near = 0 < len(poses) <= NEAR_VIEWS
            turn = self.views.uniform(-math.pi, math.pi)
            if near:  # evenly from 0 to NEAR, to either side
                share = (len(poses) - self.views.uniform(0, 1)) / NEAR_VIEWS
                turn = self.views.choice((-1, 1)) * share * math.radians(NEAR)
            elif not poses:
                azimuth, turn = azimuth + turn, 0.0
            place = self._camera(centre, height, azimuth + turn)
            if place is not None and not (near and angle_of(relative_pose(poses[0], place)) > NEAR):
                poses.append(place)
            if len(poses) == VIEWS:
                return poses
        raise ValueError(
            f"composition {self.number} of split {self.draw.split}, seed {self.seed} has no room for {VIEWS} cameras; "
            "take another number"
        )

    def _camera(self, centre: np.ndarray, height: float, azimuth: float) -> np.ndarray | None:
        """A camera that looks at about the centre from a distance and height as C3DFS has them; None: not free."""
        draw = self.views
        distance = draw.uniform(1.3, 1.7) if height <= LOW else draw.uniform(1.8, 2.2)
        elevation = math.radians(draw.uniform(2, 40) if height <= LOW else draw.uniform(10, 60))
        look = centre + draw.rng.normal(0, 0.05, 3)
        elevation = min(elevation, math.asin(min(1.0, (HIGHEST - look[2]) / distance)))
        reach = distance * math.cos(elevation)
        x, y = look[0] + reach * math.cos(azimuth), look[1] + reach * math.sin(azimuth)
        z = look[2] + distance * math.sin(elevation)
        if self.clearance(x, y, above=z - 0.25) < 0.2:
            return None
        return camera_pose(x, y, z, azimuth + math.pi, -elevation, math.radians(draw.rng.normal(0, 1.5)))

    def _exposure(self) -> float:
        """Of all views that for the first one."""
        small = self.camera(32, 32)
        draw = Draw(self.draw.split, self.seed, self.number, "exposure")
        return self.sensor.gain(self.scene.radiance(small, self.poses[0], draw.rng, 1))

    def camera(self, height: int, width: int, aspect: float = 1.0) -> Camera:
        """The camera of all views, in images of this size.

        Args:
            aspect: by so much wider is what the image shows of the room than its size tells: 4 / 3 where a square is
                what becomes of an image of 640x480 that is stretched to the size of a network.
        """
        focal = self.focal * height
        return Camera(width, height, focal / aspect, focal, (width - 1) / 2, (height - 1) / 2)

    def photograph(self, view: int, camera: Camera, samples: int = 2) -> PosedFrame:
        """What is seen from `poses[view]`, the same for the same arguments."""
        place = self.poses[view]
        draw = Draw(self.draw.split, self.seed, self.number, f"view {view}")
        radiance = self.scene.radiance(camera, place, draw.rng, samples)
        rgb = self.sensor.develop(radiance, self._gain, draw.rng)
        parts = self.scene.parts_seen(camera, place)
        mask = np.zeros(parts.shape, np.uint8)
        for number, (first, behind) in enumerate(self.spans, start=1):
            mask[(parts >= first) & (parts < behind)] = number
        return PosedFrame(rgb, self.scene.depth(camera, place), camera, place, mask=mask, name=f"view {view}")

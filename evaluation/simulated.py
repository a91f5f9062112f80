"""Simulated rooms as a data set: single views, the same ones for the same seed."""

from __future__ import annotations

from pathlib import Path

from perception.evaluation.frames import Dataset, RGBDFrame
from perception.evaluation.photograph import Sensor
from perception.evaluation.room_style import Draw
from perception.evaluation.room_views import single_views
from perception.evaluation.rooms import Room
from perception.tasks.geometry import Camera

CAMERA = Camera(640, 480, 518.9, 518.9, 319.5, 239.5).resized(320, 240)
"""The lens of NYU Depth v2; more pixels than networks look at, and few enough to render in seconds."""
SPLIT = "clip"
"""Rooms of split "train" are trained on."""
TRIES = 8


def seed_and_count(name: str, kind: str, count: str, usual: tuple[int, int]) -> tuple[int, int]:
    """The numbers of a simulated data set that is called `KIND[:SEED[:COUNT]]`.

    Args:
        count: what is counted, for the message.
        usual: in place of those that are not given.

    Raises:
        ValueError: another name.
    """
    first, *given = name.split(":")
    if first != kind or len(given) > 2 or not all(number.isdigit() for number in given):
        seed, many = usual
        raise ValueError(f"{name!r} is not {kind}[:SEED[:{count}]], such as {kind}:{seed}:{many}")
    seed, many = [*map(int, given), *usual[len(given) :]]
    return seed, many


class SimulatedRooms(Dataset[RGBDFrame]):
    """One view of each of `frames` rooms, rendered when it is asked for and kept.

    Needs the extra `simulate` (trimesh, embreex).
    """

    def __init__(self, seed: int = 1, frames: int = 32, camera: Camera = CAMERA, samples: int = 2) -> None:
        self.seed, self.frames, self.camera, self.samples = seed, frames, camera, samples
        self.name = f"rooms:{seed}:{frames}"
        self._rendered: dict[int, RGBDFrame] = {}

    @classmethod
    def from_name(cls, name: str) -> SimulatedRooms:
        """Of `rooms[:SEED[:FRAMES]]`.

        Raises:
            ValueError: another name.
        """
        return cls(*seed_and_count(name, "rooms", "FRAMES", (1, 32)))

    def __len__(self) -> int:
        return self.frames

    def label(self, index: int) -> str:
        """E.g. "room-0003"."""
        return f"room-{index:04d}"

    def files(self, index: int) -> tuple[Path, ...]:
        """None: it is computed."""
        return ()

    def __getitem__(self, index: int) -> RGBDFrame:
        if not 0 <= index < self.frames:
            raise IndexError(index)
        if index not in self._rendered:
            self._rendered[index] = self._render(index)
        return self._rendered[index]

    def _render(self, index: int) -> RGBDFrame:
        for number in range(index * TRIES, (index + 1) * TRIES):  # a room may be too full for a view
            room = Room(SPLIT, self.seed, number)
            draw = Draw(SPLIT, self.seed, number, "views")
            for pose in single_views(room, self.camera, draw, 1):
                radiance = room.scene.radiance(self.camera, pose, draw.rng, self.samples)
                sensor = Sensor.drawn(draw)
                rgb = sensor.develop(radiance, sensor.gain(radiance), draw.rng)
                return RGBDFrame(rgb, room.scene.depth(self.camera, pose), self.camera, pose, name=self.label(index))
        raise ValueError(f"none of {TRIES} rooms of {self.label(index)} has a free view; take another seed")

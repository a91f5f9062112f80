"""Simulated rooms with true depth: homes and offices composed from furniture at true sizes.

`Room(split, seed, number)` is deterministic; rooms of different splits share no random stream, no colour, no length
and no construction of any object (`room_style`). Views of a room are chosen by `room_views`, rendered by `raycast` and
turned into camera images by `photograph`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from perception.evaluation import room_furniture as furniture
from perception.evaluation import room_objects as objects
from perception.evaluation import room_textures as textures
from perception.evaluation.raycast import Light, Scene
from perception.evaluation.room_parts import Assembly, Material, Materials, Part, pose
from perception.evaluation.room_style import Draw

KINDS = ("living room", "bedroom", "kitchen", "office", "meeting room")
SMALL = (objects.books, objects.vessel, objects.carton, objects.books, objects.vessel)


@dataclass(frozen=True)
class Block:
    """The upright box around a thing that stands in the room, metres."""

    low: np.ndarray
    high: np.ndarray

    def distance(self, x: float, y: float) -> float:
        """From (x, y) to the footprint; 0 inside."""
        dx = max(self.low[0] - x, 0, x - self.high[0])
        dy = max(self.low[1] - y, 0, y - self.high[1])
        return math.hypot(dx, dy)

    def overlaps(self, other: Block, margin: float = 0.01) -> bool:
        return bool(np.all(self.low < other.high + margin) and np.all(other.low < self.high + margin))


def _around(parts: list[Part]) -> Block:
    corners = np.concatenate([part.triangles.reshape(-1, 3) for part in parts])
    return Block(corners.min(axis=0), corners.max(axis=0))


class Room:
    """A furnished room: x in [0, size[0]], y in [0, size[1]], floor at z = 0, ceiling at z = size[2] metres."""

    SIZES: ClassVar = ((3.0, 6.5), (3.0, 7.5), (2.4, 3.0))

    def __init__(self, split: str, seed: int, number: int = 0, kind: str | None = None) -> None:
        self.draw = Draw(split, seed, number)
        self.stuff = Materials(self.draw)
        self.kind = kind or self.draw.choice(KINDS)
        draw = self.draw
        width, depth, height = (draw.length(*sides) for sides in self.SIZES)
        self.size = width, depth, height
        self.parts: list[Part] = []
        self.lights: list[Light] = []
        self.blocks: list[Block] = []
        self._openings: list[Block] = []
        self._build_shell()
        self._build_openings()
        self._furnish()
        self._hang_pictures()
        self._light_ceiling()
        self.lights.extend(self._shade_light(part) for part in self.parts if part.material.power > 0)
        ambient = self.draw.uniform(0.06, 0.2) * np.ones(3)
        self.scene = Scene(self.parts, self.lights, self.stuff.textures, ambient)

    # -- shell -----------------------------------------------------------------------------------------------------

    def _build_shell(self) -> None:
        draw, stuff, (width, depth, height) = self.draw, self.stuff, self.size
        kind = draw.variant("floor")
        texture, palette, scale, gloss = textures.FLOORS[kind]
        floor = stuff.new(texture(draw, draw.colour(palette)), scale * draw.uniform(0.85, 1.15), gloss)
        slab, (x, y) = (width + 0.2, depth + 0.2, 0.1), (width / 2, depth / 2)
        white = np.array([0.93, 0.92, 0.9], dtype=np.float32) * draw.uniform(0.9, 1.0)
        shell = Assembly().box(slab, (x, y, -0.05), floor)
        shell.box(slab, (x, y, height + 0.05), stuff.new(textures.paint(draw, white), 2.0))
        paper, accent = self._wall_material(), self._wall_material()
        for wall in range(4):
            length = self._wall_length(wall)
            where = self._wall_pose(wall, length / 2, 0)
            look = accent if wall == 0 and draw.chance(0.3) else paper
            shell.include(Assembly().box((length, 0.1, height), (0, 0.05, height / 2), look), where)
            shell.include(Assembly().box((length, 0.015, 0.09), (0, -0.0075, 0.045), stuff.trim()), where)
        if draw.chance(0.4):  # a chimney breast, closet or pillar in a corner
            a, b = draw.length(0.3, 1.2), draw.length(0.3, 0.9)
            x, y = draw.choice((a / 2, width - a / 2)), draw.choice((b / 2, depth - b / 2))
            corner = Assembly().box((a, b, height), (x, y, height / 2), paper)
            corner.box((a + 0.03, b + 0.03, 0.09), (x, y, 0.045), stuff.trim())
            self._stand(corner, np.eye(4))
        self.parts.extend(shell.parts)

    def _wall_material(self) -> Material:
        draw, colour = self.draw, self.draw.colour("wall")
        kind = draw.variant("wall") if draw.chance(0.4) else "plain"
        if kind == "bricks":
            return self.stuff.new(textures.bricks(draw, draw.colour("floor")), 0.9)
        return self.stuff.new(textures.wallpaper(draw, colour, kind), draw.uniform(0.4, 1.2))

    def _wall_length(self, wall: int) -> float:
        return self.size[wall % 2]

    def _wall_pose(self, wall: int, along: float, out: float) -> np.ndarray:
        """Where a thing, its back towards +y, stands at wall 0..3, `along` metres from its left, `out` from it."""
        width, depth, _ = self.size
        x, y, yaw = (
            (along, depth - out, 0.0),
            (width - out, depth - along, -math.pi / 2),
            (width - along, out, math.pi),
            (out, along, math.pi / 2),
        )[wall]
        return pose(x, y, 0, yaw)

    # -- openings --------------------------------------------------------------------------------------------------

    def _build_openings(self) -> None:
        draw, h = self.draw, self.size[2]
        day = draw.uniform(0.4, 3.0) if draw.chance(0.8) else 0.02
        walls = list(draw.rng.permutation(4))
        self._open(objects.door(self.stuff, min(h - 0.25, draw.length(1.98, 2.12))), walls[0], 0.0, 0.9)
        for wall in walls[1 : 1 + draw.integer(1, 2)]:
            width = min(draw.length(0.7, 2.0), self._wall_length(wall) - 1.2)
            height = draw.length(0.9, 1.4)
            centre = draw.length(0.85, 1.0) + height / 2
            place = self._open(objects.window(self.stuff, width, height, day), wall, centre, 0.05)
            if place is not None:
                self._shine(place, width, height, day)
            if self._wall_length(wall) > 4.5:
                self._open(objects.window(self.stuff, width, height, day), wall, centre, 0.05)

    def _open(self, thing: Assembly, wall: int, z: float, before: float) -> np.ndarray | None:
        """Puts a door or window somewhere into a wall and keeps the space `before` it free of tall furniture."""
        half = _around(thing.parts).high[0] + 0.1
        for _ in range(8):
            place = self._wall_pose(wall, self.draw.uniform(half, self._wall_length(wall) - half), 0)
            place[2, 3] = z
            parts = [part.moved(place) for part in thing.parts]
            around = _around(parts)
            zone = _around([part.moved(place @ pose(y=-before)) for part in thing.parts])
            zone = Block(np.minimum(zone.low, around.low), np.maximum(zone.high, around.high))
            if not any(zone.overlaps(other) for other in self._openings + self.blocks):
                self._openings.append(zone)
                self.parts.extend(parts)
                return place
        return None

    def _shine(self, place: np.ndarray, width: float, height: float, day: float) -> None:
        draw = self.draw
        across, inward = place[:3, 0], -place[:3, 1]
        u, v = across * width / 2, np.array([0, 0, height / 2])
        centre, sky = place[:3, 3] + 0.14 * inward, draw.colour("sky").astype(np.float64) ** 2.2
        self.lights.append(Light(centre, u, v, sky * day * width * height * draw.uniform(0.7, 1.5), inward))
        if day > 0.8 and draw.chance(0.35):
            travel = inward + across * draw.uniform(-0.7, 0.7) + np.array([0, 0, -draw.uniform(0.5, 1.3)])
            travel /= np.linalg.norm(travel)
            colour = np.array([1.0, 0.93, 0.82]) * draw.uniform(1.5, 3.5)
            self.lights.append(Light(centre - 0.13 * inward, u, v, colour, travel, sun=True))

    # -- furniture -------------------------------------------------------------------------------------------------

    def _stand(self, thing: Assembly, place: np.ndarray, gap: float = 0.01) -> bool:
        """Puts a thing there with clutter on top, unless something is in the way."""
        parts = [part.moved(place) for part in thing.parts]
        around = _around(parts)
        outside = np.any(around.low[:2] < -0.05) or np.any(around.high[:2] > np.array(self.size[:2]) + 0.05)
        taken = any(around.overlaps(other, gap) for other in self.blocks + self._openings)
        if outside or taken or around.high[2] > self.size[2] + 0.01:
            return False
        self.parts.extend(parts)
        self.blocks.append(around)
        return True

    def _against_wall(self, make: Callable[[], Assembly], tries: int = 8) -> tuple[Assembly, np.ndarray] | None:
        draw, thing = self.draw, make()
        around = _around(thing.parts)
        half, back = max(-around.low[0], around.high[0]), around.high[1]
        for _ in range(tries):
            wall = draw.integer(0, 3)
            room = self._wall_length(wall) - 2 * half - 0.02
            if room < 0:
                continue
            # In a corner, or anywhere along the wall.
            along = half + 0.01 + room * (draw.choice((0.0, 1.0)) if draw.chance(0.3) else draw.uniform(0, 1))
            place = self._wall_pose(wall, along, back + draw.uniform(0.015, 0.04))
            if self._stand(thing, place):
                return thing, place
        return None

    def _clutter(self, thing: Assembly, place: np.ndarray, count: int, first: Assembly | None = None) -> None:
        """Small things on the tops of `thing`; `first` goes to the middle of the first top."""
        draw, taken = self.draw, []
        if first is not None:
            x0, x1, y0, y1, z = thing.tops[0]
            taken.append(((x0 + x1) / 2, (y0 + y1) / 2, first.radius))
            where = place @ pose(taken[0][0], taken[0][1], z + 0.001, draw.uniform(-0.15, 0.15))
            self.parts.extend(part.moved(where) for part in first.parts)
        for _ in range(count if thing.tops else 0):
            small = objects.plant(self.stuff, False) if draw.chance(0.05) else draw.choice(SMALL)(self.stuff)
            x0, x1, y0, y1, z = draw.choice(thing.tops)
            r = small.radius
            if r > (x1 - x0) / 2 or r > (y1 - y0) / 2 + 0.03:
                continue
            x, y = draw.uniform(x0 + r, x1 - r), draw.uniform(min(y0 + r, (y0 + y1) / 2), max(y1 - r, (y0 + y1) / 2))
            top = place[2, 3] + z + _around(small.parts).high[2]
            if top < self.size[2] and all(math.hypot(x - a, y - b) > r + c for a, b, c in taken):
                taken.append((x, y, r))
                where = place @ pose(x, y, z + 0.001, draw.uniform(-3.1, 3.1))
                self.parts.extend(part.moved(where) for part in small.parts)

    def _furnish(self) -> None:
        draw, stuff = self.draw, self.stuff
        getattr(self, f"_{self.kind.replace(' ', '_')}")()  # one method for each of KINDS
        fillers: tuple[Callable[[], Assembly], ...] = (
            lambda: furniture.shelf(stuff),
            lambda: furniture.sideboard(stuff),
            lambda: furniture.chair(stuff),
            lambda: objects.plant(stuff, True),
            lambda: furniture.shelf(stuff),
        )
        area = self.size[0] * self.size[1]
        for _ in range(draw.integer(2, 4 + round(area / 6))):
            self._dress(self._against_wall(draw.choice(fillers)), draw.integer(0, 9))
        for _ in range(draw.integer(0, 2)):
            self._against_wall(lambda: self._floor_lamp())
        for _ in range(draw.integer(1, 10)):
            small = draw.choice((objects.bag, objects.carton, objects.bag))(stuff)
            self._stand(small, pose(*self._somewhere(0.3), 0.001, draw.uniform(-3, 3)))

    def _dress(self, placed: tuple[Assembly, np.ndarray] | None, count: int, first: Assembly | None = None) -> None:
        if placed is not None:
            self._clutter(*placed, count, first)

    def _somewhere(self, margin: float) -> tuple[float, float]:
        draw = self.draw
        return draw.uniform(margin, self.size[0] - margin), draw.uniform(margin, self.size[1] - margin)

    def _rug(self, x: float, y: float, width: float, depth: float) -> None:
        look = self.stuff.new(textures.rug(self.draw, self.draw.colour("fabric")), 0)
        self.parts.extend(Assembly().box((width, depth, 0.012), (x, y, 0.006), look).parts)

    def _dining(self, x: float, y: float, width: float, depth: float, swivel: float = 0.1) -> None:
        """A table with chairs around it and things on it."""
        draw, stuff = self.draw, self.stuff
        turn = draw.choice((0.0, math.pi / 2))
        made, place = furniture.table(stuff, width, depth, draw.length(0.71, 0.77)), pose(x, y, 0, turn)
        if not self._stand(made, place):
            return
        self._clutter(made, place, draw.integer(1, 9))
        for side in (-1, 1):
            for seat in range(max(1, int(width / 0.6))):
                if draw.chance(0.2):
                    continue
                along = (seat + 0.5) * width / max(1, int(width / 0.6)) - width / 2
                where = place @ pose(
                    along,
                    side * (depth / 2 + draw.uniform(0.3, 0.5)),
                    0,
                    (0 if side > 0 else math.pi) + draw.uniform(-swivel, swivel) * 3,
                )
                self._stand(furniture.chair(stuff), where, -0.15)

    def _floor_lamp(self) -> Assembly:
        return objects.floor_lamp(self.stuff, self.draw.length(1.3, 1.75), 2.5)

    def _living_room(self) -> None:
        draw, stuff = self.draw, self.stuff
        sofa = self._against_wall(lambda: furniture.sofa(stuff, draw.integer(2, 3)))
        board = self._against_wall(lambda: furniture.sideboard(stuff))
        self._dress(board, draw.integer(0, 4), objects.television(stuff))
        self._against_wall(lambda: furniture.sofa(stuff, 1))
        x, y = self.size[0] / 2, self.size[1] / 2
        if sofa is not None:
            x, y, _ = (sofa[1] @ np.array([0, -1.15, 0, 1]))[:3]
        if draw.chance(0.7):
            self._rug(x, y, draw.length(1.4, 2.4), draw.length(1.2, 2.0))
        low = furniture.table(stuff, draw.length(0.7, 1.2), draw.length(0.5, 0.7), draw.length(0.35, 0.48))
        place = pose(x, y)
        if self._stand(low, place):
            self._clutter(low, place, draw.integer(1, 6))
        if self.size[0] * self.size[1] > 22:
            self._dining(*self._somewhere(1.3), draw.length(1.1, 1.8), draw.length(0.75, 0.9))

    def _bedroom(self) -> None:
        draw, stuff = self.draw, self.stuff
        bed = self._against_wall(lambda: furniture.bed(stuff), 16)
        self._dress(bed, draw.integer(0, 3))
        self._against_wall(lambda: furniture.wardrobe(stuff))
        for _ in range(2):
            night = self._against_wall(lambda: furniture.night_table(stuff))
            self._dress(night, 2, objects.floor_lamp(stuff, draw.length(0.35, 0.5), 2.0))
        self._dress(self._against_wall(lambda: furniture.sideboard(stuff)), draw.integer(2, 7))
        if draw.chance(0.5):
            self._workplace()
        if draw.chance(0.6):
            self._rug(*self._somewhere(1.2), draw.length(1.2, 2.0), draw.length(0.9, 1.6))

    def _kitchen(self) -> None:
        draw, stuff = self.draw, self.stuff
        for makes in (
            lambda: furniture.counter(stuff, draw.length(1.8, 3.2)),
            lambda: furniture.counter(stuff, draw.length(1.2, 2.4)),
        ):
            run = self._against_wall(makes, 16)
            self._dress(run, draw.integer(3, 12))
        self._dress(self._against_wall(lambda: furniture.fridge(stuff)), 2)
        self._dress(self._against_wall(lambda: furniture.stove(stuff)), 2)
        self._dining(*self._somewhere(1.1), draw.length(0.8, 1.6), draw.length(0.7, 0.9))

    def _workplace(self) -> None:
        """A desk with a screen or laptop on it and a chair before it."""
        draw, stuff = self.draw, self.stuff
        placed = self._against_wall(lambda: furniture.desk(stuff))
        if placed is None:
            return
        self._dress(placed, draw.integer(2, 8), objects.monitor(stuff) if draw.chance(0.6) else objects.laptop(stuff))
        before = placed[1] @ pose(0, -draw.uniform(0.5, 0.75), 0, math.pi + draw.uniform(-0.8, 0.8))
        self._stand(furniture.chair(stuff), before, -0.3)

    def _office(self) -> None:
        for _ in range(self.draw.integer(1, 4)):
            self._workplace()
        if self.draw.chance(0.5):
            self._dining(*self._somewhere(1.2), self.draw.length(1.0, 1.8), self.draw.length(0.7, 1.0), 0.3)

    def _meeting_room(self) -> None:
        draw = self.draw
        x, y = self.size[0] / 2 + draw.uniform(-0.4, 0.4), self.size[1] / 2 + draw.uniform(-0.4, 0.4)
        self._dining(x, y, draw.length(1.4, 2.8), draw.length(0.8, 1.2), 0.3)
        self._dress(self._against_wall(lambda: furniture.sideboard(self.stuff)), 3, objects.television(self.stuff))

    # -- walls and lamps -------------------------------------------------------------------------------------------

    def _hang_pictures(self) -> None:
        draw = self.draw
        for _ in range(draw.integer(2, 10)):
            thing = objects.picture(self.stuff, draw.length(0.2, 0.9), draw.length(0.2, 0.8))
            wall = draw.integer(0, 3)
            place = self._wall_pose(wall, draw.uniform(0.5, self._wall_length(wall) - 0.5), 0.001)
            place[2, 3] = draw.uniform(1.45, 1.75)
            parts = [part.moved(place) for part in thing.parts]
            around = _around(parts)
            if not any(around.overlaps(other, 0.03) for other in self.blocks + self._openings):
                self._openings.append(around)
                self.parts.extend(parts)

    def _light_ceiling(self) -> None:
        draw, (width, depth, height) = self.draw, self.size
        columns, rows = (max(1, round(side / draw.uniform(2.5, 5))) for side in (width, depth))
        power = draw.uniform(2.0, 7.0) / math.sqrt(columns * rows) * (draw.chance(0.85) or 0.15)
        colour = draw.colour("lamp").astype(np.float64) ** 2.2 * power
        style, half = draw.integer(0, 2), draw.length(0.15, 0.35)
        for i in range(columns):
            for j in range(rows):
                x, y = width * (i + 0.5) / columns, depth * (j + 0.5) / rows
                lamp = Assembly()
                if style == 0:
                    lamp.box((2 * half, 2 * half, 0.02), (x, y, height - 0.01), self.stuff.glow(4.0))
                elif style == 1:
                    dome = [(0.0, -0.1), (0.7 * half, -0.08), (half, 0.0), (0.0, 0.0)]
                    lamp.lathe(dome, (x, y, height), self.stuff.glow(3.0))
                else:
                    drop = min(0.7, height - 1.9)
                    lamp.rod(0.004, ((x, y, height - drop), (x, y, height)), self.stuff.metal())
                    lamp.include(objects.lampshade(self.stuff, 0.18, 3.0), pose(x, y, height - drop))
                self.parts.extend(lamp.parts)
                if style < 2:
                    centre, down = np.array([x, y, height - (0.025, 0.11)[style]]), np.array([0.0, 0.0, -1.0])
                    self.lights.append(Light(centre, np.array([half, 0, 0]), np.array([0, half, 0]), colour, down))

    def _shade_light(self, part: Part) -> Light:
        """The light of a glowing shade, which shines in all directions."""
        around = _around([part])
        reach = (around.high - around.low) / 3
        colour = self.stuff.textures[part.material.texture].mean(axis=(0, 1)).astype(np.float64) ** 2.2
        return Light(
            (around.low + around.high) / 2,
            np.array([reach[0], 0, 0]),
            np.array([0, 0, reach[2]]),
            colour * part.material.power,
        )

    # -- free space ------------------------------------------------------------------------------------------------

    def clearance(self, x: float, y: float, above: float = 0.0) -> float:
        """Metres from (x, y) to the nearest wall or thing that is taller than `above`; 0 or less if inside one."""
        walls = min(x, y, self.size[0] - x, self.size[1] - y)
        return min([walls, *(block.distance(x, y) for block in self.blocks if block.high[2] > above)])

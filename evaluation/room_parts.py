"""What simulated furniture is made of: materials and textured solids, composed with trimesh."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import trimesh

from perception.evaluation import room_textures as textures
from perception.evaluation.room_style import Draw

CREASE = math.cos(math.radians(40))  # faces that meet at a wider angle keep a sharp edge


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    `texture` indexes the room's list of textures, one of which covers `scale` metres (0: the whole face, for
    pictures). `gloss` is the share of light mirrored at normal incidence. `emission` is how bright the surface itself
    is, 1 being white in ordinary room light; `power` > 0 makes it a lamp of that intensity that lights the room.
    """

    texture: int
    scale: float = 1.0
    gloss: float = 0.0
    emission: float = 0.0
    power: float = 0.0


@dataclass(frozen=True)
class Part:
    """A solid: triangles and corner normals (F, 3, 3) in metres, texture coordinates (F, 3, 2) in repeats."""

    triangles: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    material: Material

    def moved(self, matrix: np.ndarray) -> Part:
        """This part after the rigid 4x4 `matrix`."""
        rotation = matrix[:3, :3].T
        return replace(self, triangles=self.triangles @ rotation + matrix[:3, 3], normals=self.normals @ rotation)


Triple = tuple[float, float, float]


def pose(x: float = 0, y: float = 0, z: float = 0, yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    """4x4 of a translation in metres after rotations about z, y and x in radians."""
    matrix: np.ndarray = trimesh.transformations.euler_matrix(roll, pitch, yaw)
    matrix[:3, 3] = x, y, z
    return matrix


def _corner_normals(mesh: trimesh.Trimesh) -> np.ndarray:
    """Normals per face corner: area-weighted over the faces around the vertex that bend less than the crease."""
    flat = np.asarray(mesh.face_normals)
    corner_vertex = mesh.faces.ravel()
    order = np.argsort(corner_vertex, kind="stable")
    counts = np.bincount(corner_vertex, minlength=len(mesh.vertices))
    around = np.full((len(mesh.vertices), counts.max()), -1)
    slot = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    around[corner_vertex[order], slot] = order // 3
    neighbours = around[mesh.faces]  # (F, 3, K)
    normals = flat[neighbours]
    together = (np.einsum("fckx,fx->fck", normals, flat) > CREASE) & (neighbours >= 0)
    total = np.einsum("fckx,fck->fcx", normals, together * mesh.area_faces[neighbours])
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    return np.where(length > 0, total / np.maximum(length, 1e-12), flat[:, None])


def _box_projected(triangles: np.ndarray, normals: np.ndarray, scale: float) -> np.ndarray:
    """Texture coordinates from the two axes that the face looks along least; scale 0 stretches one repeat over all."""
    axis = np.abs(normals).argmax(axis=1)
    # On upright faces v follows z, so that wallpaper, pictures and bricks stand upright.
    across = np.array([[1, 2], [0, 2], [0, 1]])[axis]
    uv = np.take_along_axis(triangles, np.repeat(across[:, None], 3, axis=1), axis=2)
    if scale > 0:
        return uv / scale
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    size = np.maximum(high - low, 1e-6)
    uv = (uv - low[across][:, None]) / size[across][:, None]
    mirrored = ((axis == 1) & (normals[:, 1] > 0)) | ((axis == 0) & (normals[:, 0] < 0))
    uv[mirrored, :, 0] = 1 - uv[mirrored, :, 0]
    return uv


@dataclass
class Assembly:
    """A piece of furniture: parts around the centre of its footprint, standing on z = 0, its back towards +y.

    `tops` are free rectangles (x0, x1, y0, y1, z) on which things may stand.
    """

    parts: list[Part] = field(default_factory=list)
    tops: list[tuple[float, float, float, float, float]] = field(default_factory=list)

    @property
    def radius(self) -> float:
        """Metres from the middle of the footprint to its edge, along x or y."""
        return float(max(np.abs(part.triangles[..., :2]).max() for part in self.parts))

    def add(self, mesh: trimesh.Trimesh, material: Material, where: np.ndarray | None = None) -> Assembly:
        """Adds a mesh after the rigid 4x4 `where`. The texture is laid on before, so it turns with the part."""
        triangles = np.asarray(mesh.triangles, dtype=np.float64)
        uv = _box_projected(triangles, np.asarray(mesh.face_normals), material.scale)
        part = Part(triangles, _corner_normals(mesh), uv, material)
        self.parts.append(part if where is None else part.moved(where))
        return self

    def box(
        self,
        size: Triple,
        centre: Triple,
        material: Material,
        yaw: float = 0,
        pitch: float = 0,
        roll: float = 0,
    ) -> Assembly:
        return self.add(trimesh.creation.box(size), material, pose(*centre, yaw, pitch, roll))

    def cushion(
        self,
        size: Triple,
        centre: Triple,
        radius: float,
        material: Material,
        yaw: float = 0,
        roll: float = 0,
    ) -> Assembly:
        return self.add(rounded_box(size, radius), material, pose(*centre, yaw, 0, roll))

    def rod(self, radius: float, ends: tuple[Triple, Triple], material: Material) -> Assembly:
        """A round bar between two points."""
        segment = np.asarray(ends, dtype=np.float64)
        return self.add(trimesh.creation.cylinder(radius=radius, segment=segment, sections=10), material)

    def lathe(
        self, profile: Iterable[tuple[float, float]], centre: Triple, material: Material, sections: int = 20
    ) -> Assembly:
        """A turned solid: `profile` is (radius, height) from the bottom of the axis to the top of the axis."""
        return self.add(trimesh.creation.revolve(np.array(list(profile)), sections=sections), material, pose(*centre))

    def include(self, other: Assembly, where: np.ndarray) -> Assembly:
        """Adds all parts of another assembly after the rigid 4x4 `where`."""
        self.parts.extend(part.moved(where) for part in other.parts)
        return self


def rounded_box(extents: Triple, radius: float) -> trimesh.Trimesh:
    """A box of (x, y, z) metres with edges of `radius`: a sphere pulled apart along the three axes."""
    size = np.asarray(extents, dtype=np.float64)
    radius = min(radius, 0.499 * float(size.min()))
    lon = (np.arange(16) + 0.5) * np.pi / 8
    lat = (np.arange(8) + 0.5) * np.pi / 8  # no vertex on a plane of symmetry, so each has one octant to go to
    ring = np.stack([np.outer(np.sin(lat), np.cos(lon)), np.outer(np.sin(lat), np.sin(lon))], axis=-1)
    sphere = np.concatenate([ring, np.broadcast_to(np.cos(lat)[:, None, None], (8, 16, 1))], axis=-1).reshape(-1, 3)
    sphere = np.vstack([sphere, [[0, 0, 1], [0, 0, -1]]])
    index = np.arange(128).reshape(8, 16)
    here, right, below = index[:-1], np.roll(index, -1, 1)[:-1], index[1:]
    diagonal = np.roll(index, -1, 1)[1:]
    sides = np.concatenate([np.stack([here, below, right], -1), np.stack([right, below, diagonal], -1)]).reshape(-1, 3)
    top = np.stack([np.full(16, 128), index[0], np.roll(index[0], -1)], -1)
    bottom = np.stack([np.full(16, 129), np.roll(index[-1], -1), index[-1]], -1)
    vertices = sphere * radius + np.sign(sphere.round(12)) * (size / 2 - radius)
    return trimesh.Trimesh(vertices, np.vstack([sides, top, bottom]), process=False)


def sheet(path: np.ndarray, height: float) -> trimesh.Trimesh:
    """An upright sheet, such as a curtain, over the (x, y) points of `path`, with both faces."""
    count = len(path)
    low = np.column_stack([path, np.zeros(count)])
    vertices = np.vstack([low, low + [0, 0, height]])
    first = np.arange(count - 1)
    front = np.vstack(
        [
            np.column_stack([first, first + 1, first + count]),
            np.column_stack([first + 1, first + count + 1, first + count]),
        ]
    )
    return trimesh.Trimesh(vertices, np.vstack([front, front[:, ::-1]]), process=False)


class Materials:
    """The materials of one room. A kind asked for again often comes in the look that the room already has."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.textures: list[np.ndarray] = []
        self._known: dict[str, list[Material]] = {}

    def new(
        self, image: np.ndarray, scale: float = 1.0, gloss: float = 0.0, emission: float = 0.0, power: float = 0.0
    ) -> Material:
        self.textures.append(image)
        return Material(len(self.textures) - 1, scale, gloss, emission, power)

    def _shared(self, kind: str, variety: int, make: Callable[[], Material]) -> Material:
        known = self._known.setdefault(kind, [])
        if len(known) < variety:
            known.append(make())
            return known[-1]
        return self.draw.choice(known)

    def wood(self) -> Material:
        draw = self.draw
        return self._shared(
            "wood",
            3,
            lambda: self.new(textures.wood(draw, draw.colour("wood")), draw.uniform(0.4, 0.9), draw.uniform(0, 0.05)),
        )

    def fabric(self) -> Material:
        draw = self.draw
        return self._shared(
            "fabric",
            6,
            lambda: self.new(
                textures.fabric(draw, draw.colour("fabric"), draw.variant("fabric")), draw.uniform(0.25, 0.7)
            ),
        )

    def trim(self) -> Material:
        draw = self.draw
        return self._shared("trim", 1, lambda: self.new(textures.paint(draw, draw.colour("trim")), 1.0, 0.03))

    def lacquer(self) -> Material:
        """Painted wood or plastic in any colour."""
        draw = self.draw
        return self._shared(
            "lacquer", 10, lambda: self.new(textures.paint(draw, draw.colour("object")), 1.0, draw.uniform(0, 0.06))
        )

    def front(self) -> Material:
        """What cabinets of this room are made of: wood or pale paint."""
        draw = self.draw
        return self._shared(
            "front",
            2,
            lambda: (
                self.wood()
                if draw.chance(0.5)
                else self.new(textures.paint(draw, draw.colour(draw.choice(("trim", "wall")))), 1.0, 0.03)
            ),
        )

    def metal(self) -> Material:
        draw = self.draw
        return self._shared("metal", 2, lambda: self.new(textures.metal(draw, draw.colour("metal")), 0.3, 0.2))

    def stone(self) -> Material:
        draw = self.draw
        return self._shared("stone", 1, lambda: self.new(textures.stone(draw, draw.colour("floor")), 0.5, 0.08))

    def leaf(self) -> Material:
        draw = self.draw
        return self._shared("leaf", 2, lambda: self.new(textures.leaf(draw, draw.colour("leaf")), 0.2, 0.02))

    def printed(self) -> Material:
        draw = self.draw
        return self._shared(
            "printed", 8, lambda: self.new(textures.printed(draw, draw.colour(draw.choice(("object", "trim")))), 0.0)
        )

    def glow(self, strength: float, power: float = 0.0) -> Material:
        """A lamp's shade or panel."""
        draw = self.draw
        return self.new(textures.paint(draw, draw.colour("lamp")), 1.0, 0.0, strength, power)

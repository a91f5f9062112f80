"""Renders a simulated room: exact depth along camera Z, and radiance with soft shadows and one bounce of light.

Rays are traced by Embree (package `embreex`), shading is vectorised NumPy. Shading follows the rendering equation
with next-event estimation for direct light, one cosine-weighted ray for the first bounce, and a constant for the rest;
the irradiance is then smoothed along surfaces by the edge-avoiding à-trous filter (Dammertz et al., HPG 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from perception.evaluation.room_parts import Part
from perception.tasks.geometry import Camera

OFFSET = 5e-4  # metres that secondary rays start off the surface
BOUNCE_SHADOW = 0.5  # share of the lamps that a surface sees on average, used where no shadow ray is spent


@dataclass(frozen=True)
class Light:
    """A lamp: a parallelogram `centre` ± `u` ± `v` (metres) of `colour` = linear RGB intensity per steradian.

    `facing` is the unit normal of a one-sided panel or window; None shines in all directions. For a sun, `facing` is
    the direction the light travels in, `sun` is true, the parallelogram is the window it comes through, and `colour`
    is its irradiance.
    """

    centre: np.ndarray
    u: np.ndarray
    v: np.ndarray
    colour: np.ndarray
    facing: np.ndarray | None = None
    sun: bool = False


@dataclass(frozen=True)
class Hits:
    """What N rays met: indices of the rays that hit, and of those the triangle, its barycentrics and ray parameter."""

    ray: np.ndarray
    triangle: np.ndarray
    weights: np.ndarray  # (M, 3)
    t: np.ndarray


def _linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


class TextureAtlas:
    """All textures of a room with their mip levels in one array of linear RGB texels."""

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        texels, start, levels = [], 0, max(int(np.log2(len(image))) for image in images) + 1
        self.start = np.zeros((len(images), levels), dtype=np.int64)
        self.size = np.array([len(image) for image in images])
        for index, image in enumerate(images):
            level = _linear(image)
            for depth in range(levels):
                self.start[index, depth] = start
                texels.append(level.reshape(-1, 3))
                start += len(texels[-1])
                if len(level) > 1:
                    level = level.reshape(len(level) // 2, 2, -1, 2, 3).mean(axis=(1, 3))
        self.texels = np.concatenate(texels)
        self.mean = np.stack([self.texels[offsets[-1]] for offsets in self.start])

    def sample(self, index: np.ndarray, uv: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """Colours (N, 3) of textures `index` (N,) at `uv` (N, 2) repeats; `footprint` is a pixel's width in repeats."""
        top = np.log2(self.size[index])
        level = np.clip(np.round(np.log2(np.maximum(footprint * self.size[index], 1e-6))), 0, top).astype(np.int64)
        size = self.size[index] >> level
        place = (uv % 1) * size[:, None] - 0.5
        corner = np.floor(place).astype(np.int64)
        frac = (place - corner).astype(np.float32)
        start, colour = self.start[index, level], np.zeros((len(index), 3), dtype=np.float32)
        for dv in (0, 1):
            for du in (0, 1):
                column, row = (corner[:, 0] + du) % size, (corner[:, 1] + dv) % size
                weight = np.abs(1 - du - frac[:, 0]) * np.abs(1 - dv - frac[:, 1])
                colour += self.texels[start + row * size + column] * weight[:, None]
        return colour


class Scene:
    """Parts, lights and textures of a room, ready to be seen from any camera.

    World axes are x, y on the floor and z up (REP 103); a pose is camera to world, 4x4, the camera's axes being those
    of its optical frame (x right, y down, z forward).
    """

    def __init__(
        self, parts: Sequence[Part], lights: Sequence[Light], textures: Sequence[np.ndarray], ambient: np.ndarray
    ) -> None:
        counts = [len(part.triangles) for part in parts]
        self.triangles = np.concatenate([part.triangles for part in parts])
        self.corner_normals = np.concatenate([part.normals for part in parts]).astype(np.float32)
        self.uv = np.concatenate([part.uv for part in parts]).astype(np.float32)
        edges = self.triangles[:, 1:] - self.triangles[:, :1]
        normal = np.cross(edges[:, 0], edges[:, 1])
        self.normals = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-15)
        self.part = np.repeat(np.arange(len(parts)), counts)
        self.texture, self.scale, self.gloss, self.emission = (
            np.array([getattr(part.material, name) for part in parts])[self.part]
            for name in ("texture", "scale", "gloss", "emission")
        )
        self.scale = np.where(self.scale > 0, self.scale, np.ptp(self.triangles, axis=1).max(axis=1))
        self.atlas, self.lights, self.ambient = TextureAtlas(textures), lights, np.float32(ambient)
        self._embree, self._casters = EmbreeScene(), EmbreeScene()
        TriangleMesh(self._embree, self.triangles.astype(np.float32))
        # Lamps do not shade their own light.
        TriangleMesh(self._casters, self.triangles[self.emission == 0].astype(np.float32))

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """The first triangle on each of N rays; parameters are exact for the triangle's plane (float64)."""
        found = self._embree.run(origins.astype(np.float32), directions.astype(np.float32), output=1)
        ray = np.flatnonzero(found["primID"] >= 0)
        triangle = found["primID"][ray].astype(np.int64)
        u, v = found["u"][ray], found["v"][ray]
        normal, corner = self.normals[triangle], self.triangles[triangle, 0]
        t = np.einsum("nx,nx->n", normal, corner - origins[ray]) / np.einsum("nx,nx->n", normal, directions[ray])
        return Hits(ray, triangle, np.stack([1 - u - v, u, v], axis=-1), t)

    def blocked(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Whether anything but a lamp lies between each origin and origin + direction; bool (N,)."""
        reach = np.full(len(origins), 0.995, dtype=np.float32)
        found = self._casters.run(
            np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(directions, np.float32), reach, "OCCLUDED"
        )
        return np.asarray(found) >= 0

    def depth(self, camera: Camera, pose: np.ndarray) -> np.ndarray:
        """Metres along camera Z through every pixel's centre, float32 (height, width); NaN where nothing is."""
        rays = _pixel_rays(camera, 1)
        hits = self.cast(np.broadcast_to(pose[:3, 3], rays.shape), rays @ pose[:3, :3].T)
        depth = np.full(len(rays), np.nan, dtype=np.float32)
        depth[hits.ray] = hits.t
        return depth.reshape(camera.height, camera.width)

    def parts_seen(self, camera: Camera, pose: np.ndarray) -> np.ndarray:
        """Index of the part behind every pixel's centre, int (height, width); -1 where nothing is."""
        rays = _pixel_rays(camera, 1)
        hits = self.cast(np.broadcast_to(pose[:3, 3], rays.shape), rays @ pose[:3, :3].T)
        seen = np.full(len(rays), -1)
        seen[hits.ray] = self.part[hits.triangle]
        return seen.reshape(camera.height, camera.width)

    def radiance(self, camera: Camera, pose: np.ndarray, rng: np.random.Generator, samples: int = 2) -> np.ndarray:
        """Linear RGB, float32 (height, width, 3), from samples x samples rays a pixel."""
        rays = _pixel_rays(camera, samples) @ pose[:3, :3].T
        hits = self.cast(np.broadcast_to(pose[:3, 3], rays.shape), rays)
        whole = len(hits.ray) == len(rays)
        points = (pose[:3, 3] + hits.t[:, None] * rays[hits.ray]).astype(np.float32)
        toward = -(rays[hits.ray] / np.linalg.norm(rays[hits.ray], axis=1, keepdims=True)).astype(np.float32)
        flat, smooth = self._facing_normals(hits, toward)
        light = self._irradiance(points, flat, smooth, rng)
        shape = (camera.height * samples, camera.width * samples)
        if whole:
            pixel = (hits.t / (camera.fx * samples)).astype(np.float32)
            light = _smoothed(
                light.reshape(*shape, 3), points.reshape(*shape, 3), smooth.reshape(*shape, 3), pixel.reshape(shape)
            ).reshape(-1, 3)
        albedo = self._albedo(hits, hits.t / (camera.fx * samples), np.einsum("nx,nx->n", flat, toward))
        colour = albedo * light + albedo * self.emission[hits.triangle, None].astype(np.float32)
        self._add_reflections(colour, hits, points, flat, smooth, toward, rng)
        image = np.zeros((len(rays), 3), dtype=np.float32)
        image[hits.ray] = np.minimum(colour, 6.0)
        return image.reshape(camera.height, samples, camera.width, samples, 3).mean(axis=(1, 3))

    def _facing_normals(self, hits: Hits, toward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flat and interpolated unit normals on the side of the viewer, float32 (M, 3) each."""
        flat = self.normals[hits.triangle].astype(np.float32)
        smooth = np.einsum("nc,ncx->nx", hits.weights, self.corner_normals[hits.triangle])
        smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-9)
        side = np.where(np.einsum("nx,nx->n", flat, toward) < 0, np.float32(-1), np.float32(1))[:, None]
        return flat * side, smooth * side

    def _albedo(self, hits: Hits, pixel: np.ndarray, cosine: np.ndarray) -> np.ndarray:
        uv = np.einsum("nc,ncx->nx", hits.weights, self.uv[hits.triangle])
        width = pixel / np.sqrt(np.maximum(cosine, 0.02)) / self.scale[hits.triangle]
        return self.atlas.sample(self.texture[hits.triangle], uv, width)

    def _irradiance(
        self, points: np.ndarray, flat: np.ndarray, smooth: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Light arriving at each point (divided by pi), with shadows and one bounce."""
        origins = points + OFFSET * flat
        total = np.zeros_like(points)
        for light in self.lights:
            way, strength = _arriving(light, points, smooth, rng)
            lit = np.flatnonzero(strength > 2e-3)
            lit = lit[~self.blocked(origins[lit], way[lit])]
            total[lit] += strength[lit, None] * light.colour.astype(np.float32)
        around = rng.standard_normal(points.shape, dtype=np.float32)
        around /= np.linalg.norm(around, axis=1, keepdims=True) + 1e-9
        return total + self._bounced(origins, smooth * 1.001 + around)

    def _bounced(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Radiance of what each ray meets, from its mean colour and lamps without shadow rays; (N, 3).

        Glowing surfaces are left out: they are sampled as lights, and a few rays that met one would be noise.
        """
        hits = self.cast(origins, directions)
        albedo = self.atlas.mean[self.texture[hits.triangle]]
        radiance = np.zeros(origins.shape, dtype=np.float32)
        radiance[hits.ray] = albedo * np.minimum(self._lit(hits, origins, directions), 3.0)
        return radiance

    def _lit(self, hits: Hits, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Irradiance at hits, (M, 3), from the lamps' centres and the constant; shadows only on average."""
        points = (origins[hits.ray] + hits.t[:, None] * directions[hits.ray]).astype(np.float32)
        flat, _ = self._facing_normals(hits, -directions[hits.ray])
        light = np.broadcast_to(self.ambient, points.shape).copy()
        for lamp in self.lights:
            if not lamp.sun:
                light += BOUNCE_SHADOW * _arriving(lamp, points, flat)[1][:, None] * lamp.colour.astype(np.float32)
        return light

    def _mirrored(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """As `_bounced`, with the textures and lamps that a mirror shows."""
        hits = self.cast(origins, directions)
        albedo = self._albedo(hits, 0.01 * np.maximum(hits.t, 0.05), np.ones(len(hits.ray)))
        glow = self.emission[hits.triangle, None].astype(np.float32)
        radiance = np.zeros(origins.shape, dtype=np.float32)
        # Few rays meet the small bright lamp in a dull surface: capped, or they would be isolated white pixels.
        radiance[hits.ray] = np.minimum(albedo * (self._lit(hits, origins, directions) + self.ambient + glow), 1.5)
        return radiance

    def _add_reflections(
        self,
        colour: np.ndarray,
        hits: Hits,
        points: np.ndarray,
        flat: np.ndarray,
        smooth: np.ndarray,
        toward: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        """Mirrors the surroundings in glossy surfaces (Schlick's Fresnel term), slightly blurred; changes `colour`."""
        glossy = np.flatnonzero(self.gloss[hits.triangle] > 0.005)
        normal, view = smooth[glossy], toward[glossy]
        cosine = np.clip(np.einsum("nx,nx->n", normal, view), 0, 1)
        gloss = self.gloss[hits.triangle[glossy]].astype(np.float32)
        fresnel = gloss + (np.minimum(0.5, 8 * gloss) - gloss) * (1 - cosine) ** 5
        mirrored = 2 * cosine[:, None] * normal - view + 0.03 * rng.standard_normal(normal.shape, dtype=np.float32)
        below = np.einsum("nx,nx->n", mirrored, flat[glossy]) <= 0
        mirrored[below] = flat[glossy][below]
        seen = self._mirrored(points[glossy] + OFFSET * flat[glossy], mirrored)
        colour[glossy] = colour[glossy] * (1 - fresnel[:, None]) + fresnel[:, None] * seen


def _pixel_rays(camera: Camera, samples: int) -> np.ndarray:
    """Directions of z = 1 in the optical frame through a regular grid of samples in every pixel, float64 (N, 3)."""
    offset = (np.arange(samples) + 0.5) / samples - 0.5
    x = ((np.arange(camera.width)[:, None] + offset).ravel() - camera.cx) / camera.fx
    y = ((np.arange(camera.height)[:, None] + offset).ravel() - camera.cy) / camera.fy
    rays = np.ones((len(y), len(x), 3))
    rays[..., 0], rays[..., 1] = x, y[:, None]
    return rays.reshape(-1, 3)


def _arriving(
    light: Light, points: np.ndarray, normals: np.ndarray, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The way from each point to a random place on the lamp, (N, 3), and what share of `light.colour` arrives, (N,).

    Without `rng` the way leads to the lamp's centre. Shadows are left to the caller.
    """
    where = 2 * rng.random((2, len(points), 1), dtype=np.float32) - 1 if rng else np.zeros((2, 1, 1), np.float32)
    centre, u, v = (np.asarray(value, dtype=np.float32) for value in (light.centre, light.u, light.v))
    if light.sun and light.facing is not None:
        against = -np.float32(light.facing) + 0.015 * where[0] * (u + v)
        plane = np.cross(u, v)
        t = (centre - points) @ plane / (against @ plane)
        crossing = points + t[:, None] * against - centre
        inside = (np.abs(crossing @ u) < u @ u) & (np.abs(crossing @ v) < v @ v) & (t > 0)
        cosine = np.einsum("nx,nx->n", normals, against)
        return against * t[:, None] * 0.98, np.where(inside, np.maximum(cosine, 0), 0).astype(np.float32)
    way = centre + where[0] * u + where[1] * v - points
    squared = np.einsum("nx,nx->n", way, way)
    distance = np.sqrt(squared)
    strength = np.maximum(np.einsum("nx,nx->n", normals, way) / distance, 0) / np.maximum(squared, 0.04)
    if light.facing is not None:
        strength *= np.maximum(-(way @ np.float32(light.facing)) / distance, 0)
    return way, strength


def _smoothed(light: np.ndarray, points: np.ndarray, normals: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Irradiance (H, W, 3) averaged over neighbours on the same surface, in rings of 1, 2, 4 and 8 samples."""
    for step in (1, 2, 4, 8):
        total, weight = light * 0.25, np.full((*light.shape[:2], 1), 0.25, dtype=np.float32)
        for dy in (-step, 0, step):
            for dx in (-step, 0, step):
                if dy == dx == 0:
                    continue
                kernel = 0.0625 if dy and dx else 0.125
                here = _overlap(dy, light.shape[0]), _overlap(dx, light.shape[1])
                there = _overlap(-dy, light.shape[0]), _overlap(-dx, light.shape[1])
                gap = points[there] - points[here]
                off = np.abs(np.einsum("yxc,yxc->yx", gap, normals[here])) / (pixel[here] * 2 * step + 2e-3)
                alike = np.einsum("yxc,yxc->yx", normals[there], normals[here])
                share = (kernel * np.maximum(alike, 0) ** 16 * np.exp(-off * off))[..., None]
                total[here] += share * light[there]
                weight[here] += share
        light = total / weight
    return light


def _overlap(shift: int, length: int) -> slice:
    """The rows (or columns) that have a neighbour `shift` further."""
    return slice(max(0, -shift), length - max(0, shift))

"""Composed scenes for novel views: rendered once, kept, augmented and batched. A batch is a pure function of seed and
step."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from perception.engines.store import write_atomically
from perception.evaluation.depth import predict_depth
from perception.evaluation.frames import RGBDFrame
from perception.models import create_model, model_config
from perception.models.surface import STRIDE
from perception.tasks.config import ModelConfig
from perception.tasks.geometry import Camera
from perception.tasks.poses import angle_of, relative_pose
from perception.tasks.view_synthesis import source_inputs, target_inputs
from perception.training.data import stack_images, vary_color
from perception.training.train import torch_predict

SPLIT = "train"
SAMPLES = 2
"""Rays a pixel along each axis, as in evaluation."""
WIDEST = 16 / 9
"""A scene's images are squares of what cameras show whose images have this ratio of sides at most, and 1 at least."""
KEPT = 2
"""Part of the names of kept scenes: another where what is rendered, or kept of it, has changed."""
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Scene:
    """Views of one camera, V in all, that lie near one another: images uint8 (V, side, side, 3), depth float32 (V,
    side, side) in metres, masks uint8 as in `PosedFrame`, and poses camera to world, float64 (V, 4, 4).

    `told` is what a model finds of the depth; None: the depth itself is told.
    """

    images: np.ndarray
    depths: np.ndarray
    masks: np.ndarray
    poses: np.ndarray
    camera: Camera
    told: np.ndarray | None = None


class DepthModel:
    """A trained model for depth, in float32.

    Raises:
        ValueError: it has no weights, or is for something else.
    """

    def __init__(self, model: str) -> None:
        self.config = config = model_config(model)
        if config.task != "depth" or not config.weights:
            raise ValueError(
                f"{model} is for {config.task}, weights {config.weights!r}; name a trained model for depth"
            )
        self._predict = torch_predict(create_model(model), config)

    def __call__(self, image: np.ndarray, camera: Camera) -> np.ndarray:
        """Metres of an image uint8 (height, width, 3)."""
        return predict_depth(self._predict, self.config, RGBDFrame(image, None, camera)).metres


class KeptScenes(Sequence[Scene]):
    """Composed scenes of the split to train on. Each is rendered when it is first asked for, and kept in `folder`,
    which several runs may share; so is what a model for depth finds.

    Needs the extra `simulate` (trimesh, embreex) as far as scenes are not kept yet.

    Args:
        side: pixels of the images, which are square.
    """

    def __init__(self, folder: Path, seed: int, count: int, side: int, depth: DepthModel | None = None) -> None:
        self.folder, self.seed, self.side, self._count, self._depth = folder, seed, side, count, depth
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Scene:  # type: ignore[override]
        found = self._kept(f"{number:06d}", lambda: self._render(number))
        images, middle = found["images"], (self.side - 1) / 2
        fx, fy = (found["focal"] * self.side).tolist()
        camera = Camera(self.side, self.side, fx, fy, middle, middle)
        told = None
        if self._depth is not None:
            find = self._depth
            name = f"{number:06d}-{find.config.weights_sha256[:8]}"
            told = self._kept(
                name, lambda: {"told": np.stack([find(image, camera) for image in images]).astype(np.float16)}
            )["told"]
        return Scene(
            images,
            found["depths"].astype(np.float32),
            found["masks"],
            found["poses"],
            camera,
            None if told is None else told.astype(np.float32),
        )

    def _kept(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        path = self.folder / f"{KEPT}-{self.seed}-{self.side}-{name}.npz"
        if not path.is_file():
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **make())  # type: ignore[arg-type]  # of its own flag
            write_atomically(path, buffer.getvalue())
        with np.load(path) as arrays:
            return dict(arrays)

    def _render(self, number: int) -> dict[str, np.ndarray]:
        from perception.evaluation.compositions import NEAR_VIEWS, Composition  # ray casting is an extra

        scene = Composition.first(SPLIT, self.seed, number)
        aspect = WIDEST ** np.random.default_rng((self.seed, number)).random()
        camera = scene.camera(self.side, self.side, aspect)
        frames = [scene.photograph(view, camera, SAMPLES) for view in range(1 + NEAR_VIEWS)]
        return {
            "images": np.stack([frame.rgb for frame in frames]),
            "depths": np.stack([np.asarray(frame.depth, np.float16) for frame in frames]),
            "masks": np.stack([np.asarray(frame.mask) for frame in frames]),
            "poses": np.stack(scene.poses[: len(frames)]),
            "focal": np.array([camera.fx, camera.fy]) / self.side,
        }


@dataclass(frozen=True)
class ViewAugmentation:
    """How scenes are varied, all of their views alike. Half of all are mirrored, and any view may be the input."""

    light: float = 0.2
    """See `vary_color`."""
    angle: float = 35.0
    """Degrees that targets are turned from the input at most; where none is so near, the nearest is taken."""
    unknown: float = 0.1
    """Chance that the network is not told the input's depth, and that it is not told its objects: it is to work without
    (MOVIS)."""


@dataclass(frozen=True)
class Targets:
    """What is drawn of the target views.

    Args:
        views: how many of a scene, drawn anew each time.
        rays: along either side; they part it evenly.
        stride: pixels for a ray, along each axis.
        coarse: all of a view, one pixel for each ray; otherwise a window of it, `stride` pixels for each ray.
    """

    views: int
    rays: int
    stride: int
    coarse: bool = False


def view_batch(
    scenes: Sequence[Scene],
    rng: np.random.Generator,
    count: int,
    wanted: Targets,
    config: ModelConfig,
    amount: ViewAugmentation,
) -> tuple[torch.Tensor, ...]:
    """A batch of `count` scenes.

    Returns:
        Images uint8 (count, 3, side, side); what the network takes beside them, as `source_inputs` has it; their depth
        in metres as a surface has places, float (count, 1, side / 2, side / 2); and of all
        target views, T: poses (T, 4, 4), lenses (T, 4), images uint8 (T, 3, h, w), and at the rays' places depth float
        (T, 1, rays, rays) in metres, NaN where unknown, and float (T, 1, rays, rays), the share that objects have.
    """
    images, inputs, depths, targets = [], [], [], []
    for _ in range(count):
        scene = scenes[int(rng.integers(len(scenes)))]
        source = int(rng.integers(len(scene.images)))
        chosen = choose_targets(scene.poses, source, wanted.views, amount.angle, rng)
        seen = _varied(scene, [source, *chosen], amount.light, rng)
        knows_depth, knows_objects = rng.random(2) >= amount.unknown
        told = seen.depths if seen.told is None else seen.told
        images.append(seen.images[0])
        inputs.append(
            source_inputs(
                config, seen.camera, told[0] if knows_depth else None, seen.masks[0] if knows_objects else None
            )
        )
        depths.append(_middle(seen.depths[0], len(seen.depths[0]) // STRIDE)[None, None])
        targets += [_target(seen, place, wanted, config, rng) for place in range(1, len(seen.images))]
    views = [torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*targets, strict=True)]
    beside = [torch.from_numpy(np.concatenate([told[name] for told in inputs])) for name in inputs[0]]
    return stack_images(images), *beside, torch.from_numpy(np.concatenate(depths)), *views


def choose_targets(poses: np.ndarray, source: int, count: int, angle: float, rng: np.random.Generator) -> list[int]:
    """So many views, each drawn out of those that are turned from the source by at most `angle` degrees."""
    angles = np.array([angle_of(relative_pose(poses[source], pose)) for pose in poses])
    angles[source] = np.inf
    near = np.flatnonzero(angles <= max(angle, angles.min()))
    order = [int(place) for place in rng.permutation(near)]
    return [order[place % len(order)] for place in range(count)]


def _varied(scene: Scene, views: list[int], light: float, rng: np.random.Generator) -> Scene:
    """Some views of a scene, in other light, perhaps mirrored."""
    images, depths, masks, poses = (values[views] for values in (scene.images, scene.depths, scene.masks, scene.poses))
    told = None if scene.told is None else scene.told[views]
    images = vary_color(images.reshape(-1, *images.shape[2:]), light, rng).reshape(images.shape)
    if rng.random() < 0.5:
        images, depths, masks = (np.ascontiguousarray(values[:, :, ::-1]) for values in (images, depths, masks))
        told = None if told is None else np.ascontiguousarray(told[:, :, ::-1])
        poses = MIRROR @ poses @ MIRROR  # of the world and of the cameras
    return Scene(images, depths, masks, poses, scene.camera, told)


def _blocks(values: np.ndarray, rays: int) -> np.ndarray:
    """(rays * n, rays * n) to (rays, rays, n * n), what each ray stands for."""
    n = len(values) // rays
    return values.reshape(rays, n, rays, n).swapaxes(1, 2).reshape(rays, rays, n * n)


def _middle(depth: np.ndarray, rays: int) -> np.ndarray:
    """The depth of rays, float32 (rays, rays): through the middle of their pixels, between those in the middle."""
    return np.median(_blocks(depth, rays), axis=2).astype(np.float32)  # type: ignore[no-any-return]


def _target(
    scene: Scene, place: int, wanted: Targets, config: ModelConfig, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    camera, side = scene.camera, wanted.rays if wanted.coarse else wanted.rays * wanted.stride
    image, depth, mask = scene.images[place], scene.depths[place], (scene.masks[place] > 0).astype(np.float32)
    if wanted.coarse:
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    else:
        x, y = (int(rng.integers(length - side + 1)) for length in (camera.width, camera.height))
        camera = camera.cropped(x, y, side, side)
        image, depth, mask = (values[y : y + side, x : x + side] for values in (image, depth, mask))
    depth, mask = _middle(depth, wanted.rays), _blocks(mask, wanted.rays).mean(axis=2)
    told = target_inputs(config, camera, relative_pose(scene.poses[0], scene.poses[place]))
    return (
        told["pose"],
        told["target"],
        np.ascontiguousarray(image.transpose(2, 0, 1))[None],
        depth[None, None],
        mask[None, None].astype(np.float32),
    )

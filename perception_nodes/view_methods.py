"""The two ways from an image to views of it: warping by depth, and a network's field that is rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from perception.engines import Engine
from perception.tasks import depth as depth_task
from perception.tasks import view_synthesis as task
from perception.tasks.geometry import Camera, Fit
from perception.tasks.image import Image, preprocess, to_color
from perception.tasks.view_synthesis import View
from perception.tasks.warping import warp

Outputs = Mapping[str, np.ndarray]


@dataclass
class Scene:
    """What is known of an image so far. Made once, for all views of it."""

    image: Image
    camera: Camera
    tensor: np.ndarray
    """The image as the method's `engine` takes it."""
    field: dict[str, np.ndarray] | None = None
    """What engines have said of it."""
    depth: np.ndarray | None = None
    """Metres along Z, of the image's size."""


class ViewMethod(Protocol):
    """The target camera is the scene's own, at a `pose` in its optical frame. Not for several threads, but that `view`
    may run beside the next `run`."""

    name: str
    engine: Engine
    """That which takes the image."""

    def run(self, scene: Scene, pose: np.ndarray) -> Outputs:
        """What engines say, of the scene where they have not been asked about it yet, and of the view."""

    def view(self, scene: Scene, outputs: Outputs, pose: np.ndarray) -> View:
        """The view, of what `run` gave; its depth everywhere, where it is made up, too."""

    def known_depth(self, scene: Scene, view: View, pose: np.ndarray) -> np.ndarray:
        """The depth of that view, NaN where the image does not show what is there."""


def black(engine: Engine) -> Scene:
    """A scene to try engines out with."""
    tensor = np.zeros((1, *engine.config.input_size, 3), np.uint8)
    return Scene(Image(tensor[0], "rgb8"), Camera.canonical((1.0, 1.0), engine.config.input_size), tensor)


def depth_of(engine: Engine, outputs: Outputs, image: Image, camera: Camera) -> np.ndarray:
    """Metres, of the image's size."""
    return depth_task.parse(outputs, Fit.of(image.size, engine.config, camera), engine.config).metres


class Warping:
    """A model for depth tells how far away everything is; then pixels are moved."""

    name = "warping"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(self, scene: Scene, pose: np.ndarray) -> Outputs:
        """See `ViewMethod`."""
        if scene.field is None:
            scene.field = {name: array.copy() for name, array in self.engine.run(scene.tensor).items()}
        return scene.field

    def view(self, scene: Scene, outputs: Outputs, pose: np.ndarray) -> View:
        """See `ViewMethod`."""
        if scene.depth is None:
            scene.depth = depth_of(self.engine, outputs, scene.image, scene.camera)
        return warp(to_color(scene.image), scene.depth, scene.camera, scene.camera, pose)

    def known_depth(self, scene: Scene, view: View, pose: np.ndarray) -> np.ndarray:
        """See `ViewMethod`. Warping makes up none."""
        return view.depth


class Rendering:
    """A network makes a field of the image, once, and renders it, for each view.

    Args:
        parts: engines that make the field and render it.
        depth: that of a model for depth, which tells how far away the scene is; None: nobody does.

    Raises:
        ValueError: a network of other parts, or one that needs what nobody tells.
    """

    name = "model"

    def __init__(self, parts: Sequence[Engine], depth: Engine | None) -> None:
        config = parts[0].config
        if [part.config.part for part in parts] != ["field", "view"]:
            raise ValueError(
                f"model {config.name!r} is not one that makes a field and renders it, such as nvist_compact"
            )
        self.engine, self._renderer, self._depth = *parts, depth
        needs = {tensor.name for tensor in config.more_inputs}
        if "instances" in needs:
            raise ValueError(f"model {config.name!r} needs to know which objects are where, and no node tells that")
        if "seen_depth" in needs and depth is None:
            raise ValueError(f"model {config.name!r} needs the image's depth; name a depth_model")

    def run(self, scene: Scene, pose: np.ndarray) -> Outputs:
        """See `ViewMethod`."""
        if scene.field is None:
            scene.field = self._field(scene)
        target = task.target_inputs(self._renderer.config, scene.camera, pose)
        return self._run(self._renderer, {"image": scene.tensor, **scene.field, **target})

    def _field(self, scene: Scene) -> dict[str, np.ndarray]:
        """The field, with what it was made of."""
        if self._depth:
            fit = Fit.of(scene.image.size, self._depth.config, scene.camera)
            outputs = self._depth.run(preprocess(scene.image, self._depth.config, fit))
            scene.depth = depth_of(self._depth, outputs, scene.image, scene.camera)
        given = task.source_inputs(self.engine.config, scene.camera, scene.depth)
        found = self._run(self.engine, {"image": scene.tensor, **given})
        return given | {name: array.copy() for name, array in found.items()}

    @staticmethod
    def _run(engine: Engine, known: Outputs) -> Outputs:
        return engine.run({tensor.name: known[tensor.name] for tensor in engine.config.inputs})

    def view(self, scene: Scene, outputs: Outputs, pose: np.ndarray) -> View:
        """See `ViewMethod`."""
        return task.parse(outputs, Fit.of(scene.image.size, self._renderer.config), self._renderer.config)

    def known_depth(self, scene: Scene, view: View, pose: np.ndarray) -> np.ndarray:
        """See `ViewMethod`."""
        shown = task.is_shown(view.depth, scene.camera, pose, scene.depth)
        return np.where(shown, view.depth, np.float32(np.nan))

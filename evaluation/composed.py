"""Views of simulated scenes as a data set: of each scene its first view, and all others from there."""

from __future__ import annotations

from pathlib import Path

from perception.evaluation.compositions import VIEWS, Composition
from perception.evaluation.frames import PosedFrame, ViewFrame
from perception.evaluation.simulated import seed_and_count
from perception.evaluation.views import ViewDataset, view_of

SPLIT = "clip"
"""Scenes of split "train" are trained on."""
SEED, SCENES, SIDE = 1, 24, 128


class ComposedViews(ViewDataset):
    """`VIEWS` - 1 views of each of `scenes` scenes, rendered when they are asked for and kept.

    Needs the extra `simulate` (trimesh, embreex).

    Args:
        side: pixels of the images, which are square.
        samples: rays a pixel along each axis.
    """

    def __init__(self, seed: int = SEED, scenes: int = SCENES, side: int = SIDE, samples: int = 2) -> None:
        self.seed, self.scenes, self.side, self.samples = seed, scenes, side, samples
        self.name = f"composed:{seed}:{scenes}"
        self._scene: tuple[int, Composition] | None = None
        self._rendered: dict[tuple[int, int], PosedFrame] = {}

    @classmethod
    def from_name(cls, name: str) -> ComposedViews:
        """Of `composed[:SEED[:SCENES]]`.

        Raises:
            ValueError: another name.
        """
        return cls(*seed_and_count(name, "composed", "SCENES", (SEED, SCENES)))

    def __len__(self) -> int:
        return self.scenes * (VIEWS - 1)

    def label(self, index: int) -> str:
        """E.g. "scene-0003 view 5"."""
        scene, view = self._places(index)
        return f"scene-{scene:04d} view {view}"

    def files(self, index: int) -> tuple[Path, ...]:
        """None: it is computed."""
        return ()

    def __getitem__(self, index: int) -> ViewFrame:
        if not 0 <= index < len(self):
            raise IndexError(index)
        scene, view = self._places(index)
        return view_of(self._view(scene, 0), self._view(scene, view), self.label(index))

    def _places(self, index: int) -> tuple[int, int]:
        scene, view = divmod(index, VIEWS - 1)
        return scene, view + 1

    def _view(self, number: int, view: int) -> PosedFrame:
        if (number, view) not in self._rendered:
            if self._scene is None or self._scene[0] != number:
                self._scene = number, Composition.first(SPLIT, self.seed, number)
            scene = self._scene[1]
            camera = scene.camera(self.side, self.side)
            self._rendered[number, view] = scene.photograph(view, camera, self.samples)
        return self._rendered[number, view]

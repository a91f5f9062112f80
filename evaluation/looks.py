"""What a network sees of a data set: its images as they are, in the dark, or enhanced. So an enhancement is measured by
what it is worth to the network behind it.

Images become dark by computation (`in_the_dark`) where a data set says what is true. Or they are the dark ones of real
pairs, and what counts as true is what the network itself finds in the bright ones (`Answered`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from perception.engines import Engine
from perception.evaluation.assessment import AnyFrame, Assessment
from perception.evaluation.enhancement import predict_image
from perception.evaluation.frames import Dataset, Frame
from perception.evaluation.pairs import PairDataset
from perception.tasks.darkening import ELECTRONS, READ_NOISE, check_exposure, darken


@dataclass(frozen=True)
class Look:
    """A way to see samples.

    `name` stands behind a model's in tables, `key` is all that the images follow from beside those of the data set,
    `remarks` tell a reader what is seen. `see` takes a frame and its number, and gives uint8 RGB of the frame's shape.
    """

    name: str
    key: str
    remarks: tuple[str, ...]
    see: Callable[[Frame, int], np.ndarray]
    problem: str = ""
    """Why nothing can be seen so."""


AS_IT_IS = Look("", "", (), lambda frame, index: frame.rgb)


def in_the_dark(exposure: float) -> Look:
    """Darkened to a share of the light, see `darken`; with the same noise in every run.

    Raises:
        ValueError: it is no share.
    """
    check_exposure(exposure)
    light = f"{100 * exposure:g} % of the light"
    remark = (
        f"images are computed as {light} would have given them: with the noise of photons, of which {ELECTRONS:g} make "
        f"white in full light, and {READ_NOISE:g} electrons of the camera's own"
    )
    return Look(
        light,
        f"darken {exposure} {ELECTRONS} {READ_NOISE}",
        (remark,),
        lambda frame, index: darken(frame.rgb, exposure, np.random.default_rng(index)),
    )


def enhanced(look: Look, name: str, engine: Engine | str) -> Look:
    """What an enhancement called `name` makes of a look, by the same steps as its node takes with `dark_below` and
    `bright_above` 1: of every image, however bright.

    Args:
        engine: a text says why there is none.
    """
    both = ", ".join(filter(None, (look.name, name)))
    if isinstance(engine, str):
        return replace(look, name=both, problem=engine)
    remark = (
        f"milliseconds are those of the model alone, without {name}, which runs before it and brightens every image, "
        "as its node does with dark_below and bright_above 1"
    )
    return Look(
        both,
        f"{look.key} enhanced by {engine.info['key']}",
        (*look.remarks, remark),
        lambda frame, index: predict_image(engine.run, engine.config, replace(frame, rgb=look.see(frame, index))),
    )


class Seen(Dataset[AnyFrame]):
    """A data set whose images are what a look sees of it; what is true of them stays."""

    def __init__(self, dataset: Dataset[AnyFrame], look: Look) -> None:
        self.dataset, self.look, self.name = dataset, look, dataset.name
        self.task = dataset.task  # type: ignore[misc]  # a class's own elsewhere

    def __getattr__(self, name: str) -> Any:
        """What the data sets of a task have beside what all have: labels, for instance."""
        return getattr(self.dataset, name)

    @property
    def sequence(self) -> bool:
        """As that of the data set."""
        return self.dataset.sequence

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> AnyFrame:
        frame = self.dataset[index]
        return replace(frame, rgb=self.look.see(frame, index))

    def label(self, index: int) -> str:
        """As that of the data set."""
        return self.dataset.label(index)

    def files(self, index: int) -> tuple[Path, ...]:
        """As those of the data set."""
        return self.dataset.files(index)


class Answered(Dataset[Any]):
    """The bright images of pairs, and as truth what a network finds in them: it is asked whether it still does where
    they are dark, not whether it is right.

    Args:
        assessment: of the network's task, which must be able to make truth of results (`Assessment.frame`).
    """

    def __init__(self, pairs: PairDataset, assessment: Assessment, engine: Engine) -> None:
        self.pairs, self.name, self.labels = pairs, f"{pairs.name}, as seen bright", engine.config.labels
        self.task = engine.config.task  # type: ignore[misc]  # a class's own elsewhere
        self.key = f"true is what {engine.info['key']} finds"
        """What truth follows from beside the pairs."""
        self._assessment = assessment
        self._infer = assessment.inference(engine.run, engine.config, self)
        self._answer = cache(self._answered)
        self.in_the_dark = Look(
            "really dark",
            "dark images of pairs",
            ("true is what the model finds in the bright images of the pairs, and looked for in the dark ones",),
            lambda frame, index: pairs[index].rgb,
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def label(self, index: int) -> str:
        """The pair's."""
        return self.pairs.label(index)

    def files(self, index: int) -> tuple[Path, ...]:
        """The pair's."""
        return self.pairs.files(index)

    def __getitem__(self, index: int) -> Any:
        return self._answer(index)

    def _answered(self, index: int) -> Frame:
        pair = self.pairs[index]
        frame = self._assessment.frame(pair.target, pair.name)
        return self._assessment.frame(pair.target, pair.name, self._infer(frame))


def find_looks(dataset: Dataset[Any], exposures: Sequence[float], enhancers: Mapping[str, Engine | str]) -> list[Look]:
    """A data set as it is, and in each darkness; each darkness after each enhancement too, or without any the data set
    as it is. An enhancer may be a text that says why there is none.
    """
    dark = [in_the_dark(exposure) for exposure in exposures]
    if isinstance(dataset, Answered):
        dark = [replace(look, key=f"{look.key}, {dataset.key}") for look in (dataset.in_the_dark, *dark)]
    looks = [] if isinstance(dataset, Answered) else [AS_IT_IS]  # in the bright ones it finds what it found
    for look in dark:
        looks += [look, *(enhanced(look, name, engine) for name, engine in enhancers.items())]
    return looks if dark else looks + [enhanced(AS_IT_IS, name, engine) for name, engine in enhancers.items()]

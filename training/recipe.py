"""Recipes: what they say about a training run, whatever the task. A task adds its own fields by deriving from these."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Source:
    """Training data: a path (relative to --data), the split to use, and its share of each batch."""

    path: str
    share: float = 1.0
    split: str = "train"


@dataclass(frozen=True)
class Stage:
    """A part of the run at one image size; the learning rate falls from `rate` over all stages together."""

    steps: int
    size: tuple[int, int]
    """(height, width) of the network's image."""
    batch: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run. Fields not in the file keep the defaults given here."""

    name: str
    model: str
    sources: tuple[Source, ...]
    stages: tuple[Stage, ...]
    data_licence: str
    evaluate: str
    """Data set whose `eval` split is measured at the end; never trained on, never tuned on."""
    weights: str = ""
    """A trained network to go on from: a registered model, or a .safetensors file that training wrote, whose path is
    relative to the working directory, as that of `out/train` is."""
    start: str = ""
    """What the encoder starts from: a file relative to --data, or `package:...`, of somebody else or of a network of
    ours of another task; see `start_encoder`. Empty: random."""
    rate: float = 1e-3
    encoder_rate: float | None = None
    """Learning rate of the encoder relative to the rest. None: 0.3 where it is started, else 1."""
    weight_decay: float = 0.01
    warmup: int = 100
    frozen_norms: int = 0
    """Steps during which BatchNorms keep the statistics that they came with: those of a started encoder, or all of a
    network that the recipe goes on from. A batch's own statistics make one image's depth hang on the others'."""
    frozen_layers: int = 0
    """How many of the encoder's first layers stay as they came, norms too. Edges and textures look alike in all images,
    and the maps of these layers are the largest, so that training takes less time without their gradients."""
    quantization: bool = False
    """Whether the stages train with the rounding of an int8 engine, BatchNorm's statistics fixed."""
    bfloat16: bool = False
    """Whether arithmetic is bfloat16, where autocast allows, on a CPU that has it, too; on a GPU it always is."""
    average: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is kept."""
    kept_start: float = 0.0
    """Share that those in `weights` have in the weights that are written; the rest is what was learned since. Between
    the two lie networks that are often better than either (Wortsman et al., "Robust fine-tuning", CVPR 2022)."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.kept_start < 1 or (self.kept_start and not self.weights):
            raise ValueError(
                f"kept_start is {self.kept_start} with weights {self.weights!r}; accepted: from 0 to below 1, and more "
                "than 0 only where `weights` names a trained network"
            )
        if self.start and self.weights:
            raise ValueError("it starts the encoder from `start` and all from `weights`; name one")

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage to which a step, counted over all stages, belongs."""
        ends = itertools.accumulate(stage.steps for stage in self.stages)
        return self.stages[bisect.bisect_right(list(ends), step)]

    @property
    def encoder_scale(self) -> float:
        """What `encoder_rate` comes to."""
        return (0.3 if self.start else 1.0) if self.encoder_rate is None else self.encoder_rate

    @property
    def identity(self) -> str:
        """What tells two runs apart, as JSON."""
        return json.dumps(told(self), sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class SizedRecipe(Recipe):
    """A training run of a network that belongs to the size of its images, of which all stages are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({tuple(stage.size) for stage in self.stages}) > 1:
            raise ValueError("its stages have different sizes, and the network belongs to one: give all the same")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network's image."""
        height, width = self.stages[0].size
        return height, width


def told(value: Any) -> Any:
    """A value without its fields at their defaults: a new field does not end the runs of old recipes."""
    if isinstance(value, tuple):
        return [told(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {field.name: (getattr(value, field.name), field.default) for field in dataclasses.fields(value)}
    return {name: told(held) for name, (held, default) in fields.items() if held != default}

"""Recipes: readable files that say everything about a training run."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from perception.training.data import Augmentation
from perception.training.distillation import Distillation
from perception.training.pruning import Pruning

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Source:
    """Training data: a path (relative to --data), the split to use, and its share of each batch."""

    path: str
    share: float = 1.0
    split: str = "train"
    relative: bool = False
    """A folder of images whose depth, up to scale and shift, is what the recipe's `relative_teacher` says."""
    even: float = 0.0
    """How equally often near and far scenes come: 0 leaves all frames alike, 1 all bands of depth; see `evened`."""


@dataclass(frozen=True)
class Stage:
    """A part of the run at one image size; the learning rate falls from `rate` over all stages together."""

    steps: int
    size: tuple[int, int]
    """(height, width) of the network's image."""
    batch: int
    lens: float = 0.0
    """Weight of `lens_loss`, for which half of the batch is seen a second time: whole and half views must agree, on
    images without true depth too."""


@dataclass(frozen=True)
class Recipe:
    """A training run. Fields not in the file keep the defaults given here."""

    name: str
    model: str
    focal: tuple[float, float]
    """Canonical camera, (fx / width, fy / height); goes into the model's config."""
    sources: tuple[Source, ...]
    stages: tuple[Stage, ...]
    data_licence: str
    evaluate: str
    """Data set whose `eval` split is measured at the end; never trained on, never tuned on."""
    weights: str = ""
    """A trained network to go on from: a registered model, or a .safetensors file that training wrote, whose path is
    relative to the working directory, as that of `out/train` is."""
    start: str = ""
    """What the encoder starts from: a file relative to --data, or `package:...`; see `start_encoder`. Empty: random."""
    augmentation: Augmentation = Augmentation()
    rate: float = 1e-3
    encoder_rate: float = 0.3
    """Learning rate of the started encoder relative to the rest."""
    weight_decay: float = 0.01
    warmup: int = 100
    frozen_norms: int = 0
    """Steps during which BatchNorms keep the statistics that they came with: those of a started encoder, or all of a
    network that the recipe goes on from. A batch's own statistics make one image's depth hang on the others'."""
    frozen_layers: int = 0
    """How many of the encoder's first layers stay as they came, norms too. Edges and textures look alike in all images,
    and the maps of these layers are the largest, so that training takes less time without their gradients."""
    squared: float = 0.0
    """Weight of `squared_loss` beside that of the logarithm."""
    distillation: Distillation = Distillation()
    """What teachers add to the loss of true depth."""
    pruning: Pruning | None = None
    """How the network that the recipe goes on from is narrowed, before the stages fine-tune it."""
    quantization: bool = False
    """Whether the stages train with the rounding of an int8 engine, BatchNorm's statistics fixed."""
    average: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is kept."""
    seed: int = 0

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage to which a step, counted over all stages, belongs."""
        ends = itertools.accumulate(stage.steps for stage in self.stages)
        return self.stages[bisect.bisect_right(list(ends), step)]

    @property
    def pads_narrow_views(self) -> bool:
        """What the trained model's config will say."""
        return self.augmentation.pad > 0

    @property
    def identity(self) -> str:
        """What tells two runs apart, as JSON."""
        return json.dumps(_told(self), sort_keys=True)


def _told(value: Any) -> Any:
    """A value without its fields at their defaults: a new field does not end the runs of old recipes."""
    if isinstance(value, tuple):
        return [_told(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {field.name: (getattr(value, field.name), field.default) for field in dataclasses.fields(value)}
    return {name: _told(held) for name, (held, default) in fields.items() if held != default}


PARTS = {"sources": Source, "stages": Stage}
SECTIONS = {"augmentation": Augmentation, "distillation": Distillation, "pruning": Pruning}
Part = TypeVar("Part")


def _read(kind: type[Part], fields: Any, where: str) -> Part:
    """A dataclass from what YAML holds.

    Raises:
        ValueError: no mapping, an unknown or missing field, or one of another type; the message says where.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"{where} must be a mapping of names to values, not {fields!r}")
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(fields) - set(known)):
        raise ValueError(f"{where} has unknown fields: {', '.join(unknown)}; known: {', '.join(known)}")
    values: dict[str, Any] = {}
    for name, value in fields.items():
        place = f"{where}, {name}"
        if name in PARTS:
            values[name] = tuple(_read(PARTS[name], item, place) for item in value)
        elif name in SECTIONS:
            values[name] = _read(SECTIONS[name], value, place)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
            _check_number(values[name], str(known[name].type), place)
    if missing := [
        name for name, field in known.items() if field.default is dataclasses.MISSING and name not in fields
    ]:
        raise ValueError(f"{where} lacks: {', '.join(missing)}")
    return kind(**values)


def _check_number(value: Any, kind: str, place: str) -> None:
    """YAML reads 1e-3 as text; the field's annotation tells that a number is meant."""
    if kind in ("int", "float") and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ValueError(f"{place} is {value!r}, and must be a number (YAML wants 1.0e-3, not 1e-3)")


def load_recipe(name: str) -> Recipe:
    """The recipe in a YAML file, or the shipped one called `name`.

    Raises:
        ValueError: no such recipe, or one that is not right; the message names file and field.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise ValueError(f"no recipe {name!r}; give a YAML file or one of: {shipped}")
    recipe = _read(Recipe, yaml.safe_load(path.read_text()), str(path))
    if recipe.start and recipe.weights:
        raise ValueError(f"recipe {path} starts the encoder from `start` and all from `weights`; name one")
    for source in recipe.sources:
        if not 0 <= source.even <= 1 or (source.even and source.relative):
            raise ValueError(
                f"recipe {path}, source {source.path}: even is {source.even}; it must lie between 0 and 1, and be 0 "
                "where depth is relative, which has no bands"
            )
    if not 0 <= recipe.augmentation.pad <= 1:
        raise ValueError(f"recipe {path}, augmentation: pad is {recipe.augmentation.pad}; it must lie between 0 and 1")
    if recipe.pruning and not recipe.weights:
        raise ValueError(f"recipe {path} prunes, which needs a trained network to begin with: name it as `weights`")
    return recipe

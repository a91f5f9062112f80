"""The registry: every family registers functions that build its models, and everything else asks here by name."""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import perception.models as package
from perception.tasks.config import WEIGHTS_SUFFIX, Input, ModelConfig

WEIGHTS = Path(__file__).parent / "weights"
"""Shipped weights, their model cards, and weights.json, which lists them and can be read without torch."""

Build = Callable[..., nn.Module]
Configure = Callable[[ModelConfig, Mapping[str, Any]], ModelConfig]
"""Completes a config whose `input_size` is decided, for a model that is built with some options: outputs, labels."""


@dataclass(frozen=True)
class ModelEntry:
    """A registered model."""

    build: Build
    config: ModelConfig
    configure: Configure
    sized: bool
    listed: bool


_models: dict[str, ModelEntry] = {}


@dataclass(frozen=True)
class EncoderEntry:
    """An encoder, and how it wants its image normalised (as `ModelConfig.mean` and `std`)."""

    build: Build
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_encoders: dict[str, EncoderEntry] = {}


def register_encoder(
    name: str, mean: tuple[float, float, float] = (0.0, 0.0, 0.0), std: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Callable[[Build], Build]:
    """Register the decorated class or function, which builds an encoder with random weights.

    An encoder maps a normalised image (N, 3, H, W) to features of stride 2, 4, 8, 16 and 32, sizes rounded up;
    `channels` names their channels, and `widths` is what its builder takes as `widths` to build one of the same widths.
    """

    def register(build: Build) -> Build:
        if name in _encoders:
            raise ValueError(f"an encoder called {name!r} is registered already; names must be unique")
        _encoders[name] = EncoderEntry(build, mean, std)
        return build

    return register


def find_encoder(name: str) -> EncoderEntry:
    """The encoder registered under `name`.

    Raises:
        ValueError: unknown encoder; the message lists those that are known.
    """
    _import_families()
    if name not in _encoders:
        raise ValueError(f"unknown encoder {name!r}; available encoders: {', '.join(sorted(_encoders))}")
    return _encoders[name]


def register_model(
    config: ModelConfig,
    configure: Configure = lambda config, _: config,
    sized: bool = False,
    listed: bool = True,
) -> Callable[[Build], Build]:
    """Register the decorated function, which builds the model with random weights; its arguments have defaults.

    The model maps a normalised float image (batch, 3, height, width), and what `config.more_inputs` has beside it, to a
    tensor, or to a tuple of tensors in the order of `config.outputs`.

    Args:
        configure: tells what of the config follows from input size and options.
        sized: the network's parameters are for one input size, which its builder takes as `input_size`.
        listed: False for one of many that differ in numbers from a listed one: it is found by its name alone.
    """

    def register(build: Build) -> Build:
        if config.name in _models:
            raise ValueError(f"a model called {config.name!r} is registered already; names must be unique")
        _models[config.name] = ModelEntry(build, config, configure, sized, listed)
        return build

    return register


def _entry(model: str) -> tuple[ModelEntry, dict[str, Any]]:
    """The registered model, and what the list of weights says: config fields, and `options` to build it with."""
    weights = Path(model) if model.endswith(WEIGHTS_SUFFIX) else None
    listing = weights.with_suffix(".json") if weights else WEIGHTS / "weights.json"
    if weights and not listing.is_file():
        raise ValueError(f"{listing} does not exist; it says which model {weights} belongs to, and training writes it")
    entries: dict[str, dict[str, Any]] = json.loads(listing.read_text())
    name = next(iter(entries)) if weights else model
    _import_families()
    if name not in _models:
        raise ValueError(f"unknown model {name!r}; available models: {', '.join(list_models())}")
    trained = dict(entries.get(name, {}))
    if weights:
        trained["weights"] = str(weights.resolve())
    return _models[name], trained


def _import_families() -> None:
    """Every family registers itself when it is imported."""
    for info in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{info.name}")


def list_models(task: str | None = None) -> list[str]:
    """Names of all listed models, or of those of one task, sorted."""
    _import_families()
    return sorted(name for name, entry in _models.items() if entry.listed and task in (None, entry.config.task))


def model_config(model: str, input_size: tuple[int, int] | None = None, **options: Any) -> ModelConfig:
    """The configuration of a model together with what is known of its weights.

    Args:
        model: registered name, or a weights file with the JSON file that training writes beside it.
        input_size: (height, width) to use instead of the default; whether weights fit it is `create_model`'s to say,
            since a network may be trained anew at any.
        options: with which the model is built; they come before those with which the weights go.

    Raises:
        ValueError: unknown model, or a size that the network cannot take.
    """
    entry, trained = _entry(model)
    config = entry.config
    if trained:
        fields = {key: _tuple(value) for key, value in trained.items() if key != "options"}
        lens = {"focal": None, "pads_narrow_views": False}  # that of the training, whatever the code says
        config = config.replace(**lens | fields)
    if input_size:
        config = config.replace(input_size=input_size)
    return entry.configure(config, trained.get("options", {}) | options)


def model_options(model: str) -> dict[str, Any]:
    """The options with which a model's weights go, as its builder takes them; none where it has no weights.

    Raises:
        ValueError: unknown model.
    """
    return dict(_entry(model)[1].get("options", {}))


def _tuple(value: Any) -> Any:
    """Lists of JSON as the tuples that configs hold."""
    return tuple(map(_tuple, value)) if isinstance(value, list) else value


def create_model(
    model: str, pretrained: bool = True, input_size: tuple[int, int] | None = None, **overrides: Any
) -> nn.Module:
    """Build a model in eval mode.

    Args:
        model: registered name, or a weights file with the JSON file that training writes beside it.
        pretrained: load the weights; a model that has none keeps its random start.
        input_size: (height, width) to use instead of the default; most networks take any at any time.
        overrides: passed to the model's builder; they come before the options with which the weights go.

    Raises:
        ValueError: unknown model, a weights file that is not the one that the list of weights names, or weights for
            another size.
    """
    entry, trained = _entry(model)
    options = trained.get("options", {}) | overrides
    if entry.sized:
        own = tuple(trained.get("input_size", entry.config.input_size))
        options["input_size"] = size = tuple(input_size or own)
        if pretrained and trained and size != own:
            raise ValueError(
                f"the weights of {model!r} are for {own[0]}x{own[1]}, not for {size[0]}x{size[1]}: this network has "
                "parameters of every place; leave the size as it is, or train one for the other size"
            )
    built = entry.build(**options)
    if pretrained and trained:
        load_weights(built, WEIGHTS / trained["weights"], trained["weights_sha256"])
    return built.eval()


def load_weights(model: nn.Module, path: Path, sha256: str | None = None) -> None:
    """Load a safetensors file into `model` in float32; `sha256` is checked if given."""
    if not path.is_file():
        raise ValueError(f"weights {path} do not exist; train them or take the file from the repository")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 and found != sha256:
        raise ValueError(f"weights {path} have SHA-256 {found}, but {sha256} is expected: restore the file")
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors raises its own type, which it does not export
        raise ValueError(f"{path} is not a safetensors file ({error}); weights must be saved as safetensors") from error
    model.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    )


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters, BatchNorm's weight and bias included, its statistics not."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, size: tuple[int, int], more: Sequence[Input] = ()) -> int:
    """Multiply-accumulates of all convolutions and products of matrices for one image of size = (height, width), with
    `more` inputs beside it.

    On PyTorch's meta device as well, where nothing is computed.
    """
    device = next(model.parameters()).device
    inputs = [torch.zeros(shape, device=device) for shape in ((1, 3, *size), *(tensor.shape for tensor in more))]
    training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(*inputs)
    model.train(training)
    return int(counter.get_total_flops()) // 2  # a multiplication and an addition

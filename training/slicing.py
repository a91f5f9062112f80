"""A part of a trained vision transformer, with fewer heads, for some of its classes.

What goes is what changes the network's answers least: channels of the embedding, heads, hidden channels of each block,
channels of the stem, each removed wherever they run, so that what is left is a network of the same definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from perception.models.vit import EXPANSION, Attention, ViT, stem_layers

Importance = Mapping[str, torch.Tensor]
"""Of each unit of a group, float32 (units,); groups as `unit_counts` names them."""
Units = Mapping[str, Sequence[int]]
"""Of each group the units that are kept, sorted."""


def unit_counts(model: ViT, heads: int | None = None) -> dict[str, int]:
    """How many units a network has of each group: "width" (channels of the embedding), "heads.I" and "hidden.I" of each
    block, "stem.I" of each convolution in a stem but for those that give the embedding's width.

    Args:
        heads: of a network like this one, but for its heads; None: of this one.
    """
    own, channels = _heads(model)
    heads = own if heads is None else heads
    width = heads * channels
    counts = {"width": width}
    for number, (layer, _) in enumerate(stem_layers(model.stem, width, model.patch)):
        counts[f"stem.{number}"] = layer
    for number in range(len(model.blocks)):
        counts |= {f"heads.{number}": heads, f"hidden.{number}": EXPANSION * width}
    return counts


def _heads(model: ViT) -> tuple[int, int]:
    """How many a block has, and channels of each."""
    attention = model.blocks[0].attention
    assert isinstance(attention, Attention)
    return attention.heads, attention.channels


def _convolutions(model: ViT) -> list[nn.Module]:
    """Convolutions with norm and activation of a stem, without the last layer."""
    return list(model.embed)[:-1] if isinstance(model.embed, nn.Sequential) else []


def importance(model: ViT, images: torch.Tensor, batch: int = 32) -> Importance:
    """How far the chances that a network gives move when a unit is removed: the Kullback-Leibler divergence of its
    answers without the unit from those with it, the mean over images, to second order in what is removed.

    With a factor m before a unit, 1 in the network as it is, the divergence of the answers at m from those at 1 is
    (1 - m)^2 / 2 times the Fisher information of m, the mean over classes, by their chances, of the squared derivative
    of log(chance) in m (Kullback, 1959). So one pass over the images tells of all units, where removing them one by one
    would take as many passes as there are units.

    Args:
        images: (N, 3, H, W), normalised, on the model's device.
        batch: how many are computed at once.
    """
    model.eval()
    totals = {name: torch.zeros(count) for name, count in unit_counts(model).items()}
    for part in images.split(batch):
        factors = {name: torch.ones(len(part), len(total)).to(images) for name, total in totals.items()}
        for factor in factors.values():
            factor.requires_grad_()
        with multiplied(model, factors):
            logs = model(part).log_softmax(1)
        for place, chances in enumerate(logs.detach().exp().T):
            slopes = torch.autograd.grad(logs[:, place].sum(), list(factors.values()), retain_graph=True)
            for total, slope in zip(totals.values(), slopes, strict=True):
                total += (chances @ slope.square()).cpu()
    return {name: total / (2 * len(images)) for name, total in totals.items()}


@contextmanager
def multiplied(model: ViT, factors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Within it, units of each group are multiplied by factors (N, units); at 0 they are as good as removed, but for
    the norms, which still count the embedding's channels."""
    handles = []

    def after(module: nn.Module, name: str) -> None:
        handles.append(module.register_forward_hook(lambda _, __, output: _scaled(output, factors[name])))

    def before(module: nn.Module, name: str, repeat: int = 1) -> None:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return (_scaled(inputs[0], factors[name].repeat_interleave(repeat, 1)),)

        handles.append(module.register_forward_pre_hook(hook))

    before(model.blocks, "width")
    after(model.norm, "width")
    for number, layer in enumerate(_convolutions(model)):
        after(layer, f"stem.{number}")
    for number, block in enumerate(model.blocks):
        attention: Attention = block.attention  # type: ignore[assignment]
        before(attention.mix, f"heads.{number}", attention.channels)
        before(block.narrow, f"hidden.{number}")  # type: ignore[arg-type]
        for module in (block.norm_1, block.norm_2, attention.mix, block.narrow):
            after(module, "width")  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _scaled(values: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Values (N, units) or (N, L, units), or maps (N, units, h, w), times factors (N, units)."""
    return values * {2: factors, 3: factors[:, None], 4: factors[:, :, None, None]}[values.ndim]


def choose_units(found: Importance, counts: Mapping[str, int]) -> Units:
    """The most important so many units of each group."""
    kept = {}
    for name, count in counts.items():
        ranked = found[name].argsort(descending=True, stable=True)
        kept[name] = sorted(ranked[:count].tolist())
    return kept


@torch.no_grad()
def slice_state(model: ViT, units: Units, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tensors of the network that has these units alone, and as classes the rows of a mean of the model's.

    Args:
        rows: float32 (classes, the model's classes): of each class the weights with which the model's are averaged.
    """
    state = dict(model.state_dict())
    width, shape = list(units["width"]), _heads(model)
    cut = _Cut(state)
    embedding: Sequence[int] = range(3)
    for number, _ in enumerate(_convolutions(model)):
        kept = units[f"stem.{number}"]
        cut(f"embed.{number}.0.weight", kept, embedding)
        for name in ("weight", "bias", "running_mean", "running_var"):
            cut(f"embed.{number}.1.{name}", kept)
        embedding = kept
    last = f"embed.{len(_convolutions(model))}" if _convolutions(model) else "embed"
    cut(f"{last}.weight", width, embedding)
    cut(f"{last}.bias", width)
    for name in ("token", "places"):
        state[name] = state[name][..., width]
    for number in range(len(model.blocks)):
        _cut_block(cut, f"blocks.{number}", width, units[f"heads.{number}"], units[f"hidden.{number}"], shape)
    for name in ("norm.weight", "norm.bias"):
        cut(name, width)
    shares = rows / rows.sum(1, keepdim=True)
    state["classify.weight"] = shares @ state["classify.weight"][:, width]
    state["classify.bias"] = shares @ state["classify.bias"]
    return {name: tensor.clone().contiguous() for name, tensor in state.items()}


class _Cut:
    """Keeps rows, and columns where they are given, of a named tensor."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        self.state = state

    def __call__(self, name: str, rows: Sequence[int], columns: Sequence[int] | None = None) -> None:
        tensor = self.state[name][list(rows)]
        self.state[name] = tensor if columns is None else tensor[:, list(columns)]


def _cut_block(
    cut: Callable[..., None],
    name: str,
    width: Sequence[int],
    heads: Sequence[int],
    hidden: Sequence[int],
    shape: tuple[int, int],
) -> None:
    """Cut a block that had as many heads, of as many channels, as `shape` says."""
    had, each = shape
    channels = [head * each + place for head in heads for place in range(each)]
    rows = [part * had * each + channel for part in range(3) for channel in channels]  # of queries, keys and values
    cut(f"{name}.attention.qkv.weight", rows, width)
    cut(f"{name}.attention.qkv.bias", rows)
    cut(f"{name}.attention.mix.weight", width, channels)
    cut(f"{name}.widen.weight", hidden, width)
    cut(f"{name}.widen.bias", hidden)
    cut(f"{name}.narrow.weight", width, hidden)
    for part in ("attention.mix.bias", "narrow.bias", "norm_1.weight", "norm_1.bias", "norm_2.weight", "norm_2.bias"):
        cut(f"{name}.{part}", width)

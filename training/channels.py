"""Which layers of a network share channels, and taking channels out of all of them at once."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx, nn
from torch.nn import functional as F

CHANNELWISE: tuple[type[nn.Module], ...] = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Identity)
"""Modules of which every output channel follows from the same channel of the input."""
CHANNELWISE_CALLS: tuple[Callable | str, ...] = (operator.add, F.interpolate, F.pad, "exp")
"""Functions and methods of tensors that are so too; what they take must have equal widths."""


@dataclass
class ChannelGroup:
    """Channels that run through several layers. Layers are named as `named_modules` names them."""

    width: int = 0
    producers: list[str] = field(default_factory=list)
    """Convolutions that put out these channels; several where sums tie them together."""
    followers: list[str] = field(default_factory=list)
    """BatchNorms and depthwise convolutions that the channels pass one by one."""
    readers: list[str] = field(default_factory=list)
    """Convolutions that take the channels in and put out others."""
    norms: dict[str, str] = field(default_factory=dict)
    """Producer: the BatchNorm right behind it."""

    @property
    def name(self) -> str:
        """The first producer's."""
        return self.producers[0]


def channel_groups(model: nn.Module) -> list[ChannelGroup]:
    """All groups whose width can be chosen, in the order of the network; those of its inputs and outputs cannot be.

    Raises:
        ValueError: the network has an operation of which it is not known where channels go.
    """
    layers = dict(model.named_modules())
    graph = _Tracer().trace(model)
    spaces = _channel_spaces(graph, layers)
    groups: dict[fx.Node, ChannelGroup] = defaultdict(ChannelGroup)
    for node in graph.nodes:
        layer = layers.get(str(node.target)) if node.op == "call_module" else None
        group = groups[spaces[node]]
        if isinstance(layer, nn.Conv2d) and not _depthwise(layer):
            group.producers.append(node.target)
            group.width = layer.out_channels
            groups[spaces[node.args[0]]].readers.append(node.target)
        elif isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)):
            group.followers.append(node.target)
            if isinstance(layer, nn.BatchNorm2d) and node.args[0].target in group.producers:
                group.norms[node.args[0].target] = node.target
    fixed = spaces[next(iter(graph.nodes))]
    return [group for space, group in groups.items() if space is not fixed]


class _Tracer(fx.Tracer):
    """Takes every convolution as a whole, ours that pad for themselves too."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Conv2d) or super().is_leaf_module(module, name)


def _channel_spaces(graph: fx.Graph, layers: dict[str, nn.Module]) -> dict[fx.Node, fx.Node]:
    """Of each value the one that stands for all that have the same channels. Inputs and outputs share the first's."""
    spaces: dict[fx.Node, fx.Node] = {}
    fixed = next(iter(graph.nodes))
    for node in graph.nodes:
        layer = layers.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d) and not _depthwise(layer):
            if layer.groups > 1:
                raise ValueError(f"{node.target}: pruning takes full and depthwise convolutions, not {layer}")
            spaces[node] = node
            continue
        if not _channelwise(node, layer):
            raise ValueError(
                f"cannot tell where the channels of {node.name}, {layer or node.target}, come from; teach channels.py"
            )
        tied = [fixed, *node.all_input_nodes] if node.op in ("placeholder", "output") else node.all_input_nodes
        spaces[node] = spaces.get(tied[0], tied[0])
        old = {spaces[value] for value in tied if value in spaces}
        spaces.update({value: spaces[node] for value, space in spaces.items() if space in old})
    return spaces


def _channelwise(node: fx.Node, layer: nn.Module | None) -> bool:
    if node.op == "call_module":
        return isinstance(layer, (nn.Conv2d, *CHANNELWISE))
    return node.op in ("placeholder", "output") or node.target in CHANNELWISE_CALLS


def _depthwise(layer: nn.Conv2d) -> bool:
    return layer.groups == layer.in_channels == layer.out_channels and layer.groups > 1


def remove_channels(model: nn.Module, group: ChannelGroup, keep: Sequence[int]) -> None:
    """Narrow a group in place to the channels `keep`.

    The network then computes what it did with the others zero behind every producer and follower. Parameters are new
    objects, so an optimiser made before does not know them; `group` itself becomes stale.

    Raises:
        ValueError: `keep` is unsorted, names channels that the group has not, or is less than two, which would leave a
            depthwise convolution that cannot be told from a full one.
    """
    if len(keep) < 2 or list(keep) != sorted(set(keep)) or keep[0] < 0 or keep[-1] >= group.width:
        raise ValueError(
            f"{group.name}: channels to keep must be two or more of 0..{group.width - 1}, sorted, unique, not {keep}"
        )
    layers = dict(model.named_modules())
    for name in (*group.producers, *group.followers):
        layer = layers[name]
        for field_name in ("weight", "bias", "running_mean", "running_var"):
            _keep(layer, field_name, keep, axis=0)
        if isinstance(layer, nn.Conv2d):
            layer.out_channels = len(keep)
            if name in group.followers:
                layer.in_channels = layer.groups = len(keep)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.num_features = len(keep)
    for reader in _convolutions(layers, group.readers):
        _keep(reader, "weight", keep, axis=1)
        reader.in_channels = len(keep)


def _convolutions(layers: dict[str, nn.Module], names: Sequence[str]) -> Iterator[nn.Conv2d]:
    for name in names:
        layer = layers[name]
        assert isinstance(layer, nn.Conv2d), f"{name} is a {type(layer).__name__}"
        yield layer


@torch.no_grad()
def _keep(layer: nn.Module, field_name: str, keep: Sequence[int], axis: int) -> None:
    tensor = getattr(layer, field_name, None)
    if tensor is None:
        return
    kept = tensor.index_select(axis, torch.tensor(keep, device=tensor.device))
    setattr(layer, field_name, nn.Parameter(kept) if isinstance(tensor, nn.Parameter) else kept)


@torch.no_grad()
def importance(model: nn.Module, group: ChannelGroup) -> torch.Tensor:
    """How much each channel of a group counts: the L2 norm of its filter, summed over the group's producers.

    It is the norm with BatchNorm folded in, since a filter's own scale does not reach its output. NetAdapt ranks by the
    norm as well.

    Shapes: (width,), float32.
    """
    layers = dict(model.named_modules())
    total = torch.zeros(group.width)
    for name, layer in zip(group.producers, _convolutions(layers, group.producers), strict=True):
        norms = layer.weight.flatten(1).norm(dim=1)
        if name in group.norms:
            norm = layers[group.norms[name]]
            assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
            norms = norms * norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
        total += norms.float().cpu()
    return total

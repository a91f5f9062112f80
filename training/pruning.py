"""Structured channel pruning by NetAdapt (Yang et al., ECCV 2018), as FastDepth was (Wofk et al., ICRA 2019).

From the trained network on, every iteration narrows one group of channels so far that the cost falls by a step:
each group in turn is proposed, fine-tuned briefly and scored, and the proposal that loses least per cost is kept.
Fine-tuning for long, once the budget is met, is ordinary training of the network that comes out.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import nn

from perception.engines.store import write_atomically
from perception.training.channels import ChannelGroup, channel_groups, importance, remove_channels
from perception.training.costs import Cost, Latency, Shapes, gigamacs, layer_shapes, narrowed
from perception.training.norms import refresh_norms

Score = Callable[[nn.Module], float]
"""Accuracy on training data that fine-tuning does not see; more is better."""


class Tune(Protocol):
    """Short-term fine-tuning."""

    def __call__(self, model: nn.Module, *, first: int) -> None:
        """Train a network in place for `Pruning.tune_steps` steps, the first of which has number `first`.

        Every proposal of an iteration gets the same numbers, and thereby the same batches.
        """


@dataclass(frozen=True)
class Pruning:
    """How a trained network is narrowed."""

    budget: float
    """What a frame may cost in the end: GMAC or milliseconds."""
    measure: Literal["macs", "latency"] = "macs"
    step: float = 0.03
    """By how much the first iteration lowers the cost, as a share of the unpruned network's."""
    decay: float = 0.98
    """Ratio of each step to the one before."""
    candidates: int | Literal["all"] = 3
    """How many proposals of an iteration are fine-tuned: those that score best without. NetAdapt tunes all."""
    tune_steps: int = 20
    batch: int = 8
    rate: float = 1e-4
    """Learning rate of short-term fine-tuning, which is constant."""
    held_out: int = 32
    """Frames of the training data that are kept back for scoring."""
    multiple: int = 8
    """Widths are multiples of it: processors work on so many channels at a time."""


@dataclass(frozen=True)
class Iteration:
    """A line of the report: the proposal that was kept, and the network with it."""

    cost: float
    score: float
    group: str = ""
    """Name of the group; empty for the network that pruning began with."""
    before: int = 0
    after: int = 0
    """The group's width."""


class Proposal(NamedTuple):
    """A group, the width to narrow it to, and what the network then costs."""

    group: ChannelGroup
    width: int
    cost: float


Narrow = Callable[[Proposal], nn.Module]
"""A copy of the network with one group narrowed."""


def prune(
    model: nn.Module,
    pruning: Pruning,
    size: tuple[int, int],
    images: torch.Tensor,
    score: Score,
    tune: Tune,
    out: Path,
    progress: Callable[[str], None] = print,
) -> nn.Module:
    """The network narrowed until it meets the budget, or what is left of that if `out` holds the work of before.

    With the same arguments the result is the same, whether or not it was interrupted.

    Args:
        model: trained; it is not changed.
        size: (height, width) of the image that the cost is for.
        images: training images, a normalised batch (N, 3, H, W) on the model's device, which BatchNorm's statistics are
            taken from whenever channels have gone.
        out: gets pruning.jsonl, the report with a line for each iteration, pruning.safetensors, the latest network, and
            latency.json, the times of layers, if latency is measured.
        progress: called with one line about what is being done.

    Raises:
        ValueError: no group can be narrowed by a step, `out` holds other work, or see `channel_groups`.
    """
    out.mkdir(parents=True, exist_ok=True)
    work = _Work(out, pruning, model)
    cost = gigamacs if pruning.measure == "macs" else Latency(out / "latency.json")
    model = copy.deepcopy(model)
    done = work.resume(model)
    if not done:
        refresh_norms(model, images)  # they may be those of images of another size, which would count as a loss
        done = [Iteration(cost(layer_shapes(model, size)), score(model))]
        work.save(model, done)
    while done[-1].cost > pruning.budget:
        last = done[-1]
        step = done[0].cost * pruning.step * pruning.decay ** (len(done) - 1)
        target = max(pruning.budget, last.cost - step)
        proposals = propose(channel_groups(model), layer_shapes(model, size), target, cost, pruning.multiple)
        if not proposals:
            raise ValueError(
                f"no group of channels alone can lower the cost from {last.cost:.4g} to {target:.4g}, and the budget "
                f"is {pruning.budget:.4g}; choose a larger budget or a smaller step"
            )
        progress(f"iteration {len(done)}: cost {last.cost:.4g}, score {last.score:.4f}, {len(proposals)} proposals")
        narrow = partial(_narrowed, model, images)
        if pruning.candidates != "all":
            proposals = _screen(proposals, narrow, last, score)[: pruning.candidates]
        first = (len(done) - 1) * pruning.tune_steps
        model, kept = _select(proposals, narrow, last, score, partial(tune, first=first))
        progress(f"  {kept.group}: {kept.before} to {kept.after} channels")
        done.append(kept)
        work.save(model, done)
    return model.eval()


def propose(groups: Sequence[ChannelGroup], shapes: Shapes, target: float, cost: Cost, multiple: int) -> list[Proposal]:
    """For every group the largest width, less than now, with which the network costs no more than `target`."""
    proposals = []
    for group in groups:
        widths = range(multiple, group.width, multiple)
        low, high, reached = -1, len(widths), 0.0
        while high - low > 1:
            middle = (low + high) // 2
            price = cost(narrowed(shapes, group, widths[middle]))
            if price <= target:
                low, reached = middle, price
            else:
                high = middle
        if low >= 0:
            proposals.append(Proposal(group, widths[low], reached))
    return proposals


def _screen(proposals: list[Proposal], narrow: Narrow, last: Iteration, score: Score) -> list[Proposal]:
    """The proposals by what they gain without fine-tuning, best first."""
    gains = [_gain(score(narrow(proposal)), proposal.cost, last) for proposal in proposals]
    return [proposals[index] for index in sorted(range(len(gains)), key=lambda index: -gains[index])]


def _select(
    proposals: list[Proposal], narrow: Narrow, last: Iteration, score: Score, tune: Callable[[nn.Module], None]
) -> tuple[nn.Module, Iteration]:
    """The proposal that gains most when it is fine-tuned, as a network and as a line of the report."""
    best, network, kept = -math.inf, None, None
    for proposal in proposals:
        trial = narrow(proposal)
        tune(trial)
        reached = score(trial)
        gain = _gain(reached, proposal.cost, last)
        if gain > best:
            best, network = gain, trial
            group = proposal.group
            kept = Iteration(proposal.cost, reached, group.name, group.width, proposal.width)
    if network is None or kept is None:
        raise ValueError("fine-tuning diverged for every proposal; lower `rate` of the recipe's `pruning`")
    return network, kept


def _gain(score: float, cost: float, last: Iteration) -> float:
    """Change of score per cost that is saved; a network that is broken is worse than any other."""
    return (score - last.score) / (last.cost - cost) if math.isfinite(score) else -math.inf


def _narrowed(model: nn.Module, images: torch.Tensor, proposal: Proposal) -> nn.Module:
    """A copy without the least important channels of the group, in eval mode."""
    narrow = copy.deepcopy(model).eval()
    ranked = importance(model, proposal.group).argsort(descending=True, stable=True)
    remove_channels(narrow, proposal.group, sorted(ranked[: proposal.width].tolist()))
    refresh_norms(narrow, images)
    return narrow


class _Work:
    """What is on disk. The network and the iterations that led to it are one file, so that neither is ahead."""

    def __init__(self, out: Path, pruning: Pruning, start: nn.Module) -> None:
        self.weights, self.report = out / "pruning.safetensors", out / "pruning.jsonl"
        self.settings = json.dumps(dataclasses.asdict(pruning))
        self.start = hashlib.sha256(save(_tensors(start))).hexdigest()

    def save(self, model: nn.Module, done: list[Iteration]) -> None:
        lines = [json.dumps(dataclasses.asdict(iteration)) for iteration in done]
        iterations = "\n".join(lines)
        about = {"settings": self.settings, "start": self.start, "iterations": iterations}
        write_atomically(self.weights, save(_tensors(model), about))
        self.report.write_text(iterations + "\n")

    def resume(self, model: nn.Module) -> list[Iteration]:
        """Bring `model`, as it was at the start, to the latest iteration; all iterations so far."""
        if not self.weights.is_file():
            return []
        with safe_open(self.weights, "pt") as file:
            found = file.metadata()
        if (found["settings"], found["start"]) != (self.settings, self.start):
            raise ValueError(
                f"{self.weights} belongs to other settings or another start; choose another folder or remove it"
            )
        done = [Iteration(**json.loads(line)) for line in found["iterations"].splitlines()]
        for iteration in done[1:]:
            group = next(group for group in channel_groups(model) if group.name == iteration.group)
            remove_channels(model, group, range(iteration.after))
        model.load_state_dict(load_file(self.weights))
        return done


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}

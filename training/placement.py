"""Which device runs which part of a split network: what parts cost, what devices allow, and a greedy choice.

Costs are predicted. A device has an overhead for every image, computes at its own rate, and then sends the features as
float16; energy is its power, which it is taken to draw while it does any of these, times that time. Waiting is not in
it, nor is the image's own way to the device, unless the overhead was measured with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from perception.training.reading import read_fields

FLOAT, SENT = 4, 2
"""Bytes of a weight, and of a feature on its way."""
MESSAGE = 256
"""Bytes of a message beside the features: header, format, and what the transport adds."""


@dataclass(frozen=True)
class Device:
    """A board, and what a network on it may cost."""

    name: str
    memory: float
    """MB (10^6 bytes) for the network's weights, in float32; what a runtime takes beside is not in it."""
    gflops: float
    """What it computes in a second, multiplications and additions each counted, in 10^9, with such networks."""
    watts: float
    """While it computes or sends."""
    bandwidth: float
    """Mbit/s."""
    overhead: float = 0.0
    """Milliseconds that an image takes beside what the network computes, however large that is: it is received and
    decoded, and its features are published. `perception vit bench` measures them; 0: not counted."""
    energy: float | None = None
    """Joules that an image may cost; None: any."""
    latency: float | None = None
    """Milliseconds that an image may take until its features have arrived; None: any."""

    def __post_init__(self) -> None:
        for name in ("memory", "gflops", "watts", "bandwidth", "energy", "latency"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} of device {self.name!r} is {value}; it must be more than 0")
        check_overhead(f"overhead of device {self.name!r}", self.overhead)


def check_overhead(name: str, value: float) -> None:
    """Raise ValueError for what cannot be an overhead."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value}; accepted: milliseconds, 0 or more")


@dataclass(frozen=True)
class Fleet:
    """What devices.yaml says: all devices, and the name of the one that fuses (empty: the fastest)."""

    devices: tuple[Device, ...]
    fusion: str = ""
    fusion_overhead: float = 0.0
    """Milliseconds that fusing takes beside what its network computes: features are received, the answer is published.
    """

    def __post_init__(self) -> None:
        names = [device.name for device in self.devices]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"devices need different names, one device at least; these are {', '.join(names) or 'none'}"
            )
        if self.fusion and self.fusion not in names:
            raise ValueError(f"fusion is {self.fusion!r}, which is none of the devices {', '.join(names)}")
        check_overhead("fusion_overhead", self.fusion_overhead)

    @property
    def fastest(self) -> Device:
        """The first of those that compute most in a second."""
        return max(self.devices, key=lambda device: device.gflops)

    @property
    def fusing(self) -> Device:
        """The one that fuses."""
        return next((device for device in self.devices if device.name == self.fusion), self.fastest)

    def fusion_ms(self, macs: int) -> float:
        """Milliseconds from the last features to the answer, of a fusion network of so many multiply-accumulates."""
        return self.fusion_overhead + compute_ms(self.fusing, macs)


def read_fleet(path: Path) -> Fleet:
    """The devices in a YAML file.

    Raises:
        ValueError: no such file, or one that is not right; the message names file and field.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist; it lists the devices: name, memory, gflops, watts, bandwidth of each")
    return read_fields(Fleet, yaml.safe_load(path.read_text()), str(path))


@dataclass(frozen=True)
class Cost:
    """What a part of a network is, for one image."""

    parameters: int
    macs: int
    features: int

    @property
    def bytes(self) -> int:
        """Of its weights."""
        return FLOAT * self.parameters


def compute_ms(device: Device, macs: int) -> float:
    """Milliseconds of so many multiply-accumulates."""
    return 2 * macs / (1e6 * device.gflops)


def latency_ms(device: Device, cost: Cost) -> float:
    """Milliseconds from the image until the features have arrived."""
    sent = 8 * (SENT * cost.features + MESSAGE) / (1e3 * device.bandwidth)
    return device.overhead + compute_ms(device, cost.macs) + sent


def energy_j(device: Device, cost: Cost) -> float:
    """Joules of an image."""
    return device.watts * latency_ms(device, cost) / 1e3


def refusals(device: Device, cost: Cost) -> list[str]:
    """Which of a device's limits a part exceeds, in words; none where it fits."""
    asked = {
        "memory": (cost.bytes / 1e6, device.memory, "MB"),
        "energy": (energy_j(device, cost), device.energy, "J"),
        "latency": (latency_ms(device, cost), device.latency, "ms"),
    }
    return [
        f"{name} {need:.3g} of {has:.3g} {unit}"
        for name, (need, has, unit) in asked.items()
        if has is not None and need > has
    ]


@dataclass(frozen=True)
class Placed:
    """A part of the network: which classes it is for, the heads that it keeps, its cost, and where it runs."""

    classes: tuple[str, ...]
    heads: int
    cost: Cost
    device: Device


def partition(labels: Sequence[str], parts: int) -> list[tuple[str, ...]]:
    """The labels in their order, cut into parts whose sizes differ by one at most.

    Raises:
        ValueError: more parts than labels.
    """
    if not 1 <= parts <= len(labels):
        raise ValueError(f"{len(labels)} classes cannot be divided among {parts} workers; accepted: 1 to {len(labels)}")
    ends = [len(labels) * part // parts for part in range(parts + 1)]
    return [tuple(labels[low:high]) for low, high in zip(ends, ends[1:], strict=False)]


def place(
    groups: Sequence[tuple[str, ...]],
    fleet: Fleet,
    heads: int,
    cost_of: Callable[[int], Cost],
    progress: Callable[[str], None] = lambda line: None,
) -> list[Placed]:
    """A device for each group of classes.

    All parts begin with `heads`. The largest goes first, each to the free device that has it done soonest and whose
    limits allow it (then the one that takes less energy). Where none is left for a part, it loses a head, all devices
    are free again, and placing begins anew.

    Args:
        cost_of: what a part costs that keeps so many heads.
        progress: called with a line whenever a part loses a head.

    Raises:
        ValueError: a part does not fit with one head.
    """
    kept = [heads] * len(groups)
    while True:
        costs = [cost_of(count) for count in kept]
        free = list(fleet.devices)
        found: dict[int, Device] = {}
        for part in sorted(range(len(groups)), key=lambda part: (-costs[part].macs, part)):
            fitting = [device for device in free if not refusals(device, costs[part])]
            if not fitting:
                break
            found[part] = min(fitting, key=lambda device: _merit(device, costs[part]))
            free.remove(found[part])
        else:
            return [Placed(groups[part], kept[part], costs[part], found[part]) for part in range(len(groups))]
        told = (
            "; ".join(f"{device.name}: {', '.join(refusals(device, costs[part]))}" for device in free) or "none is free"
        )
        if kept[part] == 1:
            raise ValueError(
                f"the classes {', '.join(groups[part])} fit on no free device, not even with one head ({told}); raise "
                "limits, add devices, or ask for fewer workers"
            )
        kept[part] -= 1
        progress(f"worker_{part} fits nowhere ({told}): {kept[part]} heads")


def _merit(device: Device, cost: Cost) -> tuple[float, float]:
    return latency_ms(device, cost), energy_j(device, cost)

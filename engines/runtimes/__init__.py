"""Inference libraries behind one protocol.

A library's file is called `<library>_runtime.py`, so that it never hides the library itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from perception.engines.device import Device
from perception.engines.errors import EngineError
from perception.tasks.config import ModelConfig

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
Progress = Callable[[str], None]
"""Called with one line about what is being done."""
Frame = np.ndarray | Mapping[str, np.ndarray]
"""What one run takes: every input by name, or the image alone, where that is the only one."""


def by_name(frame: Frame) -> Mapping[str, np.ndarray]:
    """Every input by name."""
    return {"image": frame} if isinstance(frame, np.ndarray) else frame


class Buffers:
    """Arrays of a model's inputs and outputs by name, which a library reads from and writes to."""

    def __init__(self, config: ModelConfig, make: Callable[[tuple[int, ...], np.dtype], np.ndarray] = np.zeros) -> None:
        self.inputs = {tensor.name: make(tensor.shape, np.dtype(tensor.dtype)) for tensor in config.inputs}
        self.outputs = {tensor.name: make(tensor.shape, np.dtype(tensor.dtype)) for tensor in config.outputs}

    def fill(self, frame: Frame) -> None:
        """Copy what a run takes into the inputs."""
        for name, array in by_name(frame).items():
            np.copyto(self.inputs[name], array)


@dataclass(frozen=True)
class Quantization:
    """Which 8-bit numbers a runtime's kernels multiply.

    Scales are symmetric in every case. "uint8" activations are 0..255 with zero point 0 where a tensor is never
    negative (zero point 128 otherwise); "int8" ones are -127..127 with zero point 0. Weights are int8 per channel.
    """

    activations: Literal["int8", "uint8"] = "int8"
    saturates: bool = False
    """Sums of two products are kept in 16 bits (x86 before VNNI), so weights must be small enough not to overflow."""

    def __str__(self) -> str:
        return f"{self.activations} activations, {'16' if self.saturates else '32'}-bit sums"


class Session(Protocol):
    """A loaded engine with its buffers."""

    device: str
    """The processor it runs on, for people."""

    def run(self, frame: Frame) -> dict[str, np.ndarray]:
        """Outputs by name, of the config's types; the arrays are overwritten by the next run."""

    def close(self) -> None:
        """Free everything; no run afterwards."""


class Runtime(Protocol):
    """An inference library on this machine. Making one imports the library."""

    name: str
    graph_format: Literal["onnx", "torch"]

    def version(self) -> str:
        """The library's version."""

    def device(self) -> Device:
        """The processor that plans are compiled for."""

    def precisions(self) -> tuple[str, ...]:
        """Names out of PRECISIONS that this processor can run."""

    def note(self, precision: str) -> str:
        """What a reader of a timing table should know of the precision here; mostly empty."""

    def quantization(self) -> Quantization:
        """What int8 graphs must look like."""

    def options(self, precision: str) -> str:
        """Build flags that the plan depends on; part of the key."""

    def compile(self, graph: bytes, precision: str, progress: Progress) -> bytes:
        """The plan of a graph; raises EngineError."""

    def load(self, plan: bytes, config: ModelConfig, precision: str, threads: int) -> Session:
        """A session of a plan on `threads` CPU threads (0: all cores); raises EngineError."""


_CLASSES = {
    "openvino": "OpenVino",
    "onnxruntime": "OnnxRuntime",
    "tensorrt": "TensorRT",
    "torch": "Torch",
}


def _maker(name: str) -> Callable[[], Runtime]:
    def make() -> Runtime:
        module = importlib.import_module(f"{__name__}.{name}_runtime")
        runtime: Runtime = getattr(module, _CLASSES[name])()
        return runtime

    return make


RUNTIMES: Mapping[str, Callable[[], Runtime]] = {name: _maker(name) for name in _CLASSES}
"""Runtimes by name; tests hand in mappings of their own."""


def get_runtime(name: str, runtimes: Mapping[str, Callable[[], Runtime]] = RUNTIMES) -> Runtime:
    """The runtime called `name`.

    Raises:
        EngineError: unknown, or its library is not installed here.
    """
    if name not in runtimes:
        raise EngineError(f"target {name!r} is unknown; accepted: auto, {', '.join(runtimes)}")
    try:
        return runtimes[name]()
    except ImportError as error:
        raise EngineError(
            f"target {name!r} is not possible here: {error}; install it or take another target"
        ) from error


def available_runtimes(runtimes: Mapping[str, Callable[[], Runtime]] = RUNTIMES) -> list[Runtime]:
    """The runtimes whose libraries are installed here."""
    found = []
    for make in runtimes.values():
        try:
            found.append(make())
        except ImportError:
            continue
    return found

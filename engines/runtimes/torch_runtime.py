"""PyTorch on the CPU: the reference, in float32."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import torch

from perception.engines.device import Device, cpu
from perception.engines.errors import EngineError
from perception.engines.runtimes import Buffers, Frame, Progress, Quantization
from perception.tasks.config import ModelConfig


class Torch:
    """The plan is an exported program, so that running it needs no model definition."""

    name = "torch"
    graph_format: Literal["onnx", "torch"] = "torch"

    def version(self) -> str:
        """The package's version."""
        return str(torch.__version__)

    def device(self) -> Device:
        """The CPU."""
        return cpu()

    def precisions(self) -> tuple[str, ...]:
        """The reference computes in fp32."""
        return ("fp32",)

    def note(self, precision: str) -> str:
        """What it is for."""
        return "reference"

    def quantization(self) -> Quantization:
        """Not used: there is no int8 here."""
        return Quantization()

    def options(self, precision: str) -> str:
        """Nothing is chosen at the build."""
        return ""

    def compile(self, graph: bytes, precision: str, progress: Progress) -> bytes:
        """The exported program itself."""
        return graph

    def load(self, plan: bytes, config: ModelConfig, precision: str, threads: int) -> TorchSession:
        """A session of an exported program. `threads` holds for all of PyTorch in this process."""
        try:
            program = torch.export.load(io.BytesIO(plan)).module()
        except Exception as error:  # torch.export.load documents no exception, and zip, JSON and torch all raise theirs
            raise EngineError(f"PyTorch {self.version()} cannot load this engine: {error}; build it again") from error
        if threads:
            torch.set_num_threads(threads)
        return TorchSession(program, config)


class TorchSession:
    """An exported program and arrays of ours for what goes in and comes out."""

    def __init__(self, program: torch.nn.Module, config: ModelConfig) -> None:
        self.device = f"CPU ({torch.get_num_threads()} threads)"
        self._program = program
        self._buffers = Buffers(config)

    def run(self, frame: Frame) -> dict[str, np.ndarray]:
        """See `Session.run`."""
        self._buffers.fill(frame)
        outputs = self._buffers.outputs
        with torch.inference_mode():
            tensors = self._program(*map(torch.from_numpy, self._buffers.inputs.values()))
        for array, tensor in zip(outputs.values(), tensors, strict=True):
            np.copyto(array, tensor.numpy())
        return outputs

    def close(self) -> None:
        """See `Session.close`."""
        del self._program

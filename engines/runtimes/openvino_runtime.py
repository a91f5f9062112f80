"""OpenVINO on the CPU."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import openvino as ov

from perception.engines.device import Device, cpu
from perception.engines.errors import EngineError
from perception.engines.runtimes import Buffers, Frame, Progress, Quantization
from perception.tasks.config import ModelConfig


class OpenVino:
    """Compiles for the CPU plugin and keeps its blob, which loads several times faster than the graph."""

    name = "openvino"
    graph_format: Literal["onnx", "torch"] = "onnx"

    def __init__(self) -> None:
        self.core = ov.Core()

    def version(self) -> str:
        """Release and build."""
        return str(ov.get_version())

    def device(self) -> Device:
        """The CPU: kernels are compiled for its features."""
        return cpu()

    def _capabilities(self) -> list[str]:
        return list(self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))

    def precisions(self) -> tuple[str, ...]:
        """bf16 only where the CPU computes in it."""
        return ("fp32", "fp16", "bf16", "int8") if "BF16" in self._capabilities() else ("fp32", "fp16", "int8")

    def note(self, precision: str) -> str:
        """fp16 without such arithmetic is storage."""
        return "storage only, computes in fp32" if precision == "fp16" and self._hint("fp16") == "f32" else ""

    def _hint(self, precision: str) -> str:
        # Without this property OpenVINO computes fp32 graphs in bf16 on CPUs that have it.
        if precision == "fp16":
            return "f16" if "FP16" in self._capabilities() else "f32"
        return "bf16" if precision == "bf16" else "f32"

    def quantization(self) -> Quantization:
        """Unsigned activations, for which x86 has an instruction.

        Before VNNI it adds pairs of products in 16 bits, which 8-bit weights can overflow and 7-bit ones cannot.
        """
        features = cpu().capability
        if "x86" not in features:
            return Quantization("int8")
        return Quantization("uint8", saturates="vnni" not in features)

    def options(self, precision: str) -> str:
        """The arithmetic of what is not quantised, and the rewrite."""
        return f"INFERENCE_PRECISION_HINT={self._hint(precision)}, skips broadcast"

    def _properties(self, precision: str, threads: int) -> dict[str, Any]:
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": self._hint(precision),
            # Pinned, a one-thread engine of every node runs on core 0, and whatever else needs that core waits.
            "ENABLE_CPU_PINNING": False,
        }
        return properties | ({"INFERENCE_NUM_THREADS": threads} if threads else {})

    def compile(self, graph: bytes, precision: str, progress: Progress) -> bytes:
        """The plugin's blob of an ONNX graph."""
        from perception.engines.graph import read, to_bytes  # a robot that only loads needs no onnx
        from perception.engines.rewrites import broadcast_skips

        progress("compiling with OpenVINO")
        graph = to_bytes(broadcast_skips(read(graph)))
        try:
            model = self.core.read_model(io.BytesIO(graph))
            blob = self.core.compile_model(model, "CPU", self._properties(precision, 0)).export_model()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO {self.version()} cannot compile this graph: {error}") from error
        return bytes(blob) if isinstance(blob, (bytes, bytearray, memoryview)) else blob.read()

    def load(self, plan: bytes, config: ModelConfig, precision: str, threads: int) -> OpenVinoSession:
        """A session of a blob."""
        try:
            compiled = self.core.import_model(plan, "CPU", self._properties(precision, threads))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO {self.version()} cannot load this engine: {error}; build it again") from error
        return OpenVinoSession(compiled, config)


class OpenVinoSession:
    """One request whose tensors are NumPy arrays of ours."""

    def __init__(self, compiled: Any, config: ModelConfig) -> None:
        self.device = f"CPU ({compiled.get_property('INFERENCE_NUM_THREADS')} threads)"
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._buffers = Buffers(config)
        for name, array in (self._buffers.inputs | self._buffers.outputs).items():
            self._request.set_tensor(name, ov.Tensor(array, shared_memory=True))

    def run(self, frame: Frame) -> dict[str, np.ndarray]:
        """See `Session.run`."""
        self._buffers.fill(frame)
        self._request.infer()
        return self._buffers.outputs

    def close(self) -> None:
        """See `Session.close`."""
        del self._request, self._compiled

"""ONNX Runtime on the CPU."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnxruntime as ort

from perception.engines.device import Device, cpu
from perception.engines.errors import EngineError
from perception.engines.runtimes import Buffers, Frame, Progress, Quantization
from perception.tasks.config import ModelConfig


class OnnxRuntime:
    """The plan is the ONNX graph: a session is optimised in well under 0.1 s when it is made."""

    name = "onnxruntime"
    graph_format: Literal["onnx", "torch"] = "onnx"

    def version(self) -> str:
        """The package's version."""
        return str(ort.__version__)

    def device(self) -> Device:
        """The CPU."""
        return cpu()

    def precisions(self) -> tuple[str, ...]:
        """No bf16: its CPU kernels do not know it."""
        return ("fp32", "fp16", "int8")

    def note(self, precision: str) -> str:
        """fp16 convolutions exist for ARM only."""
        only_stored = precision == "fp16" and "asimdhp" not in cpu().capability
        return "storage only, computes in fp32" if only_stored else ""

    def quantization(self) -> Quantization:
        """As OpenVINO, whose reason is the same."""
        features = cpu().capability
        if "x86" not in features:
            return Quantization("int8")
        return Quantization("uint8", saturates="vnni" not in features)

    def options(self, precision: str) -> str:
        """Nothing is chosen at the build."""
        return ""

    def compile(self, graph: bytes, precision: str, progress: Progress) -> bytes:
        """The graph itself, after a trial."""
        progress("checking the graph with ONNX Runtime")
        self._session(graph, 1)
        return graph

    def load(self, plan: bytes, config: ModelConfig, precision: str, threads: int) -> OnnxSession:
        """A session of a graph."""
        return OnnxSession(self._session(plan, threads), config, threads)

    def _session(self, graph: bytes, threads: int) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a dozen types whose only common base this is
            raise EngineError(f"ONNX Runtime {self.version()} cannot take this graph: {error}") from error


class OnnxSession:
    """One session whose inputs and outputs are bound to NumPy arrays of ours."""

    def __init__(self, session: ort.InferenceSession, config: ModelConfig, threads: int) -> None:
        self.device = f"CPU ({threads or 'all'} threads)"
        self._session = session
        self._buffers = Buffers(config)
        self._binding = session.io_binding()
        for arrays, bind in (
            (self._buffers.inputs, self._binding.bind_input),
            (self._buffers.outputs, self._binding.bind_output),
        ):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def run(self, frame: Frame) -> dict[str, np.ndarray]:
        """See `Session.run`."""
        self._buffers.fill(frame)
        self._session.run_with_iobinding(self._binding)
        return self._buffers.outputs

    def close(self) -> None:
        """See `Session.close`."""
        del self._binding, self._session

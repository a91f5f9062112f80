"""TensorRT 10.3 (JetPack 6) to 11 on an NVIDIA GPU.

Both take a strongly typed ONNX graph; weak typing, implicit calibration and bindings by index, which 11 lacks, are not
used. tools/tensorrt_stubs.py holds this file against the real 10.16 and 11.4 bindings.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import tensorrt as trt

from perception.engines.device import Device
from perception.engines.errors import EngineError
from perception.engines.runtimes import Buffers, Frame, Progress, Quantization, cuda
from perception.engines.store import default_directory, write_atomically
from perception.tasks.config import ModelConfig

STEPS_BETWEEN_REPORTS = 10
Tensors = dict[str, tuple[tuple[int, ...], str]]
"""Shape and dtype by name."""


class Log(trt.ILogger):
    """Keeps TensorRT's errors, so that an EngineError can quote them; the rest is noise to a robot."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT, from any thread."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(msg)

    def words(self) -> str:
        """The last error, and an empty log for the next call."""
        last = self.errors[-1] if self.errors else "it gave no reason"
        self.errors.clear()
        return last


class Monitor(trt.IProgressMonitor):
    """Turns TensorRT's phases into lines."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: Any) -> None:
        """A phase of so many steps begins."""
        self._steps[phase_name] = int(num_steps)

    def step_complete(self, phase_name: str, step: Any) -> bool:
        """A step is done; True: go on."""
        if int(step) % STEPS_BETWEEN_REPORTS == 0:
            self._progress(f"TensorRT: {phase_name}, step {int(step)} of {self._steps.get(phase_name, 0)}")
        return True

    def phase_finish(self, phase_name: str) -> None:
        """A phase ends."""
        self._steps.pop(phase_name, None)


class TensorRT:
    """Builds with a timing cache that all builds of one version on one GPU share.

    Args:
        cache: folder of the timing caches; None: where engines are kept.
    """

    name = "tensorrt"
    graph_format: Literal["onnx", "torch"] = "onnx"

    def __init__(self, cache: Path | None = None) -> None:
        self._cuda = cuda.Cuda(cuda.load_library())
        self._cache = cache or default_directory()
        self._log = Log()

    def version(self) -> str:
        """The library's version."""
        return str(trt.__version__)

    def device(self) -> Device:
        """The GPU and its compute capability."""
        return self._cuda.device()

    def precisions(self) -> tuple[str, ...]:
        """What the graphs are made in."""
        return ("fp32", "fp16", "int8")

    def note(self, precision: str) -> str:
        """Nothing to know."""
        return ""

    def quantization(self) -> Quantization:
        """TensorRT accepts int8 with zero point 0 and nothing else."""
        return Quantization("int8")

    def options(self, precision: str) -> str:
        """TF32 would round fp32 to 10 bits without anybody having asked for it."""
        return "STRONGLY_TYPED, no TF32"

    def compile(self, graph: bytes, precision: str, progress: Progress) -> bytes:
        """The serialised engine of an ONNX graph. Takes minutes on a Jetson when the timing cache is empty."""
        builder = trt.Builder(self._log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse(graph):
            reasons = "; ".join(_parser_error(parser.get_error(i)) for i in range(parser.num_errors))
            raise EngineError(f"TensorRT {self.version()} cannot parse this graph: {reasons}")
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        config.progress_monitor = monitor = Monitor(progress)
        path = self._cache_path()
        config.set_timing_cache(config.create_timing_cache(path.read_bytes() if path.is_file() else b""), False)
        plan = builder.build_serialized_network(network, config)
        del monitor  # TensorRT holds no reference of its own while it builds
        if plan is None:
            raise EngineError(f"TensorRT {self.version()} cannot build this engine: {self._log.words()}")
        write_atomically(path, _to_bytes(config.get_timing_cache().serialize()))
        return _to_bytes(plan)

    def _cache_path(self) -> Path:
        words = re.sub(r"[^\w.]+", "-", f"tensorrt-{self.version()}-{self.device().name}")
        return self._cache / f"{words}.timing"

    def load(self, plan: bytes, config: ModelConfig, precision: str, threads: int) -> TensorRTSession:
        """A session of a serialised engine; `threads` has no meaning on a GPU."""
        runtime = trt.Runtime(self._log)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(
                f"TensorRT {self.version()} cannot load this engine: {self._log.words()}; build it again here"
            )
        return TensorRTSession(self._cuda, runtime, engine, self._log, config)


def _parser_error(error: trt.ParserError) -> str:
    return f"{error.node_operator() or 'graph'} {error.node_name()}: {error.desc()}".strip()


def _to_bytes(memory: trt.IHostMemory) -> bytes:
    # It has the buffer protocol, which inspection of a native class does not show before Python 3.12.
    return bytes(memoryview(cast(Any, memory)))


class TensorRTSession:
    """An execution context, a stream, and every tensor twice: page-locked on the host and on the device."""

    def __init__(
        self, cuda_calls: cuda.Cuda, runtime: trt.Runtime, engine: trt.ICudaEngine, log: Log, config: ModelConfig
    ) -> None:
        self._cuda, self._log = cuda_calls, log
        self._keep = (runtime, engine)
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"TensorRT cannot make a context: {log.words()}; free some GPU memory")
        _check_tensors(
            engine, {tensor.name: (tensor.shape, tensor.dtype) for tensor in (*config.inputs, *config.outputs)}
        )
        gpu = cuda_calls.device()
        self.device = f"{gpu.name} (compute capability {gpu.capability})"
        self._stream = cuda_calls.stream()
        self._buffers = Buffers(config, cuda_calls.pinned)
        self._gpu: dict[str, ctypes.c_void_p] = {}
        for name, array in self._pinned.items():
            self._gpu[name] = cuda_calls.allocate(array.nbytes)
            self._context.set_tensor_address(name, self._gpu[name].value or 0)

    @property
    def _pinned(self) -> dict[str, np.ndarray]:
        return self._buffers.inputs | self._buffers.outputs

    def run(self, frame: Frame) -> dict[str, np.ndarray]:
        """See `Session.run`."""
        self._buffers.fill(frame)
        for name, array in self._buffers.inputs.items():
            self._cuda.copy(self._gpu[name], array.ctypes.data, array.nbytes, cuda.TO_DEVICE, self._stream)
        if not self._context.execute_async_v3(self._stream.value or 0):
            raise EngineError(f"TensorRT cannot run this engine: {self._log.words()}")
        for name, array in self._buffers.outputs.items():
            self._cuda.copy(array.ctypes.data, self._gpu[name], array.nbytes, cuda.TO_HOST, self._stream)
        self._cuda.wait(self._stream)
        return self._buffers.outputs

    def close(self) -> None:
        """See `Session.close`."""
        del self._context, self._keep
        for pointer in self._gpu.values():
            self._cuda.free(pointer)
        for array in self._pinned.values():
            self._cuda.free_pinned(array)
        self._cuda.destroy(self._stream)
        self._buffers.inputs, self._buffers.outputs, self._gpu = {}, {}, {}


def _check_tensors(engine: trt.ICudaEngine, tensors: Tensors) -> None:
    kinds = {"uint8": trt.DataType.UINT8, "float32": trt.DataType.FLOAT}
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: (_to_tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name)) for name in names}
    expected = {name: (shape, kinds[dtype]) for name, (shape, dtype) in tensors.items()}
    if found != expected:
        raise EngineError(f"this TensorRT engine has tensors {found}, expected are {expected}")


def _to_tuple(shape: trt.Dims) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in range(len(shape)))

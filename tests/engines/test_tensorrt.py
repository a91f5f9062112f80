"""The TensorRT runtime's own logic against a library that pretends (no GPU), and for real where there is one."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import BYTES, CONFIG, random_frames, tiny_graph

from perception.engines.errors import EngineError
from perception.engines.graph import to_bytes
from perception.engines.runtimes import cuda

MODULE = "perception.engines.runtimes.tensorrt_runtime"
SHAPES = {"image": (1, 32, 32, 3), "depth": (1, 1, 32, 32), "bytes": (1, 1, 32, 32)}


class FakeCudart:
    """libcudart with ordinary memory; counts what is not given back."""

    def __init__(self) -> None:
        self.memory: dict[int, ctypes.Array] = {}
        self.fail: set[str] = set()
        self.cudaGetErrorString = lambda code: b"out of memory"
        for name in ("cudaMalloc", "cudaMallocHost"):
            setattr(self, name, lambda pointer, size, name=name: self._allocate(name, pointer, size))
        for name in ("cudaFree", "cudaFreeHost", "cudaStreamDestroy"):
            setattr(self, name, self._free)

    def _allocate(self, name: str, pointer, size) -> int:
        if name in self.fail:
            return 2
        block = ctypes.create_string_buffer(size.value)
        self.memory[ctypes.addressof(block)] = block
        pointer._obj.value = ctypes.addressof(block)
        return 0

    def _free(self, pointer) -> int:
        del self.memory[pointer.value]
        return 0

    def cudaStreamCreate(self, stream) -> int:
        return self._allocate("stream", stream, ctypes.c_size_t(1))

    def cudaMemcpyAsync(self, to, source, size, kind, stream) -> int:
        ctypes.memmove(to, source, size.value)
        return 0

    def cudaStreamSynchronize(self, stream) -> int:
        return 0

    def cudaGetDeviceProperties(self, properties, index) -> int:
        properties.value = b"Orin"
        return 0

    def cudaDeviceGetAttribute(self, value, attribute, index) -> int:
        value._obj.value = {cuda.CAPABILITY_MAJOR: 8, cuda.CAPABILITY_MINOR: 7}[attribute]
        return 0


def fake_tensorrt() -> types.ModuleType:
    """As much of the module `tensorrt` as our file uses. Its "engine" writes the image's mean into both outputs."""
    trt = types.ModuleType("tensorrt")
    trt.__version__ = "10.3.0"
    trt.seen = seen = types.SimpleNamespace(flags=None, cleared=[], cache=None, parses=True, builds=True, runs=True)
    severity = types.SimpleNamespace(ERROR=1, INTERNAL_ERROR=2, INFO=3)
    trt.ILogger = type("ILogger", (), {"Severity": severity})
    trt.IProgressMonitor = type("IProgressMonitor", (), {})
    trt.DataType = types.SimpleNamespace(UINT8="u8", FLOAT="f32")
    trt.NetworkDefinitionCreationFlag = types.SimpleNamespace(STRONGLY_TYPED=1)
    trt.BuilderFlag = types.SimpleNamespace(TF32="TF32")
    problem = types.SimpleNamespace(node_operator=lambda: "Foo", node_name=lambda: "node 7", desc=lambda: "unknown")

    class Parser:
        num_errors = 1

        def __init__(self, network, log) -> None: ...

        def parse(self, graph: bytes) -> bool:
            return seen.parses

        def get_error(self, index: int):
            return problem

    class Config:
        progress_monitor = None

        def clear_flag(self, flag) -> None:
            seen.cleared.append(flag)

        def create_timing_cache(self, data: bytes) -> bytes:
            seen.cache = data
            return data

        def set_timing_cache(self, cache, ignore_mismatch: bool) -> None:
            assert not ignore_mismatch

        def get_timing_cache(self):
            return types.SimpleNamespace(serialize=lambda: b"timings")

    class Builder:
        def __init__(self, log) -> None:
            self.log = log

        def create_network(self, flags: int):
            seen.flags = flags

        def create_builder_config(self) -> Config:
            return Config()

        def build_serialized_network(self, network, config: Config) -> bytes | None:
            config.progress_monitor.phase_start("tactics", "", 20)
            config.progress_monitor.step_complete("tactics", 10)
            config.progress_monitor.phase_finish("tactics")
            if not seen.builds:
                self.log.log(severity.ERROR, "no tactic for node 7")
            return b"plan" if seen.builds else None

    class Context:
        def __init__(self) -> None:
            self.addresses: dict[str, int] = {}

        def set_tensor_address(self, name: str, address: int) -> None:
            self.addresses[name] = address

        def execute_async_v3(self, stream: int) -> bool:
            image = (ctypes.c_uint8 * (32 * 32 * 3)).from_address(self.addresses["image"])
            depth = (ctypes.c_float * (32 * 32)).from_address(self.addresses["depth"])
            depth[:] = [float(np.mean(image))] * len(depth)
            whole = (ctypes.c_uint8 * (32 * 32)).from_address(self.addresses["bytes"])
            whole[:] = [int(np.mean(image))] * len(whole)
            return seen.runs

    class Engine:
        num_io_tensors = len(SHAPES)
        create_execution_context = staticmethod(Context)

        def get_tensor_name(self, index: int) -> str:
            return list(SHAPES)[index]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return SHAPES[name]

        def get_tensor_dtype(self, name: str) -> str:
            return "f32" if name == "depth" else "u8"

    class Runtime:
        def __init__(self, log) -> None:
            self.log = log

        def deserialize_cuda_engine(self, plan: bytes):
            if plan != b"plan":
                self.log.log(severity.ERROR, "magic tag does not match")
                return None
            return Engine()

    trt.OnnxParser, trt.Builder, trt.Runtime = Parser, Builder, Runtime
    return trt


@pytest.fixture
def library() -> FakeCudart:
    return FakeCudart()


@pytest.fixture
def runtime(monkeypatch, tmp_path: Path, library: FakeCudart):
    """The runtime on top of both pretenders."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt())
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setattr(cuda, "load_library", lambda: library)
    yield importlib.import_module(MODULE).TensorRT(tmp_path)
    sys.modules.pop(MODULE, None)


def _seen():
    return sys.modules["tensorrt"].seen


def test_builds_are_strongly_typed_without_tf32_and_share_a_timing_cache(runtime, tmp_path: Path) -> None:
    lines: list[str] = []
    assert runtime.compile(to_bytes(tiny_graph()), "fp32", lines.append) == b"plan"
    assert (_seen().flags, _seen().cleared, _seen().cache) == (1 << 1, ["TF32"], b"")
    assert lines == ["TensorRT: tactics, step 10 of 20"]
    assert [path.name for path in tmp_path.iterdir()] == ["tensorrt-10.3.0-Orin.timing"]
    runtime.compile(to_bytes(tiny_graph()), "fp16", lines.append)
    assert _seen().cache == b"timings"


def test_a_run_goes_through_the_gpu_and_close_gives_everything_back(runtime, library: FakeCudart) -> None:
    session = runtime.load(b"plan", BYTES, "fp32", 0)
    assert session.device == "Orin (compute capability 8.7)"
    for frame in random_frames(2):
        outputs = session.run(frame)
        assert outputs["depth"].dtype == np.float32
        np.testing.assert_allclose(outputs["depth"], np.full((1, 1, 32, 32), frame.mean()), rtol=1e-5)
        np.testing.assert_array_equal(outputs["bytes"], np.full((1, 1, 32, 32), int(frame.mean()), np.uint8))
    session.close()
    assert library.memory == {}


def test_its_errors_are_ours(runtime, library: FakeCudart) -> None:
    _seen().parses = False
    with pytest.raises(EngineError, match="cannot parse this graph: Foo node 7: unknown"):
        runtime.compile(b"", "fp32", print)
    _seen().parses, _seen().builds = True, False
    with pytest.raises(EngineError, match="cannot build this engine: no tactic for node 7"):
        runtime.compile(b"", "fp32", lambda line: None)
    with pytest.raises(EngineError, match="cannot load this engine: magic tag does not match; build it again"):
        runtime.load(b"of another machine", BYTES, "fp32", 0)
    session = runtime.load(b"plan", BYTES, "fp32", 0)
    _seen().runs = False
    with pytest.raises(EngineError, match="cannot run this engine"):
        session.run(random_frames(1)[0])
    library.fail.add("cudaMalloc")
    with pytest.raises(EngineError, match=r"cudaMalloc failed: out of memory \(CUDA error 2\)"):
        runtime.load(b"plan", BYTES, "fp32", 0)


def test_an_engine_of_another_network_is_refused(runtime) -> None:
    with pytest.raises(EngineError, match="this TensorRT engine has tensors"):
        runtime.load(b"plan", BYTES.replace(input_size=(64, 64)), "fp32", 0)
    with pytest.raises(EngineError, match="this TensorRT engine has tensors .*'u8'.*expected are .*'f32'"):
        runtime.load(
            b"plan", BYTES.replace(outputs=tuple(replace(o, dtype="float32") for o in BYTES.outputs)), "fp32", 0
        )


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is None, reason="TensorRT is not installed on this machine")
def test_the_real_thing() -> None:
    runtime = importlib.import_module(MODULE).TensorRT()
    session = runtime.load(runtime.compile(to_bytes(tiny_graph()), "fp32", print), CONFIG, "fp32", 0)
    assert session.run(random_frames(1)[0])["depth"].mean() > 1
    session.close()

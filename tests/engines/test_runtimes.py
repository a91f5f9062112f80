"""The CPU runtimes: the same numbers from the same graph, their own buffers, clear refusals."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from tiny import BYTES, CONFIG, bytes_graph, random_frames, tiny_graph

from perception.engines.errors import EngineError
from perception.engines.graph import to_bytes
from perception.engines.precision import to_fp16
from perception.engines.quantize import quantize
from perception.engines.runtimes import get_runtime
from perception.tasks.depth import PARITY_BOUNDS, disagreement

FRAMES = random_frames(16)


def _graph(runtime, precision: str, model=None):
    model = model or tiny_graph()
    if precision == "int8":
        return quantize(model, FRAMES, runtime.quantization())
    return to_fp16(model) if precision == "fp16" else model


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_every_precision_agrees_with_the_definition(name: str) -> None:
    runtime = get_runtime(name)
    reference = ort.InferenceSession(to_bytes(tiny_graph()))
    for precision in runtime.precisions():
        plan = runtime.compile(to_bytes(_graph(runtime, precision)), precision, lambda line: None)
        session = runtime.load(plan, CONFIG, precision, 1)
        for frame in random_frames(4, seed=2):
            expected = {"depth": reference.run(None, {"image": frame})[0]}
            assert disagreement(expected, session.run(frame), CONFIG) <= PARITY_BOUNDS[precision]
        session.close()


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_outputs_are_one_buffer_that_follows_the_image(name: str) -> None:
    runtime = get_runtime(name)
    session = runtime.load(runtime.compile(to_bytes(tiny_graph()), "fp32", lambda line: None), CONFIG, "fp32", 1)
    first = session.run(FRAMES[0])["depth"]
    before = first.copy()
    assert session.run(FRAMES[1])["depth"] is first
    assert (first != before).any()
    session.run(FRAMES[0])
    np.testing.assert_array_equal(first, before)
    session.close()


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_outputs_of_bytes_are_bytes(name: str) -> None:
    runtime = get_runtime(name)
    for precision in runtime.precisions():
        graph = to_bytes(_graph(runtime, precision, bytes_graph()))
        plan = runtime.compile(graph, precision, lambda line: None)
        session = runtime.load(plan, BYTES, precision, 1)
        outputs = session.run(FRAMES[0])
        assert outputs["bytes"].dtype == np.uint8 and outputs["depth"].dtype == np.float32
        assert np.abs(outputs["bytes"] + 0.5 - outputs["depth"]).max() <= 0.51 and outputs["bytes"].any()
        session.close()


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "torch"])
def test_what_is_no_plan_is_refused(name: str) -> None:
    with pytest.raises(EngineError, match="cannot"):
        get_runtime(name).load(b"no plan at all", CONFIG, "fp32", 1)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_what_is_no_graph_is_refused(name: str) -> None:
    with pytest.raises(EngineError, match="graph"):
        get_runtime(name).compile(b"no graph at all", "fp32", lambda line: None)


def test_openvino_is_always_told_its_precision() -> None:
    runtime = get_runtime("openvino")
    assert "INFERENCE_PRECISION_HINT=f32" in runtime.options("fp32")
    assert ("bf16" in runtime.precisions()) == ("avx512_bf16" in runtime.device().capability.split())


def test_a_missing_library_is_said() -> None:
    def missing():
        raise ImportError("No module named 'warp'")

    with pytest.raises(EngineError, match="target 'warp' is not possible here: No module named 'warp'"):
        get_runtime("warp", {"warp": missing})

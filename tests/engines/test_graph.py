"""ONNX files of ours and of others, and the rewrite that keeps the result."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from tiny import CONFIG, random_frames, tiny_graph

from perception.engines.errors import EngineError
from perception.engines.graph import CONFIG as CONFIG_KEY
from perception.engines.graph import read, read_config, sink_resizes, to_bytes


def _run(model: onnx.ModelProto, frame: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, {"image": frame})[0]


def test_the_config_travels_in_the_file() -> None:
    assert read_config(read(to_bytes(tiny_graph())), "tiny") == CONFIG


def test_the_same_graph_is_the_same_bytes() -> None:
    assert to_bytes(tiny_graph()) == to_bytes(tiny_graph())
    assert to_bytes(tiny_graph()) != to_bytes(tiny_graph(seed=1))


@pytest.mark.parametrize("data", [b"", b"not a graph", to_bytes(tiny_graph())[:500]], ids=["empty", "text", "cut"])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(EngineError, match="some.onnx is not a valid ONNX file"):
        read(data, "some.onnx")


def test_a_file_without_our_config_is_refused() -> None:
    model = tiny_graph()
    del model.metadata_props[:]
    with pytest.raises(EngineError, match=f"carries no '{CONFIG_KEY}' in its metadata"):
        read_config(model, "theirs.onnx")


def test_a_config_of_another_graph_is_refused() -> None:
    other = CONFIG.replace(input_size=(64, 64))
    model = tiny_graph()
    model.metadata_props[0].value = other.to_json()
    with pytest.raises(EngineError, match="takes image uint8 1x32x32x3; accepted: image uint8 1x64x64x3"):
        read_config(model, "mixed.onnx")


def test_upsampling_sinks_below_the_head_and_nothing_changes() -> None:
    before, after = tiny_graph(), sink_resizes(tiny_graph())
    assert [node.op_type for node in after.graph.node][-3:] == ["Conv", "Relu", "Resize"]
    onnx.checker.check_model(after, full_check=True)
    for frame in random_frames(3):
        np.testing.assert_allclose(_run(after, frame), _run(before, frame), rtol=1e-6)


def test_upsampling_stays_above_a_larger_kernel() -> None:
    model = tiny_graph()
    head = next(node for node in model.graph.node if "head" in node.input)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "head")
    weights.CopyFrom(onnx.numpy_helper.from_array(np.ones((1, 8, 3, 3), np.float32), "head"))
    head.attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    assert [node.op_type for node in sink_resizes(model).graph.node][-3:] == ["Resize", "Conv", "Relu"]

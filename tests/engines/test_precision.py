"""Half precision in the graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper
from tiny import BYTES, bytes_graph, random_frames, tiny_graph

from perception.engines.errors import EngineError
from perception.engines.graph import read_config
from perception.engines.precision import is_float32, pack, to_fp16, unpack


def test_weights_are_half_and_outputs_are_not() -> None:
    half = to_fp16(tiny_graph())
    onnx.checker.check_model(half, full_check=True)
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert kinds.pop("scales") == TensorProto.FLOAT  # Resize wants its scales in float32
    assert set(kinds.values()) == {TensorProto.FLOAT16}
    assert half.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    frame = random_frames(1)[0]
    expected, got = (
        ort.InferenceSession(m.SerializeToString()).run(None, {"image": frame})[0] for m in (tiny_graph(), half)
    )
    assert 0 < np.abs(got - expected).max() < 0.01


def test_outputs_of_bytes_stay_bytes() -> None:
    half = to_fp16(bytes_graph())
    onnx.checker.check_model(half, full_check=True)
    assert read_config(half, "half") == BYTES
    depth, whole = ort.InferenceSession(half.SerializeToString()).run(None, {"image": random_frames(1)[0]})
    assert whole.dtype == np.uint8 and (whole == depth.astype(np.uint8)).all() and len(np.unique(whole)) > 1


def test_a_weight_beyond_half_precision_is_named() -> None:
    model = tiny_graph()
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full((8, 3, 3, 3), 1e5, np.float32), "stem"))
    with pytest.raises(EngineError, match="'stem' reaches 1e\\+05, and float16 ends at 65504"):
        to_fp16(model)


def test_packed_weights_take_half_the_bytes_and_compute_in_float32() -> None:
    plain = tiny_graph()
    for tensor in plain.graph.initializer:  # as training writes them: float16 holds them exactly
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))
    large = numpy_helper.from_array(np.full(3, 1e5, np.float32), "large")
    plain.graph.initializer.append(large)
    packed = pack(onnx.ModelProto.FromString(plain.SerializeToString()))
    onnx.checker.check_model(packed, full_check=True)
    assert read_config(packed, "packed") == read_config(plain, "plain")
    sizes = [sum(len(tensor.raw_data) for tensor in model.graph.initializer) for model in (plain, packed)]
    assert sizes[1] < 0.6 * sizes[0]
    assert {tensor.name: tensor.data_type for tensor in packed.graph.initializer}["large"] == TensorProto.FLOAT
    unpacked = unpack(onnx.ModelProto.FromString(packed.SerializeToString()))
    assert unpacked.graph == plain.graph and is_float32(unpacked) and not is_float32(packed)
    frame = {"image": random_frames(1)[0]}
    expected, got = (ort.InferenceSession(model.SerializeToString()).run(None, frame)[0] for model in (plain, packed))
    assert (got == expected).all(), "a runtime that is handed the file itself"


def test_float32_definitions_are_told_from_others() -> None:
    assert is_float32(tiny_graph())
    assert not is_float32(to_fp16(tiny_graph()))

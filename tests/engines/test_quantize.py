"""int8 graphs: what is quantised, how well, and that sums cannot overflow."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mobile import LAYERS, mobile_graph
from onnx import numpy_helper
from tiny import CONFIG, random_frames, tiny_graph

from perception.engines.errors import EngineError
from perception.engines.graph import constants
from perception.engines.quantize import (
    BINS,
    Statistics,
    activation_scale,
    calibrate,
    layers,
    place_pairs,
    quantize,
    quantize_weights,
)
from perception.engines.rewrites import simplify, sink_resizes
from perception.engines.runtimes import Quantization
from perception.tasks.depth import disagreement

SCHEMES = [Quantization("int8"), Quantization("uint8"), Quantization("uint8", saturates=True)]


def _run(model: onnx.ModelProto, frame: np.ndarray) -> dict[str, np.ndarray]:
    return {"depth": ort.InferenceSession(model.SerializeToString()).run(None, {"image": frame})[0]}


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_quantised_graph_is_close_and_explicit(scheme: Quantization) -> None:
    model = sink_resizes(tiny_graph())
    quantised = quantize(model, random_frames(16), scheme)
    onnx.checker.check_model(quantised, full_check=True)
    for frame in random_frames(4, seed=1):
        assert 0 < disagreement(_run(model, frame), _run(quantised, frame), CONFIG) < 0.03
    kinds = {value.dtype.name for name, value in constants(quantised).items() if name.endswith("_zero")}
    assert kinds == {"int8", scheme.activations}  # of weights, of activations
    convolutions = [node for node in quantised.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 4
    assert all(name.endswith("_dq") for node in convolutions for name in node.input[:2])


def test_the_result_itself_is_not_rounded_to_8_bits() -> None:
    quantised = quantize(sink_resizes(tiny_graph()), random_frames(16), Quantization("int8"))
    last = quantised.graph.node[-1]
    assert (last.op_type, last.input[0].endswith("_dq")) == ("Resize", False)


def test_int8_activations_have_zero_point_0() -> None:
    fixed = constants(quantize(tiny_graph(), random_frames(4), Quantization("int8")))
    assert not any(value.any() for name, value in fixed.items() if name.endswith("_zero"))


def test_the_same_frames_give_the_same_graph() -> None:
    first, second = (quantize(tiny_graph(), random_frames(4), SCHEMES[0]).SerializeToString() for _ in range(2))
    other = quantize(tiny_graph(), random_frames(4, seed=5), SCHEMES[0]).SerializeToString()
    assert first == second != other


def test_a_shift_of_the_image_stays_in_float() -> None:
    model = tiny_graph()
    scale = next(node for node in model.graph.node if node.op_type == "Mul")
    scale.output[0] = "scaled"
    model.graph.initializer.append(numpy_helper.from_array(np.full((1, 3, 1, 1), -0.5, np.float32), "shift"))
    model.graph.node.insert(3, onnx.helper.make_node("Add", ["scaled", "shift"], ["x0"]))
    assert layers(model) == layers(tiny_graph())
    shift = next(node for node in quantize(model, random_frames(2), SCHEMES[0]).graph.node if "shift" in node.input)
    assert shift.input[0] == "scaled"


def test_layers_are_named_as_modules_and_can_stay_in_float() -> None:
    model = simplify(mobile_graph())
    assert [name for name in layers(model) if name in LAYERS] == list(LAYERS)
    assert set(layers(model)) - set(LAYERS) == {"residual", "up", "skipped"}
    statistics = calibrate(model, random_frames(2))
    kept = place_pairs(model, statistics, SCHEMES[0], ["project", "residual"])
    inputs = {node.output[0]: list(node.input) for node in kept.graph.node}
    assert inputs["project"] == ["depthwise_6", "project.weight"]
    assert inputs["residual"] == ["stem_6", "project"]
    assert inputs["deep"][:2] == ["residual_dq", "deep.weight_dq"]
    with pytest.raises(EngineError, match="no quantised layer called porject; it has stem, expand"):
        place_pairs(model, statistics, SCHEMES[0], ["porject"])


def test_without_frames_there_is_no_int8() -> None:
    with pytest.raises(EngineError, match="--calibration"):
        quantize(tiny_graph(), [], SCHEMES[0])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 9), st.sampled_from([1, 3])),
    heavy=st.booleans(),
)
def test_no_pair_of_products_leaves_16_bits(seed: int, shape: tuple[int, int, int], heavy: bool) -> None:
    outputs, inputs, kernel = shape
    random = np.random.default_rng(seed)
    weights = random.normal(size=(outputs, inputs, kernel, kernel)).astype(np.float32)
    weights = weights**3 if heavy else weights
    integers, scales = quantize_weights(weights, Quantization("uint8", saturates=True))
    error = np.abs(integers * scales.reshape(-1, 1, 1, 1) - weights).reshape(outputs, -1).max(axis=1)
    # A step of at most 1/63 of the largest weight, half of it by rounding; clipping goes down to 60 % of that weight.
    assert (error <= 0.41 * np.abs(weights).reshape(outputs, -1).max(axis=1) + 1e-6).all()
    if inputs > 1:  # depthwise layers are multiplied in 32 bits
        even = integers[:, : inputs // 2 * 2].astype(int)
        sums = even[:, 0::2] + even[:, 1::2]
        assert np.abs(sums).max(initial=0) * 255 <= 32767


@pytest.mark.parametrize(("scheme", "low", "zero"), [(SCHEMES[0], -1, 0), (SCHEMES[1], -1, 128), (SCHEMES[1], 0, 0)])
def test_zero_point_follows_the_sign(scheme: Quantization, low: float, zero: int) -> None:
    histogram = np.ones(BINS)
    scale, found = activation_scale(Statistics(low=low, high=1.0, histogram=histogram), scheme)
    assert found == zero
    assert scale == pytest.approx(1 / (255 if scheme.activations == "uint8" and low == 0 else 127), rel=0.02)


def test_a_single_outlier_does_not_stretch_the_range() -> None:
    histogram = np.zeros(BINS)
    histogram[: BINS // 4] = 1000
    histogram[-1] = 1
    scale, _ = activation_scale(Statistics(high=4.0, histogram=histogram), SCHEMES[0])
    assert scale * 127 < 2.0

"""A small graph with all that a MobileNetV2 with TensorFlow's padding and a decoder with skips is made of."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.engines.graph import finish
from perception.tasks.config import ModelConfig, Output

SIZE = (32, 32)
CONFIG = ModelConfig("mobile", "depth", SIZE, (Output("depth", (1, 1, 16, 16), "m"),), size_divisor=4)
LAYERS = ("stem", "expand", "depthwise", "project", "deep", "up5x5", "lateral", "merge5x5", "head")
"""The convolutions in order."""


def mobile_graph(seed: int = 0) -> onnx.ModelProto:
    """Pad, stem, inverted residual, Add, Pad, layer of stride 2, 5x5, Resize, lateral, Add, 5x5, head, Exp."""
    random = np.random.default_rng(seed)

    def weights(outputs: int, inputs: int, kernel: int) -> np.ndarray:
        spread = 1 / np.sqrt(inputs * kernel * kernel)
        return random.normal(0.3 * spread, spread, (outputs, inputs, kernel, kernel)).astype(np.float32)

    constants = {
        "scale": np.full((1, 3, 1, 1), 1 / 255, np.float32),
        "same": np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64),
        "zero": np.array(0, np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
        "twice": np.array([1, 1, 2, 2], np.float32),
        "stem.weight": weights(8, 3, 3),
        "expand.weight": weights(16, 8, 1),
        "depthwise.weight": weights(16, 1, 3),
        "project.weight": weights(8, 16, 1),
        "deep.weight": weights(8, 8, 3),
        "up5x5.weight": weights(8, 1, 5),
        "lateral.weight": weights(8, 8, 1),
        "merge5x5.weight": weights(8, 1, 5),
        "head.weight": weights(1, 8, 1) * 0.1,
    }
    pads1, pads2 = [1] * 4, [2] * 4

    def convolution(name: str, source: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, f"{name}.weight"], [name], **attributes)

    def relu6(name: str) -> onnx.NodeProto:
        return helper.make_node("Clip", [name, "low", "high"], [f"{name}_6"])

    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["x"]),
        helper.make_node("Pad", ["x", "same", "zero"], ["padded"]),
        convolution("stem", "padded", strides=[2, 2]),
        relu6("stem"),
        convolution("expand", "stem_6"),
        relu6("expand"),
        convolution("depthwise", "expand_6", pads=pads1, group=16),
        relu6("depthwise"),
        convolution("project", "depthwise_6"),
        helper.make_node("Add", ["stem_6", "project"], ["residual"]),
        helper.make_node("Pad", ["residual", "same"], ["padded2"], mode="constant"),
        convolution("deep", "padded2", strides=[2, 2]),
        relu6("deep"),
        convolution("up5x5", "deep_6", pads=pads2, group=8),
        helper.make_node("Relu", ["up5x5"], ["up5x5_r"]),
        helper.make_node(
            "Resize", ["up5x5_r", "", "twice"], ["up"], mode="nearest", coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        convolution("lateral", "residual"),
        helper.make_node("Add", ["up", "lateral"], ["skipped"]),
        convolution("merge5x5", "skipped", pads=pads2, group=8),
        helper.make_node("Relu", ["merge5x5"], ["merge5x5_r"]),
        convolution("head", "merge5x5_r"),
        helper.make_node("Exp", ["head"], ["depth"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "mobile",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, *SIZE, 3))],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, CONFIG.outputs[0].shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return finish(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), CONFIG)

"""A network of two parts in a few operators: a field of a number each, and a view of it in one colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.engines.graph import finish
from perception.tasks.config import Input, ModelConfig, Output, Part

SIZE = (32, 32)
CONFIG = ModelConfig(
    "parted",
    "view_synthesis",
    SIZE,
    (
        Output("planes", (1, 3, 1, 1), ""),
        Output("lines", (1, 1), ""),
        Output("view", (1, 3, *SIZE), "intensity"),
        Output("depth", (1, 1, *SIZE), "m"),
    ),
    more_inputs=(Input("camera", (1, 5), "share"), Input("pose", (1, 4, 4), "m")),
    parts=(
        Part("field", ("image", "camera"), ("planes", "lines")),
        Part("view", ("planes", "lines", "pose"), ("view", "depth")),
    ),
)


def parted_graph() -> onnx.ModelProto:
    """planes: the image's mean; lines: 1 + the camera's last number; view: planes everywhere; depth: lines + the pose's
    sum."""
    arrays: dict[str, Any] = {
        "scale": np.full(1, 1 / 255, np.float32),
        "one": np.ones(1, np.float32),
        "last": np.array([4]),
        "sides": np.array([1, 2]),
        "all": np.array([1, 1, *SIZE]),
        "flat": np.array([1, 1, 1, 1]),
        "colors": np.array([1, 3, *SIZE]),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["channels"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["channels", "scale"], ["scaled"]),
        helper.make_node("GlobalAveragePool", ["scaled"], ["planes"]),
        helper.make_node("Gather", ["camera", "last"], ["distance"], axis=1),
        helper.make_node("Add", ["distance", "one"], ["lines"]),
        helper.make_node("Expand", ["planes", "colors"], ["view"]),
        helper.make_node("ReduceSum", ["pose", "sides"], ["summed"], keepdims=0),
        helper.make_node("Add", ["lines", "summed"], ["metres"]),
        helper.make_node("Reshape", ["metres", "flat"], ["metres_4d"]),
        helper.make_node("Expand", ["metres_4d", "all"], ["depth"]),
    ]
    kinds = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
    graph = helper.make_graph(
        nodes,
        "parted",
        [helper.make_tensor_value_info(tensor.name, kinds[tensor.dtype], tensor.shape) for tensor in CONFIG.inputs],
        [helper.make_tensor_value_info(tensor.name, kinds[tensor.dtype], tensor.shape) for tensor in CONFIG.outputs],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    return finish(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), CONFIG)

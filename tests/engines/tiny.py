"""A network of a few layers, frames, and runtimes that pretend, so that engines are tested in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.engines.device import Device
from perception.engines.errors import EngineError
from perception.engines.graph import finish
from perception.engines.runtimes import Progress, Quantization
from perception.tasks.config import ModelConfig, Output

SIZE = (32, 32)
CONFIG = ModelConfig("tiny", "depth", SIZE, (Output("depth", (1, 1, *SIZE), "m"),), size_divisor=2)


def tiny_graph(config: ModelConfig = CONFIG, seed: int = 0) -> onnx.ModelProto:
    """Cast, Transpose, scale, conv 3->8 stride 2, depthwise, 1x1, skip addition, upsampling, 1x1 head: 2 m or so."""
    random = np.random.default_rng(seed)
    weights = {
        "scale": np.full((1, 3, 1, 1), 1 / 255, np.float32),
        "stem": random.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "depthwise": random.normal(0, 0.3, (8, 1, 3, 3)).astype(np.float32),
        "point": random.normal(0, 0.4, (8, 8, 1, 1)).astype(np.float32),
        "head": random.uniform(0, 0.2, (1, 8, 1, 1)).astype(np.float32),
        "head_bias": np.array([1.5], np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["x0"]),
        helper.make_node("Conv", ["x0", "stem"], ["x1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["x1"], ["x2"]),
        helper.make_node("Conv", ["x2", "depthwise"], ["x3"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Conv", ["x3", "point"], ["x4"]),
        helper.make_node("Relu", ["x4"], ["x5"]),
        helper.make_node("Add", ["x5", "x2"], ["x6"]),
        helper.make_node(
            "Resize", ["x6", "", "scales"], ["x7"], mode="nearest", coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        helper.make_node("Conv", ["x7", "head", "head_bias"], ["x8"]),
        helper.make_node("Relu", ["x8"], ["depth"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, *config.input_size, 3))],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, (1, 1, *config.input_size))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return finish(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), config)


BYTES = CONFIG.replace(outputs=(*CONFIG.outputs, Output("bytes", (1, 1, *SIZE), "m", "uint8")))


def bytes_graph() -> onnx.ModelProto:
    """The same with a second output, whole metres as bytes."""
    model = tiny_graph()
    model.graph.node.append(helper.make_node("Cast", ["depth"], ["bytes"], name="to_bytes", to=TensorProto.UINT8))
    model.graph.output.append(helper.make_tensor_value_info("bytes", TensorProto.UINT8, (1, 1, *SIZE)))
    return finish(model, BYTES)


def random_frames(count: int, seed: int = 0) -> list[np.ndarray]:
    """Smooth random images: uint8 (1, 32, 32, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 6, 6, 3), np.uint8)
    return [cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_CUBIC)[None] for image in coarse]


def write_frames(folder: Path, count: int = 40) -> Path:
    """The same as image files."""
    folder.mkdir()
    for index, frame in enumerate(random_frames(count)):
        cv2.imwrite(str(folder / f"{index:03}.png"), frame[0])
    return folder


class FakeSession:
    """Computes nothing: hands out depth that is `wrong` times what it should be, after `seconds` on a fake clock."""

    device = "fake processor"

    def __init__(self, depth: float, config: ModelConfig, tick: Callable[[], None] = lambda: None) -> None:
        self.outputs = {output.name: np.full(output.shape, depth, np.float32) for output in config.outputs}
        self.tick = tick
        self.closed = False

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self.tick()
        return self.outputs

    def close(self) -> None:
        self.closed = True


class FakeRuntime:
    """A runtime whose every property can be changed; its plan is the graph with a prefix."""

    name = "fake"
    graph_format: Literal["onnx", "torch"] = "onnx"

    def __init__(self) -> None:
        self.compiled = 0
        self.words = {"version": "1.0", "name": "Processor", "capability": "fast", "options": "none"}
        self.scheme = Quantization()

    def version(self) -> str:
        return self.words["version"]

    def device(self) -> Device:
        return Device(self.words["name"], self.words["capability"])

    def precisions(self) -> tuple[str, ...]:
        return ("fp32", "int8")

    def note(self, precision: str) -> str:
        return ""

    def quantization(self) -> Quantization:
        return self.scheme

    def options(self, precision: str) -> str:
        return self.words["options"]

    def compile(self, graph: bytes, precision: str, progress: Progress) -> bytes:
        self.compiled += 1
        return b"plan:" + graph

    def load(self, plan: bytes, config: ModelConfig, precision: str, threads: int):
        """Runs the graph with ONNX Runtime, whatever was promised."""
        from perception.engines.runtimes.onnxruntime_runtime import OnnxRuntime

        if not plan.startswith(b"plan:"):
            raise EngineError("this is not a plan of the fake runtime")
        return OnnxRuntime().load(plan.removeprefix(b"plan:"), config, precision, 1)

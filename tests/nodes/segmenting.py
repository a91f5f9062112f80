"""A network whose mask can be told from the image, as an engine, and the robot around its node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from detecting import scene
from onnx import TensorProto, helper, numpy_helper
from robot import Robot
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import LabelInfo

from perception.engines import build
from perception.engines.graph import finish, to_bytes
from perception.nodes.vision import LATCHED
from perception.tasks.config import ModelConfig, Output

SIZE = (32, 64)
LABELS = ("floor", "wall", "chair")
CONFIG = ModelConfig(
    "brightest",
    "segmentation",
    SIZE,
    (Output("mask", (1, *SIZE), "class", "uint8"), Output("confidence", (1, *SIZE), "1/255", "uint8")),
    labels=LABELS,
)


def brightest(config: ModelConfig = CONFIG) -> onnx.ModelProto:
    """The class of a pixel is its brightest colour (red, green, blue), and that colour's level how sure it is."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ArgMax", ["float"], ["place"], axis=3, keepdims=0),
        helper.make_node("Cast", ["place"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["number"], ["mask"], to=TensorProto.UINT8),
        helper.make_node("ReduceMax", ["float", "axes"], ["level"], keepdims=0),
        helper.make_node("Cast", ["level"], ["confidence"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "brightest",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, *SIZE, 3))],
        [helper.make_tensor_value_info(output.name, TensorProto.UINT8, output.shape) for output in config.outputs],
        [numpy_helper.from_array(np.array([3], np.int64), "axes")],
    )
    return finish(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), config)


def build_brightest(folder: Path) -> str:
    """An engine of it in `folder`/engines; the model's name for nodes."""
    path = folder / "brightest.onnx"
    path.write_bytes(to_bytes(brightest()))
    frames = folder / "frames"
    frames.mkdir(exist_ok=True)
    for index in range(32):
        picture = scene(((2 * index, 20, 200 + 10 * index, 300), index % 3, 100 + index))
        cv2.imwrite(str(frames / f"{index:02}.png"), picture)
    build(str(path), "onnxruntime", "fp32", frames=frames, directory=folder / "engines")
    return str(path)


class SegmentationRobot(Robot):
    """Keeps what the segmentation node answers, and in `labels` every table of names."""

    TOPICS = {
        "mask": ImageMessage,
        "confidence": ImageMessage,
        "mask/overlay": ImageMessage,
        "depth/points": PointCloud2,
    }
    uses_lens = False

    def __init__(self, *topics: str, **options: Any) -> None:
        super().__init__(*topics, **options)
        self.labels: list[LabelInfo] = []
        self.create_subscription(LabelInfo, "labels", self.labels.append, LATCHED)


def bytes_of(message: ImageMessage) -> np.ndarray:
    """The values of a mono8 image."""
    assert message.encoding == "mono8" and message.step == message.width
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)

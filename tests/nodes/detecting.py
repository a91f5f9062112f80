"""A detector whose boxes can be told from the image, as an engine, and the robot around its node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from robot import Robot
from sensor_msgs.msg import Image as ImageMessage
from vision_msgs.msg import Detection2DArray, LabelInfo

from perception.engines import build
from perception.engines.graph import finish, to_bytes
from perception.nodes.vision import LATCHED
from perception.tasks.config import ModelConfig, Output
from perception.tasks.decoders import BoxDecoder
from perception.tasks.labels import UNUSED

SIZE = (32, 64)
LABELS = ("red thing", "green", "blue", UNUSED)
CONFIG = ModelConfig(
    "extents",
    "detection",
    SIZE,
    (Output("boxes", (1, 6, 4), "pixel"), Output("scores", (1, 6, 4), "score")),
    labels=LABELS,
    decoder=BoxDecoder(),
)
SHARE = 0.75
"""How much of an object the second box of each class covers, which scores a tenth less."""
Box = tuple[int, int, int, int]


def extents(config: ModelConfig = CONFIG) -> onnx.ModelProto:
    """For each colour, a box around all of it, and its brightness as the score; then a box around the left of that."""
    height, width = SIZE
    rows, columns = np.mgrid[:height, :width].astype(np.float32)[:, None, None]
    constants = {
        "dark": np.float32(25),
        "axes": np.array([2, 3], np.int64),
        "last": np.array([2], np.int64),
        "eye": np.eye(3, 4, dtype=np.float32)[None],
        "white": np.float32(255),
        "less": np.float32(0.9),
        "share": np.float32(SHARE),
        "outside": np.float32(max(SIZE)),
        "before": np.float32(0),
        "x": columns,
        "y": rows,
        "x_end": columns + 1,
        "y_end": rows + 1,
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Greater", ["planes", "dark"], ["mask"]),
        helper.make_node("ReduceMax", ["planes", "axes"], ["level"], keepdims=0),
        helper.make_node("Div", ["level", "white"], ["score"]),
        helper.make_node("Unsqueeze", ["score", "last"], ["score_column"]),
        helper.make_node("Mul", ["score_column", "eye"], ["scores_all"]),
        helper.make_node("Mul", ["scores_all", "less"], ["scores_left"]),
        helper.make_node("Concat", ["scores_all", "scores_left"], ["scores"], axis=1),
    ]
    for side, reduce, other in (("x", "ReduceMin", "outside"), ("y", "ReduceMin", "outside"),
                                ("x_end", "ReduceMax", "before"), ("y_end", "ReduceMax", "before")):  # fmt: skip
        nodes += [
            helper.make_node("Where", ["mask", side, other], [f"{side}_map"]),
            helper.make_node(reduce, [f"{side}_map", "axes"], [f"{side}_flat"], keepdims=0),
            helper.make_node("Unsqueeze", [f"{side}_flat", "last"], [f"{side}_found"]),
        ]
    nodes += [
        helper.make_node("Concat", ["x_found", "y_found", "x_end_found", "y_end_found"], ["boxes_all"], axis=2),
        helper.make_node("Sub", ["x_end_found", "x_found"], ["length"]),
        helper.make_node("Mul", ["length", "share"], ["shorter"]),
        helper.make_node("Add", ["x_found", "shorter"], ["x_left"]),
        helper.make_node("Concat", ["x_found", "y_found", "x_left", "y_end_found"], ["boxes_left"], axis=2),
        helper.make_node("Concat", ["boxes_all", "boxes_left"], ["boxes"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "extents",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, *SIZE, 3))],
        [helper.make_tensor_value_info(output.name, TensorProto.FLOAT, output.shape) for output in config.outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return finish(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), config)


def scene(*objects: tuple[Box, int, int], size: tuple[int, int] = (480, 640)) -> np.ndarray:
    """A black picture with rectangles x1, y1, x2, y2, each in the colour of a class and so bright."""
    picture = np.zeros((*size, 3), np.uint8)
    for (x1, y1, x2, y2), label, level in objects:
        picture[y1:y2, x1:x2, label] = level
    return picture


def build_extents(folder: Path, config: ModelConfig = CONFIG, suppression: str = "numpy") -> str:
    """An engine of it in `folder`/engines; the model's name for nodes."""
    path = folder / f"{config.name}.onnx"
    path.write_bytes(to_bytes(extents(config)))
    frames = folder / "frames"
    frames.mkdir(exist_ok=True)
    for index in range(32):
        picture = scene(((2 * index, 20, 200 + 10 * index, 300), index % 3, 100 + index))
        cv2.imwrite(str(frames / f"{index:02}.png"), picture)
    build(str(path), "onnxruntime", "fp32", frames=frames, directory=folder / "engines", suppression=suppression)
    return str(path)


def build_described(folder: Path) -> str:
    """As `build_extents`, of a file that another exporter may have written, and its description: SSD's heads.

    Each of 2x4 cells has an anchor; boxes lie a quarter of a cell's width to the right of it and are half as high. A
    cell is surely "red" or "green" where it is filled with that colour, and surely not where it has none of it.
    """
    rows, columns = (side // 16 for side in SIZE)
    count = rows * columns
    weight = np.zeros((3, 3, 16, 16), np.float32)
    weight[1, 0] = weight[2, 1] = 40 / 256
    constants: dict[str, np.ndarray] = {
        "weight": weight,
        "bias": np.array([9, -20, -20], np.float32),  # "nothing here" says yes to everything
        "flat": np.array([1, 3, -1], np.int64),
        "codes": np.tile(np.array([0, 1, 2 * np.log(0.5), 0], np.float32), (1, count, 1)),
    }
    nodes = [
        helper.make_node("Conv", ["pixels", "weight", "bias"], ["cells"], strides=[16, 16]),
        helper.make_node("Reshape", ["cells", "flat"], ["planes"]),
        helper.make_node("Transpose", ["planes"], ["logits"], perm=[0, 2, 1]),
        helper.make_node("Identity", ["codes"], ["offsets"]),
    ]
    graph = helper.make_graph(
        nodes,
        "described",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, (1, 3, *SIZE))],
        [
            helper.make_tensor_value_info("offsets", TensorProto.FLOAT, (1, count, 4)),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, count, 3)),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), folder / "described.onnx")
    shape = [(1 / count) ** 0.5, rows / columns]  # as large as a cell
    decoder = {"kind": "ssd", "grids": [[rows, columns]], "shapes": [[shape]], "coder": [4, 4, 2, 2]}
    fields = {
        "task": "detection",
        "file": "described.onnx",
        "decoder": decoder | {"box_output": "offsets", "score_output": "logits"},
        "labels": ["red", "green"],
    }
    path = folder / "described.yaml"
    path.write_text(yaml.safe_dump(fields))
    build(str(path), "onnxruntime", "fp32", directory=folder / "engines")
    return str(path)


class DetectionRobot(Robot):
    """Keeps what the detection node answers, and in `labels` every table of names."""

    TOPICS = {"detections": Detection2DArray, "detections/overlay": ImageMessage}
    uses_lens = False

    def __init__(self, *topics: str, **options: Any) -> None:
        super().__init__(*topics, **options)
        self.labels: list[LabelInfo] = []
        self.create_subscription(LabelInfo, "labels", self.labels.append, LATCHED)


def told(message: Detection2DArray) -> list[tuple[str, float, Box, str]]:
    """Name, score, box as corners, and id of all that a message tells; every header must be that of the message."""
    result = []
    for detection in message.detections:
        assert detection.header == message.header
        (hypothesis,) = detection.results
        center, size = detection.bbox.center, (detection.bbox.size_x, detection.bbox.size_y)
        assert center.theta == 0.0
        near = center.position.x - size[0] / 2, center.position.y - size[1] / 2
        box = (*near, near[0] + size[0], near[1] + size[1])
        result.append((hypothesis.hypothesis.class_id, round(hypothesis.hypothesis.score, 4), box, detection.id))
    return result

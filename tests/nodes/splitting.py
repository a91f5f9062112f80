"""A split whose answers can be told from the image, its engines, and the robot around its nodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from robot import Robot
from sensor_msgs.msg import CompressedImage
from vision_msgs.msg import Classification, LabelInfo

from perception.engines import build
from perception.engines.graph import finish, to_bytes
from perception.nodes.vision import LATCHED
from perception.tasks.config import ModelConfig, Output
from perception.tasks.fusion import save_fusion
from perception.tasks.vit_split import FILE, FusionFile, Split, SplitWorker, file_sha256, read_split

SIZE = (16, 16)
LABELS = ("red", "green", "blue")
LENGTHS = (4, 6, 8)
"""Of the features of worker_0, which sees red only, worker_1, green, and worker_2, blue."""
SHARPNESS = 4.0


def mean_color(color: int, length: int) -> onnx.ModelProto:
    """`length` times the mean of one colour of the image, from 0 to 1."""
    config = ModelConfig(
        f"sees_{LABELS[color]}", "classification", SIZE, (Output("features", (1, length), "feature"),), labels=LABELS
    )
    choice = np.zeros((3, length), np.float32)
    choice[color] = 1 / 255
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "choice"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mean_color",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, *SIZE, 3))],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, (1, length))],
        [numpy_helper.from_array(np.array([1, 2], np.int64), "axes"), numpy_helper.from_array(choice, "choice")],
    )
    return finish(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), config)


def write_split(folder: Path, **changes: Any) -> Split:
    """Three workers on pi_1 to pi_3, whose fusion takes the strongest colour, in `folder`; `changes` as to `Split`."""
    workers = []
    for number, length in enumerate(LENGTHS):
        path = folder / f"worker_{number}.onnx"
        path.write_bytes(to_bytes(mean_color(number, length)))
        about = {"parameters": 3 * length, "macs": 3 * length, "bytes": 12 * length, "latency_ms": 1.0, "energy_j": 0.1}
        who = f"worker_{number}", f"pi_{number + 1}", (LABELS[number],)
        workers.append(SplitWorker(*who, path.name, file_sha256(path), length, **about))  # type: ignore[arg-type]
    weight = np.zeros((3, sum(LENGTHS)), np.float32)
    for number, start in enumerate(np.cumsum((0, *LENGTHS[:-1]))):
        weight[number, start] = SHARPNESS
    save_fusion(folder / "fusion.npz", [(weight, np.zeros(3, np.float32))])
    fusion = FusionFile("fusion.npz", file_sha256(folder / "fusion.npz"))
    split = dataclasses.replace(Split("colors", LABELS, tuple(workers), fusion, {"accuracy": 1.0}), **changes)
    (folder / FILE).write_text(split.text)
    return read_split(folder)


def build_split(folder: Path) -> Split:
    """The same with engines of the workers in `folder`/engines."""
    split = write_split(folder)
    frames = folder / "frames"
    frames.mkdir()
    for index, frame in enumerate(np.random.default_rng(0).integers(0, 256, (32, *SIZE, 3), np.uint8)):
        cv2.imwrite(str(frames / f"{index:02}.png"), frame)
    for worker in split.workers:
        path = str(split.graph_path(worker))
        build(path, "onnxruntime", "fp32", frames=frames, directory=folder / "engines")
    return split


def chances(*colors: float) -> dict[str, float]:
    """What is answered of an image with these mean colours, 0 for those whose worker is missing."""
    powers = np.exp(SHARPNESS * np.array(colors) / 255)
    return dict(zip(LABELS, (powers / powers.sum()).tolist(), strict=True))


def told(message: Classification) -> dict[str, float]:
    """Name to chance, in the message's order."""
    return {result.class_id: result.score for result in message.results}


def plain(*color: int) -> np.ndarray:
    """An image of one colour."""
    return np.full((48, 64, 3), color, np.uint8)


class SplitRobot(Robot):
    """Keeps what workers and fusion send, and in `labels` every table of names."""

    TOPICS = {
        "classification": Classification,
        **{f"features/worker_{number}": CompressedImage for number in range(len(LENGTHS))},
    }
    uses_lens = False

    def __init__(self, *topics: str, **options: Any) -> None:
        super().__init__(*topics, **options)
        self.labels: list[LabelInfo] = []
        self.create_subscription(LabelInfo, "labels", self.labels.append, LATCHED)

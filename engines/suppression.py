"""Decoding and non-maximum suppression as part of a detector's graph, by the operators that ONNX has for it.

The graph then gives at most `MOST` boxes, and `perception.tasks.detection.parse` has nothing left to do but to place
them. Thresholds are fixed when the engine is built: what scores less than `LEAST` is never seen, and boxes that overlap
by more than `IOU` are doubles. Nor can doubles of a lower overlap be left out afterwards: a box may be gone for the
sake of one that is then left out itself. Of outputs that are no numbers nothing is found, as by `parse`: they are told
by comparisons, which are false for them by definition, while of two numbers' smaller one runtimes may make either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.engines.errors import EngineError
from perception.engines.graph import finish, read_config
from perception.tasks.anchors import LONGEST
from perception.tasks.config import ModelConfig, Output
from perception.tasks.decoders import BoxDecoder, FoundDecoder, SsdDecoder, YoloxDecoder
from perception.tasks.detection import IOU, MOST

LEAST = 0.05


def with_suppression(model: onnx.ModelProto, least: float = LEAST, threshold: float = IOU) -> onnx.ModelProto:
    """A copy of a detector's graph that finds the boxes itself; its config says so.

    Raises:
        EngineError: not a detector.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    config = read_config(model, "the graph")
    tail = _Tail(model, config, least)
    if isinstance(config.decoder, SsdDecoder):
        boxes, scores = tail.ssd(config.decoder)
    elif isinstance(config.decoder, YoloxDecoder):
        boxes, scores = tail.yolox(config.decoder)
    elif isinstance(config.decoder, BoxDecoder):
        boxes, scores = tail.decoded(config.decoder)
    else:
        raise EngineError(f"{config.name!r} has no boxes that its graph could leave doubles out of")
    tail.suppress(boxes, tail.sound(boxes, scores), threshold)
    del model.graph.output[:]
    config = suppressed(config, least, threshold)
    for output in config.outputs:
        model.graph.output.append(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, output.shape))
    return finish(model, config)


def suppressed(config: ModelConfig, least: float = LEAST, threshold: float = IOU) -> ModelConfig:
    """The config of `with_suppression`."""
    outputs = (
        Output("found_boxes", (1, MOST, 4), "pixel"),
        Output("found_scores", (1, MOST), "share"),
        Output("found_labels", (1, MOST), "class"),
    )
    return config.replace(outputs=outputs, decoder=FoundDecoder(least, threshold))


class _Tail:
    """Adds operators to the end of a graph; every method takes and returns names of tensors."""

    def __init__(self, model: onnx.ModelProto, config: ModelConfig, least: float) -> None:
        self.graph, self.config, self.least = model.graph, config, np.array([least], np.float32)

    def add(self, kind: str, *inputs: str | np.ndarray, outputs: int = 1, **attributes: Any) -> Any:
        """An operator; arrays among its inputs become initialisers."""
        number = len(self.graph.node)
        names = [given if isinstance(given, str) else self._constant(given, f"tail_{number}_{place}")
                 for place, given in enumerate(inputs)]  # fmt: skip
        made = [f"tail_{number}_out{place}" for place in range(outputs)]
        self.graph.node.append(helper.make_node(kind, names, made, name=f"tail_{number}", **attributes))
        return made[0] if outputs == 1 else made

    def _constant(self, array: np.ndarray, name: str) -> str:
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def ssd(self, decoder: SsdDecoder) -> tuple[str, str]:
        """Corner boxes (1, N, 4) in pixels, and scores (1, C, N)."""
        coder = np.array(decoder.coder, np.float32)
        codes = self.add("Mul", decoder.box_output, (1 / coder).reshape(1, 1, 4))
        ty, tx, th, tw = self.add("Split", codes, outputs=4, axis=2, num_outputs=4)
        x, y, w, h = (decoder.anchors[None, :, place : place + 1] for place in range(4))
        height, width = (np.float32(side) for side in self.config.input_size)
        middle_x = self.add("Add", self.add("Mul", tx, w * width), x * width)
        middle_y = self.add("Add", self.add("Mul", ty, h * height), y * height)
        half_w = self.add("Mul", self.add("Exp", self._at_most(tw, LONGEST)), w * width / 2)
        half_h = self.add("Mul", self.add("Exp", self._at_most(th, LONGEST)), h * height / 2)
        return self._corners(middle_x, middle_y, half_w, half_h), self._scores(
            decoder.score_output, decoder.score, decoder.background
        )

    def yolox(self, decoder: YoloxDecoder) -> tuple[str, str]:
        """See `ssd`."""
        grid, stride = decoder.cells(self.config.input_size)
        classes = len(self.config.labels)
        shift, growth, objectness, scores = self.add(
            "Split", decoder.output, np.array([2, 2, 1, classes], np.int64), outputs=4, axis=2
        )
        middle = self.add("Mul", self.add("Add", shift, grid[None]), stride[None])
        half = self.add("Mul", self.add("Exp", growth), stride[None] / 2)
        x, y = self.add("Split", middle, outputs=2, axis=2, num_outputs=2)
        w, h = self.add("Split", half, outputs=2, axis=2, num_outputs=2)
        scores = self._at_most(self.add("Mul", scores, objectness), 1)
        return self._corners(x, y, w, h), self.add("Transpose", scores, perm=[0, 2, 1])

    def decoded(self, decoder: BoxDecoder) -> tuple[str, str]:
        """See `ssd`."""
        rows = decoder.box_output
        if decoder.channels_first:
            rows = self.add("Transpose", rows, perm=[0, 2, 1])
        classes = len(self.config.labels) + decoder.background
        scores = decoder.score_output
        if scores == decoder.box_output:
            rows, scores = self.add("Split", rows, np.array([4, classes], np.int64), outputs=2, axis=2)
        elif decoder.channels_first:
            scores = self.add("Transpose", scores, perm=[0, 2, 1])
        if decoder.unit == "share":
            height, width = self.config.input_size
            sides = np.array([width, height, width, height], np.float32)
            rows = self.add("Mul", rows, (sides if decoder.form != "yxyx" else sides[[1, 0, 3, 2]]).reshape(1, 1, 4))
        parts = self.add("Split", rows, outputs=4, axis=2, num_outputs=4)
        if decoder.form == "cxcywh":
            half = [self.add("Mul", part, np.full((1, 1, 1), 0.5, np.float32)) for part in parts[2:]]
            boxes = self._corners(*parts[:2], *half)
        else:
            boxes = self.add("Concat", *(parts[place] for place in decoder.FORMS[decoder.form]), axis=2)
        return boxes, self._scores(scores, decoder.score, decoder.background)

    def _corners(self, x: str, y: str, half_w: str, half_h: str) -> str:
        low = self.add("Sub", x, half_w), self.add("Sub", y, half_h)
        high = self.add("Add", x, half_w), self.add("Add", y, half_h)
        return str(self.add("Concat", *low, *high, axis=2))

    def _scores(self, name: str, score: str, background: bool) -> str:
        if score == "softmax":
            name = self.add("Softmax", name, axis=2)
        if background:
            start, end, axis = (np.array([value], np.int64) for value in (1, len(self.config.labels) + 1, 2))
            name = self.add("Slice", name, start, end, axis)
        if score == "sigmoid":
            name = self.add("Sigmoid", name)
        if score == "none":
            name = self._at_most(name, 1)
        return str(self.add("Transpose", name, perm=[0, 2, 1]))

    def _at_most(self, name: str, limit: float) -> str:
        bound = np.array([limit], np.float32)
        return str(self.add("Where", self.add("Greater", name, bound), bound, name))

    def sound(self, boxes: str, scores: str) -> str:
        """The scores, but 0 where they are no number or too little, and of boxes that are not finite."""
        bound = np.array([np.finfo(np.float32).max])  # infinite itself where a runtime computes in bfloat16
        finite = self.add("Cast", self.add("Less", self.add("Abs", boxes), bound), to=TensorProto.FLOAT)
        finite = self.add("ReduceMin", finite, np.array([2], np.int64))
        whole = self.add("Greater", self.add("Transpose", finite, perm=[0, 2, 1]), np.array([0.5], np.float32))
        kept = self.add("And", whole, self.add("GreaterOrEqual", scores, self.least))
        return str(self.add("Where", kept, scores, np.zeros(1, np.float32)))

    def suppress(self, boxes: str, scores: str, threshold: float) -> None:
        """The best boxes under the names of the outputs, zeros behind the last."""
        limits = np.array([MOST], np.int64), np.array([threshold], np.float32), self.least
        # Corners may come in either order, so that x, y, x, y does as well as the y, x, y, x of the definition.
        chosen = self.add("NonMaxSuppression", boxes, scores, *limits)
        index = self.add("Slice", chosen, *(np.array([value], np.int64) for value in (1, 3, 1)))
        values = self.add("GatherND", self.add("Squeeze", scores, np.array([0], np.int64)), index)
        classes, owners = self.add("Split", index, outputs=2, axis=1, num_outputs=2)
        flat = np.array([-1], np.int64)
        classes, owners = (self.add("Reshape", part, flat) for part in (classes, owners))
        # TopK wants as many as it shall give: the zeros of MOST that are nothing come last.
        values = self.add("Concat", values, np.zeros(MOST, np.float32), axis=0)
        classes, owners = (self.add("Concat", part, np.zeros(MOST, np.int64), axis=0) for part in (classes, owners))
        best, order = self.add("TopK", values, np.array([MOST], np.int64), outputs=2, axis=0)
        labels = self.add("Cast", self.add("Gather", classes, order), to=TensorProto.FLOAT)
        corners = self.add("Gather", self.add("Squeeze", boxes, np.array([0], np.int64)),
                           self.add("Gather", owners, order))  # fmt: skip
        for name, tensor in (("found_boxes", corners), ("found_scores", best), ("found_labels", labels)):
            self.graph.node.append(
                helper.make_node("Unsqueeze", [tensor, self._constant(np.array([0], np.int64), f"{name}_axis")], [name])
            )

"""Detectors made elsewhere: what a description of them gives, and what it must say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from perception import engines
from perception.engines.errors import EngineError
from perception.engines.graph import to_bytes
from perception.engines.precision import to_fp16
from perception.engines.source import onnx_file, open_source
from perception.engines.trt_support import check_precisions
from perception.tasks import detection
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess

SIZE = (16, 24)
DESCRIPTION = {
    "task": "detection",
    "file": "cells.onnx",
    "input": {"color": "bgr", "range": [0, 255], "letterbox": "corner", "pad_value": 114},
    "decoder": {"kind": "boxes", "form": "cxcywh", "score_output": "boxes", "box_output": "boxes"},
    "labels": ["dark", "bright"],
}


def cells_graph(opset: int = 11, channels_last: bool = False, free: bool = False) -> onnx.ModelProto:
    """A box for each cell of 8x8 pixels; it is "bright" by as much as its first channel's mean is of 255.

    Written as exporters of some years ago wrote: opset 11, IR 6, constants as nodes, weights listed among the inputs,
    and a second output that nobody asked for.
    """
    rows, columns = (side // 8 for side in SIZE)
    y, x = np.mgrid[:rows, :columns] * 8 + 4.0
    boxes = np.stack([x, y, np.full_like(x, 8), np.full_like(x, 8)], -1).reshape(1, -1, 4).astype(np.float32)
    first = np.zeros((2, 3, 8, 8), np.float32)
    first[0, 0], first[1, 0] = -1 / 64 / 255, 1 / 64 / 255
    shape = (1, *SIZE, 3) if channels_last else (1, 3, *SIZE)
    value = helper.make_node("Constant", [], ["boxes0"], value=numpy_helper.from_array(boxes))
    nodes = [helper.make_node("Transpose", ["pixels"], ["nchw"], perm=[0, 3, 1, 2])] if channels_last else []
    nodes += [
        helper.make_node("Conv", ["nchw" if channels_last else "pixels", "weight", "bias"], ["cells"], strides=[8, 8]),
        helper.make_node("Reshape", ["cells", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["scores"], perm=[0, 2, 1]),
        value,
        helper.make_node("Concat", ["boxes0", "scores"], ["boxes"], axis=2),
        helper.make_node("Sigmoid", ["cells"], ["features"]),
    ]
    weights = [
        numpy_helper.from_array(first, "weight"),
        numpy_helper.from_array(np.array([1, 0], np.float32), "bias"),
        numpy_helper.from_array(np.array([1, 2, -1], np.int64), "shape"),
    ]
    inputs = [
        helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ("n", *shape[1:]) if free else shape),
        helper.make_tensor_value_info("weight", TensorProto.FLOAT, first.shape),
    ]
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, (1, rows * columns, 6)),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, (1, 2, rows, columns)),
    ]
    graph = helper.make_graph(nodes, "cells", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)


def write(folder: Path, graph: onnx.ModelProto | None = None, **changes) -> Path:
    onnx.save(graph or cells_graph(), folder / "cells.onnx")
    fields = {name: value for name, value in (DESCRIPTION | changes).items() if value is not None}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


@pytest.mark.parametrize("options", [{}, {"channels_last": True}, {"opset": 18}, {"free": True}], ids=str)
def test_any_form_gives_the_same_boxes(options: dict, tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path, cells_graph(**options))))
    assert source.config.name == "mine" and [output.name for output in source.config.outputs] == ["boxes"]
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[16:, 16:32] = [230, 0, 0]  # blue: the first channel, as the file wants it
    image = Image(pixels, "bgr8")
    fit = Fit.of(image.size, source.config)
    for model in (source.plain(), source.graph(), to_fp16(source.graph())):
        session = ort.InferenceSession(to_bytes(model))
        outputs = dict(zip(["boxes"], session.run(None, {"image": preprocess(image, source.config, fit)}), strict=True))
        found = detection.parse(outputs, fit, source.config, 0.5)
        bright = found.labels == 1
        assert found.boxes[bright].tolist() == [[16, 16, 32, 32]] and found.boxes[~bright].shape == (5, 4)
        assert found.scores[bright] == pytest.approx([230 / 255], abs=2e-3)


def test_it_is_built_loaded_and_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert onnx_file(path) == onnx_file(tmp_path / "cells.onnx") == tmp_path / "cells.onnx"
    engines.build(str(path), "onnxruntime", "fp32", directory=tmp_path / "engines")
    with engines.load(str(path), "onnxruntime", directory=tmp_path / "engines") as engine:
        assert engine.config.labels == ("dark", "bright") and engine.config.decoder is not None
    changed = cells_graph()
    changed.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([0.5, 0], np.float32), "bias"))
    onnx.save(changed, tmp_path / "cells.onnx")
    with pytest.raises(EngineError, match="is stale: source was .* perception engines build"):
        engines.load(str(path), "onnxruntime", directory=tmp_path / "engines")


def test_tensorrt_10_3_can_parse_it(tmp_path: Path) -> None:
    assert check_precisions(open_source(str(write(tmp_path)))) == {"fp32": [], "fp16": [], "int8": []}


def test_normalisation_by_mean_and_std_or_by_range(tmp_path: Path) -> None:
    by_range = open_source(str(write(tmp_path, input={"range": [-1, 1]}))).config
    by_mean = open_source(str(write(tmp_path, input={"mean": [0.5] * 3, "std": [0.5] * 3}))).config
    assert by_range.mean == by_mean.mean == (0.5, 0.5, 0.5) and by_range.std == by_mean.std


def test_labels_from_a_file_or_by_name(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dark\nbright\n")
    assert open_source(str(write(tmp_path, labels="names.txt"))).config.labels == ("dark", "bright")
    with pytest.raises(EngineError, match="tells 2 classes apart, and labels has 80 names"):
        open_source(str(write(tmp_path, labels="coco")))


SSD = {"kind": "ssd", "shapes": [[[0.5, 1.0]]], "box_output": "boxes", "score_output": "boxes"}
REFUSED = [
    ({"labels": None}, "lacks: labels"),
    ({"labels": "nams.txt"}, "'nams.txt' are neither a list, nor coco or coco_slots or .*nyu13.*, nor a readable file"),
    ({"decoder": {"kind": "yolo"}}, "decoder 'yolo' is unknown; accepted: ssd, yolox, boxes$"),
    ({"decoder": {"kind": "found", "least": 0.1, "threshold": 0.6}}, "decoder 'found' is unknown; .* yolox, boxes$"),
    ({"decoder": {"kind": "yolox"}}, "the decoder reads output, and the file gives boxes, features"),
    ({"decoder": {"kind": "yolox", "output": "boxes"}, "labels": ["a"]}, "6 places, but an image of 16x24 .* has 7"),
    ({"decoder": SSD | {"grids": [[2, 4]]}, "labels": list("abcde")}, "6 places, but grids and shapes make 8 anchors"),
    ({"decoder": SSD | {"grids": [[2, 2]]}, "labels": list("abcde")}, "6 places, but grids and shapes make 4 anchors"),
    ({"input": {"colour": "bgr"}}, "unknown fields of input: colour; known: color"),
    ({"input": {"range": [0, 1], "mean": [0, 0, 0]}}, "has range, and mean or std too"),
    ({"input": {"letterbox": "top"}}, "letterbox 'top' of model 'mine' is not possible"),
    ({"file": "no.onnx"}, "is about .*no.onnx, which cannot be read"),
    ({"task": "detect"}, "unknown task 'detect'"),
    ({"weights": "x"}, "unknown fields: weights"),
    ({"input": {"range": 255}}, "range of input is 255; it is two numbers"),
    ({"input": {"mean": 0.5}}, "mean of input is 0.5; it is three numbers"),
    ({"input": {"size": 32}}, r"size of input is 32; it is \[height, width\]"),
    ({"input": {"pad_value": 300}}, "pad_value 300 of model .* must lie between 0 and 255"),
    ({"decoder": "yolox"}, "decoder is 'yolox'; write {kind: yolox}"),
    ({"decoder": {"kind": "yolox", "strides": 8}}, "wrong form|the decoder reads"),
    ({"labels": {"dark": 1}}, "neither a list"),
    ({"task": "depth", "decoder": None}, "does not fit its file|KeyError"),
    ({"input": {"range": [0, 1]}}, None),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_what_does_not_fit_is_refused_in_words(changes: dict, sentence: str | None, tmp_path: Path) -> None:
    if sentence is None:  # the others differ from this by what they are refused for
        open_source(str(write(tmp_path, **changes)))
        return
    with pytest.raises(EngineError, match=sentence) as caught:
        open_source(str(write(tmp_path, **changes)))
    assert "mine.yaml" in str(caught.value)


def test_what_are_no_scores_is_refused(tmp_path: Path) -> None:
    graph = cells_graph()
    graph.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([4, 0], np.float32), "bias"))
    with pytest.raises(EngineError, match="takes for scores reaches from .* say score: sigmoid"):
        open_source(str(write(tmp_path, graph)))
    decoder = DESCRIPTION["decoder"] | {"score": "sigmoid"}
    assert open_source(str(write(tmp_path, graph, decoder=decoder))).config.decoder is not None


def test_more_scores_than_boxes_are_refused(tmp_path: Path) -> None:
    graph = cells_graph()
    graph.graph.node.append(helper.make_node("Concat", ["scores", "scores"], ["twice"], axis=1))
    graph.graph.output.append(helper.make_tensor_value_info("twice", TensorProto.FLOAT, (1, 12, 2)))
    decoder = {"kind": "boxes", "form": "cxcywh", "score_output": "twice"}
    with pytest.raises(EngineError, match="does not fit the file: output 'boxes' has 6 boxes, but 'twice' .* of 12"):
        open_source(str(write(tmp_path, graph, decoder=decoder)))


def test_an_engine_goes_with_its_names_and_lives_without_its_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dark\nbright\n")
    path = write(tmp_path, labels="names.txt")
    engines.build(str(path), "onnxruntime", "fp32", directory=tmp_path / "engines")
    (tmp_path / "names.txt").write_text("bright\ndark\n")
    with pytest.raises(EngineError, match="is stale: source was"):
        engines.load(str(path), directory=tmp_path / "engines")
    (tmp_path / "cells.onnx").unlink()  # a robot that got the engine and the description
    engines.load(str(path), directory=tmp_path / "engines").close()
    path.write_text("task: [half edited")
    with pytest.raises(EngineError, match="no engine|is stale"):
        engines.load(str(path), directory=tmp_path / "engines")


def test_branches_keep_what_they_read_from_outside(tmp_path: Path) -> None:
    graph = cells_graph(opset=18)
    graph.graph.initializer.append(numpy_helper.from_array(np.array(1.0, np.float32), "one"))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    branches = [
        helper.make_graph([helper.make_node("Mul", ["boxes_old", "one"], [name])], name, [], [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        ])
        for name in ("then", "else")
    ]  # fmt: skip
    concat = next(node for node in graph.graph.node if node.op_type == "Concat")
    concat.output[0] = "boxes_old"
    graph.graph.node.append(
        helper.make_node("If", ["yes"], ["boxes"], then_branch=branches[0], else_branch=branches[1])
    )
    assert "one" in {tensor.name for tensor in open_source(str(write(tmp_path, graph))).plain().graph.initializer}


def test_a_file_with_other_inputs_is_refused(tmp_path: Path) -> None:
    graph = cells_graph()
    graph.graph.input.append(helper.make_tensor_value_info("size", TensorProto.FLOAT, (1, 2)))
    with pytest.raises(EngineError, match=r"the file takes pixels \(1, 3, 16, 24\), size \(1, 2\); accepted is one"):
        open_source(str(write(tmp_path, graph)))


def test_yolox_of_its_authors(tmp_path: Path) -> None:
    """The file of the shared data finds what is on a photograph."""
    data = Path(__file__).parents[2] / ".." / "shared/data"
    file = data / "weights/yolox_nano.onnx"
    if not file.is_file():
        pytest.skip("needs ../shared/data, which is not here")
    (tmp_path / "yolox_nano.onnx").symlink_to(file.resolve())
    description = Path(__file__).parents[2] / "config/detectors/yolox_nano.yaml"
    (tmp_path / "yolox_nano.yaml").write_text(description.read_text())
    source = open_source(str(tmp_path / "yolox_nano.yaml"))
    import cv2

    path = sorted((data / "coco/eval/rgb").iterdir())[3]  # a stop sign beside a road
    image = Image(cv2.imread(str(path)), "bgr8")
    fit = Fit.of(image.size, source.config)
    outputs = next(iter(source.reference([preprocess(image, source.config, fit)])))
    found = detection.parse(outputs, fit, source.config, 0.5)
    assert [source.config.labels[label] for label in found.labels] == ["stop sign"]

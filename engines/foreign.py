"""ONNX files that were made elsewhere, as sources of engines: a short description says what the file does not.

    task: detection
    file: yolox_nano.onnx           # beside the description
    input: {color: bgr, range: [0, 255], letterbox: corner, pad_value: 114}
    decoder: {kind: yolox}
    labels: coco                    # or a list of names, or a text file with a name in each line

config/detectors/ has one that explains its fields. The graph gets our interface: bytes of an image in, float32 out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper, version_converter

from perception.engines.errors import EngineError
from perception.engines.graph import OPSET, drop_unused, finish, read, read_by
from perception.engines.key import file_identity
from perception.engines.source import OnnxSource
from perception.tasks import get_task
from perception.tasks.config import ModelConfig, Output
from perception.tasks.decoders import DESCRIBED, make_decoder
from perception.tasks.geometry import Fit
from perception.tasks.labels import NAMED_LABELS

FIELDS = ("name", "task", "file", "input", "decoder", "labels", "licence", "data_licence")
INPUT = ("color", "range", "mean", "std", "letterbox", "pad_value", "interpolation", "size")
SHOWN = "config/detectors/yolox_nano.yaml"


class ForeignSource(OnnxSource):
    """The ONNX file that a description in YAML is about.

    Raises:
        EngineError: a description that is not right, or a file that it does not fit; the message names both.
    """

    def __init__(self, description: Path) -> None:
        fields = read_description(description)
        file = description.parent / fields["file"]
        try:
            data = file.read_bytes()
        except OSError as error:
            raise EngineError(f"{description} is about {file}, which cannot be read: {error.strerror}") from error
        try:
            graph = adopt(read(data, str(file)), fields, description)
            super().__init__(description, graph.SerializeToString())
            self._try()
        except EngineError as error:
            raise EngineError(f"{description}: {error}") from error
        except Exception as error:  # whatever a field of another type, or ONNX Runtime, makes of it
            raise EngineError(
                f"{description} does not fit its file, or a field has a wrong form ({type(error).__name__}: {error}); "
                f"{SHOWN} shows how each field looks"
            ) from error
        self.identity = file_identity(description) or self.identity

    def _try(self) -> None:
        """Parse the outputs for noise, which tells whether decoder and labels fit the file.

        Raises:
            EngineError: they do not.
        """
        config = self.config
        frame = np.random.default_rng(0).integers(0, 256, (1, *config.input_size, 3), np.uint8)
        outputs = next(iter(self.reference([frame])))
        if config.decoder is not None:
            classes = config.decoder.classes(outputs)
            if classes != len(config.labels):
                raise EngineError(f"the file tells {classes} classes apart, and labels has {len(config.labels)} names")
            given = config.decoder.given_scores(outputs)
            if given is not None and not (given.min(initial=0) >= -1e-3 and given.max(initial=1) <= 1.001):
                raise EngineError(
                    f"what the decoder takes for scores reaches from {given.min():.3g} to {given.max():.3g}, but "
                    "scores lie between 0 and 1; say score: sigmoid or softmax, or export the file with that"
                )
        try:
            get_task(config.task).parse(outputs, Fit.of(config.input_size, config), config)
        except (ValueError, IndexError) as error:
            raise EngineError(f"the decoder does not fit the file: {error}") from error


def read_description(path: Path) -> dict[str, Any]:
    """The fields of a description.

    Raises:
        EngineError: it cannot be read, or has unknown fields or lacks some; the message says which are known.
    """
    try:
        fields = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise EngineError(f"description {path} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise EngineError(f"{path} is no description of a model: it must be a mapping of {', '.join(FIELDS)}")
    for given, known, what in ((fields, FIELDS, "fields"), (fields.get("input") or {}, INPUT, "fields of input")):
        if unknown := sorted(set(given) - set(known)):
            raise EngineError(f"{path} has unknown {what}: {', '.join(unknown)}; known: {', '.join(known)}")
    if missing := [name for name in ("task", "file", "labels") if name not in fields]:
        raise EngineError(f"{path} lacks: {', '.join(missing)}")
    return fields


def adopt(model: onnx.ModelProto, fields: Mapping[str, Any], description: Path) -> onnx.ModelProto:
    """The graph with our interface and metadata, `fields` being those of its description.

    Raises:
        EngineError: the file has not one image of fixed size as its input, or the description does not fit it.
    """
    model = _current(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    given = fields.get("input") or {}
    size, channels_last = _image_size(inputs, given.get("size"))
    try:
        if not isinstance(fields.get("decoder", {}), dict):
            raise ValueError(f"decoder is {fields['decoder']!r}; write {{kind: yolox}} and its fields")
        decoder = make_decoder(fields["decoder"], DESCRIBED) if fields.get("decoder") else None
        mean, std = _normalisation(given)
        config = ModelConfig(
            name=str(fields.get("name", description.stem)),
            task=fields["task"],
            input_size=size,
            outputs=(),
            mean=mean,
            std=std,
            labels=_labels(fields["labels"], description.parent),
            decoder=decoder,
            licence=str(fields.get("licence", "as its file")),
            data_licence=str(fields.get("data_licence", "")),
            weights=str(fields["file"]),
            **{name: given[name] for name in ("color", "letterbox", "pad_value", "interpolation") if name in given},
        )
        get_task(config.task)
    except ValueError as error:
        raise EngineError(str(error)) from error
    _put_normalisation_in_front(model, inputs[0].name, config, channels_last)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, (1, *size, 3)))
    outputs = _keep_outputs(model, decoder.outputs if decoder else [value.name for value in model.graph.output])
    return finish(model, config.replace(outputs=outputs))


def _current(model: onnx.ModelProto) -> onnx.ModelProto:
    """In the operators' version that the rest of us speaks, with constants as initialisers."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:  # the converter's own errors have no common base
            raise EngineError(f"its operators, of opset {opset}, cannot be brought to {OPSET}: {error}") from error
    nodes = list(model.graph.node)
    for node in [node for node in nodes if node.op_type == "Constant" and node.attribute[0].name == "value"]:
        tensor = onnx.TensorProto.FromString(node.attribute[0].t.SerializeToString())
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
        nodes.remove(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _image_size(inputs: list[onnx.ValueInfoProto], given: Any) -> tuple[tuple[int, int], bool]:
    """(height, width) of the one image that goes in, and whether its channels come last."""
    shapes = [tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim) for value in inputs]
    kinds = [value.type.tensor_type.elem_type for value in inputs]
    if len(inputs) != 1 or kinds != [TensorProto.FLOAT] or len(shapes[0]) != 4 or 3 not in (shapes[0][1], shapes[0][3]):
        words = ", ".join(f"{value.name} {shape}" for value, shape in zip(inputs, shapes, strict=True))
        raise EngineError(
            f"the file takes {words}; accepted is one float32 image (1, 3, height, width) or (1, height, width, 3)"
        )
    channels_last = shapes[0][1] != 3
    if given is not None and not (isinstance(given, list) and len(given) == 2):
        raise EngineError(f"size of input is {given!r}; it is [height, width]")
    height, width = (shapes[0][1:3] if channels_last else shapes[0][2:]) if given is None else given
    if not (height and width):
        raise EngineError("the file takes images of any size; say which one with input: {size: [height, width]}")
    return (int(height), int(width)), channels_last


def _normalisation(given: Mapping[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """`mean` and `std` as in a config."""
    if "range" in given and ("mean" in given or "std" in given):
        raise ValueError("input has range, and mean or std too; give either")
    if "range" in given:
        ends = given["range"]
        if not (isinstance(ends, list) and len(ends) == 2 and float(ends[0]) < float(ends[1])):
            raise ValueError(f"range of input is {ends!r}; it is two numbers that rise, such as [0, 255] or [-1, 1]")
        low, high = map(float, ends)
        return (-low / (high - low),) * 3, (1 / (high - low),) * 3
    found = []
    for name, default in (("mean", 0.0), ("std", 1.0)):
        values = given.get(name, [default] * 3)
        if not (isinstance(values, list) and len(values) == 3):
            raise ValueError(f"{name} of input is {values!r}; it is three numbers, for an image scaled to [0, 1]")
        found.append((float(values[0]), float(values[1]), float(values[2])))
    return found[0], found[1]


def _labels(given: Any, folder: Path) -> tuple[str, ...]:
    if isinstance(given, list):
        return tuple(map(str, given))
    if isinstance(given, str) and given in NAMED_LABELS:
        return NAMED_LABELS[given]
    try:
        return tuple(line.strip() for line in (folder / str(given)).read_text().splitlines())
    except OSError as error:
        raise EngineError(
            f"labels {given!r} are neither a list, nor {' or '.join(NAMED_LABELS)}, nor a readable file: {error}"
        ) from error


def _put_normalisation_in_front(model: onnx.ModelProto, image: str, config: ModelConfig, channels_last: bool) -> None:
    """Bytes to what the file wants under the name `image`, by the operators that our own exports begin with."""
    shape = (1, 1, 1, 3) if channels_last else (1, 3, 1, 1)
    mean, std = np.array(config.mean, np.float32), np.array(config.std, np.float32)
    arrays = {"perception_scale": 1 / (255 * std), "perception_shift": -mean / std}
    steps: list[tuple[str, list[str], dict[str, Any]]] = [("Cast", [], {"to": TensorProto.FLOAT})]
    steps += [] if channels_last else [("Transpose", [], {"perm": [0, 3, 1, 2]})]
    for kind, name in (("Mul", "perception_scale"), ("Add", "perception_shift")):
        if kind == "Add" and not mean.any():
            continue
        values = arrays[name].astype(np.float32).reshape(shape)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
        steps.append((kind, [name], {}))
    nodes, before = [], "image"
    for place, (kind, more, options) in enumerate(steps):
        after = image if place == len(steps) - 1 else f"perception_image_{place}"
        nodes.append(helper.make_node(kind, [before, *more], [after], name=f"perception_{kind.lower()}", **options))
        before = after
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _keep_outputs(model: onnx.ModelProto, names: list[str]) -> tuple[Output, ...]:
    """Leave only these outputs, with the shapes that they have for one image."""
    found = [value.name for value in model.graph.output]
    if missing := [name for name in names if name not in found]:
        raise EngineError(f"the decoder reads {', '.join(missing)}, and the file gives {', '.join(found)}")
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    arrays = session.run(names, {"image": np.zeros(shape, np.uint8)})
    if strange := [name for name, array in zip(names, arrays, strict=True) if array.dtype != np.float32]:
        raise EngineError(f"output {strange[0]!r} is not float32; only such outputs can be decoded")
    del model.graph.output[:]
    for name, array in zip(names, arrays, strict=True):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape))
    _drop_dead(model)
    return tuple(Output(name, array.shape, "raw") for name, array in zip(names, arrays, strict=True))


def _drop_dead(model: onnx.ModelProto) -> None:
    """Remove what leads to no output."""
    wanted = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= read_by(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    drop_unused(model)

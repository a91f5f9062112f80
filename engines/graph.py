"""ONNX graphs: our metadata and reproducible bytes. Rewrites are in `perception.engines.rewrites`.

The interface of every graph: inputs and outputs with the names, shapes and types of the model's config.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from perception.engines.errors import EngineError
from perception.tasks.config import ModelConfig, Tensor

CONFIG = "perception.config"
"""Key of the model's config in the graph's metadata."""
OPSET = 18
IR_VERSION = 9
"""Newer than what OPSET asks for, older than what the runtimes on robots know (JetPack 6: ONNX 1.16, IR 10)."""
Tensors = dict[str, tuple[int, tuple[int, ...]]]
"""Element type (of onnx.TensorProto) and shape by name."""


def read(data: bytes, name: str = "the graph") -> onnx.ModelProto:
    """Parse and check an ONNX file.

    Raises:
        EngineError: not an ONNX graph.
    """
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise EngineError(f"{name} is not a valid ONNX file: {str(error).splitlines()[0]}") from error
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same graph."""
    return bytes(model.SerializeToString(deterministic=True))


def read_config(model: onnx.ModelProto, name: str) -> ModelConfig:
    """The model's config out of the metadata, checked against the graph's input and outputs.

    Raises:
        EngineError: no config, or one of another graph: the file was not exported by perception.
    """
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if CONFIG not in texts:
        raise EngineError(
            f"{name} carries no {CONFIG!r} in its metadata, so its size, normalisation and units are unknown; accepted "
            "are files written by `perception engines export`, or made elsewhere with that entry added"
        )
    try:
        config = ModelConfig.from_json(texts[CONFIG])
    except ValueError as error:
        raise EngineError(f"{name} carries a {CONFIG!r} that cannot be read: {error}") from error
    found, expected = _tensors(model.graph.input), _promised(config.inputs)
    if found != expected:
        raise EngineError(f"{name} takes {_words(found)}; accepted: {_words(expected)}")
    found, expected = _tensors(model.graph.output), _promised(config.outputs)
    if found != expected:
        raise EngineError(f"{name} gives {_words(found)}, but its config promises {_words(expected)}")
    return config


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> Tensors:
    types = {value.name: value.type.tensor_type for value in values}
    return {
        name: (int(kind.elem_type), tuple(dimension.dim_value for dimension in kind.shape.dim))
        for name, kind in types.items()
    }


def _promised(tensors: Iterable[Tensor]) -> Tensors:
    kind = onnx.helper.np_dtype_to_tensor_dtype
    return {tensor.name: (int(kind(np.dtype(tensor.dtype))), tensor.shape) for tensor in tensors}


def _words(tensors: Tensors) -> str:
    parts = [
        f"{name} {onnx.helper.tensor_dtype_to_string(kind).lower().partition('.')[2]} {'x'.join(map(str, shape))}"
        for name, (kind, shape) in tensors.items()
    ]
    return ", ".join(parts) or "nothing"


def finish(model: onnx.ModelProto, config: ModelConfig) -> onnx.ModelProto:
    """Drop what the exporter noted for itself (paths, stack traces, shapes), write the config, fix the versions."""
    model.producer_name, model.producer_version, model.doc_string = "perception", "", ""
    model.ir_version = IR_VERSION
    del model.metadata_props[:], model.functions[:], model.graph.value_info[:], model.graph.metadata_props[:]
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = CONFIG, config.to_json()
    return model


def extract_part(model: onnx.ModelProto, config: ModelConfig, name: str) -> onnx.ModelProto:
    """The part of a network's graph that computes the outputs of the part `name` of its inputs.

    Raises:
        EngineError: the network has no such part.
    """
    try:
        config = config.of_part(name)
    except ValueError as error:
        raise EngineError(str(error)) from error
    ends = [[tensor.name for tensor in tensors] for tensors in (config.inputs, config.outputs)]
    return finish(onnx.utils.Extractor(model).extract_model(*ends), config)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Call the outputs by these names, and otherwise what is called so (PyTorch's exporter calls tensors as functions,
    such as `view`). Changes the model in place and returns it."""
    new = {name: f"{name}_inside" for name in names}
    new |= {value.name: name for value, name in zip(model.graph.output, names, strict=True)}
    for node in model.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in (*model.graph.initializer, *model.graph.output):
        value.name = new.get(value.name, value.name)
    return model


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The initialisers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove initialisers that no node reads."""
    used = {name for node in model.graph.node for name in read_by(node)}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)


def read_by(node: onnx.NodeProto) -> set[str]:
    """What a node reads, and what the branches and bodies in it read from outside."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= read_by(inner)
            names |= {value.name for value in graph.output}
    return names


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name, strings as `str`."""
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}

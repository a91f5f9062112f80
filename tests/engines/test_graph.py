"""ONNX files of ours and of others."""

from __future__ import annotations

import pytest
from tiny import BYTES, CONFIG, bytes_graph, tiny_graph

from perception.engines.errors import EngineError
from perception.engines.graph import CONFIG as CONFIG_KEY
from perception.engines.graph import read, read_config, to_bytes


def test_the_config_travels_in_the_file() -> None:
    assert read_config(read(to_bytes(tiny_graph())), "tiny") == CONFIG


def test_the_types_of_outputs_are_held_against_the_graph() -> None:
    assert read_config(bytes_graph(), "bytes") == BYTES
    model = bytes_graph()
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"uint8"', '"float32"')
    with pytest.raises(EngineError, match="gives .*bytes uint8 1x1x32x32, but its config promises .*bytes float"):
        read_config(model, "mixed.onnx")


def test_the_same_graph_is_the_same_bytes() -> None:
    assert to_bytes(tiny_graph()) == to_bytes(tiny_graph())
    assert to_bytes(tiny_graph()) != to_bytes(tiny_graph(seed=1))


@pytest.mark.parametrize("data", [b"", b"not a graph", to_bytes(tiny_graph())[:500]], ids=["empty", "text", "cut"])
def test_what_is_no_graph_is_refused(data: bytes) -> None:
    with pytest.raises(EngineError, match="some.onnx is not a valid ONNX file"):
        read(data, "some.onnx")


def test_a_file_without_our_config_is_refused() -> None:
    model = tiny_graph()
    del model.metadata_props[:]
    with pytest.raises(EngineError, match=f"carries no '{CONFIG_KEY}' in its metadata"):
        read_config(model, "theirs.onnx")


def test_a_config_of_another_graph_is_refused() -> None:
    other = CONFIG.replace(input_size=(64, 64))
    model = tiny_graph()
    model.metadata_props[0].value = other.to_json()
    with pytest.raises(EngineError, match="takes image uint8 1x32x32x3; accepted: image uint8 1x64x64x3"):
        read_config(model, "mixed.onnx")

"""Loading: what is refused and in which words, and what a loaded engine does."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import CONFIG, tiny_graph

from perception.engines import Engine, EngineError, build, load
from perception.engines.graph import to_bytes
from perception.engines.store import Store

IMAGE = np.full((1, 32, 32, 3), 100, np.uint8)


@pytest.fixture
def built(fake, model, frames, directory) -> dict:
    """Arguments for `load` of an engine that exists."""
    runtimes = {"fake": lambda: fake}
    build(model, "fake", "fp32", frames=frames, directory=directory, runtimes=runtimes)
    return {"model": model, "directory": directory, "runtimes": runtimes}


def test_an_engine_knows_itself_and_runs(built) -> None:
    with load(**built) as engine:
        assert engine.config == CONFIG
        assert engine.info["target"] == "fake"
        assert engine.info["runtime"] == "fake 1.0"
        assert engine.info["threads"] == "all"
        named = {"model", "target", "runtime", "precision", "key", "threads", "device", "load_s"}
        assert set(engine.info) == named
        first = engine.run(IMAGE)["depth"]
        assert first.dtype == np.float32
        assert engine.run(IMAGE)["depth"] is first  # one buffer, used again


@pytest.mark.parametrize(
    ("name", "weights", "trained"), [("tiny", "", False), ("tiny", "a.safetensors", True), ("/a/tiny.onnx", "", True)]
)
def test_a_model_without_weights_is_known(built, name: str, weights: str, trained: bool) -> None:
    (record,) = Store(built["directory"]).records().values()
    changed = dataclasses.replace(record, model=name, config=CONFIG.replace(weights=weights))
    session = SimpleNamespace(device="test")
    assert Engine(changed, session, 1, 0.0).trained is trained


def test_an_engine_tells_how_long_it_took_to_load(built, fake, monkeypatch) -> None:
    def slow(*arguments, load=fake.load):
        time.sleep(0.05)
        return load(*arguments)

    monkeypatch.setattr(fake, "load", slow)
    begin = time.perf_counter()
    with load(**built) as engine:
        assert 0.05 <= float(engine.info["load_s"]) <= time.perf_counter() - begin + 0.001


def test_a_closed_engine_says_so(built) -> None:
    engine = load(**built)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.run(IMAGE)


@pytest.mark.parametrize("image", [IMAGE[0], IMAGE.astype(np.float32), IMAGE[:, :16]])
def test_another_image_is_refused(built, image) -> None:
    with (
        load(**built) as engine,
        pytest.raises(EngineError, match=r"accepted is image uint8 of shape \(1, 32, 32, 3\)"),
    ):
        engine.run(image)


def test_a_missing_engine_names_the_command(directory) -> None:
    with pytest.raises(EngineError, match="perception engines build fastdepth --target openvino --precision int8$"):
        load("fastdepth", "openvino", "int8", directory=directory)


def test_a_missing_model_file_is_said(directory, tmp_path) -> None:
    with pytest.raises(EngineError, match="there is no file .*gone.onnx either"):
        load(str(tmp_path / "gone.onnx"), directory=directory)


@pytest.mark.parametrize(
    ("word", "field"),
    [("version", "version"), ("name", "device"), ("capability", "capability"), ("options", "options")],
)
def test_a_stale_engine_names_what_differs(built, fake, word: str, field: str) -> None:
    was = fake.words[word]
    fake.words[word] = "other"
    with pytest.raises(
        EngineError, match=f"is stale: {field} was '{was}' when it was built and is 'other' now; build it"
    ):
        load(**built)


def test_changed_weights_make_it_stale(built) -> None:
    Path(built["model"]).write_bytes(to_bytes(tiny_graph(seed=9)))
    with pytest.raises(EngineError, match="is stale: source was"):
        load(**built)


def test_a_moved_model_file_is_known_by_its_content(built, tmp_path) -> None:
    moved = tmp_path / "moved.onnx"
    Path(built["model"]).rename(moved)
    with load(**built | {"model": str(moved)}) as engine:
        assert engine.config == CONFIG


def test_a_plan_cut_short_is_refused(built, directory) -> None:
    plan = next(directory.glob("*.plan"))
    plan.write_bytes(plan.read_bytes()[:100])
    with pytest.raises(EngineError, match="of 100 bytes is not what was built.*perception engines build"):
        load(**built)


def test_a_record_cut_short_is_refused(built, directory) -> None:
    record = next(directory.glob("*.json"))
    record.write_text(record.read_text()[:100])
    with pytest.raises(EngineError, match="cannot be used: .*perception engines build"):
        load(**built)


def test_a_foreign_plan_is_refused(built, directory) -> None:
    store = Store(directory)
    record = store.read(next(directory.glob("*.json")))
    store.save(record, b"an engine of something else")
    with pytest.raises(EngineError, match="not a plan of the fake runtime.*perception engines build"):
        load(**built)


def test_negative_threads_are_refused(built) -> None:
    with pytest.raises(EngineError, match="threads is -1; accepted: 0"):
        load(**built, threads=-1)


def test_two_sizes_ask_which(built, fake, frames, directory, tmp_path) -> None:
    store = Store(directory)
    record = store.read(next(directory.glob("*.json")))
    config = CONFIG.replace(input_size=(64, 64))
    store.save(dataclasses.replace(record, config=config), b"plan:")
    with pytest.raises(EngineError, match="for 32x32 and 64x64 were built; say which"):
        load(**built)
    load(**built, size=(32, 32)).close()


def test_loading_needs_neither_torch_nor_onnx_nor_models(frames, directory, model) -> None:
    build(model, "openvino", "fp32", frames=frames, directory=directory)
    code = (
        "import sys\nimport perception.engines as engines\n"
        f"engine = engines.load({model!r}, directory={str(directory)!r})\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'perception.models'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

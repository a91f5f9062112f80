"""Building: what triggers it, what refuses it, what is left."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from tiny import FakeRuntime, random_frames, tiny_graph, write_frames

from perception.engines import EngineError, build, load
from perception.engines.graph import to_bytes
from perception.engines.runtimes import Quantization
from perception.engines.store import Store
from perception.engines.workshop import FloatLayers


def _build(fake: FakeRuntime, model: str, frames: Path, directory: Path, **changes) -> Path:
    choice = {"target": "fake", "precision": "int8", "frames": frames, "directory": directory} | changes
    return build(model, runtimes={"fake": lambda: fake}, clock=lambda: 1000.0, **choice)


def test_nothing_changed_nothing_built(fake, model, frames, directory) -> None:
    lines: list[str] = []
    first = _build(fake, model, frames, directory)
    assert _build(fake, model, frames, directory, progress=lines.append) == first
    assert fake.compiled == 1
    assert lines[-1].endswith("is up to date")
    record = Store(directory).read(first)
    assert (record.built, record.bound) == (1000.0, 0.05)
    assert 0 < record.parity < 0.05


@pytest.mark.parametrize("word", ["version", "name", "capability", "options"])
def test_another_runtime_or_device_builds_again(fake, model, frames, directory, word: str) -> None:
    _build(fake, model, frames, directory)
    fake.words[word] = "another"
    _build(fake, model, frames, directory)
    assert fake.compiled == 2


def test_other_weights_build_again(fake, model, frames, directory) -> None:
    _build(fake, model, frames, directory)
    Path(model).write_bytes(to_bytes(tiny_graph(seed=3)))
    _build(fake, model, frames, directory)
    assert fake.compiled == 2


def test_other_calibration_or_scheme_builds_again(fake, model, frames, directory, tmp_path) -> None:
    _build(fake, model, frames, directory)
    _build(fake, model, frames, directory, calibration=write_frames(tmp_path / "others", 32 + 4))
    fake.scheme = Quantization("uint8")
    _build(fake, model, frames, directory)
    assert fake.compiled == 3


def test_a_spoiled_plan_is_built_again(fake, model, frames, directory) -> None:
    path = _build(fake, model, frames, directory)
    (directory / Store(directory).read(path).plan).write_bytes(b"plan")
    _build(fake, model, frames, directory)
    assert fake.compiled == 2


def test_precisions_lie_side_by_side(fake, model, frames, directory) -> None:
    assert _build(fake, model, frames, directory) != _build(fake, model, frames, directory, precision="fp32")
    assert len(list(directory.glob("*.plan"))) == 2


class BadlyScaled(FakeRuntime):
    """Forgets that pixels are divided by 255 the same way everywhere: the image comes half as bright."""

    def load(self, plan, config, precision, threads):
        session = super().load(plan, config, precision, threads)
        right = session.run
        session.run = lambda image: right(image // 2)
        return session


def test_an_engine_that_misses_parity_is_refused_with_its_number(model, frames, directory) -> None:
    with pytest.raises(EngineError, match=r"fake int8 misses parity: .* by 0\.\d+, accepted is 0.05") as caught:
        _build(BadlyScaled(), model, frames, directory)
    assert float(str(caught.value).split(" by ")[1].split(",")[0]) > 0.05
    assert not directory.exists()


class Truth:
    """A judge to whom the float32 definition's depth of one image is right. Its metric is 1 - relative error."""

    data, metric = "one frame", "closeness"

    def __init__(self) -> None:
        self.image = random_frames(1)[0]
        self.right = _run_tiny(self.image)

    def score(self, predict, config) -> float:
        return 1 - float(np.abs(predict(self.image)["depth"] / self.right - 1).mean())


def _run_tiny(image: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(to_bytes(tiny_graph())).run(None, {"image": image})[0]


class Dimmed(FakeRuntime):
    """Every depth comes out 2 % too small: within the bound of parity for int8, and a loss of accuracy."""

    name = "dimmed"

    def load(self, plan, config, precision, threads):
        session = super().load(plan, config, precision, threads)
        right = session.run
        session.run = lambda image: {name: 0.98 * value for name, value in right(image).items()}
        return session


def test_an_engine_that_loses_accuracy_is_refused_with_figures_bound_and_what_to_do(model, frames, directory) -> None:
    _build(Dimmed(), model, frames, directory)  # without truth nobody notices
    with pytest.raises(EngineError, match="dimmed int8 loses accuracy") as caught:
        _build(Dimmed(), model, frames, directory, judge=lambda _: Truth())
    figures = re.search(
        r"closeness is (0\.\d+) on one frame, and (1\.0+) in the float32 definition: "
        r"a drop of (0\.\d+), accepted is 0.01",
        str(caught.value),
    )
    assert figures, caught.value
    assert float(figures[2]) - float(figures[1]) == pytest.approx(float(figures[3]), abs=1e-4)
    assert 0.01 < float(figures[3]) < 0.04
    assert "perception engines sensitivity" in str(caught.value) and "--keep-float" in str(caught.value)


def test_accuracy_is_recorded_and_an_engine_without_it_is_measured_again(fake, model, frames, directory) -> None:
    lines: list[str] = []
    assert Store(directory).read(_build(fake, model, frames, directory)).accuracy is None
    path = _build(fake, model, frames, directory, judge=lambda _: Truth(), progress=lines.append)
    accuracy = Store(directory).read(path).accuracy
    assert accuracy and (accuracy.data, accuracy.metric, accuracy.reference) == ("one frame", "closeness", 1.0)
    assert 0 < accuracy.drop < 0.01
    assert any(line.startswith("closeness 0.99") and "on one frame" in line for line in lines)
    _build(fake, model, frames, directory, judge=lambda _: Truth(), progress=lines.append)
    assert lines[-1].endswith("is up to date")


def test_the_table_of_auto_shows_accuracy_and_who_lost_it(fake, model, frames, directory) -> None:
    lines: list[str] = []
    runtimes = {"dimmed": Dimmed, "fake": lambda: fake}
    build(model, frames=frames, directory=directory, runtimes=runtimes, judge=lambda _: Truth(), progress=lines.append)
    table = next(line for line in lines if line.startswith("target")).splitlines()
    assert table[0].split()[-4:] == ["bound", "closeness", "drop", "note"]
    assert sum("loses accuracy" in line for line in table) == 1  # in fp32 parity refuses it
    assert table[-1] == "closeness on one frame; the float32 definition has 1.0000"


def test_a_definition_that_predicts_nothing_sets_no_standard(fake, model, frames, directory) -> None:
    judge = Truth()
    judge.right = np.full_like(judge.right, np.nan)
    assert Store(directory).read(_build(fake, model, frames, directory, judge=lambda _: judge)).accuracy is None


def test_layers_left_in_float_are_in_the_key(fake, model, frames, directory) -> None:
    plain = Store(directory).read(_build(fake, model, frames, directory))
    named = Store(directory).read(_build(fake, model, frames, directory, layers=FloatLayers(("stem",))))
    worst = Store(directory).read(_build(fake, model, frames, directory, layers=FloatLayers(worst=2)))
    assert (plain.key.float_layers, named.key.float_layers) == ("", "stem")
    assert worst.key.float_layers.count(",") == 1
    assert "float_layers" in (named.key.difference(worst.key) or "") or named.key.graph != worst.key.graph
    assert worst.parity < plain.parity
    assert fake.compiled == 3
    with load(model, directory=directory, runtimes={"fake": lambda: fake}) as engine:  # it is not stale
        assert engine.info["key"] == worst.short_key


def test_a_full_disk_is_one_message_and_nothing_is_left(fake, model, frames, directory, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="No space left on device; nothing was left there"):
        _build(fake, model, frames, directory)
    assert list(directory.iterdir()) == []


class Wrong(BadlyScaled):
    name = "wrong"


def test_auto_keeps_a_right_one_and_loading_takes_it(fake, model, frames, directory) -> None:
    lines: list[str] = []
    runtimes = {"wrong": Wrong, "fake": lambda: fake}
    path = build(model, frames=frames, directory=directory, runtimes=runtimes, progress=lines.append)
    record = Store(directory).read(path)
    assert (record.key.runtime, record.chosen > 0) == ("fake", True)
    assert any("wrong       int8" in line and "misses parity" in line for line in lines)
    with load(model, directory=directory, runtimes=runtimes) as engine:
        assert engine.info["precision"] == record.key.precision
        assert engine.run(np.zeros((1, 32, 32, 3), np.uint8))["depth"].shape == (1, 1, 32, 32)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"target": "warp"}, "target 'warp' is unknown; accepted: auto, fake"),
        ({"precision": "int3"}, "precision 'int3' is unknown; accepted: auto, fp32, fp16, bf16, int8"),
        ({"precision": "bf16"}, r"'bf16' is not possible with target 'fake' on this machine \(fake: fp32, int8\)"),
        ({"size": (64, 64)}, "was exported for 32x32; another size needs another export"),
    ],
)
def test_impossible_wishes_are_explained(fake, model, frames, directory, choice, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        _build(fake, model, frames, directory, **choice)


def test_a_model_file_that_is_not_ours(fake, frames, directory, tmp_path) -> None:
    (tmp_path / "cat.onnx").write_bytes(b"meow")
    with pytest.raises(EngineError, match="cat.onnx is not a valid ONNX file"):
        _build(fake, str(tmp_path / "cat.onnx"), frames, directory)
    with pytest.raises(EngineError, match=r"dog.onnx cannot be read: No such file"):
        _build(fake, str(tmp_path / "dog.onnx"), frames, directory)

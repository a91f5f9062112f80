"""Suppression inside a detector's graph: the same objects as NumPy finds, ties included; the choice between both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tiny import FakeRuntime, write_frames

from perception import engines
from perception.engines import builder
from perception.engines.errors import EngineError
from perception.engines.graph import finish, to_bytes
from perception.engines.store import Store
from perception.engines.suppression import with_suppression
from perception.engines.suppression_check import check_same
from perception.engines.trt_support import unsupported
from perception.tasks import detection
from perception.tasks.anchors import ssd_grids, ssd_shapes
from perception.tasks.config import ModelConfig, Output
from perception.tasks.decoders import BoxDecoder, FoundDecoder, SsdDecoder, YoloxDecoder
from perception.tasks.detection import Detections
from perception.tasks.geometry import Fit

SIZE = (32, 32)
LABELS = ("a", "b", "c", "d")
GRIDS = ssd_grids(SIZE, stride=8)
DECODERS = {
    "ssd": (SsdDecoder(GRIDS, ssd_shapes()), {"boxes": 4, "scores": 5}),
    "softmax": (SsdDecoder(GRIDS, ssd_shapes(), score="softmax"), {"boxes": 4, "scores": 5}),
    "yolox": (YoloxDecoder(), {"output": 9}),
    "corners": (BoxDecoder(), {"boxes": 4, "scores": 4}),
    "shares": (BoxDecoder("yxyx", "share", "sigmoid", True), {"boxes": 4, "scores": 5}),
    "rows": (BoxDecoder("cxcywh", channels_first=True, score_output="boxes"), {"boxes": 8}),
}


def passing(decoder, widths: dict[str, int], count: int) -> onnx.ModelProto:
    """A graph whose outputs are inputs of its own, beside an image that it ignores."""
    flipped = getattr(decoder, "channels_first", False)
    shapes = {name: (1, width, count) if flipped else (1, count, width) for name, width in widths.items()}
    outputs = tuple(Output(name, shape, "raw") for name, shape in shapes.items())
    config = ModelConfig("passing", "detection", SIZE, outputs, labels=LABELS, decoder=decoder)
    inputs = [helper.make_tensor_value_info(f"raw_{name}", TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, (1, *SIZE, 3))
    nodes = [helper.make_node("Identity", [f"raw_{name}"], [name]) for name in shapes]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "passing", [image, *inputs], results)
    return finish(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), config)


def raw_outputs(kind: str, rng: np.random.Generator, count: int, widths: dict[str, int]) -> dict[str, np.ndarray]:
    """Random boxes that overlap often, and scores of few levels."""
    raw = {name: np.zeros((1, count, width), np.float32) for name, width in widths.items()}
    levels = rng.integers(0, 6, (count, 5)).astype(np.float32)
    if kind in ("ssd", "softmax"):
        raw["boxes"][0] = rng.normal(0, 3, (count, 4))
        raw["scores"][0] = levels - 4
        if kind == "softmax":  # equal scores come out of two softmaxes with different last digits
            raw["scores"] += rng.normal(0, 0.1, raw["scores"].shape).astype(np.float32)
    elif kind == "yolox":
        raw["output"][0] = np.concatenate([rng.normal(0, 1, (count, 4)), levels / 6, levels[:, 1:] / 6], 1)[:, :9]
    else:
        low, size = rng.integers(0, 20, (count, 2)), rng.integers(2, 12, (count, 2))
        boxes = np.concatenate([low, low + size], 1).astype(np.float32)
        boxes = np.concatenate([low + size / 2, size], 1) if kind == "rows" else boxes
        raw["boxes"][0, :, :4] = boxes / 32 if kind == "shares" else boxes
        scores = levels[:, 1:] / 6 if kind in ("corners", "rows") else levels - 4
        if kind == "rows":
            raw["boxes"][0, :, 4:] = scores
        else:
            raw["scores"][0] = scores
    return {name: array.transpose(0, 2, 1).copy() for name, array in raw.items()} if kind == "rows" else raw


def spoil(raw: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """Make a tenth of all outputs NaN or infinite; of YOLOX not the classes, which are shares of the objectness."""
    for name, whole in raw.items():
        array = whole[..., :5] if name == "output" else whole
        spoiled = rng.random(array.shape) < 0.1
        array[spoiled] = rng.choice(np.array([np.nan, np.inf, -np.inf], np.float32), spoiled.sum())


@pytest.mark.parametrize("spoiled", [False, True])
@pytest.mark.parametrize("kind", DECODERS)
def test_the_graph_finds_what_numpy_finds(kind: str, spoiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, widths = DECODERS[kind]
    count = 21 if kind == "yolox" else sum(r * c * len(s) for (r, c), s in zip(GRIDS, ssd_shapes(), strict=True))
    plain = passing(decoder, widths, count)
    config = read_config_loosely(plain)
    monkeypatch.setattr("perception.engines.suppression.read_config", lambda *_: config)
    inside = with_suppression(plain)
    found_config = read_config_loosely(inside)
    assert unsupported(inside) == [], "a Jetson can parse it"
    assert isinstance(found_config.decoder, FoundDecoder)
    session = ort.InferenceSession(inside.SerializeToString())
    rng = np.random.default_rng(0)
    fit = Fit.of((64, 48), config)
    for _ in range(30):
        raw = raw_outputs(kind, rng, count, widths)
        if spoiled:
            spoil(raw, rng)
        outputs = outputs_of(session, found_config, raw)
        assert [array.shape for array in outputs.values()] == [output.shape for output in found_config.outputs]
        for threshold, classes in ((0.3, None), (0.05, None), (0.3, np.array([True, False, True, False]))):
            expected = detection.parse(raw, fit, config, threshold, classes=classes)
            found = detection.parse(outputs, fit, found_config, threshold, classes=classes)
            # A graph's best hundred are of all classes.
            if classes is None or not found_config.decoder.full(outputs, threshold):
                assert found.labels.tolist() == expected.labels.tolist()
                assert found.boxes == pytest.approx(expected.boxes, abs=1e-3)
                assert found.scores == pytest.approx(expected.scores, abs=1e-6)


@pytest.mark.parametrize(("crowd", "least", "full"), [(120, 0.5, True), (91, 0.5, True), (89, 0.5, False),
                                                      (120, 0.95, False)])  # fmt: skip
def test_a_crowd_of_another_class_takes_the_places_and_it_can_be_told(
    crowd: int, least: float, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes side by side: so many of "a" at 0.9 and ten of "b" at 0.6, of which alone is asked."""
    decoder, widths = DECODERS["corners"]
    count = crowd + 10
    plain = passing(decoder, widths, count)
    config = read_config_loosely(plain)
    monkeypatch.setattr("perception.engines.suppression.read_config", lambda *_: config)
    inside = with_suppression(plain)
    found_config = read_config_loosely(inside)
    assert isinstance(found_config.decoder, FoundDecoder)
    raw = {"boxes": np.zeros((1, count, 4), np.float32), "scores": np.zeros((1, count, 4), np.float32)}
    raw["boxes"][0, :, 0] = 0.2 * np.arange(count)
    raw["boxes"][0, :, 2:] = raw["boxes"][0, :, :2] + (0.1, 9)
    raw["scores"][0, :crowd, 0], raw["scores"][0, crowd:, 1] = 0.9, 0.6
    outputs = outputs_of(ort.InferenceSession(inside.SerializeToString()), found_config, raw)
    assert found_config.decoder.full(outputs, least) == full
    fit, only = Fit.of(SIZE, config), np.array([False, True, False, False])
    expected = detection.parse(raw, fit, config, least, classes=only)
    found = detection.parse(outputs, fit, found_config, least, classes=only)
    assert len(expected) == (10 if least < 0.6 else 0) and (len(found) < len(expected)) == full


def outputs_of(session: ort.InferenceSession, config: ModelConfig, raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    feeds = {"image": np.zeros((1, *SIZE, 3), np.uint8)} | {f"raw_{name}": array for name, array in raw.items()}
    names = [output.name for output in config.outputs]
    return dict(zip(names, session.run(names, feeds), strict=True))


def read_config_loosely(model: onnx.ModelProto) -> ModelConfig:
    """Of a graph that has more inputs than the image."""
    return ModelConfig.from_json({entry.key: entry.value for entry in model.metadata_props}["perception.config"])


@pytest.fixture
def detector(tmp_path: Path) -> str:
    from test_foreign import write

    return str(write(tmp_path))


def test_it_is_built_when_asked_for(detector: str, tmp_path: Path) -> None:
    lines: list[str] = []
    options = {"frames": write_frames(tmp_path / "frames"), "directory": tmp_path / "engines", "progress": lines.append}
    path = engines.build(detector, "onnxruntime", "fp32", suppression="graph", **options)
    assert "ms with it in the graph" in lines[-1]
    record = Store(tmp_path / "engines").read(path)
    assert record.config.decoder is not None and record.config.decoder.kind == "found"
    engines.build(detector, "onnxruntime", "fp32", suppression="graph", **options)
    assert lines[-1].endswith("is up to date")
    with engines.load(detector, directory=tmp_path / "engines") as engine:
        assert {name: array.shape for name, array in engine.run(np.zeros((1, 16, 24, 3), np.uint8)).items()} == {
            "found_boxes": (1, 100, 4), "found_scores": (1, 100), "found_labels": (1, 100),
        }  # fmt: skip
    engines.build(detector, "onnxruntime", "fp32", **options)
    assert Store(tmp_path / "engines").read(path).config.decoder.kind == "boxes"


@pytest.mark.parametrize(("inside", "kind"), [(1.0, "found"), (9.0, "boxes")])
def test_auto_takes_what_is_faster(inside: float, kind: str, detector, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(builder, "compare_suppression", lambda *_: (5.0, inside))
    fake = FakeRuntime()
    path = engines.build(
        detector, "fake", frames=write_frames(tmp_path / "frames"), directory=tmp_path / "engines",
        runtimes={"fake": lambda: fake},
    )  # fmt: skip
    assert Store(tmp_path / "engines").read(path).config.decoder.kind == kind


def test_comparing_compiles_only_what_is_new(detector: str, tmp_path: Path) -> None:
    """A plan takes minutes on a Jetson: the winner's is there already, and with suppression there is one more."""
    fake = FakeRuntime()
    engines.build(
        detector, "fake", frames=write_frames(tmp_path / "frames"), directory=tmp_path / "engines",
        suppression="graph", runtimes={"fake": lambda: fake},
    )  # fmt: skip
    assert fake.compiled == len(fake.precisions()) + 1


def test_other_objects_are_noticed() -> None:
    def found(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Detections:
        return Detections(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(labels))

    plain = found([[0, 0, 9, 9], [5, 5, 20, 20]], [0, 1], [0.9, 0.06])
    check_same([plain], [found([[0, 0, 9, 9.1]], [0], [0.89])])
    for other in (
        found([[0, 0, 9, 9]], [1], [0.9]),
        found([[0, 0, 9, 12]], [0], [0.9]),
        found([[9, 9, 12, 12]], [0], [0.04]),
    ):
        with pytest.raises(EngineError, match="1 of 1 objects of frame 0 differ"):
            check_same([plain], [other])
    nothing = found([[0, 0, 9, 9]], [0], [0.06])
    with pytest.raises(EngineError, match="no object is found in any frame"):
        check_same([nothing], [nothing])


def test_only_detectors_can(tmp_path: Path) -> None:
    from tiny import tiny_graph

    (tmp_path / "tiny.onnx").write_bytes(to_bytes(tiny_graph()))
    with pytest.raises(EngineError, match="'tiny' with target 'onnxruntime' cannot leave doubles out in its graph"):
        engines.build(
            str(tmp_path / "tiny.onnx"), "onnxruntime", "fp32", frames=write_frames(tmp_path / "frames"),
            directory=tmp_path / "engines", suppression="graph",
        )  # fmt: skip
    with pytest.raises(EngineError, match="suppression 'gpu' is unknown; accepted: auto, graph, numpy"):
        engines.build(str(tmp_path / "tiny.onnx"), frames=tmp_path / "frames", suppression="gpu")

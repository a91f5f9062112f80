"""Models as graphs: interface, results, reproducible bytes, and whether a Jetson can take them."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save_file

from perception import engines
from perception.engines.errors import EngineError
from perception.engines.export import FromImage, ModelSource, registered_models
from perception.engines.graph import read_config, to_bytes
from perception.engines.runtimes import by_name
from perception.engines.source import complete
from perception.engines.trt_support import check_precisions
from perception.models import create_model, list_models, model_config

SIZE = (64, 96)
EXPORTED: dict[str, dict[str, int]] = {
    "fastdepth": {},
    "fastdepth_mobilenet_v2": {},
    "ffnet_22s_bcc_mobile_pre_down": {},
    "ffnet_mobilenet_v2": {},
    "mobiledet_cpu": {},
    "nvist_compact": {"encoder_depth": 1, "decoder_depth": 2},
    "ugdc_compact": {},
    "vit_small": {"depth": 2},
}
"""An export takes seconds, so these stand for all, with what makes them smaller: whatever layer a registered model has,
one of these has it too."""


def open_model(name: str) -> ModelSource:
    """Of a small size; weights that are for one size are for that size."""
    torch.manual_seed(0)
    config, options = model_config(name), EXPORTED[name]
    size = tuple(-(-side // config.size_divisor) * config.size_divisor for side in SIZE)
    try:
        return ModelSource(name, size, network=create_model(name, input_size=size, **options) if options else None)
    except EngineError:
        return ModelSource(name)


@pytest.fixture(scope="module", params=EXPORTED)
def source(request: pytest.FixtureRequest) -> ModelSource:
    return open_model(request.param)


@functools.cache
def kinds(name: str) -> set[tuple[object, ...]]:
    """The layers of a model by class, and convolutions by all but their sizes."""
    with torch.device("meta"):
        model = create_model(name, pretrained=False)
    found: set[tuple[object, ...]] = set()
    for layer in model.modules():
        form: tuple[object, ...] = ()
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            groups = "depthwise" if layer.groups == layer.in_channels > 1 else layer.groups
            form = (max(layer.stride) > 1, layer.dilation, groups, layer.bias is not None)
        found.add((type(layer), *form))
    return found


@pytest.mark.parametrize("name", list_models())
def test_those_that_are_exported_have_every_layer_of_the_others(name: str) -> None:
    assert kinds(name) <= set().union(*map(kinds, EXPORTED)), "add this model to EXPORTED"


def _image(size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)


def test_the_graph_takes_bytes_and_computes_what_the_model_computes(source: ModelSource) -> None:
    model = source.graph()
    assert read_config(model, source.model) == source.config
    seen = [node for node in model.graph.node if node.op_type in ("Cast", "Transpose", "Mul", "Conv")]
    assert [node.op_type for node in seen[:3]] == ["Cast", "Transpose", "Mul"] and seen[0].input == ["image"]
    normalised = {node.input[0] for node in model.graph.node if node.op_type == "BatchNormalization"}
    assert not normalised.intersection(
        name for node in model.graph.node for name in node.output if node.op_type == "Conv"
    )
    session = ort.InferenceSession(to_bytes(model))
    [frame] = complete(source, [_image(source.config.input_size)])
    expected = next(source.reference([frame]))
    names = list(expected)
    for name, got in zip(names, session.run(names, dict(by_name(frame))), strict=True):
        if got.dtype == np.uint8:  # where two classes are as good as tied, rounding decides
            assert np.mean(got != expected[name]) < 0.01
            continue
        np.testing.assert_allclose(got, expected[name], rtol=1e-3, atol=1e-4 * np.abs(expected[name]).max())


def test_bytes_are_reproducible_and_hold_no_path(source: ModelSource) -> None:
    data = to_bytes(source.graph())
    assert b"site-packages" not in data and b"/perception/" not in data
    if source.model in ("fastdepth", "vit_small"):  # it is the exporter's doing
        assert data == to_bytes(open_model(source.model).graph())


def test_tensorrt_10_3_can_parse_it(source: ModelSource) -> None:
    assert check_precisions(source) == {"fp32": [], "fp16": [], "int8": []}


def test_tensorrt_10_3_can_parse_rare_forms() -> None:
    """A head that interpolates, which no listed model has; bottlenecks are convolutions as others are."""
    assert check_precisions(ModelSource("ffnet_18_daaa", SIZE)) == {"fp32": [], "fp16": [], "int8": []}


def test_the_program_runs_without_the_definition(source: ModelSource) -> None:
    program = torch.export.load(io.BytesIO(source.program())).module()
    [frame] = complete(source, [_image(source.config.input_size)])
    got = program(*map(torch.from_numpy, by_name(frame).values()))[0].detach().numpy()
    np.testing.assert_allclose(got, next(iter(next(source.reference([frame])).values())), rtol=1e-5)


def test_mean_and_std_are_in_the_graph() -> None:
    config = registered_models()[0].replace(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    module = FromImage(torch.nn.Identity(), config)
    image = torch.tensor([255, 51, 102], dtype=torch.uint8).reshape(1, 1, 1, 3)
    got = module(image)[0].reshape(3)
    torch.testing.assert_close(got, torch.tensor([1.0, -0.05, 0.2]))


def test_trained_weights_stand_for_their_model(tmp_path: Path) -> None:
    """Built, found again by their path, and stale once they change."""
    torch.manual_seed(1)
    trained = create_model("fastdepth_mobilenet_v2_035", pretrained=False)
    path = tmp_path / "mine.safetensors"
    write_weights(path, trained)
    engines.build(str(path), "onnxruntime", "fp32", size=(64, 64), directory=tmp_path / "engines")
    with engines.load(str(path), size=(64, 64), directory=tmp_path / "engines") as engine:
        frame = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8)
        depth = engine.run(frame)["depth"]
    with torch.no_grad():
        expected = FromImage(trained, model_config("fastdepth_mobilenet_v2_035"))(torch.from_numpy(frame))[0]
    np.testing.assert_allclose(depth, expected.numpy(), rtol=1e-3)
    listed = json.loads(path.with_suffix(".json").read_text())
    listed["fastdepth_mobilenet_v2_035"]["focal"] = [0.9, 1.2]
    path.with_suffix(".json").write_text(json.dumps(listed))
    with pytest.raises(EngineError, match=r"stale: focal was None when it was built and is \(0.9, 1.2\) now"):
        engines.load(str(path), size=(64, 64), directory=tmp_path / "engines")
    write_weights(path, create_model("fastdepth_mobilenet_v2_035", pretrained=False))
    with pytest.raises(EngineError, match="stale.*perception engines build .*mine.safetensors"):
        engines.load(str(path), size=(64, 64), directory=tmp_path / "engines")


def write_weights(path: Path, model: torch.nn.Module) -> None:
    """As training does."""
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    entry = {"weights": path.name, "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps({"fastdepth_mobilenet_v2_035": entry}))


def test_unknown_names_and_impossible_sizes() -> None:
    with pytest.raises(EngineError, match="unknown model 'slowdepth'; available models: fastdepth"):
        ModelSource("slowdepth")
    with pytest.raises(EngineError, match="multiples of 32"):
        ModelSource("fastdepth", (100, 100))

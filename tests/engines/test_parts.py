"""Networks that take more than an image, and of which each part is an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from parted import CONFIG, SIZE, parted_graph

from perception.cli.main import main
from perception.engines import EngineError, build, built_parts, load, load_whole, part_names
from perception.engines.graph import to_bytes, with_outputs
from perception.engines.precision import to_fp16
from perception.engines.source import complete, open_source
from perception.tasks.view_synthesis import typical_inputs

IMAGE = np.full((1, *SIZE, 3), (255, 51, 102), np.uint8)
COLOR = np.array([1.0, 0.2, 0.4], np.float32)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "parted.onnx"
    path.write_bytes(to_bytes(parted_graph()))
    return str(path)


def test_a_part_takes_what_the_parts_before_it_give(model: str) -> None:
    """Its frames hold real fields, of the image itself."""
    given = typical_inputs(CONFIG, 0)
    whole, field, view = (open_source(model, part=part) for part in ("", "field", "view"))
    assert [node.op_type for node in view.graph().graph.node][0] == "Expand" and len(view.graph().graph.node) == 5
    assert (field.config.part, view.config.part) == ("field", "view")
    [frame] = complete(view, [IMAGE])
    assert set(frame) == {"planes", "lines", "pose"}
    np.testing.assert_allclose(frame["planes"].ravel(), COLOR, rtol=1e-5)
    np.testing.assert_allclose(frame["lines"], 1 + given["camera"][:, 4:])
    everything = next(iter(whole.reference(complete(whole, [IMAGE]))))
    for source in (field, view):
        for name, array in next(iter(source.reference(complete(source, [IMAGE])))).items():
            np.testing.assert_array_equal(array, everything[name])
    assert view.of_part("field").config == field.config
    with pytest.raises(EngineError, match="'parted' has no part 'wing'; its parts: field, view"):
        open_source(model, part="wing")


@pytest.mark.parametrize(("target", "precision"), [("openvino", "fp32"), ("onnxruntime", "fp16")])
def test_parts_are_built_loaded_and_run_one_by_one(
    target: str, precision: str, model: str, frames: Path, directory: Path
) -> None:
    with pytest.raises(EngineError, match="parted.onnx is built in parts: field, view; say which"):
        build(model, target, precision, directory=directory, frames=frames)
    names = [
        build(model, target, precision, directory=directory, frames=frames, part=part).name
        for part in ("field", "view")
    ]
    assert names == [f"parted-{part}-32x32-{target}-{precision}.json" for part in ("field", "view")]
    given = typical_inputs(CONFIG, 3)
    with (
        load(model, target, directory=directory, part="field") as field,
        load(model, target, directory=directory, part="view") as view,
    ):
        made = field.run({"image": IMAGE, "camera": given["camera"]})
        seen = view.run({**made, "pose": given["pose"]})
        np.testing.assert_allclose(seen["view"][0, :, 5, 7], COLOR, atol=2e-3)
        np.testing.assert_allclose(seen["depth"][0, 0, 3, 4], 3 + given["pose"].sum(), rtol=2e-3)
        with pytest.raises(EngineError, match=r"given image uint8 of shape .*; accepted is planes float32 of shape"):
            view.run(IMAGE)
        with pytest.raises(EngineError, match="given image uint8 .*accepted is image uint8 of .* camera float32"):
            field.run(IMAGE)
    with pytest.raises(EngineError, match="no engine for"):
        load(model, target, directory=directory)


def test_a_harness_runs_all_parts_as_one(model: str, frames: Path, directory: Path) -> None:
    assert part_names(model, directory=directory) == ["field", "view"]
    for part, precision in (("field", "fp32"), ("view", "fp16")):
        build(model, "onnxruntime", precision, directory=directory, frames=frames, part=part)
    given = {"image": IMAGE, **typical_inputs(CONFIG, 3)}
    with load_whole(model, directory=directory) as whole:
        assert whole.config == CONFIG and [part.config.part for part in whole.parts] == ["field", "view"]
        assert whole.info["model"] == "parted" and whole.info["precision"] == "fp32 and fp16" and whole.trained
        found = whole.run(given)
        assert list(found) == ["planes", "lines", "view", "depth"]
        np.testing.assert_allclose(found["view"][0, :, 5, 7], COLOR, atol=2e-3)
        with pytest.raises(EngineError, match="'parted' was given image uint8.*accepted is image uint8 of .* pose"):
            whole.run(IMAGE)
    with pytest.raises(EngineError, match="engine 'parted' is closed"):
        whole.run(given)
    with pytest.raises(EngineError, match="no engine for"):
        load_whole(model, "openvino", directory=directory)


def test_without_convolutions_there_is_no_int8(model: str, frames: Path, directory: Path) -> None:
    with pytest.raises(EngineError, match="the graph has no convolution, and int8 is for those"):
        build(model, "openvino", "int8", directory=directory, frames=frames, part="view")


def test_inputs_keep_their_type_in_half_precision() -> None:
    session = ort.InferenceSession(to_fp16(parted_graph()).SerializeToString())
    assert [value.type for value in session.get_inputs()] == ["tensor(uint8)", "tensor(float)", "tensor(float)"]
    given = typical_inputs(CONFIG, 1)
    depth = session.run(["depth"], {"image": IMAGE, "camera": given["camera"], "pose": given["pose"]})[0]
    np.testing.assert_allclose(depth[0, 0, 0, 0], 3 + given["pose"].sum(), rtol=2e-3)


def test_an_output_can_be_called_as_something_inside() -> None:
    model = with_outputs(parted_graph(), ["planes", "lines", "float", "depth"])
    assert model.graph.node[0].output == ["float_inside"] and model.graph.node[6].output == ["float"]
    names = [value.name for value in ort.InferenceSession(model.SerializeToString()).get_outputs()]
    assert names == ["planes", "lines", "float", "depth"]


def test_what_is_built_tells_the_parts(model: str, frames: Path, directory: Path) -> None:
    """A robot has neither the definition nor, sometimes, the file."""
    assert built_parts(model, directory) == []
    build(model, "onnxruntime", "fp32", directory=directory, frames=frames, part="view")
    assert built_parts(model, directory) == ["field", "view"]


def test_one_command_builds_all_parts(model: str, frames: Path, directory: Path, capsys) -> None:
    command = ["engines", "build", model, "--target", "onnxruntime", "--precision", "fp32", "--frames", str(frames)]
    assert main([*command, "--directory", str(directory)]) == 0
    assert sorted(path.stem for path in directory.glob("*.json")) == [
        f"parted-{part}-32x32-onnxruntime-fp32" for part in ("field", "view")
    ]
    capsys.readouterr()
    assert main([*command, "--directory", str(directory), "--if-needed"]) == 0
    told = capsys.readouterr().out
    assert "parted field is built: onnxruntime" in told and "parted view is built: onnxruntime" in told

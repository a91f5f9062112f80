"""Teachers: what they say, in which camera's metres, and what of it reaches the student."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

import onnx  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from perception.evaluation.frames import RGBDFrame  # noqa: E402
from perception.models import create_model, model_config  # noqa: E402
from perception.tasks.geometry import Camera  # noqa: E402
from perception.training.distillation import (  # noqa: E402
    Distillation,
    Distiller,
    MetricTeacher,
    RelativeFrames,
    RelativeTeacher,
)
from perception.training.losses import affine_invariant_loss, log_depth_loss, output_loss  # noqa: E402

FOCAL = (0.92, 1.22)
MODEL = "fastdepth_mobilenet_v2_035"
DATA = Path(os.environ.get("PERCEPTION_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with teacher.safetensors as training writes it."""
    folder = tmp_path_factory.mktemp("data")
    torch.manual_seed(5)
    weights = folder / "teacher.safetensors"
    save_file({key: value.contiguous() for key, value in create_model(MODEL).state_dict().items()}, weights)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    entry = {"weights": weights.name, "weights_sha256": sha256, "focal": FOCAL, "data_licence": "none", "metrics": {}}
    weights.with_suffix(".json").write_text(json.dumps({MODEL: entry}))
    return folder


def student() -> torch.nn.Module:
    torch.manual_seed(6)
    return create_model("fastdepth_pruned", pretrained=False)


def onnx_teacher(path: Path, channels_last: bool) -> Path:
    """Depth = 1 + red, from an image of 8 x 16."""
    shape = [1, 8, 16, 3] if channels_last else [1, 3, 8, 16]
    axis = 3 if channels_last else 1
    nodes = [
        helper.make_node("Gather", ["image", "first"], ["red"], axis=axis),
        helper.make_node("Add", ["red", "one"], ["depth"]),
    ]
    constants = [
        helper.make_tensor("first", TensorProto.INT64, [1], [0]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    depth = helper.make_tensor_value_info("depth", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "teacher", [image], [depth], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def frame(seed: int = 0) -> RGBDFrame:
    """Red grows from left to right."""
    rgb = np.random.default_rng(seed).integers(0, 255, (32, 64, 3), dtype=np.uint8)
    rgb[..., 0] = np.arange(64) * 4
    return RGBDFrame(rgb, np.full((32, 64), 3.0, np.float32), Camera(64, 32, 60, 60, 32, 16), name=str(seed))


def test_metric_teacher_is_its_network_with_its_own_size_and_normalisation(data: Path) -> None:
    images = torch.rand(2, 3, *model_config(MODEL).input_size)
    metres, features = MetricTeacher(str(data / "teacher.safetensors"), FOCAL)(images)
    torch.manual_seed(5)
    network = create_model(MODEL)
    with torch.no_grad():
        expected = network((images - 0.5) / 0.5)
        assert torch.allclose(metres, expected, rtol=1e-4) and expected.std() > 0
        for feature, own in zip(features, network.encoder((images - 0.5) / 0.5), strict=True):
            torch.testing.assert_close(feature, own, rtol=1e-3, atol=1e-3 * own.abs().max().item())
    small, _ = MetricTeacher(str(data / "teacher.safetensors"), FOCAL)(images[..., ::2, ::2])
    assert small.shape == metres.shape and not small.requires_grad


def test_metres_follow_the_lens_of_the_images(data: Path) -> None:
    """Behind twice the focal length, what looks alike is twice as far."""
    images = torch.rand(1, 3, 64, 64)
    near, far = (MetricTeacher(str(data / "teacher.safetensors"), focal)(images)[0] for focal in (FOCAL, (1.84, 2.44)))
    assert torch.allclose(far, 2 * near, rtol=1e-5)


def test_only_trained_depth_models_teach() -> None:
    with pytest.raises(ValueError, match=f"{MODEL} cannot teach metric depth.*safetensors"):
        MetricTeacher(MODEL, FOCAL)


def test_distiller_adds_what_its_settings_weigh(data: Path) -> None:
    images, prediction = torch.rand(2, 3, 64, 64), 1 + torch.rand(2, 1, 64, 64)
    depths = torch.zeros(2, 1, 64, 64)
    depths[0] = 2.0
    depths[1] = -1 - torch.rand(1, 64, 64)
    metres, _ = MetricTeacher(str(data / "teacher.safetensors"), FOCAL)(images)
    output = output_loss(prediction, metres)
    relative = affine_invariant_loss(1 / prediction[1:], -depths[1:], depths[1:] < 0)
    settings = Distillation(teacher=str(data / "teacher.safetensors"), output=0.3, relative=0.7)
    loss = Distiller(student(), settings, FOCAL)(images, depths, prediction)
    assert loss.item() == pytest.approx((0.3 * output + 0.7 * relative).item(), rel=1e-5) and relative > 0.1
    alone = Distiller(student(), Distillation(relative=0.7), FOCAL)
    assert alone(images, depths, prediction).item() == pytest.approx(0.7 * relative.item(), rel=1e-5)
    assert alone(images, depths.clamp_min(0), prediction).item() == 0


def test_relative_depth_is_unknown_to_metric_losses() -> None:
    depths = torch.full((1, 1, 8, 8), 2.0)
    prediction = depths.clone()
    prediction[..., :4], depths[..., :4] = 7.0, -1.5
    assert log_depth_loss(prediction, depths).item() == 0


def test_feature_distillation_trains_adaptors_and_student_and_hides_the_teacher(data: Path) -> None:
    model = student().train()
    distiller = Distiller(model, Distillation(teacher=str(data / "teacher.safetensors"), output=0, features=1), FOCAL)
    teacher = create_model(str(data / "teacher.safetensors"))
    pairs = list(zip(model.encoder.channels[-3:], teacher.encoder.channels[-3:], strict=True))
    assert [(layer.in_channels, layer.out_channels) for layer in distiller.imitation.adaptors] == pairs
    assert {name.split(".")[0] for name in distiller.state_dict()} == {"imitation"}
    assert len(list(distiller.parameters())) == 6
    images = torch.rand(2, 3, 64, 64)
    optimizer = torch.optim.Adam([*model.encoder.parameters(), *distiller.parameters()], lr=2e-3)
    losses = []
    for _ in range(5):
        loss = distiller(images, torch.zeros(2, 1, 64, 64), model(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    distiller.load_state_dict(copy.deepcopy(distiller.state_dict()))
    distiller.remove()
    assert not model.encoder._forward_hooks
    copy.deepcopy(model)


@pytest.mark.parametrize("channels_last", [True, False])
def test_relative_teacher_gives_inverse_depth_of_either_form(tmp_path: Path, channels_last: bool) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed; it runs relative teachers")
    path = onnx_teacher(tmp_path / "teacher.onnx", channels_last)
    rgb = frame().rgb
    red = rgb[..., 0].reshape(8, 4, 16, 4).mean((1, 3)) / 255
    depth = RelativeTeacher(path)(rgb)
    inverse = 1 / (1 + red)
    assert depth.shape == (8, 16) and np.allclose(
        depth, (inverse - inverse.min()) / (inverse.max() - inverse.min()), atol=1e-2
    )
    plain = RelativeTeacher(path, "inverse")
    assert np.allclose(plain(rgb), (red - red.min()) / (red.max() - red.min()), atol=1e-2)
    assert plain.key != RelativeTeacher(path).key == RelativeTeacher(path).key


def test_relative_teacher_says_what_it_takes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent.tflite does not exist; give a .tflite or .onnx"):
        RelativeTeacher(tmp_path / "absent.tflite")
    pytest.importorskip("openvino", reason="openvino is not installed; it runs relative teachers")
    path = onnx_teacher(tmp_path / "teacher.onnx", True)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, path)
    with pytest.raises(ValueError, match="takes one image of a fixed size"):
        RelativeTeacher(path)(frame().rgb)


def test_relative_frames_are_computed_once_and_resumed(tmp_path: Path) -> None:
    asked = []

    class Teacher(RelativeTeacher):
        def __init__(self) -> None:
            self.key = "k"

        def __call__(self, rgb: np.ndarray) -> np.ndarray:
            asked.append(rgb)
            if len(asked) == 3:
                raise KeyboardInterrupt
            return np.linspace(1, 0, 16, dtype=np.float32) * np.ones((8, 1), np.float32)

    frames = [frame(seed) for seed in range(4)]
    with pytest.raises(KeyboardInterrupt):
        RelativeFrames(frames, Teacher(), tmp_path)
    relative = RelativeFrames(frames, Teacher(), tmp_path)
    assert len(asked) == 5 and len(relative) == 4 and len(list((tmp_path / "k").glob("*.npy"))) == 4
    taken = relative[1]
    assert taken.rgb is frames[1].rgb and taken.camera is None and taken.depth.shape == (32, 64)
    assert taken.depth.dtype == np.float32 and -2 <= taken.depth.min() < -1.9 and -1.1 < taken.depth.max() <= -1
    assert (np.diff(taken.depth, axis=1) >= 0).all(), "nearest on the left, as the teacher says"


@pytest.mark.skipif(not (DATA / "weights").is_dir(), reason=f"{DATA}/weights is absent")
def test_pydnet_sees_that_the_floor_is_near() -> None:
    """On a frame of the training set: inverse depth in the right direction, and close to it up to scale and shift."""
    pytest.importorskip("openvino", reason="openvino is not installed; it runs relative teachers")
    from perception.evaluation.datasets import open_dataset

    frame = open_dataset(DATA / "nyu_depth_v2", "train")[700]
    relative = RelativeTeacher(DATA / "weights" / "optimized_pydnet++.tflite", threads=1)(frame.rgb)
    assert relative.shape == (448, 640) and relative.min() == 0 and relative.max() == 1
    rows, columns = (np.arange(0, size, 8) for size in relative.shape)
    depth = frame.depth[np.ix_(rows * frame.depth.shape[0] // 448, columns * frame.depth.shape[1] // 640)]
    assert np.corrcoef(relative[np.ix_(rows, columns)].ravel(), 1 / depth.ravel())[0, 1] > 0.8

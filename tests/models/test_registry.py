"""Every registered model is tested here, without a test of its own being written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; models are defined in it")

from safetensors.torch import save_file  # noqa: E402

from perception.engines import EngineError  # noqa: E402
from perception.engines.export import ModelSource  # noqa: E402
from perception.models import count_macs, count_parameters, create_model, list_models, model_config  # noqa: E402
from perception.models.registry import WEIGHTS, load_weights, register_model  # noqa: E402
from perception.tasks import get_task, typical_inputs  # noqa: E402
from perception.tasks.config import ModelConfig  # noqa: E402


@pytest.mark.parametrize("name", list_models())
def test_every_model_keeps_its_promises(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", lambda _, x: x)  # on meta it takes most of the time
    config = model_config(name)
    get_task(config.task)
    assert ModelConfig.from_json(config.to_json()) == config
    assert config.licence
    model = create_model(name)
    assert not model.training
    shapes = [(1, 3, *config.input_size), *(tensor.shape for tensor in config.more_inputs)]
    result = model.to("meta")(*(torch.rand(shape, device="meta") for shape in shapes))
    tensors = result if isinstance(result, tuple) else (result,)
    assert [tuple(tensor.shape) for tensor in tensors] == [output.shape for output in config.outputs]
    assert [str(tensor.dtype) for tensor in tensors] == [f"torch.{output.dtype}" for output in config.outputs]


@pytest.mark.parametrize("name", list_models())
def test_every_model_learns(name: str) -> None:
    """A gradient reaches every parameter that is not there for checkpoints alone."""
    side = 2 * max(32, model_config(name).size_divisor)
    model = create_model(name, pretrained=False, input_size=(side, side)).train()
    config = model_config(name, (side, side))
    more = typical_inputs(config, 0).values() if config.more_inputs else ()
    result = model(torch.rand(2, 3, side, side), *(torch.from_numpy(given).repeat_interleave(2, 0) for given in more))
    for tensor in result if isinstance(result, tuple) else (result,):
        assert torch.isfinite(tensor).all()
        (tensor - 1).square().mean().backward(retain_graph=True)
    missing = [key for key, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not [key for key in missing if "unused" not in key]


@pytest.mark.parametrize("name", [name for name in list_models() if model_config(name).weights])
def test_shipped_weights_are_small_half_precision_and_described(name: str) -> None:
    config = model_config(name)
    path = WEIGHTS / config.weights
    assert path.stat().st_size < 20e6
    assert (WEIGHTS / f"{path.stem}.md").is_file(), "a weights file needs its model card"
    assert config.data_licence and config.metrics


def test_other_sizes_need_the_divisor() -> None:
    assert model_config("fastdepth", (128, 160)).outputs[0].shape == (1, 1, 128, 160)
    assert model_config("fastdepth_mobilenet_v2", (128, 160)).outputs[0].shape == (1, 1, 64, 80)
    with pytest.raises(ValueError, match="100x160.*multiples of 32"):
        model_config("fastdepth", (100, 160))


def test_a_network_for_one_size_is_built_for_it(tmp_path: Path) -> None:
    """Whichever is asked for without weights; only theirs with weights."""
    with pytest.raises(ValueError, match="100x160.*multiples of 80"):
        model_config("ugdc_compact", (100, 160))
    model = create_model("ugdc_compact", pretrained=False, input_size=(80, 160), width=8)
    image = torch.rand(1, 3, 80, 160)
    assert model(image).shape == model_config("ugdc_compact", (80, 160)).outputs[0].shape
    path = tmp_path / "mine.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = {"weights": "x", "weights_sha256": sha256, "input_size": [80, 160], "options": {"width": 8}}
    path.with_suffix(".json").write_text(json.dumps({"ugdc_compact": entry}))
    assert model_config(str(path)).input_size == (80, 160)
    assert torch.equal(create_model(str(path))(image), model(image))
    assert torch.equal(create_model(str(path), input_size=(80, 160))(image), model(image))
    with pytest.raises(ValueError, match="mine.safetensors' are for 80x160, not for 80x80.*train one"):
        create_model(str(path), input_size=(80, 80))
    with pytest.raises(EngineError, match="not for 80x80"):
        ModelSource(str(path), (80, 80))
    assert create_model(str(path), pretrained=False, input_size=(80, 80))(image[..., :80]).shape == (1, 3, 80, 80)


def test_unknown_model_names_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown model 'fastdeep'.*fastdepth_pruned"):
        create_model("fastdeep")


def test_two_models_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="'fastdepth' is registered already"):
        register_model(model_config("fastdepth"))(torch.nn.Identity)


def test_weights_are_checked(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 1)
    path = tmp_path / "linear.safetensors"
    save_file({key: value.half() for key, value in layer.state_dict().items()}, path)
    other = torch.nn.Linear(2, 1)
    load_weights(other, path)
    assert torch.allclose(other.weight, layer.weight, atol=1e-3) and other.weight.dtype == torch.float32
    with pytest.raises(ValueError, match="SHA-256"):
        load_weights(other, path, "0" * 64)
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_weights(other, path)
    with pytest.raises(ValueError, match="do not exist"):
        load_weights(other, tmp_path / "absent.safetensors")


def test_a_trained_file_stands_for_its_model(tmp_path: Path) -> None:
    """With the widths that pruning gave it, wherever it lies."""
    widths = create_model("fastdepth_mobilenet_v2_035", pretrained=False).widths
    widths["decoder"][4] = 8
    narrow = create_model("fastdepth_mobilenet_v2_035", pretrained=False, widths=widths)
    path = tmp_path / "mine.safetensors"
    save_file({key: value.contiguous() for key, value in narrow.state_dict().items()}, path)
    with pytest.raises(ValueError, match="mine.json does not exist"):
        create_model(str(path))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = {"weights": "x", "weights_sha256": sha256, "focal": [0.9, 1.2], "options": {"widths": widths}}
    path.with_suffix(".json").write_text(json.dumps({"fastdepth_mobilenet_v2_035": entry}))
    config = model_config(str(path))
    assert config.name == "fastdepth_mobilenet_v2_035" and config.weights == str(path) and config.focal == (0.9, 1.2)
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(create_model(str(path))(image), narrow.eval()(image))


def test_list_of_weights_can_be_read_without_torch() -> None:
    for name, entry in json.loads((WEIGHTS / "weights.json").read_text()).items():
        assert name in list_models() and {"weights", "weights_sha256", "data_licence"} <= entry.keys()


def test_counting() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.Flatten(), torch.nn.Linear(128, 5)
    )
    assert count_parameters(model) == 3 * 8 * 9 + 8 + 128 * 5 + 5
    assert count_macs(model, (8, 8)) == 3 * 8 * 9 * 16 + 128 * 5
    assert count_macs(torch.nn.ConvTranspose2d(3, 4, 2, 2), (8, 8)) == 64 * 3 * 4 * 4

"""CIFAR's residual networks: counts of the paper's table 6, the shortcut without parameters, weights from elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'perception[torch]'")

from perception.models.cifar_resnet import LAYERS, CifarBlock  # noqa: E402
from perception.models.registry import count_macs, count_parameters, create_model, model_config  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}


@pytest.mark.parametrize("layers", LAYERS)
def test_parameters_and_layers_are_the_papers(layers: int) -> None:
    with torch.device("meta"):
        model = create_model(f"classifier_resnet{layers}")
    assert count_parameters(model) == PARAMETERS[layers]
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    assert sum(isinstance(module, kinds) for module in model.modules()) == layers


def test_macs_of_the_smallest() -> None:
    with torch.device("meta"):
        assert count_macs(create_model("classifier_resnet20"), (32, 32)) == 40_551_040


def test_shortcut_takes_every_second_pixel_and_fills_up_with_zeros() -> None:
    block = CifarBlock(16, 32, 2).eval()
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(1, 16, 5, 6)
    answer = block(x)
    assert answer.shape == (1, 32, 3, 3)
    assert torch.equal(answer[:, 8:24], x[:, :, ::2, ::2])
    assert not answer[:, :8].any() and not answer[:, 24:].any()


def test_weights_of_others_are_imported(tmp_path: Path) -> None:
    """Their tensors are called otherwise, come from a saved DataParallel, and stand for the model afterwards."""
    torch.manual_seed(3)
    theirs = create_model("classifier_resnet20", pretrained=False)
    for name, buffer in theirs.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.uniform_(0.5, 1.5)
    state = {f"module.their.{key}": value for key, value in theirs.state_dict().items() if "num_batches" not in key}
    torch.save({"state_dict": state, "best": 91.7}, tmp_path / "their.th")

    out = tmp_path / "new" / "teacher.safetensors"
    command = [sys.executable, str(ROOT / "tools/import_weights.py"), "classifier_resnet20", str(tmp_path / "their.th")]
    done = subprocess.run(
        [*command, str(out), "--data-licence", "CIFAR-10"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert model_config(str(out)).input_size == (32, 32)
    assert json.loads(out.with_suffix(".json").read_text())["classifier_resnet20"]["data_licence"] == "CIFAR-10"
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        ours = create_model(str(out))
        torch.testing.assert_close(ours(image), theirs(image), atol=2e-2, rtol=1e-2)  # kept in half precision
    refused = subprocess.run(
        [*command[:2], "classifier_resnet32", *command[3:], str(out), "--data-licence", "x"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode != 0 and "it is of another network" in refused.stderr

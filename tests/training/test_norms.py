"""BatchNorms that convolutions absorb."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from torch import nn  # noqa: E402

from perception.models import create_model  # noqa: E402
from perception.training.norms import absorb_norms, refresh_norms  # noqa: E402


def test_a_network_answers_the_same_without_its_norms() -> None:
    torch.manual_seed(0)
    model, images = create_model("classifier_efficientnet_lite0", False), torch.rand(4, 3, 64, 64)
    refresh_norms(model, images)
    model.eval()
    plain = copy.deepcopy(model)
    absorb_norms(plain)
    with torch.no_grad():
        torch.testing.assert_close(plain(images), model(images), rtol=1e-3, atol=1e-4)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in plain.modules())


def test_norms_stay_that_are_not_right_behind_a_convolution() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)).eval()
    convolution = model[1]
    absorb_norms(model)
    assert isinstance(model[0], nn.BatchNorm2d) and model[1] is convolution and isinstance(model[3], nn.BatchNorm2d)

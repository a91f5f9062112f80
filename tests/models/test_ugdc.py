"""UGDC against the figures of its repository, and what its parts compute."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; models are defined in it")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from perception.models import count_macs, count_parameters, create_model, model_config  # noqa: E402
from perception.models.layers import DropPath  # noqa: E402
from perception.models.ugdc import UGDC, Exposure, GlobalDynamicConvolution  # noqa: E402
from perception.tasks.image import to_light, to_signal  # noqa: E402

FULL, SMALL = (400, 640), (160, 240)
COUNTS = {(64, FULL): 17_584_711, (32, FULL): 4_722_983, (64, SMALL): 16_644_679, (32, SMALL): 4_252_967}
"""Parameters by width and size: 64 are TM and PM, 32 EM."""
GMACS = {64: (157.2, 6.08), 32: (41.1, 3.04)}
"""At 400x640: of layers, and of the kernels that are made of the image."""
DYNAMIC = {
    (256, (50, 80)): 102_657, (512, (25, 40)): 82_433, (1024, (50, 80)): 410_625, (512, (100, 160)): 696_833,
    (128, (50, 80)): 51_329, (256, (25, 40)): 41_217, (512, (50, 80)): 205_313, (256, (100, 160)): 348_417,
}  # fmt: skip
"""Parameters by channels and size."""


@pytest.mark.parametrize(("width", "size"), COUNTS)
def test_parameters(width: int, size: tuple[int, int]) -> None:
    assert count_parameters(UGDC(width, size)) == COUNTS[width, size]


@pytest.mark.parametrize("width", GMACS)
def test_multiply_accumulates(width: int) -> None:
    with torch.device("meta"):
        model, image = UGDC(width, FULL).eval(), torch.zeros(1, 3, *FULL)
    with FlopCounterMode(display=False) as counter:
        model(image)
    counted = {operator.__name__: flops / 2e9 for operator, flops in counter.get_flop_counts()["Global"].items()}
    static, dynamic = GMACS[width]
    assert counted == {"convolution": pytest.approx(static, abs=0.05), "bmm": pytest.approx(dynamic, abs=0.005)}


@pytest.mark.parametrize(("channels", "size"), DYNAMIC)
def test_parameters_of_a_dynamic_convolution(channels: int, size: tuple[int, int]) -> None:
    patches = size[0] * size[1] // 25
    assert 81 * channels + 2 * patches * channels + 1 == DYNAMIC[channels, size]
    assert count_parameters(GlobalDynamicConvolution(channels, size)) == DYNAMIC[channels, size]


def test_a_dynamic_convolution_is_a_convolution_with_kernels_of_each_image() -> None:
    torch.manual_seed(0)
    layer = GlobalDynamicConvolution(8, (10, 15)).eval()
    layer.bias.data.fill_(0.3)
    x = torch.randn(3, 8, 10, 15)
    kernels = F.conv2d(x, layer.patches.weight, layer.patches.bias, 5, groups=8) + layer.places
    kernels = F.gelu(F.layer_norm(kernels.permute(0, 2, 3, 1), (8,), layer.norm.weight, layer.norm.bias, 1e-6))
    keys = layer.keys(x)
    for index in range(3):
        own = kernels[index].reshape(6, 8, 1, 1)
        seen = F.conv2d(keys[index : index + 1], own) + 0.3
        expected = x[index] + layer.mix(seen)[0]
        torch.testing.assert_close(layer(x)[index], expected, rtol=1e-4, atol=1e-5)


def test_an_untrained_dynamic_convolution_tells_places_apart() -> None:
    layer = GlobalDynamicConvolution(4, (10, 10))
    assert 0.5 < float(layer.places.detach().std()) < 1.5 and layer.places.shape == (1, 4, 2, 2)
    assert (layer.bias == 0).all()


def test_drop_path_drops_whole_samples_in_training_only() -> None:
    torch.manual_seed(0)
    layer, x = DropPath(0.2), torch.ones(5000, 2, 3)
    values = layer(x).flatten(1)
    assert (values == values[:, :1]).all() and set(values[:, 0].tolist()) == {0.0, 1.25}
    assert values.mean() == pytest.approx(1, abs=0.03)
    assert layer.eval()(x) is x and DropPath(0.0)(x) is x


def test_what_is_enhanced_is_subtracted_in_normalised_space() -> None:
    torch.manual_seed(0)
    model = create_model("ugdc_compact", pretrained=False, input_size=(80, 80), exposes=False)
    x = torch.randn(1, 3, 80, 80)
    coarse, final = model.steps(x)
    torch.testing.assert_close(coarse, model.predict(x))
    torch.testing.assert_close(final, coarse - model.enhance(coarse))
    config = model_config("ugdc_compact")
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (config.mean, config.std))
    torch.testing.assert_close(model(x), (final * std + mean).clamp(0, 1))
    assert [step.shape for step in model.train()(x)] == [x.shape] * 2


def test_an_exposure_takes_dim_light_to_the_mean_that_it_learned() -> None:
    """As in `perception.tasks.darkening`, whose curve it is; a bright image stays, and so does a black one."""
    expose = Exposure()
    levels = np.random.default_rng(0).integers(0, 40, (2, 3, 20, 30), np.uint8)
    image = torch.from_numpy(levels).float() / 255
    exposed = expose(image)
    for one, before in zip(exposed.detach().numpy(), image.numpy(), strict=True):
        gain = 0.18 / to_light(before).mean()
        assert one == pytest.approx(to_signal(np.minimum(to_light(before) * gain, 1)), abs=1e-5)
    assert exposed.max() < 1 and to_light(exposed.detach().numpy()).mean() == pytest.approx(0.18, rel=1e-4)
    exposed.mean().backward()
    assert expose.light.grad > 0
    bright = torch.full((1, 3, 4, 4), 0.7)
    torch.testing.assert_close(expose(bright), bright)
    assert (expose(torch.zeros(1, 3, 4, 4)) == 0).all()
    faint = torch.full((1, 3, 4, 4), 1 / 255)
    assert to_light(expose(faint).detach().numpy()).max() == pytest.approx(min(0.18, 256 / 255 / 12.92), rel=1e-3)


def test_the_compact_network_says_what_an_exposure_leaves() -> None:
    torch.manual_seed(0)
    model = create_model("ugdc_compact", pretrained=False, input_size=(80, 80))
    mean, std = model.mean, model.std
    image = torch.rand(1, 3, 80, 80) * 0.1
    exposed = (model.expose(image) - mean) / std
    coarse, final = model.steps((image - mean) / std)
    torch.testing.assert_close(coarse, exposed + model.predict(exposed), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(final, coarse - model.enhance(coarse))
    with torch.device("meta"):
        assert create_model("ugdc", pretrained=False).expose is None, "as published"


def test_the_troublemaker_is_the_predicting_network_alone() -> None:
    with torch.device("meta"):
        both, alone = (create_model("ugdc", pretrained=False, refines=refines) for refines in (True, False))
    assert count_parameters(both) == COUNTS[64, FULL] + COUNTS[32, FULL]
    assert count_parameters(alone) == COUNTS[64, FULL]
    small = create_model("ugdc", pretrained=False, input_size=(80, 80), width=8, refines=False)
    (dark,) = small.train()(torch.rand(2, 3, 80, 80))
    assert dark.shape == (2, 3, 80, 80)


def test_the_compact_one_is_for_robots() -> None:
    assert count_macs(create_model("ugdc_compact", pretrained=False), model_config("ugdc_compact").input_size) <= 3e9


def test_stages() -> None:
    model = UGDC(64, SMALL)
    assert [block[-1][0].out_channels for block in (model.first, *model.down)] == [64, 128, 256, 512, 1024]
    assert [layer.in_channels for layer in model.enlarge] == [1024, 512, 256, 128]
    assert all(layer.out_channels * 2 == layer.in_channels and layer.bias is not None for layer in model.enlarge)
    kinds = [type(block[0]) for block in (*model.down, *model.up)]
    dynamic = [kind is GlobalDynamicConvolution for kind in kinds]
    assert dynamic == [False, False, True, True, True, True, False, False]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) == 18

"""Encoders against the counts of their papers, and their paddings against TensorFlow's rule."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; models are defined in it")

from torch import nn  # noqa: E402

from perception.models import count_macs, count_parameters, create_model, model_config  # noqa: E402
from perception.models.efficientnet_lite import efficientnet_lite0, efficientnet_lite2  # noqa: E402
from perception.models.inverted_residual import ImageClassifier, InvertedResidual, round_width  # noqa: E402
from perception.models.layers import SameConv2d  # noqa: E402
from perception.models.mobilenet_v1 import MobileNetV1  # noqa: E402
from perception.models.mobilenet_v2 import mobilenet_v2  # noqa: E402
from perception.models.registry import find_encoder, register_encoder  # noqa: E402

CLASSIFIERS = [  # encoder, parameters with 1000 classes, MACs at 224x224, parameters alone, channels
    (lambda: mobilenet_v2(0.35), 1_677_128, 59_285_808, 250_000, (8, 8, 16, 32, 112)),
    (lambda: mobilenet_v2(0.5), 1_968_680, 97_131_840, 480_000, (8, 16, 16, 48, 160)),
    (lambda: mobilenet_v2(), 3_504_872, 300_774_272, 1_812_000, (16, 24, 32, 96, 320)),
    (lambda: efficientnet_lite0(), 4_652_008, None, None, (16, 24, 40, 112, 320)),
    (lambda: efficientnet_lite2(), 6_092_072, None, None, (16, 24, 48, 120, 352)),
]
ENCODERS = {
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_lite0": efficientnet_lite0,
    "efficientnet_lite2": efficientnet_lite2,
}


@pytest.mark.parametrize(("build", "parameters", "macs", "alone", "channels"), CLASSIFIERS)
def test_counts(build, parameters: int, macs: int | None, alone: int | None, channels: tuple[int, ...]) -> None:
    encoder = build()
    assert encoder.channels == channels
    classifier = ImageClassifier(encoder)
    assert count_parameters(classifier) == parameters
    assert macs in (None, count_macs(classifier, (224, 224)))
    assert alone is None or count_parameters(encoder) == pytest.approx(alone, abs=500)
    assert classifier(torch.rand(2, 3, 64, 64)).shape == (2, 1000)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_features_have_their_strides_and_channels(name: str, padding: str) -> None:
    encoder = find_encoder(name).build(padding=padding).eval()
    features = encoder(torch.rand(1, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(encoder.channels, (2, 4, 8, 16, 32), strict=True)
    ]
    strided = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d) and layer.stride[0] > 1]
    assert len(strided) == 5 and all(isinstance(layer, SameConv2d) == (padding == "same") for layer in strided)


@pytest.mark.parametrize("name", ENCODERS)
def test_widths_build_an_encoder_of_the_same_shapes(name: str) -> None:
    build = find_encoder(name).build
    encoder = build()
    again = build(widths=encoder.widths)
    assert [p.shape for p in again.parameters()] == [p.shape for p in encoder.parameters()]


@pytest.mark.parametrize("kernel", [3, 5])
def test_same_padding_is_tensorflows(kernel: int) -> None:
    """Of an even size the first window starts at the image's own corner (kernel 3) and the odd zeros come last."""
    layer = SameConv2d(1, 1, kernel, stride=2, bias=False)
    nn.init.constant_(layer.weight, 0.0)
    layer.weight.data[0, 0, 0, 0] = 1  # the output is what lies under the window's top left corner
    image = torch.arange(1.0, 65).reshape(1, 1, 8, 8)
    before = (kernel - 2) // 2
    expected = torch.zeros(4, 4)
    expected[before:, before:] = image[0, 0, before : 8 - before : 2, before : 8 - before : 2]
    assert torch.equal(layer(image)[0, 0], expected)
    assert layer(torch.rand(1, 1, 7, 9)).shape == (1, 1, 4, 5)


def test_widths_are_rounded_as_published() -> None:
    assert [round_width(width) for width in (11.2, 8.4, 22.4, 33.6, 5.6, 12.0)] == [16, 8, 24, 32, 8, 16]


def test_residual_blocks_are_those_of_the_table() -> None:
    blocks = [layer for layer in mobilenet_v2().features if isinstance(layer, InvertedResidual)]
    assert sum(block.residual for block in blocks) == 10
    widths = mobilenet_v2().widths
    widths["blocks"][4][1] = widths["blocks"][3][1] = widths["blocks"][5][1] = 64  # now as wide as the next stage
    narrow = find_encoder("mobilenet_v2").build(widths=widths)
    assert sum(layer.residual for layer in narrow.features if isinstance(layer, InvertedResidual)) == 10


def test_encoders_by_name() -> None:
    with pytest.raises(ValueError, match="unknown encoder 'vgg'; available encoders: .*mobilenet_v2"):
        find_encoder("vgg")
    with pytest.raises(ValueError, match="'mobilenet_v2' is registered already"):
        register_encoder("mobilenet_v2")(nn.Identity)


def test_any_encoder_carries_the_depth_decoder() -> None:
    for name in ENCODERS:
        from perception.models.fastdepth import FastDepth

        model = FastDepth(find_encoder(name).build(), (32, 24, 16, 16, 8), lateral=True).eval()
        assert model(torch.rand(1, 3, 64, 96)).shape == (1, 1, 32, 48)


def test_lateral_networks_stay_within_the_budget() -> None:
    for name in ("fastdepth_mobilenet_v2", "fastdepth_efficientnet_lite0"):
        assert count_macs(create_model(name, pretrained=False), model_config(name).input_size) <= 0.75e9

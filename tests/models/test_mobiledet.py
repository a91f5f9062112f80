"""MobileDets with SSDLite against the counts of their configurations, and their anchors."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; models are defined in it")

from torch import nn  # noqa: E402

from perception.models import count_macs, count_parameters, create_model, model_config  # noqa: E402
from perception.models.layers import SameConv2d  # noqa: E402
from perception.models.registry import find_encoder  # noqa: E402

COUNTS = {  # with BatchNorm's statistics, GMAC, and without them: encoder, extra maps, class and box predictors
    "mobiledet_cpu": (4_205_423, 0.444, 3_006_440, 366_144, 745_323, 47_148),
    "mobiledet_edgetpu": (4_196_095, 1.533, 2_777_040, 427_584, 885_819, 56_100),
    "mobiledet_dsp": (7_159_343, 2.816, 5_839_952, 390_720, 819_243, 52_164),
    "mobiledet_gpu": (13_109_151, 5.073, 11_689_920, 427_584, 894_907, 56_836),
}
CODER = (10.0, 10.0, 5.0, 5.0)
"""Of ty, tx, th, tw."""
ANCHORS = (  # of each map its grid, which is square, and scale and aspect of a place's anchors in their order
    (20, ((0.1, 1), (0.2, 2), (0.2, 0.5))),
    (10, ((0.35, 1), (0.35, 2), (0.35, 0.5), (0.35, 3), (0.35, 0.3333), (0.41833, 1))),
    (5, ((0.5, 1), (0.5, 2), (0.5, 0.5), (0.5, 3), (0.5, 0.3333), (0.57009, 1))),
    (3, ((0.65, 1), (0.65, 2), (0.65, 0.5), (0.65, 3), (0.65, 0.3333), (0.72111, 1))),
    (2, ((0.8, 1), (0.8, 2), (0.8, 0.5), (0.8, 3), (0.8, 0.3333), (0.87178, 1))),
    (1, ((0.95, 1), (0.95, 2), (0.95, 0.5), (0.95, 3), (0.95, 0.3333), (0.97468, 1))),
)
RESIDUALS = {  # of the blocks at strides 2, 4, 8, 16 and 32: which one adds what came in
    "mobiledet_cpu": ("-", "-", "-+++", "-+++-+++", "-+++-"),
    "mobiledet_edgetpu": ("-", "-+++", "-+++", "-+++-+++", "-+++-"),
    "mobiledet_dsp": ("-", "-+++", "-+++", "-+++-+++", "-+++-"),
    "mobiledet_gpu": ("-", "-+++", "-+++", "-+++-+++", "-+++-"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str) -> None:
    total, gmac, *parts = COUNTS[name]
    model = create_model(name, pretrained=False)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert count_parameters(model) + sum(2 * norm.num_features for norm in norms) == total
    assert round(count_macs(model, (320, 320)) / 1e9, 3) == gmac
    assert [count_parameters(part) for part in (model.encoder, model.extra, model.scores, model.boxes)] == parts


@pytest.mark.parametrize("name", COUNTS)
def test_codes_are_read_as_published(name: str) -> None:
    """Anchors one after the other, columns, rows, maps; a code moves centres and lets sizes grow by its share."""
    rows = [
        ((column + 0.5) / side, (row + 0.5) / side, scale * math.sqrt(aspect), scale / math.sqrt(aspect))
        for side, shapes in ANCHORS
        for row in range(side)
        for column in range(side)
        for scale, aspect in shapes
    ]
    decoder = model_config(name).decoder
    assert len(rows) == 2034 and decoder.anchors == pytest.approx(np.array(rows), abs=1e-5)
    assert decoder.coder == CODER and decoder.score == "sigmoid" and decoder.background
    x, y, w, h = decoder.anchors.T
    steps = np.array([0.5, -0.25, math.log(2), math.log(3)])
    outputs = {"boxes": np.tile(steps * CODER, (1, 2034, 1)), "scores": np.zeros((1, 2034, 91))}
    boxes = decoder.boxes(outputs, (320, 320), np.arange(2034)) / 320
    middle_x, middle_y = x - 0.25 * w, y + 0.5 * h
    expected = middle_x - 1.5 * w, middle_y - h, middle_x + 1.5 * w, middle_y + h
    assert boxes == pytest.approx(np.stack(expected, 1), abs=1e-4)


@pytest.mark.parametrize("name", COUNTS)
def test_blocks_that_add_what_came_in(name: str) -> None:
    """Told by what is left of a block whose projection says nothing."""
    found = []
    for stage in find_encoder(name).build().eval().stages:
        found.append("")
        for block in stage:
            nn.init.zeros_(block.layers[-1][-1].weight)
            first = next(layer for layer in block.modules() if isinstance(layer, nn.Conv2d))
            image = torch.rand(1, first.in_channels, 8, 8)
            with torch.no_grad():
                left = block(image)
            added = bool(left.any())
            assert not added or torch.equal(left, image)
            found[-1] += "+" if added else "-"
    assert tuple(found) == RESIDUALS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_two_settings_of_batch_norm(name: str) -> None:
    model = create_model(name, pretrained=False)
    parts = {"encoder": model.encoder, "head": nn.ModuleList([model.extra, model.boxes, model.scores])}
    for part, settings in (("encoder", (0.01, 0.01)), ("head", (0.001, 0.03))):
        norms = [layer for layer in parts[part].modules() if isinstance(layer, nn.BatchNorm2d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {settings}


@pytest.mark.parametrize("name", COUNTS)
def test_every_stride_is_padded_as_tensorflow_pads(name: str) -> None:
    model = create_model(name, pretrained=False)
    strided = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.stride[0] > 1]
    assert len(strided) == 5 + 4 and all(isinstance(layer, SameConv2d) for layer in strided)


def test_only_the_cpu_form_excites_and_swishes() -> None:
    kinds = {name: [type(m).__name__ for m in find_encoder(name).build().modules()] for name in COUNTS}
    assert kinds["mobiledet_cpu"].count("SqueezeExcite") == 19 and "ReLU6" not in kinds["mobiledet_cpu"]
    for name in set(COUNTS) - {"mobiledet_cpu"}:
        assert "SqueezeExcite" not in kinds[name] and "Hardswish" not in kinds[name]


@pytest.mark.parametrize("name", ["mobiledet_cpu", "mobiledet_edgetpu", "mobiledet_dsp"])
def test_widths_build_an_encoder_of_the_same_shapes(name: str) -> None:
    build = find_encoder(name).build
    encoder = build()
    again = build(widths=encoder.widths)
    assert [p.shape for p in again.parameters()] == [p.shape for p in encoder.parameters()]
    narrow = encoder.widths
    narrow["blocks"][-1][0] -= 8
    assert count_parameters(build(widths=narrow)) < count_parameters(encoder)


def test_outputs_follow_size_and_labels() -> None:
    config = model_config("mobiledet_cpu")
    assert [output.shape for output in config.outputs] == [(1, 2034, 4), (1, 2034, 91)]
    small = model_config("mobiledet_cpu", (224, 288), labels=["bolt", "nut"])
    model = create_model("mobiledet_cpu", pretrained=False, labels=["bolt", "nut"])
    with torch.no_grad():
        shapes = [tuple(tensor.shape) for tensor in model(torch.rand(1, 3, 224, 288))]
    assert small.labels == ("bolt", "nut") and shapes == [output.shape for output in small.outputs]
    assert shapes[1][2] == 3 and len(small.decoder.anchors) == shapes[0][1]


def test_predictions_lie_where_their_anchors_do() -> None:
    """What changes with a corner of the image are the outputs of anchors in that corner."""
    torch.manual_seed(0)
    model = create_model("mobiledet_cpu", pretrained=False)
    anchors = model_config("mobiledet_cpu").decoder.anchors
    image = torch.zeros(1, 3, 320, 320)
    changed = image.clone()
    changed[:, :, :16, 288:] = 1.0
    with torch.no_grad():
        change = (model.double()(image.double())[0] - model(changed.double())[0]).abs().sum(2)[0]
    near = (anchors[:1200, 0] > 0.8) & (anchors[:1200, 1] < 0.2)  # of the largest map
    assert change[:1200][near].mean() > 5 * change[:1200][~near].mean()


def test_untrained_scores_are_low() -> None:
    with torch.no_grad():
        scores = create_model("mobiledet_cpu", pretrained=False)(torch.rand(1, 3, 320, 320))[1].sigmoid()
    assert 0.005 < scores.mean() < 0.02


def test_any_encoder_takes_the_head() -> None:
    from perception.models.ssdlite import SSDLite

    for name in ("mobilenet_v1", "mobilenet_v2", "efficientnet_lite0"):
        model = SSDLite(find_encoder(name).build(padding="same"), 3).eval()
        boxes, scores = model(torch.rand(1, 3, 320, 320))
        assert boxes.shape == (1, 2034, 4) and scores.shape == (1, 2034, 4)

"""FastDepth against the figures of its paper and repository."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; models are defined in it")

from torch import nn  # noqa: E402

from perception.models import count_macs, count_parameters, create_model  # noqa: E402

COUNTS = {"fastdepth": (3_960_930, 0.7367, 3_206_976), "fastdepth_pruned": (1_360_786, 0.3664, 1_136_648)}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_macs(name: str) -> None:
    parameters, gmac, encoder = COUNTS[name]
    model = create_model(name, pretrained=False)
    assert count_parameters(model) == parameters
    assert count_parameters(model.encoder) == encoder
    assert round(count_macs(model, (224, 224)) / 1e9, 4) == gmac


@pytest.mark.parametrize("name", ["fastdepth", "fastdepth_mobilenet_v2_035"])
def test_widths_build_a_network_of_the_same_shapes(name: str) -> None:
    model = create_model(name, pretrained=False)
    again = create_model(name, pretrained=False, widths=model.widths)
    assert [p.shape for p in again.parameters()] == [p.shape for p in model.parameters()]


def test_lateral_form_adds_every_scale_through_its_convolution() -> None:
    torch.manual_seed(0)
    model = create_model("fastdepth_mobilenet_v2_035", pretrained=False)
    image = torch.rand(1, 3, 64, 96)
    plain = model(image)
    assert plain.shape == (1, 1, 32, 48)
    for lateral in model.laterals:
        lateral[1].bias.data += 1
        changed = model(image)
        assert not torch.allclose(changed, plain)
        plain = changed


@pytest.mark.parametrize("name", COUNTS)
def test_layers(name: str) -> None:
    kinds = [type(module) for module in create_model(name, pretrained=False).modules()]
    assert [kinds.count(kind) for kind in (nn.Conv2d, nn.ReLU6, nn.ReLU)] == [38, 27, 11]


def test_skips_are_added_after_upsampling() -> None:
    """With a decoder that gives zeros, what reaches the head is the first skip, through no upsampling but the last."""
    model = create_model("fastdepth", pretrained=False)
    seen = {}
    model.encoder[1].register_forward_hook(lambda *args: seen.update(skip=args[2]))
    model.decoder[4].register_forward_pre_hook(lambda *args: seen.update(last=args[1][0]))
    for parameter in model.decoder[3].parameters():
        parameter.data.zero_()
    model(torch.rand(1, 3, 64, 96))
    assert torch.equal(seen["skip"], seen["last"])


def test_depth_is_never_negative() -> None:
    assert create_model("fastdepth_pruned", pretrained=False)(torch.rand(1, 3, 64, 96)).min() >= 0

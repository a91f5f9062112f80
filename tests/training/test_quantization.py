"""Quantisation-aware training: it rounds as the engines do, it helps, and it leaves an ordinary model behind."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn
from torch.nn import functional

from perception.engines.export import FromImage, export_graph
from perception.engines.quantize import activation_scale, calibrate, layers, place_pairs, quantize_weights
from perception.engines.rewrites import simplify
from perception.engines.runtimes import Quantization
from perception.tasks.config import ModelConfig, Output
from perception.training.quantization import STRICTEST, finish, fold_norms, prepare, round_weights

SIZE = (16, 16)
CONFIG = ModelConfig("net", "depth", SIZE, (Output("depth", (1, 1, *SIZE), "m"),), size_divisor=2)
SCHEMES = [Quantization("uint8"), STRICTEST]


class Net(nn.Module):
    """SAME padding and a stride of 2, a residual sum in place, upsampling, a skip, and a head with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8))
        self.point = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.lateral = nn.Conv2d(3, 8, 1)
        self.merge = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(functional.pad(x, (0, 1, 0, 1)))
        y = y + self.point(functional.relu6(self.depthwise(y)))
        y = functional.interpolate(y, scale_factor=2.0)
        y += self.lateral(x)
        return (0.1 * self.head(functional.relu(self.merge(y)))).exp()


def _net(fragile: bool = False) -> Net:
    """With statistics that are not trivial; `fragile`: channel 0 of what `point` and `head` read is always 0, and their
    weights for it are so large that they leave the others a few steps."""
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.2, 0.6)
                layer.weight.uniform_(0.7, 1.4)
                layer.bias.uniform_(0, 0.5)
        if fragile:
            net.depthwise[1].bias[0] = net.merge.bias[0] = -100
            for layer in (net.point[0], net.head):
                layer.weight[:, 0] = 150 * layer.weight.abs().max()
    return net.eval()


def _pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), np.uint8)


def _images(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def _int8(net: nn.Module, scheme: Quantization, pixels: np.ndarray) -> onnx.ModelProto:
    graph = simplify(export_graph(FromImage(net, CONFIG).eval(), CONFIG))
    return place_pairs(graph, calibrate(graph, list(pixels[:, None])), scheme)


def _run(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # exact on every CPU
    session = ort.InferenceSession(model.SerializeToString(), options)
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in pixels])


def test_folding_changes_nothing() -> None:
    net, images = _net(), _images(_pixels(4))
    folded = copy.deepcopy(net)
    with torch.no_grad():
        fold_norms(folded, images[:1])
        torch.testing.assert_close(folded(images), net(images), rtol=1e-5, atol=1e-5)
    assert not torch.equal(folded.stem[0].weight, net.stem[0].weight)
    with pytest.raises(ValueError, match="BatchNorm of 3 channels follows no convolution"):
        fold_norms(nn.Sequential(nn.BatchNorm2d(3)), images[:1])


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_rounded_model_computes_what_the_engine_computes(scheme: Quantization) -> None:
    """Where ranges are those of the calibration, and weights lie on the grid already: the same integers everywhere."""
    net, pixels = _net(), _pixels(16)
    prepare(net, _images(pixels), scheme)
    finish(net)
    plain = net(_images(pixels)).detach().numpy()
    prepare(net, _images(pixels), scheme)
    with torch.no_grad():
        expected = net(_images(pixels)).numpy()
    finish(net)
    got = _run(_int8(net, scheme, pixels), pixels)
    assert np.abs(expected - plain).max() > 3e-4  # rounding is visible
    # A value in the middle between two steps may fall to either side: one step of one of many inputs.
    assert np.abs(got - expected).mean() < 0.03 * np.abs(expected - plain).mean()
    np.testing.assert_allclose(got, expected, atol=0.5 * np.abs(expected - plain).max())


def test_every_tensor_of_the_engine_has_a_step_of_its_own() -> None:
    net, pixels = _net(), _pixels(16)
    prepare(net, _images(pixels))
    steps = [float(step.detach().exp()) for step in net.quantizer.log_steps]
    finish(net)
    graph = simplify(export_graph(FromImage(_net(), CONFIG).eval(), CONFIG))
    assert len(layers(graph)) == 6 + 3
    statistics = calibrate(graph, list(pixels[:, None]))
    engine = [activation_scale(found, STRICTEST)[0] for found in statistics.values()]
    assert sorted(steps) == pytest.approx(sorted(engine), rel=0.03)  # the weights are float there


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_rounded_weights_are_what_an_engine_finds(scheme: Quantization) -> None:
    torch.manual_seed(1)
    for shape in [(6, 4, 3, 3), (5, 1, 3, 3), (4, 7, 1, 1)]:
        weights = torch.randn(shape)
        integers, scales = quantize_weights(weights.numpy(), scheme)
        most = np.abs(integers.astype(np.float32)).max(axis=(1, 2, 3))
        steps, limits = (torch.from_numpy(x).reshape(-1, 1, 1, 1) for x in (scales, most))
        rounded = round_weights(weights, steps, limits).numpy()
        integers, scales = quantize_weights(rounded, scheme)
        np.testing.assert_allclose(integers * scales.reshape(-1, 1, 1, 1), rounded, rtol=1e-5, atol=1e-7)


def test_gradients_pass_straight_through_and_stop_where_values_are_clipped() -> None:
    net, images = _net(), _images(_pixels(4))
    prepare(net, images)
    net.train()
    net(images).mean().backward()
    assert net.stem[0].weight.grad is not None and float(net.stem[0].weight.grad.abs().sum()) > 0
    assert all(step.grad is not None for step in net.quantizer.log_steps)
    assert all(layer.weight.grad is None for layer in net.modules() if isinstance(layer, nn.BatchNorm2d))
    assert float(net.stem[1].running_mean.abs().max()) == 0  # statistics stay in train mode, too


def test_a_copy_trains_on_its_own() -> None:
    net, images = _net(), _images(_pixels(4))
    prepare(net, images)
    average = copy.deepcopy(net)
    with torch.no_grad():
        before = net(images)
        for step in average.quantizer.log_steps:
            step.add_(2.0)
        assert not torch.equal(average(images), before)
        assert torch.equal(net(images), before)


def test_finish_leaves_an_ordinary_model() -> None:
    net, images = _net(), _images(_pixels(8))
    with pytest.raises(ValueError, match="not prepared"):
        finish(net)
    prepare(net, images)
    with pytest.raises(ValueError, match="prepared for quantisation already"):
        prepare(net, images)
    ranges = finish(net)
    assert len(ranges) == 9 and all(low < high for low, high in ranges)
    assert not net._forward_hooks and not net._forward_pre_hooks
    fresh = Net().eval()
    fresh.load_state_dict(net.state_dict())
    torch.testing.assert_close(fresh(images), net(images))
    # In half precision, as weights are shipped, they still round to the same integers.
    fresh.load_state_dict({name: value.half() for name, value in net.state_dict().items()})
    torch.testing.assert_close(fresh(images), net(images), rtol=5e-3, atol=5e-3)


def test_training_recovers_what_rounding_lost() -> None:
    """Measured on unseen images through the graph that an engine is built from."""
    unseen, teacher = _pixels(16, seed=1), _net(fragile=True)
    expected = teacher(_images(unseen)).detach().numpy()
    net = copy.deepcopy(teacher)
    lost = np.abs(_run(_int8(net, STRICTEST, _pixels(16)), unseen) - expected).mean()
    prepare(net, _images(_pixels(16)))
    net.train()
    steps = 120
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for step in range(steps):
        images = _images(_pixels(4, seed=10 + step))
        loss = (net(images) - teacher(images).detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    finish(net.eval())
    left = np.abs(_run(_int8(net, STRICTEST, _pixels(16)), unseen) - expected).mean()
    assert left < 0.75 * lost, (left, lost)

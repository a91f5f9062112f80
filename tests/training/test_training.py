"""Training: losses, augmentation, starts, and a whole small run that is deterministic and resumes."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from interruption import interrupt_once  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from perception.evaluation.frames import RGBDFrame  # noqa: E402
from perception.models import create_model, model_config  # noqa: E402
from perception.models.registry import load_weights  # noqa: E402
from perception.tasks.config import GREY  # noqa: E402
from perception.tasks.geometry import Camera  # noqa: E402
from perception.training import train as loop  # noqa: E402
from perception.training.data import prefetch, prefetch_in_processes, vary_color  # noqa: E402
from perception.training.depth import DepthLesson, DepthRecipe, DepthSource, DepthStage  # noqa: E402
from perception.training.depth_data import Augmentation, Mixture, augment, evened  # noqa: E402
from perception.training.losses import lens_loss, log_depth_loss, shown, squared_loss  # noqa: E402
from perception.training.reading import RECIPES, load_recipe  # noqa: E402
from perception.training.start import (  # noqa: E402
    load_in_order,
    read_mobilenet_v1_tflite,
    resize_widths,
    start_encoder,
    start_folded,
)
from perception.training.train import Run, train  # noqa: E402
from tests.evaluation.test_nyu import make_folder  # noqa: E402

FOCAL = (0.92, 1.22)
DATA = Path(os.environ.get("PERCEPTION_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_loss_counts_ratios_where_depth_is_known() -> None:
    target = torch.rand(1, 1, 16, 16) + 2
    target[..., 8:, :] = 0
    assert log_depth_loss(target + (target == 0) * 7, target).item() == 0
    doubled = log_depth_loss(2 * target, target, gradient=0)
    assert doubled.item() == pytest.approx(np.log(2), rel=1e-5)


def test_a_smaller_prediction_is_brought_to_the_targets_size() -> None:
    target = torch.linspace(1, 4, 32).expand(1, 1, 16, 32)
    small = torch.nn.functional.avg_pool2d(target, 2)
    assert log_depth_loss(small, target).item() < 0.02 < log_depth_loss(small.flip(3), target).item()


def test_squared_loss_is_of_metres_and_leads_to_the_mean() -> None:
    target = torch.tensor([[[[1.0, 2.0], [6.0, 0.0]]]])
    guess = torch.full((1, 1, 2, 2), 2.0, requires_grad=True)
    assert squared_loss(guess, target).item() == pytest.approx((1 + 0 + 16) / 3)  # 0 is unknown
    everywhere = torch.tensor(2.0, requires_grad=True)
    squared_loss(everywhere.expand(1, 1, 1, 1), target).backward()
    assert everywhere.grad.item() == pytest.approx(2 * (2 - 3))  # the mean of 1, 2 and 6 is 3


def test_a_recipe_can_weigh_squared_error() -> None:
    images, depths, model = torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64) + 1, create_model("fastdepth_pruned")
    losses = []
    for squared in (0.0, 0.5):
        run = small_run(small_recipe(squared=squared), copy.deepcopy(model))
        losses.append(run.step(0, images, depths))
    assert losses[1] > losses[0] + 0.01


def test_lens_loss_is_zero_where_metres_follow_the_lens() -> None:
    """Half a view is a picture twice as large: an estimate by the size of things follows, a fixed one does not."""
    rows = torch.linspace(0.2, 0.6, 32).view(1, 1, 32, 1).expand(2, 3, 32, 64)

    def by_size(images: torch.Tensor) -> torch.Tensor:
        slope = (images[:, :1, 1:] - images[:, :1, :-1]).mean()  # falls to half when the picture is twice as large
        return (100 * slope).expand(len(images), 1, 16, 32)

    assert lens_loss(by_size, rows, by_size(rows), (4, 7)).item() < 0.1
    fixed = lens_loss(lambda images: torch.full((2, 1, 16, 32), 3.0), rows, torch.full((2, 1, 16, 32), 3.0), (4, 7))
    assert fixed.item() == pytest.approx(np.log(2), rel=1e-4)


def test_lens_loss_compares_the_same_pixels() -> None:
    images = torch.rand(1, 3, 32, 64)
    metres = 1 + torch.nn.functional.avg_pool2d(images[:, :1], 2)
    same = lens_loss(lambda x: (1 + torch.nn.functional.avg_pool2d(x[:, :1], 2)) / 2, images, metres, (3, 10))
    elsewhere = lens_loss(
        lambda x: (1 + torch.nn.functional.avg_pool2d(x[:, :1].flip(3), 2)) / 2, images, metres, (3, 10)
    )
    assert same.item() < 0.5 * elsewhere.item()


def test_lens_loss_of_a_padded_view_compares_the_same_pixels() -> None:
    """In grey, the half view is as large as before: what goes by brightness says the same, save at the grey's edge."""
    images = torch.rand(1, 3, 32, 64)

    def by_brightness(images: torch.Tensor) -> torch.Tensor:
        return 1 + torch.nn.functional.avg_pool2d(images[:, :1], 2)

    metres = by_brightness(images)
    assert lens_loss(by_brightness, images, metres, (3, 10), pad=True).item() < 1e-6
    assert lens_loss(lambda x: 2 * by_brightness(x), images, metres, (3, 10), pad=True).item() == pytest.approx(
        np.log(2), rel=1e-4
    )
    assert lens_loss(lambda x: by_brightness(x.flip(3)), images, metres, (3, 10), pad=True).item() > 0.05


def test_grey_around_a_view_counts_in_no_loss() -> None:
    images = torch.rand(2, 3, 32, 64)
    images[:, :, :8] = images[:, :, :, 40:] = GREY / 255
    known = shown(images, (16, 32))
    assert known.shape == (2, 1, 16, 32) and not known[:, :, :4].any() and not known[:, :, :, 20:].any()
    assert known[:, :, 4:, :20].all()

    def wrong_in_grey(images: torch.Tensor) -> torch.Tensor:
        return 2 - shown(images, (16, 32))

    assert lens_loss(wrong_in_grey, images, torch.ones(2, 1, 16, 32), (3, 10), pad=True).item() == 0


def test_loss_leads_dead_pixels_back() -> None:
    prediction = torch.full((1, 1, 16, 16), -0.5, requires_grad=True)
    log_depth_loss(prediction, torch.full((1, 1, 16, 16), 2.0)).backward()
    assert (prediction.grad < 0).all()


def frame(width: int = 64, height: int = 48) -> RGBDFrame:
    columns = np.arange(width, dtype=np.float32)
    rgb = np.repeat(np.broadcast_to(columns * 3, (height, width))[..., None], 3, axis=2).astype(np.uint8)
    depth = np.broadcast_to(2 + columns / width, (height, width)).astype(np.float32)
    return RGBDFrame(rgb, depth, Camera(width, height, FOCAL[0] * width, FOCAL[1] * height, width / 2, height / 2))


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_zoom_brings_things_nearer_in_proportion(power: float) -> None:
    """A crop to half the view shows everything twice as large: canonical depth is half, whatever the crop."""
    flat = dataclasses.replace(frame(), depth=np.full((48, 64), 3.0, np.float32))
    for seed in range(20):
        amount = Augmentation(zoom=2.0, zoom_power=power, aspect=1.0, rotation=0, color=0)
        rng = np.random.default_rng(seed)
        zoom = 2.0 ** np.random.default_rng(seed).uniform() ** power
        _, depth = augment(flat, (32, 32), FOCAL, amount, rng)
        assert np.allclose(depth, 3.0 / zoom, rtol=0.05)


def test_padded_crops_lie_in_the_middle_of_grey() -> None:
    """A wall keeps its distance; outside of the crop nothing is known. A frame without a camera cannot be padded."""
    flat = dataclasses.replace(frame(), depth=np.full((48, 64), 3.0, np.float32))
    amount = Augmentation(zoom=3.0, pad=1.0, aspect=1.0, rotation=0, color=0)
    covered = []
    for seed in range(20):
        image, depth = augment(flat, (96, 128), FOCAL, amount, np.random.default_rng(seed))
        known = depth > 0
        rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
        assert known.sum() == len(rows) * len(columns) and (image[~known] == GREY).all()
        assert abs(rows[0] + rows[-1] - 95) == abs(columns[0] + columns[-1] - 127) == 0  # in the middle
        assert np.allclose(depth[known], 3.0, rtol=0.1)  # what the grid of 8 pixels leaves to the scale
        covered.append(known.mean())
    assert min(covered) < 0.2 and max(covered) > 0.6
    relative = dataclasses.replace(flat, camera=None, depth=-flat.depth)
    assert (augment(relative, (96, 128), FOCAL, amount, np.random.default_rng(0))[1] < 0).all()
    _, depth = augment(flat, (96, 128), FOCAL, dataclasses.replace(amount, zoom=1.0), np.random.default_rng(0))
    assert (depth > 0).all()


def test_image_and_depth_stay_aligned() -> None:
    """Brightness and depth both follow the column, so they must still do so after any augmentation."""
    for seed in range(10):
        amount = Augmentation(zoom=1.0001, aspect=1, rotation=5, color=0)
        image, depth = augment(frame(), (32, 32), FOCAL, amount, np.random.default_rng(seed))
        inner = np.s_[6:-6, 6:-6]
        expected = 2 + image[inner][..., 0] / 3 / 64
        assert np.abs(depth[inner] - expected).max() < 0.1


def test_batches_depend_on_seed_and_step_only() -> None:
    mixture = Mixture([[frame()], [frame(96, 64)]], [0.5, 0.5], [None, None])
    one, again, other = (mixture.batch(step, 3, 4, (24, 32), FOCAL, Augmentation()) for step in (5, 5, 6))
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1]) and not torch.equal(one[0], other[0])
    assert one[0].shape == (4, 3, 24, 32) and one[1].shape == (4, 1, 24, 32) and one[0].dtype == torch.uint8


def rooms(*ends: float) -> list[RGBDFrame]:
    """Flat frames at these distances; the last tenth of each is unknown."""
    frames = []
    for metres in ends:
        depth = np.full((40, 40), metres, np.float32)
        depth[36:] = 0
        camera = Camera(40, 40, 40, 40, 19.5, 19.5)
        frames.append(RGBDFrame(np.zeros((40, 40, 3), np.uint8), depth, camera, name="room"))
    return frames


def test_near_and_far_frames_can_be_made_even() -> None:
    frames = rooms(3, 3.1, 3.2, 3.1, 8, 0.8)
    assert evened(frames, (1.0, 1.0), 0) == pytest.approx([1 / 6] * 6)
    assert evened(frames, (1.0, 1.0), 1) == pytest.approx([1 / 12] * 4 + [1 / 3] * 2)
    assert evened(frames, (1.0, 1.0), 0.5) == pytest.approx([1 / 8] * 4 + [1 / 4] * 2)
    # Behind another lens 6 m are canonical 3 m, of the same band as those.
    long = dataclasses.replace(rooms(6.2)[0], camera=Camera(40, 40, 80, 80, 19.5, 19.5))
    assert evened([*rooms(3.1), long, *rooms(8)], (1.0, 1.0), 1) == pytest.approx([1 / 4, 1 / 4, 1 / 2])
    blind = dataclasses.replace(frames[0], depth=None)
    with pytest.raises(ValueError, match="'room' has no metric depth, by which near and far ones are made even"):
        evened([*frames, blind], (1.0, 1.0), 1)


def test_a_mixture_draws_by_chance_and_keeps_frames_back() -> None:
    first, second = rooms(1, 2, 4), rooms(8)
    still = Augmentation(zoom=1.0, aspect=1.0, rotation=0.0, color=0.0)
    mixture = Mixture([first, second], [0.9, 0.1], [np.array([0.75, 0.0, 0.25]), None])

    def drawn(mixture: Mixture) -> list[float]:
        _, depths = mixture.batch(0, 0, 400, (8, 8), (1.0, 1.0), still)
        return [float((depths[:, 0, 2, 2] == metres).float().mean()) for metres in (1, 2, 4, 8)]

    assert drawn(mixture) == pytest.approx([0.675, 0, 0.225, 0.1], abs=0.06)
    held_out, rest = mixture.kept_back(1)
    assert [frame.depth.max() for frame in (*held_out, *rest.sources[0])] == [4, 1, 2]
    assert drawn(rest) == pytest.approx([0.9, 0, 0, 0.1], abs=0.06)


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetch_keeps_order_and_passes_errors_on(workers: int) -> None:
    assert list(prefetch(lambda step: step * step, range(20), workers)) == [step * step for step in range(20)]

    def broken(step: int) -> int:
        if step == 2:
            raise ValueError("sample 2 is damaged")
        return step

    batches = prefetch(broken, range(9), workers)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="sample 2"):
        next(batches)


def test_processes_keep_order_and_pass_errors_on() -> None:
    large = np.zeros((2000, 2000, 3), np.uint8)
    cv2.resize(large, (999, 999), interpolation=cv2.INTER_AREA)  # OpenCV's threads are there, which forks lack

    def half(step: int) -> tuple[int, torch.Tensor]:
        cv2.resize(large, (999, 999), interpolation=cv2.INTER_AREA)
        if step == 7:
            raise ValueError("sample 7 is damaged")
        return os.getpid(), torch.tensor(step / 2)

    made = list(prefetch_in_processes(half, range(3, 7)))
    assert [float(number) for _, number in made] == [1.5, 2, 2.5, 3] and os.getpid() not in {owner for owner, _ in made}
    batches = prefetch_in_processes(half, range(6, 9))
    assert float(next(batches)[1]) == 3
    with pytest.raises(ValueError, match="^sample 7 is damaged$"):
        next(batches)


def test_colors_vary_as_described() -> None:
    """One matrix gives what the steps give one after the other."""
    image = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    for seed in range(5):
        varied = vary_color(image, 0.4, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        brightness, contrast, saturation = 1 + 0.4 * rng.uniform(-1, 1, 3)
        balance, gamma = 1 + 0.2 * rng.uniform(-1, 1, 3), 1 + 0.2 * rng.uniform(-1, 1)
        pixels = (image / 255) ** gamma
        grey = pixels.mean(axis=2, keepdims=True)
        pixels = (grey + (pixels - grey) * saturation) * balance * brightness
        pixels = np.clip(pixels.mean() + (pixels - pixels.mean()) * contrast, 0, 1) * 255
        assert np.abs(varied - pixels).max() <= 0.51
    third = 1 / 3  # of a turn: each primary becomes another, and greys stay

    class Whole:
        uniform = staticmethod(lambda low, high, count=None: 1.0 if count is None else np.zeros(count))

    primaries = np.array([[[200, 0, 0], [0, 200, 0], [0, 0, 200], [80, 80, 80]]], np.uint8)
    turned = vary_color(primaries, 0.0, Whole(), third)  # type: ignore[arg-type]
    assert np.abs(turned[0].astype(int) - primaries[0, [1, 2, 0, 3]]).max() <= 1


def folded_layers(rng: np.random.Generator, widths: tuple[int, ...]) -> list:
    layers = [(rng.normal(0, 0.3, (widths[0], 3, 3, 3)), rng.normal(0, 0.1, widths[0]))]
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        layers.append((rng.normal(0, 0.5, (inputs, 1, 3, 3)), rng.normal(0, 0.1, inputs)))
        layers.append((rng.normal(0, 1 / np.sqrt(inputs), (outputs, inputs, 1, 1)), rng.normal(0, 0.1, outputs)))
    return [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers]


def encoder_output(layers: list, images: torch.Tensor) -> np.ndarray:
    """The folded encoder computed plainly, with FastDepth's strides and padding."""
    from perception.models.mobilenet_v1 import STRIDES

    x = images
    for index, (weight, bias) in enumerate(layers):
        depthwise = index % 2 == 1
        stride = STRIDES[0] if index == 0 else STRIDES[(index + 1) // 2] if depthwise else 1
        groups = len(weight) if depthwise else 1
        w, b = torch.from_numpy(weight), torch.from_numpy(bias)
        x = torch.nn.functional.conv2d(x, w, b, stride, weight.shape[2] // 2, groups=groups).clamp(0, 6)
    return x.numpy()


def test_start_is_the_folded_network_made_wider() -> None:
    """Wider by copies, and with BatchNorm instead of biases, the encoder computes the same features."""
    rng = np.random.default_rng(0)
    model = create_model("fastdepth", pretrained=False)
    full = (32, 64, 128, 128, 256, 256, *([512] * 6), 1024, 1024)
    original = folded_layers(rng, tuple(width * 3 // 4 for width in full))

    class Quiet:  # no noise, so that the function is exactly kept
        choice = rng.choice

        @staticmethod
        def normal(mean: float, deviation: float, shape: tuple) -> np.ndarray:
            return np.zeros(shape)

    wider = resize_widths(original, full, Quiet())  # type: ignore[arg-type]
    images = torch.rand(2, 3, 64, 64)
    start_folded(model.encoder, wider, images)
    with torch.no_grad():
        x = images
        for layer in model.encoder:
            x = layer(x)
    expected = encoder_output(original, images)
    assert x.shape[1] == 1024 and np.allclose(x[:, :768].numpy(), expected, atol=1e-3)
    assert expected.std() > 0.01


def test_narrower_keeps_the_largest_channels() -> None:
    layers = folded_layers(np.random.default_rng(1), (8, *([8] * 13)))
    layers[0][0][5] *= 100
    narrow = resize_widths(layers, (1, *([8] * 13)), np.random.default_rng(2))
    assert np.allclose(narrow[0][0][0], layers[0][0][5], rtol=0.1, atol=3)


@pytest.mark.skipif(not (DATA / "weights/detect.tflite").is_file(), reason=f"{DATA}/weights is absent")
def test_tflite_encoder_is_read_in_full() -> None:
    pytest.importorskip("tflite", reason="the tflite schema is not installed; only this start needs it")
    layers = read_mobilenet_v1_tflite(DATA / "weights/detect.tflite")
    assert len(layers) == 27 and layers[0][0].shape == (24, 3, 3, 3) and layers[-1][0].shape == (768, 768, 1, 1)
    assert all(np.isfinite(weight).all() and 0.01 < np.abs(weight).max() < 100 for weight, _ in layers)


def test_start_from_a_state_dict_goes_by_order_and_shape(tmp_path: Path) -> None:
    theirs = create_model("fastdepth_mobilenet_v2_035", pretrained=False).encoder
    state = {f"other.{index}": tensor for index, tensor in enumerate(theirs.state_dict().values()) if tensor.ndim}
    state["classifier"] = torch.zeros(3)
    torch.save(state, tmp_path / "encoder.pth")
    mine = create_model("fastdepth_mobilenet_v2_035", pretrained=False).encoder
    start_encoder(mine, "encoder.pth", tmp_path, torch.zeros(0), seed=0)
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"start's other.0 has shape \(16, 3, 3, 3\), .*features.0.0.weight \(32"):
        load_in_order(create_model("fastdepth_mobilenet_v2", pretrained=False).encoder, state)
    with pytest.raises(ValueError, match="which does not exist; --data"):
        start_encoder(mine, "absent.pth", tmp_path, torch.zeros(0), seed=0)
    with pytest.raises(ValueError, match="pip install no_such_package"):
        start_encoder(mine, "package:no_such_package/a.pth", tmp_path, torch.zeros(0), seed=0)


def test_start_from_the_encoder_of_a_network_of_another_task(tmp_path: Path) -> None:
    classifier = create_model("ffnet_18_aax", pretrained=False, labels=("wet", "dry"))
    for norm in (module for module in classifier.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_()
    save_file(classifier.state_dict(), tmp_path / "classifier.safetensors")
    theirs = classifier.encoder.state_dict()
    # The deeper form has a shortcut in its first stage that the classifier lacks.
    mine = create_model("ffnet_18_daac", pretrained=False).encoder
    drawn = {key: tensor.clone() for key, tensor in mine.state_dict().items() if key not in theirs}
    start_encoder(mine, "classifier.safetensors", tmp_path, torch.zeros(0), seed=0)
    assert all(torch.equal(mine.state_dict()[key], tensor) for key, tensor in theirs.items())
    assert drawn and all(key.startswith("stages.0.0.shortcut.") for key in drawn)
    assert all(torch.equal(mine.state_dict()[key], tensor) for key, tensor in drawn.items())
    other = create_model("fastdepth_mobilenet_v2_035", pretrained=False).encoder
    with pytest.raises(ValueError, match="the start does not have this InvertedResidualEncoder: 255 of its"):
        start_encoder(other, "classifier.safetensors", tmp_path, torch.zeros(0), seed=0)
    save_file({"layer.weight": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="the start does not have this ResNet"):
        start_encoder(mine, "plain.safetensors", tmp_path, torch.zeros(0), seed=0)


def small_recipe(**changes: object) -> DepthRecipe:
    fields = {
        "name": "small", "model": "fastdepth_pruned", "focal": FOCAL, "sources": (DepthSource("nyu", split="eval"),),
        "stages": (DepthStage(2, (32, 32), 2), DepthStage(2, (64, 64), 2)), "data_licence": "none", "evaluate": "nyu",
        "warmup": 1,
    }  # fmt: skip
    return DepthRecipe(**fields | changes)  # type: ignore[arg-type]


def small_run(recipe: DepthRecipe, model: torch.nn.Module) -> Run:
    return Run(DepthLesson(recipe, Mixture([], [], [])), model, "cpu")


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "nyu")
    monkeypatch.setattr(loop, "LOGGED", 2)
    whole = train(small_recipe(stages=(DepthStage(5, (32, 32), 4, lens=0.1),)), tmp_path, tmp_path / "whole")
    seen = interrupt_once(monkeypatch, 4)
    recipe = small_recipe(stages=(DepthStage(5, (32, 32), 4, lens=0.1),))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, tmp_path / "part")
    assert train(recipe, tmp_path, tmp_path / "part").read_bytes() == whole.read_bytes()
    assert seen == [0, 1, 2, 3, 2, 3, 4]


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "nyu")
    monkeypatch.setattr(loop, "LOGGED", 2)
    step = Run.step
    monkeypatch.setattr(Run, "step", lambda self, at, *batch: step(self, at, *batch) * (np.nan if at == 2 else 1))
    recipe = small_recipe(stages=(DepthStage(6, (32, 32), 2),))
    with pytest.raises(ValueError, match="loss of the 2 steps before step 4 is nan.*Lower the recipe's rate"):
        train(recipe, tmp_path, tmp_path / "out")
    assert torch.load(tmp_path / "out/checkpoint.pt", weights_only=True)["step"] == 2


def test_what_layers_draw_depends_on_seed_and_step_only() -> None:
    images, depths = torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64) + 1
    run = small_run(small_recipe(stages=(DepthStage(9, (64, 64), 2),), rate=0.0), create_model("fastdepth_pruned"))
    run.model.register_forward_hook(lambda model, _, depth: torch.nn.functional.dropout(depth, training=model.training))
    losses = []
    for step, begun in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(begun)
        losses.append(run.step(step, (255 * images).byte(), depths).item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("changes", "scale"),
    (
        ({"start": "x.pth"}, 0.3),
        ({"start": "x.pth", "encoder_rate": 0.5}, 0.5),
        ({"weights": "fastdepth"}, 1.0),
        ({"weights": "fastdepth", "encoder_rate": 0.2}, 0.2),
        ({}, 1.0),
    ),
)
def test_the_encoder_learns_at_its_own_rate(changes: dict[str, Any], scale: float) -> None:
    recipe = small_recipe(stages=(DepthStage(9, (64, 64), 2),), rate=0.1, warmup=0, **changes)
    run = small_run(recipe, create_model("fastdepth_pruned"))
    run.step(0, torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.ones(2, 1, 64, 64))
    rates = {id(parameter): group["lr"] for group in run.optimizer.param_groups for parameter in group["params"]}
    for name, parameter in run.model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.1 * (scale if name.startswith("encoder") else 1.0)), name


@pytest.mark.parametrize(("capability", "dtype"), [("amx_bf16", torch.bfloat16), ("avx2", torch.float32)])
def test_bfloat16_is_for_cpus_that_have_it(
    capability: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, capability: True})
    lesson = DepthLesson(small_recipe(bfloat16=True), Mixture([], [], []))
    with lesson.autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype


def test_half_views_leave_the_statistics_of_whole_ones() -> None:
    torch.manual_seed(0)
    images, depths, model = torch.rand(4, 3, 64, 64), torch.rand(4, 1, 64, 64) + 1, create_model("fastdepth_pruned")
    after = []
    for lens in (0.0, 0.5):
        recipe = small_recipe(stages=(DepthStage(2, (64, 64), 4, lens=lens),), rate=0.0)
        run = small_run(recipe, copy.deepcopy(model))
        run.step(0, images, depths)
        norms = [module for module in run.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        assert all(norm.training for norm in norms)
        after.append(torch.cat([norm.running_mean for norm in norms]))  # type: ignore[misc]
    assert after[0].any() and torch.equal(*after)


@pytest.mark.parametrize("model", ["fastdepth_pruned", "fastdepth_mobilenet_v2_035"])
def test_frozen_layers_stay_as_they_came_and_the_others_learn(model: str) -> None:
    torch.manual_seed(0)
    network = create_model(model, pretrained=False)
    before = {name: tensor.clone() for name, tensor in network.encoder.state_dict().items()}  # type: ignore[union-attr]
    run = small_run(small_recipe(model=model, frozen_layers=2), network)
    for step in range(2):
        run.step(step, torch.rand(4, 3, 64, 64), torch.rand(4, 1, 64, 64) + 1)
    for part in (run.model, run.average):
        layers = part.encoder.state_dict()  # type: ignore[union-attr]
        changed = {name for name in before if not torch.equal(before[name], layers[name])}
        first = {name for name in before if name.removeprefix("features.").split(".")[0] in ("0", "1")}
        assert first and not changed & first
        assert changed == {name for name in before if name not in first}


def test_layers_that_are_not_there_cannot_be_frozen() -> None:
    for count in (-1, 14):
        recipe = small_recipe(frozen_layers=count)
        with pytest.raises(ValueError, match=f"frozen_layers is {count}; accepted for a MobileNetV1: 0 to 13"):
            small_run(recipe, create_model("fastdepth_pruned", pretrained=False))


@pytest.mark.parametrize(("weights", "kept"), [("", "encoder."), ("fastdepth_pruned", "")])
def test_norms_that_came_trained_keep_their_statistics_while_frozen(weights: str, kept: str) -> None:
    run = small_run(small_recipe(weights=weights, frozen_norms=1), create_model("fastdepth_pruned"))
    means = {name: mean for name, mean in run.model.named_buffers() if name.endswith("running_mean")}
    for step in range(2):
        before = {name: mean.clone() for name, mean in means.items()}
        run.step(step, torch.rand(4, 3, 64, 64), torch.rand(4, 1, 64, 64) + 1)
        changed = {name for name in means if not torch.equal(before[name], means[name])}
        assert changed == {name for name in means if step or not name.startswith(kept)}


def test_a_run_is_deterministic_resumes_and_writes_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "nyu")
    first = train(small_recipe(), tmp_path, tmp_path / "first")
    again = train(small_recipe(), tmp_path, tmp_path / "second")
    assert first.read_bytes() == again.read_bytes()
    entry = json.loads(first.with_suffix(".json").read_text())["fastdepth_pruned"]
    load_weights(create_model("fastdepth_pruned"), first, entry["weights_sha256"])
    assert 0 <= entry["metrics"]["delta1"] <= 1 and entry["focal"] == list(FOCAL)
    held = train(small_recipe(stages=(DepthStage(2, (32, 32), 4, lens=0.5),)), tmp_path, tmp_path / "lens")
    assert held.read_bytes() != first.read_bytes()
    padded = train(small_recipe(augmentation=Augmentation(pad=0.5)), tmp_path, tmp_path / "padded")
    assert model_config(str(padded)).pads_narrow_views and not model_config(str(first)).pads_narrow_views
    resumed = train(small_recipe(), tmp_path, tmp_path / "first")  # nothing is left to do but to finish
    assert resumed.read_bytes() == again.read_bytes()
    with pytest.raises(ValueError, match="belongs to another recipe"):
        train(small_recipe(rate=0.5), tmp_path, tmp_path / "first")


def test_what_it_began_with_can_have_a_share_in_what_is_written(tmp_path: Path) -> None:
    make_folder(tmp_path / "nyu")
    begun = train(small_recipe(), tmp_path, tmp_path / "begun")
    changes = {"weights": str(begun), "rate": 0.01, "seed": 1}
    learned = train(small_recipe(**changes), tmp_path, tmp_path / "learned")
    mixed = train(small_recipe(**changes, kept_start=0.25), tmp_path, tmp_path / "mixed")
    start, end, between = (load_file(path) for path in (begun, learned, mixed))
    assert any((start[name] != end[name]).any() for name in start)
    for name in (name for name in start if start[name].is_floating_point()):
        expected = 0.25 * start[name].float() + 0.75 * end[name].float()
        assert torch.allclose(between[name].float(), expected, rtol=2e-3, atol=1e-5), name


@pytest.mark.parametrize("name", [path.stem for path in RECIPES.glob("*.yaml")])
def test_shipped_recipes_are_readable_and_never_train_on_eval(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.steps > 0
    assert all(source.split == "train" for source in recipe.sources)


def test_identity_tells_what_is_not_by_default() -> None:
    identity = json.loads(small_recipe(rate=0.5, augmentation=Augmentation(zoom=3.0)).identity)
    assert (
        identity["rate"] == 0.5
        and identity["augmentation"] == {"zoom": 3.0}
        and identity["sources"] == [{"path": "nyu", "split": "eval"}]
    )
    assert "encoder_rate" not in identity


def test_unknown_recipe_and_field(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recipe 'x'.*fastdepth_nyu"):
        load_recipe("x")
    good = (RECIPES / "fastdepth_nyu.yaml").read_text()
    for text, words in (
        ("learning_speed: 3", "unknown fields: learning_speed; known: name, model"),
        ("", "must be a mapping.*None"),
        (good + "encoder_rate: 1e-1", "encoder_rate is '1e-1', and must be a number"),
        (good.replace("model: fastdepth", "model: fastdeep"), "r.yaml, model: unknown model 'fastdeep'; available"),
        (good.replace("focal", "# focal"), "lacks: focal"),
        (good + "pruning: {budjet: 1}", "r.yaml, pruning has unknown fields: budjet"),
        (good.replace("{zoom: 1.6}", "{zoom: 16e-1}"), "augmentation, zoom is '16e-1', and must be a number"),
        (good.replace("steps: 1700", "steps: many"), "stages, steps is 'many'"),
        (good + "distillation: null", "distillation must be a mapping"),
        (good.replace("share: 1.0", "even: 2"), "source nyu_depth_v2: even is 2; it must lie between 0 and 1"),
        (good.replace("share: 1.0", "even: 1, relative: true"), "be 0 where depth is relative"),
        (good.replace("{zoom: 1.6}", "{pad: 1.5}"), "pad is 1.5; it must lie between 0 and 1"),
        (good + "weights: fastdepth", "from `start` and all from `weights`; name one"),
        (good + "kept_start: 0.5", "kept_start is 0.5 with weights ''; accepted: from 0 to below 1"),
    ):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(ValueError, match=words):
            load_recipe(str(tmp_path / "r.yaml"))


def test_what_cannot_be_trained_is_refused_at_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "nyu")
    for changes, words in (
        ({"evaluate": "absent"}, "absent holds no known data set"),
        ({"weights": "fastdepth_mobilenet_v2_050"}, "'fastdepth_mobilenet_v2_050', which has no weights yet"),
        ({"weights": "fastdepth_mobilenet_v2", "model": "fastdepth"}, "normalised differently"),
    ):
        with pytest.raises(ValueError, match=words):
            train(small_recipe(**changes), tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="device 'cuda:7' cannot be used"):
        train(small_recipe(), tmp_path, tmp_path / "out", "cuda:7")

"""Losses of images against plain figures."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from perception.tasks.enhancement_metrics import ssim  # noqa: E402
from perception.training.image_losses import PerceptualLoss, color_loss, ssim_loss  # noqa: E402


def noise(seed: int, count: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 20, 24, 3)).astype(np.uint8)


def as_batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def test_ssim_loss_is_that_of_the_metric() -> None:
    targets = noise(0, 3)
    images = ((noise(1, 3).astype(int) + 3 * targets) // 4).astype(np.uint8)
    expected = np.mean([ssim(image, target) for image, target in zip(images, targets, strict=True)])
    assert ssim_loss(as_batch(images), as_batch(targets)).item() == pytest.approx(1 - expected, abs=1e-4)
    assert ssim_loss(as_batch(targets), as_batch(targets)).item() == pytest.approx(0, abs=1e-5)


def test_color_loss_sees_colour_and_not_brightness() -> None:
    target = torch.tensor([0.6, 0.4, 0.2]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert color_loss(target / 2, target).item() == pytest.approx(0, abs=1e-6)
    swapped = target.flip(1)
    cosine = (0.6 * 0.2 + 0.4 * 0.4 + 0.2 * 0.6) / (0.36 + 0.16 + 0.04)
    assert color_loss(swapped, target).item() == pytest.approx(1 - cosine, abs=1e-5)
    half = torch.cat([swapped[..., :2], target[..., 2:]], 3)
    black = torch.cat([torch.zeros(1, 3, 4, 2), target[..., 2:]], 3)
    assert color_loss(half, black).item() == pytest.approx(0, abs=1e-6), "black has no colour to be wrong in"


def test_perceptual_loss_leads_images_to_their_targets() -> None:
    loss = PerceptualLoss("ssdlite_mobilenet_v2_robot")
    target = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    dark = (target / 8).requires_grad_()
    before = loss(dark, target)
    assert before.item() > 0.05 and loss(target, target).item() == pytest.approx(0, abs=1e-5)
    before.backward()
    assert dark.grad is not None
    step = dark.detach() - 0.05 * dark.grad / dark.grad.abs().max()
    assert loss(step, target) < before
    with pytest.raises(ValueError, match="no weights"):
        PerceptualLoss("mobiledet_cpu")

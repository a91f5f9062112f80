"""Losses of distillation, on arrays small enough to work out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from perception.training.losses import affine_invariant_loss, feature_loss, output_loss  # noqa: E402

ALIGNMENTS = ("median", "least_squares")


def row(*values: float) -> torch.Tensor:
    """(1, 1, 1, W)."""
    return torch.tensor(values).view(1, 1, 1, -1)


def everywhere(maps: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(maps, dtype=torch.bool)


def test_output_loss_is_the_mean_log_ratio_where_the_teacher_speaks() -> None:
    teacher = row(2.0, 4.0, 0.0, math.nan, math.inf)
    prediction = row(2.0, 1.0, 9.0, 9.0, 9.0)
    assert output_loss(prediction, teacher).item() == pytest.approx(math.log(4) / 2)
    prediction.requires_grad_()
    output_loss(prediction, teacher).backward()
    assert prediction.grad.flatten().tolist() == pytest.approx([0.0, -0.5, 0.0, 0.0, 0.0])
    assert output_loss(torch.full((1, 1, 4, 4), 3.0), torch.full((1, 1, 8, 8), 3.0)).item() == 0


def test_feature_loss_is_one_minus_the_cosine() -> None:
    features = torch.tensor([[3.0, 1.0], [0.0, 1.0]]).view(1, 2, 1, 2)  # (3, 0) and (1, 1)
    teacher = torch.tensor([[7.0, 1.0], [0.0, 0.0]]).view(1, 2, 1, 2)  # (7, 0) and (1, 0)
    assert feature_loss(features, teacher).item() == pytest.approx((0 + 1 - math.sqrt(0.5)) / 2, rel=1e-5)
    repeated = teacher.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert feature_loss(features, repeated).item() == pytest.approx(feature_loss(features, teacher).item())


def test_feature_loss_of_silent_features_has_a_finite_gradient() -> None:
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    feature_loss(features, torch.ones(1, 4, 2, 2)).backward()
    assert torch.isfinite(features.grad).all()


def test_affine_loss_by_median_as_worked_out() -> None:
    """Target 1 2 3 4 5: median 3, deviation 6 / 5. Prediction 1 2 3 4 10: median 3, deviation 11 / 5."""
    target, prediction = row(1, 2, 3, 4, 5), row(1, 2, 3, 4, 10)
    errors = [abs(a - 3) / (11 / 5) - abs(b - 3) / (6 / 5) for a, b in zip((1, 2, 3, 4, 10), range(1, 6), strict=True)]
    mean = sum(map(abs, errors)) / 5
    assert affine_invariant_loss(prediction, target, everywhere(target), trim=0, scales=0).item() == pytest.approx(mean)
    kept = sorted(map(abs, errors))[:4]
    trimmed = affine_invariant_loss(prediction, target, everywhere(target), trim=0.25, scales=0)
    assert trimmed.item() == pytest.approx(sum(kept) / 5)


def test_affine_loss_by_least_squares_as_worked_out() -> None:
    """Of 0 0 1 1 to 0 2 2 4 the best line is 1 + 2 x, which leaves 1 everywhere; the target's deviation is 1."""
    target, prediction = row(0, 2, 2, 4), row(0, 0, 1, 1)
    loss = affine_invariant_loss(prediction, target, everywhere(target), "least_squares", trim=0, scales=0)
    assert loss.item() == pytest.approx(1.0, abs=1e-4)


def test_gradient_term_counts_steps_that_the_target_lacks() -> None:
    """Both have median 2 (the lower of the two in the middle) and mean absolute deviation 1."""
    target, prediction = row(1, 2, 3, 4), row(1, 2, 4, 3)
    both = (affine_invariant_loss(prediction, target, everywhere(target), trim=0, gradient=g, scales=1) for g in (0, 1))
    plain, steep = (loss.item() for loss in both)
    assert plain == pytest.approx(2 / 4)  # errors 0 0 1 -1 over a deviation of 1
    assert steep - plain == pytest.approx((0 + 1 + 2) / 3)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@settings(max_examples=25)
@given(st.floats(0.1, 10), st.floats(-5, 5), st.integers(0, 999))
def test_scale_and_shift_of_either_map_change_nothing(alignment: str, scale: float, shift: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    target, prediction = torch.rand(2, 2, 1, 8, 8, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 1, 8, 8, generator=generator) < 0.7

    def loss(p: torch.Tensor, t: torch.Tensor) -> float:
        return affine_invariant_loss(p, t, mask, alignment).item()  # type: ignore[arg-type]

    plain = loss(prediction, target)
    assert plain > 0.1
    assert loss(scale * prediction + shift, target) == pytest.approx(plain, rel=1e-2)
    assert loss(prediction, scale * target + shift) == pytest.approx(plain, rel=1e-2)
    assert loss(scale * target + shift, target) == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_unknown_pixels_and_images_do_not_count(alignment: str) -> None:
    target, prediction = torch.rand(2, 2, 1, 8, 8)
    mask = torch.rand(2, 1, 8, 8) < 0.6
    alone = affine_invariant_loss(prediction[:1], target[:1], mask[:1], alignment)  # type: ignore[arg-type]
    mask[1] = False
    wild = torch.where(mask, target, 1e4)
    assert affine_invariant_loss(prediction, wild, mask, alignment).item() == pytest.approx(alone.item(), rel=1e-5)  # type: ignore[arg-type]
    prediction.requires_grad_()
    affine_invariant_loss(prediction, wild, mask, alignment).backward()  # type: ignore[arg-type]
    assert torch.isfinite(prediction.grad).all() and not prediction.grad[1].any() and prediction.grad[0].any()
    assert affine_invariant_loss(prediction, target, torch.zeros_like(mask)).item() == 0


def test_median_alignment_does_not_praise_a_reversed_map() -> None:
    target = torch.rand(1, 1, 8, 8)
    reversed_map, mask = -target, everywhere(target)
    assert affine_invariant_loss(reversed_map, target, mask).item() > 0.5
    assert affine_invariant_loss(reversed_map, target, mask, "least_squares").item() < 0.01


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("flat", ["target", "prediction", "both"])
def test_flat_maps_give_finite_loss_and_gradient(alignment: str, flat: str) -> None:
    target = torch.full((1, 1, 8, 8), 1.5) if flat != "prediction" else 1 + torch.rand(1, 1, 8, 8)
    prediction = torch.full((1, 1, 8, 8), 0.3) if flat != "target" else torch.rand(1, 1, 8, 8)
    prediction.requires_grad_()
    loss = affine_invariant_loss(prediction, target, everywhere(target), alignment)  # type: ignore[arg-type]
    loss.backward()
    assert math.isfinite(loss.item()) and torch.isfinite(prediction.grad).all()


def test_a_smaller_prediction_is_brought_to_the_targets_size() -> None:
    target = torch.linspace(0, 1, 32).expand(1, 1, 16, 32)
    small = 3 * torch.nn.functional.avg_pool2d(target, 2) + 1
    assert affine_invariant_loss(small, target, everywhere(target)).item() < 0.02


def test_descent_finds_the_map_up_to_scale_and_shift() -> None:
    torch.manual_seed(0)
    target = torch.nn.functional.interpolate(torch.rand(1, 1, 4, 4), (16, 16), mode="bilinear")
    prediction = torch.rand(1, 1, 16, 16).requires_grad_()
    optimizer = torch.optim.Adam([prediction], lr=0.02)
    first = last = affine_invariant_loss(prediction, target, everywhere(target))
    for _ in range(200):
        last = affine_invariant_loss(prediction, target, everywhere(target))
        optimizer.zero_grad()
        last.backward()
        optimizer.step()
    assert last.item() < 0.15 * first.item()
    both = torch.stack([prediction.detach().flatten(), target.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.95

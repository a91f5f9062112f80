"""Losses of masks against plain loops, and worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from perception.tasks.labels import UNLABELED  # noqa: E402
from perception.training.mask_losses import class_weights, cross_entropy, jaccard_loss, teacher_loss  # noqa: E402

CLASSES = 3


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 3, 4, 5), and classes of which some are none."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, CLASSES, 4, 5, generator=generator)
    classes = torch.randint(0, CLASSES + 1, (2, 4, 5), generator=generator)
    return logits, classes.where(classes < CLASSES, UNLABELED)


def pixels(logits: torch.Tensor, classes: torch.Tensor) -> list[tuple[list[float], int]]:
    """Chances and class of every pixel that has one."""
    chances = logits.softmax(1).permute(0, 2, 3, 1).reshape(-1, CLASSES).tolist()
    return [(chance, one) for chance, one in zip(chances, classes.flatten().tolist(), strict=True) if one != UNLABELED]


@settings(max_examples=40)
@given(st.integers(0, 9999), st.sampled_from([1.0, 0.5, 0.1]))
def test_cross_entropy_is_that_of_a_plain_loop(seed: int, hardest: float) -> None:
    logits, classes = random_case(seed)
    weights = [0.5, 1.0, 2.0]
    losses = sorted(-weights[one] * math.log(chance[one]) for chance, one in pixels(logits, classes))
    counted = losses[-max(1, int(hardest * len(losses))) :]
    found = cross_entropy(logits, classes, torch.tensor(weights), hardest)
    assert found.item() == pytest.approx(np.mean(counted), rel=1e-4)


@settings(max_examples=40)
@given(st.integers(0, 9999))
def test_jaccard_loss_is_that_of_a_plain_loop(seed: int) -> None:
    logits, classes = random_case(seed)
    ious = []
    for place in range(CLASSES):
        common = union = 0.0
        for chance, one in pixels(logits, classes):
            common += chance[place] * (one == place)
            union += chance[place] + (one == place) - chance[place] * (one == place)
        if (classes == place).any():
            ious.append(common / union)
    assert jaccard_loss(logits, classes).item() == pytest.approx(1 - np.mean(ious), rel=1e-4)


def test_losses_of_images_without_any_class_are_nothing_and_can_be_stepped_down() -> None:
    classes = torch.full((1, 2, 2), UNLABELED)
    for loss in (cross_entropy, jaccard_loss, lambda a, b: cross_entropy(a, b, hardest=0.5)):
        logits = torch.zeros(1, CLASSES, 2, 2, requires_grad=True)
        value = loss(logits, classes)
        value.backward()
        assert value.item() == 0 and logits.grad is not None and not logits.grad.any()


def test_right_and_sure_costs_nothing_and_a_small_class_counts_as_a_large_one() -> None:
    classes = torch.zeros(1, 10, 10, dtype=torch.int64)
    classes[0, 0, 0] = 1
    sure = 50.0 * torch.nn.functional.one_hot(classes, CLASSES).permute(0, 3, 1, 2).float()
    assert jaccard_loss(sure, classes).item() == pytest.approx(0, abs=1e-5)
    missed = 50.0 * torch.nn.functional.one_hot(0 * classes, CLASSES).permute(0, 3, 1, 2).float()
    assert jaccard_loss(missed, classes).item() == pytest.approx((0.01 + 1) / 2, abs=1e-3)


def test_weights_of_classes() -> None:
    counts = np.array([60.0, 30.0, 10.0, 0.0])
    assert class_weights(counts, 0.0).tolist() == [1, 1, 1, 0]
    even = class_weights(counts, 1.0)
    assert (even[:3] * torch.tensor([6.0, 3.0, 1.0])).tolist() == pytest.approx([10 / 3] * 3) and even[3] == 0
    between = class_weights(counts, 0.5)
    assert between[2] / between[0] == pytest.approx(math.sqrt(6)), "the root of how much rarer it is"
    assert (between[:3] * torch.tensor([0.6, 0.3, 0.1])).sum().item() == pytest.approx(1)


def test_a_teacher_is_followed_where_the_image_shows_something() -> None:
    logits, _ = random_case(1)
    shown = torch.ones(2, 1, 4, 5)
    assert teacher_loss(logits, logits + 7.0, shown).item() == pytest.approx(0, abs=1e-6), "only chances matter"
    teacher = random_case(2)[0]
    p, q = teacher.softmax(1), logits.softmax(1)
    expected = (p * (p / q).log()).sum(1)
    assert teacher_loss(logits, teacher, shown).item() == pytest.approx(expected.mean().item(), rel=1e-4)
    shown[:, :, :2] = 0
    assert teacher_loss(logits, teacher, shown).item() == pytest.approx(expected[:, 2:].mean().item(), rel=1e-4)
    soft = teacher_loss(logits / 4, teacher / 4, shown).item()
    assert teacher_loss(logits, teacher, shown, temperature=4.0).item() == pytest.approx(16 * soft, rel=1e-4)
    coarse = torch.zeros(2, CLASSES, 2, 2)
    assert teacher_loss(torch.zeros(2, CLASSES, 4, 5), coarse, shown).item() == 0

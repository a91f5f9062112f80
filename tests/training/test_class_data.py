"""Images of classes, varied, mixed and drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from perception.evaluation.class_folder import ClassDataset  # noqa: E402
from perception.evaluation.frames import ClassFrame  # noqa: E402
from perception.training.class_data import (  # noqa: E402
    STILL,
    ClassAugmentation,
    ClassMixture,
    Images,
    Relabelled,
    augment,
)

SIZE = (16, 16)


class Shades(ClassDataset):
    """Images of one shade, 10 times the number of their class."""

    def __init__(self, labels: list[int], classes: int = 3) -> None:
        self.name, self.labels = "shades", tuple("abcdefgh"[:classes])
        self.numbers = labels

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> ClassFrame:
        label = self.numbers[index]
        return ClassFrame(np.full((*SIZE, 3), 10 * label, np.uint8), label, name=f"{index}")

    def label(self, index: int) -> str:
        return f"{index}"

    def files(self, index: int) -> tuple:
        return ()


def picture(size: tuple[int, int] = SIZE) -> np.ndarray:
    small = np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_LINEAR)


def every(labels: list[int], places: list[int], memory: int = 1 << 20) -> Images:
    return Images(Shades(labels), range(len(labels)), np.array(places), memory)


def test_still_images_are_as_they_were_or_mirrored() -> None:
    image, rng = picture(), np.random.default_rng(0)
    seen = {augment(image, SIZE, STILL, rng, mirror).tobytes() for mirror in (False, True)}
    assert seen == {image.tobytes(), image[:, ::-1].tobytes()}


def test_images_are_stretched_to_the_networks_size() -> None:
    rng = np.random.default_rng(0)
    image = picture((32, 32))
    plain = augment(image, (48, 24), STILL, rng, mirror=False)
    assert plain.shape == (48, 24, 3) and _apart(plain, image) < 4


def _apart(one: np.ndarray, image: np.ndarray) -> float:
    resized = cv2.resize(image, one.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return float(np.abs(one.astype(float) - resized)[4:-4, 4:-4].mean())


def test_a_shift_moves_the_image() -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    image[8:10, 8:10] = 255
    amount = ClassAugmentation(shift=0.25, color=0.0)
    moved = [augment(image, SIZE, amount, np.random.default_rng(i), i % 2 == 0) for i in range(40)]
    spots = [np.argwhere(one[..., 0] > 80) for one in moved]
    rows = [spot[:, 0].mean() for spot in spots]
    assert 3.5 < min(rows) < 6 and 11 < max(rows) < 13.5


def test_an_erased_rectangle_is_grey() -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    amount = ClassAugmentation(color=0, erase=1.0)
    erased = [augment(image, SIZE, amount, np.random.default_rng(i), i % 2 == 0) for i in range(20)]
    shares = [(one == 128).all(axis=2).mean() for one in erased]
    assert min(shares) > 0 and 0.1 < max(shares) < 0.45 and all(set(np.unique(one)) <= {0, 128} for one in erased)


def test_a_share_of_images_has_been_jpeg() -> None:
    """Colours and brightness stay where they are: a picture in red stays red."""
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8) // (1, 4, 8)
    image = cv2.GaussianBlur(image.astype(np.uint8), (5, 5), 1)
    amount = ClassAugmentation(shift=0, color=0, jpeg=0.5)
    seen = [augment(image, (32, 32), amount, np.random.default_rng(i), mirror=False) for i in range(40)]
    changes = [np.abs(one.astype(float) - image) for one in seen]
    assert 10 < sum(change.any() for change in changes) < 30
    assert all(change.mean() < 8 and (not change.any() or change.mean() > 0.5) for change in changes)
    assert np.abs(np.mean(seen, axis=(0, 1, 2)) - image.mean((0, 1))).max() < 2


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mixed_image_says_its_shares(kind: str) -> None:
    mixture = ClassMixture([every([0, 1, 2] * 4, [0, 1, 2])], [1.0], 3)
    amount = ClassAugmentation(shift=0, color=0, **{kind: 1.0})
    images, first, second, share, which = mixture.batch(3, 0, 24, SIZE, amount)
    assert images.dtype == torch.uint8 and images.shape == (24, 3, *SIZE)
    expected = 10 * (share * first + (1 - share) * second)
    assert (images.float().mean((1, 2, 3)) - expected).abs().max() < (0.6 if kind == "mixup" else 0.01)
    assert 0.2 < share.mean() < 0.8 and (first != second).any()
    assert torch.equal(which // 2 % 3, first) and 4 < (which % 2).sum() < 20
    plain = mixture.batch(3, 0, 24, SIZE, STILL)
    assert (plain[3] == 1).all() and torch.equal(plain[0].float().mean((1, 2, 3)), 10.0 * plain[1])


def test_a_batch_follows_from_seed_and_step() -> None:
    mixture = ClassMixture([every([0, 1, 2] * 4, [0, 1, 2], memory=100)], [1.0], 3)
    amount = ClassAugmentation(mixup=0.3, cutmix=0.3)
    one, same, later, other = (mixture.batch(*at, 8, SIZE, amount) for at in ((3, 0), (3, 0), (4, 0), (3, 1)))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], later[0]) and not torch.equal(one[0], other[0])


def test_classes_can_be_left_out_or_gathered() -> None:
    labels = [0] * 90 + [1] * 5 + [2] * 5
    left = every(labels, [-1, 0, 1])
    assert len(left) == 10 and left.labels.tolist() == [0] * 5 + [1] * 5 and left[7].rgb.max() == 20
    gathered = every(labels, [0, 0, 1])
    for part, expected in ((0.0, 0.95), (0.5, 0.5)):
        mixture = ClassMixture([gathered], [1.0], 2, 0, part)
        drawn = torch.cat([mixture.batch(step, 0, 50, SIZE, STILL)[1] for step in range(6)])
        assert (drawn == 0).float().mean() == pytest.approx(expected, abs=0.08)
    with pytest.raises(ValueError, match="no training image shows the classes number 1"):
        ClassMixture([every([0, 0], [0, 1, 1])], [1.0], 2)
    relabelled = Relabelled(Shades([0, 1, 2]), ("other", "c"), np.array([0, 0, 1]), [1, 2])
    assert [frame.label for frame in relabelled] == [0, 1] and relabelled.label(0) == "1" and len(relabelled) == 2


@pytest.mark.parametrize("fields", [{"shift": 2}, {"mixup": 0.6, "cutmix": 0.6}, {"zoom": 0.5}, {"hue": 1}])
def test_impossible_variation_is_refused(fields: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        ClassAugmentation(**fields)

"""The fusion network against sums done by hand."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from test_vit_split import make_split

from perception.tasks.fusion import Fusion, load_fusion, save_fusion
from perception.tasks.vit_split import FusionFile, Split, file_sha256

Layers = list[tuple[np.ndarray, np.ndarray]]


def layers(*sizes: int, seed: int = 0) -> Layers:
    random = np.random.default_rng(seed)
    return [(random.normal(size=(after, before)), random.normal(size=after)) for before, after in pairwise(sizes)]


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum()


def test_it_is_the_sum_of_products() -> None:
    first, second = network = layers(5, 7, 3)
    parts = [np.array([1, -2], np.float32), np.array([0.5, 3, -1], np.float32)]
    hidden = np.maximum(first[0] @ np.concatenate(parts) + first[1], 0)
    chances = Fusion([2, 3], network)(parts).scores
    assert chances.dtype == np.float32 and chances.shape == (3,)
    assert np.allclose(chances, softmax(second[0] @ hidden + second[1]), atol=1e-6)


def test_a_missing_worker_is_zeros() -> None:
    fusion = Fusion([2, 3], layers(5, 7, 3))
    part = np.array([1, -2], np.float32)
    without = fusion([part, None]).scores
    assert (without == fusion([part, np.zeros(3, np.float32)]).scores).all()
    assert not np.allclose(without, fusion([part, np.ones(3, np.float32)]).scores, atol=1e-3)


def test_large_values_overflow_nothing() -> None:
    chances = Fusion([1], [(np.array([[1e4], [-1e4]]), np.zeros(2))])([np.array([60000.0], np.float32)]).scores
    assert chances.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ([None, None], "0 of 2 features; expected 2, one of them at least"),
        ([np.zeros(2, np.float32)], "1 of 1 features; expected 2"),
        ([np.zeros(3, np.float32), None], r"worker 0 have the shape \(3,\); expected are 2 finite numbers"),
        ([None, np.array([0, 0, np.nan])], "worker 1 .* 3 finite numbers"),
    ],
)
def test_features_that_do_not_fit(features: list[np.ndarray | None], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Fusion([2, 3], layers(5, 7, 3))(features)


def with_fusion(folder: Path, network: Layers) -> Split:
    """A split of two workers with 128 features each and three labels."""
    save_fusion(folder / "fusion.npz", network)
    split = make_split(folder)
    save_fusion(folder / "fusion.npz", network)
    return dataclasses.replace(split, fusion=FusionFile("fusion.npz", file_sha256(folder / "fusion.npz")))


def test_it_is_read_from_a_split(tmp_path: Path) -> None:
    network = layers(256, 16, 3)
    parts = [np.linspace(-1, 1, 128, dtype=np.float32), None]
    found = load_fusion(with_fusion(tmp_path, network))(parts)
    assert np.allclose(found.scores, Fusion([128, 128], network)(parts).scores, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (layers(256, 16, 4), "knows 4 classes, but the split has 3 labels"),
        (layers(255, 3), r"layer 0 .* shape \(3, 255\) .* after 256 values expected are \(outputs, 256\)"),
        ([layers(256, 8)[0], layers(9, 3)[0]], r"layer 1 .* after 8 values"),
        ([(np.zeros((3, 256)), np.zeros(4))], "a bias of shape"),
        ([], "it holds no layers"),
    ],
    ids=["labels", "input", "between", "bias", "none"],
)
def test_networks_that_do_not_fit(tmp_path: Path, network: Layers, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_fusion(with_fusion(tmp_path, network))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fusion\.npz is no fusion network: .*make the split again"):
        load_fusion(make_split(tmp_path))

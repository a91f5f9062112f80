"""Pairs of dark and bright images, found by layout and name."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.evaluation.datasets import data_hash, data_root, find_dataset, open_dataset
from perception.evaluation.pairs import PairDataset


def write(path: Path, shade: int, size: tuple[int, int] = (4, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), (shade, shade + 1, shade + 2), np.uint8))


@pytest.mark.parametrize(
    "dark, bright",
    [
        ("{}/low/{}.png", "{}/high/{}.png"),
        ("{}/Low/low{}.png", "{}/Normal/normal{}.bmp"),
        ("{}/input/{}.png", "{}/target/{}.png"),
    ],
)
def test_pairs_belong_together_by_name(dark: str, bright: str, tmp_path: Path) -> None:
    for number, name in enumerate(("7", "8")):
        write(tmp_path / dark.format("eval", name), 10 + number)
        write(tmp_path / bright.format("eval", name), 100 + number)
    write(tmp_path / dark.format("train", "1"), 20)
    write(tmp_path / bright.format("train", "1"), 200)
    dataset = find_dataset(tmp_path.name, tmp_path.parent)
    assert isinstance(dataset, PairDataset) and (len(dataset), dataset.task) == (2, "enhancement")
    assert dataset.name == f"{tmp_path.name} eval"
    frame = dataset[1]
    assert frame.rgb[0, 0].tolist() == [13, 12, 11] and frame.target[0, 0].tolist() == [103, 102, 101]
    assert frame.name == dataset.label(1) and "8" in frame.name
    training = dataset.training()
    assert training is not None and [pair.target[0, 0, 2] for pair in training] == [200]


def test_a_folder_may_be_one_split(tmp_path: Path) -> None:
    write(tmp_path / "low/a.png", 10)
    write(tmp_path / "high/a.png", 100)
    dataset = open_dataset(tmp_path)
    assert (dataset.name, len(dataset), dataset.training()) == (tmp_path.name, 1, None)
    for split in ("train", "evla"):
        with pytest.raises(ValueError, match=f"no split '{split}'; expected {split}/low with .* which is called eval"):
            open_dataset(tmp_path, split)


def test_the_surest_name_counts(tmp_path: Path) -> None:
    for name in ("low1.png", "2.jpg", "2.png", "3.png", "4.bmp"):
        write(tmp_path / "low" / name, 10)
    for name, shade in {"1.png": 100, "low1.png": 110, "2.jpg": 120, "2.png": 130, "high3.png": 140}.items():
        write(tmp_path / "high" / name, shade)
    for suffix in ("jpg", "png"):
        write(tmp_path / "high" / f"4.{suffix}", 150)
    dataset = PairDataset(tmp_path)
    names = [tuple(path.name for path in dataset.files(index)[1:]) for index in range(5)]
    assert names == [("2.jpg",), ("2.png",), ("high3.png",), ("4.jpg", "4.png"), ("low1.png",)]
    assert dataset[4].target[0, 0, 2] == 110
    with pytest.raises(ValueError, match="4.bmp has 4.jpg and 4.png as bright images of the same name"):
        dataset[3]


def test_what_is_no_pair_is_a_broken_sample(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"low/{name}.png", 10)
    write(tmp_path / "high/b.png", 100, (4, 8))
    (tmp_path / "high/c.png").write_text("no image")
    dataset = PairDataset(tmp_path)
    for index, message in enumerate(("no bright image", "6x4 and 8x4 pixels", "c.png is not a readable image")):
        with pytest.raises(ValueError, match=message):
            dataset[index]
    before = data_hash(dataset)
    write(tmp_path / "high/a.png", 100)
    assert data_hash(PairDataset(tmp_path)) != before


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    write(tmp_path / "train/low/a.png", 10)
    with pytest.raises(ValueError, match="no split 'eval'; expected eval/low with eval/high"):
        PairDataset(tmp_path)
    (tmp_path / "eval/low").mkdir(parents=True)
    write(tmp_path / "eval/high/a.png", 10)
    with pytest.raises(ValueError, match="holds no image"):
        open_dataset(tmp_path)


def test_the_real_pairs_are_of_the_same_view() -> None:
    root = data_root() / "lol"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    dataset = find_dataset("lol", root.parent)
    assert len(dataset) == 30 and len(dataset.training() or ()) == 150
    frame = dataset[0]
    assert frame.rgb.shape == (400, 600, 3) and frame.rgb.mean() < 20 < 80 < frame.target.mean()
    dark, bright = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).ravel() for image in (frame.rgb, frame.target))
    assert np.corrcoef(dark, bright)[0, 1] > 0.8

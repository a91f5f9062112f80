"""Images in folders that are called as what they show, in folders and in archives."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.evaluation.class_folder import ClassFolder
from perception.evaluation.datasets import as_boxes, as_classes, data_hash, data_root, find_dataset, open_dataset
from perception.tasks.labels import CIFAR10_LABELS


def write_classes(folder: Path, classes: dict[str, int], seed: int = 0) -> Path:
    """So many images of 8 by 6 pixels of each class."""
    rng = np.random.default_rng(seed)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(folder / name / f"{number}.png"), rng.integers(0, 256, (6, 8, 3), np.uint8))
    return folder


def packed(root: Path, split: str) -> Path:
    """A copy of the data set, the split of which is an archive."""
    copy = root.with_name("packed")
    copy.mkdir()
    shutil.make_archive(str(copy / split), "tar", root / split)
    return copy


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_classes(tmp_path / "pets/train", {"dog": 2, "cat": 3}, 1)
    write_classes(tmp_path / "pets/test", {"dog": 2, "cat": 1, "eel": 1})
    return tmp_path / "pets"


def test_a_folder_is_a_class(root: Path) -> None:
    dataset = open_dataset(root)
    assert isinstance(dataset, ClassFolder) and dataset.task == "classification"
    assert dataset.name == "pets eval" and dataset.labels == ("cat", "dog", "eel")
    assert [(frame.name, frame.label) for frame in dataset] == [("cat/0", 0), ("dog/0", 1), ("dog/1", 1), ("eel/0", 2)]
    expected = cv2.imread(str(root / "test/dog/1.png"))[..., ::-1]
    assert (dataset[2].rgb == expected).all() and dataset[2].truth()[0] == 1
    training = dataset.training()
    assert training is not None and training.name == "pets train" and len(training) == 5
    assert training.labels == ("cat", "dog") and as_classes(training) is training
    with pytest.raises(ValueError, match="has no boxes"):
        as_boxes(dataset)


def test_an_archive_is_read_as_the_folder_that_it_was(root: Path) -> None:
    folder, archive = open_dataset(root, "test"), open_dataset(packed(root, "test"), "test")
    assert len(folder) == len(archive) == 4 and as_classes(archive).labels == as_classes(folder).labels
    for one, other in zip(folder, archive, strict=True):
        assert one.name == other.name and one.label == other.label and (one.rgb == other.rgb).all()
    assert archive.files(0) == archive.files(3) and data_hash(archive) != data_hash(archive, [0])


def test_one_folder_of_classes_is_to_evaluate_on(tmp_path: Path) -> None:
    dataset = open_dataset(write_classes(tmp_path / "shots", {"a": 1, "b": 2}))
    assert dataset.name == "shots" and len(dataset) == 3 and dataset.training() is None
    with pytest.raises(ValueError, match=r"no split 'train'; expected train/CLASS/\*.jpg or train.tar"):
        open_dataset(tmp_path / "shots", "train")


def test_what_is_broken_is_told(root: Path, tmp_path: Path) -> None:
    (root / "test/cat/0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="cat/0 in .* is not a readable image"):
        open_dataset(root)[0]
    shutil.make_archive(str(tmp_path / "zipped"), "gztar", root / "test")
    (tmp_path / "odd").mkdir()
    (tmp_path / "zipped.tar.gz").rename(tmp_path / "odd/eval.tar")
    with pytest.raises(ValueError, match="no .tar file, or compressed"):
        open_dataset(tmp_path / "odd")


def test_pairs_and_masks_are_not_taken_for_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "night/eval", {"low": 1, "high": 1})
    assert open_dataset(tmp_path / "night").task == "enhancement"
    assert open_dataset(tmp_path / "night", task="classification").task == "classification"


def test_cifar10() -> None:
    if not (data_root() / "cifar10").is_dir():
        pytest.skip(f"no {data_root() / 'cifar10'}")
    dataset = as_classes(find_dataset("cifar10", data_root()))
    assert dataset.labels == CIFAR10_LABELS and len(dataset) == 2000
    assert dataset[0].rgb.shape == (32, 32, 3) and [dataset[i].label for i in (0, 1999)] == [0, 9]
    training = dataset.training()
    assert training is not None and len(training) == 10_000

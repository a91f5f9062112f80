"""Data sets of boxes: three layouts, one frame."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.evaluation.boxes import BoxDataset
from perception.evaluation.datasets import data_hash, find_dataset, open_dataset
from perception.evaluation.frames import BoxFrame
from perception.evaluation.voc import VocBoxes
from perception.tasks.labels import COCO_LABELS

DATA = Path(os.environ.get("PERCEPTION_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def write_image(path: Path, size: tuple[int, int] = (40, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), (250, 20, 20), np.uint8))


def write_coco(root: Path) -> Path:
    """Two images; the second has no object. Category ids have gaps, and are not in order."""
    write_image(root / "val2017" / "b.jpg")
    write_image(root / "val2017" / "a.jpg")
    box = {"image_id": 3, "category_id": 9, "iscrowd": 0}
    content = {
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 60, "height": 40},
            {"id": 3, "file_name": "b.jpg", "width": 60, "height": 40},
        ],
        "annotations": [
            {**box, "id": 1, "bbox": [10.5, 5, 20, 10], "area": 90.0},
            {**box, "id": 2, "bbox": [50, 30, 30, 30], "area": 100.0, "category_id": 4, "iscrowd": 1},
            {**box, "id": 3, "bbox": [10, 10, 0, 5], "area": 0.0},
        ],
    }
    path = root / "annotations" / "instances_val2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    return path


def voc_xml(objects: list[tuple[str, tuple[object, ...], int]], size: tuple[int, int] = (40, 60)) -> str:
    edges = ("xmin", "ymin", "xmax", "ymax")
    entries = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        + "".join(f"<{edge}>{value}</{edge}>" for edge, value in zip(edges, box, strict=True))
        + "</bndbox></object>"
        for name, box, difficult in objects
    )
    return f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>{entries}</annotation>"


def write_voc(root: Path, files: dict[str, str], lists: dict[str, list[str]]) -> Path:
    for name, text in files.items():
        write_image(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(text)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split, names in lists.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def write_yolo(root: Path, texts: dict[str, str], split: str = "eval") -> Path:
    (root / split / "label").mkdir(parents=True)
    for name, text in texts.items():
        write_image(root / split / "rgb" / f"{name}.jpg")
        (root / split / "label" / f"{name}.txt").write_text(text)
    return root


def boxes_of(frame: BoxFrame) -> list[list[float]]:
    assert frame.boxes.dtype == np.float32 and frame.labels.dtype == np.int64 and frame.ignore.dtype == bool
    assert len(frame.boxes) == len(frame.labels) == len(frame.ignore)
    return frame.boxes.tolist()


def test_coco_keeps_names_crowds_and_areas(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "set")
    for dataset in (open_dataset(tmp_path / "set"), open_dataset(path)):
        assert isinstance(dataset, BoxDataset) and dataset.task == "detection" and dataset.name == "set val2017"
        assert dataset.labels == ("cat", "dog") and len(dataset) == 2 and dataset.dropped == 1
        frame, empty = dataset[0], dataset[1]
        assert frame.name == "b" and frame.rgb.shape == (40, 60, 3) and tuple(frame.rgb[0, 0] > 128) == (0, 0, 1)
        assert boxes_of(frame) == [[10.5, 5, 30.5, 15], [50, 30, 60, 40]], "cut at the image's edges"
        assert frame.labels.tolist() == [1, 0] and frame.ignore.tolist() == [False, True]
        assert frame.areas is not None and frame.areas.tolist() == [90, 100]
        assert frame.crowd is not None and frame.crowd.tolist() == [False, True]
        assert boxes_of(empty) == [] and empty.boxes.shape == (0, 4)


def test_several_files_of_a_split_are_not_guessed_between(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    (path.parent / "instances_val2014.json").write_text(path.read_text())
    with pytest.raises(
        ValueError, match=r"may be instances_val2014.json or instances_val2017.json of .*--split val2017"
    ):
        open_dataset(tmp_path, "val")
    assert open_dataset(tmp_path, "val2017").name.endswith("val2017")


def test_coco_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": [], "annotations": [{"image_id": 1, "caption": "a dog"}]}))
    with pytest.raises(ValueError, match="captions.json is not COCO's JSON of boxes"):
        open_dataset(path)


def test_voc_counts_pixels_from_one_unless_there_are_fractions(tmp_path: Path) -> None:
    whole = {"1": voc_xml([("dog", (1, 1, 60, 40), 0), ("cat", (11, 11, 20, 20), 1)])}
    frame = open_dataset(write_voc(tmp_path / "whole", whole, {"trainval": ["1"], "test": ["1"]}))[0]
    assert boxes_of(frame) == [[0, 0, 60, 40], [10, 10, 20, 20]]
    assert frame.labels.tolist() == [1, 0] and frame.ignore.tolist() == [False, True] and frame.areas is None
    assert frame.crowd is None, "a difficult object is none"
    parts = whole | {"2": voc_xml([("dog", (-0.5, 2, 10.25, 40), 0), ("dog", (70.0, 2, 80, 40), 0)])}
    dataset = open_dataset(write_voc(tmp_path / "parts", parts, {"val": ["2"]}))
    assert boxes_of(dataset[0]) == [[0, 2, 10.25, 40]] and dataset.dropped == 1
    assert dataset.labels == ("cat", "dog"), "of all images, whatever the split"


def test_voc_takes_the_split_by_clips_first(tmp_path: Path) -> None:
    files = {str(n): voc_xml([("dog", (1, 1, 9, 9), 0)]) for n in range(4)}
    lists = {"trainval": ["0", "1"], "test": ["2"], "train": ["0"], "val": ["1"]}
    root = write_voc(tmp_path / "set", files, lists)
    dataset = open_dataset(root)
    training = dataset.training()
    assert dataset.name == "set test" and dataset.label(0) == "2" and training.name == "set trainval"
    assert open_dataset(root, "val").training().name == "set train"
    for name, names in (("train_clips", "0\n1\n"), ("val_clips", "3\n")):
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(names)
    assert open_dataset(root).label(0) == "3" and open_dataset(root, "train").name == "set train_clips"
    with pytest.raises(ValueError, match="no split 'night'.*lists that are: test, train, train_clips"):
        open_dataset(root, "night")


def test_voc_labels_may_be_given(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set", {"1": voc_xml([("dog", (1, 1, 9, 9), 0)])}, {"val": ["1"]})
    assert VocBoxes(root, "val", ("cat", "dog"))[0].labels.tolist() == [1]
    (root / "labels.txt").write_text("bird\ncat\ndog\n")
    assert open_dataset(root)[0].labels.tolist() == [2]
    with pytest.raises(ValueError, match="objects called dog, and labels cat"):
        VocBoxes(root, "val", ("cat",))


@pytest.mark.parametrize("text", ["<annotation", "<annotation/>", voc_xml([("dog", ("x", 1, 2, 3), 0)])])
def test_a_damaged_annotation_is_a_broken_sample(tmp_path: Path, text: str) -> None:
    files = {"1": text, "2": voc_xml([("dog", (1, 1, 9, 9), 0)])}
    dataset = open_dataset(write_voc(tmp_path / "set", files, {"val": ["1", "2", "3"]}))
    with pytest.raises(ValueError, match="1.xml is not an annotation of PASCAL VOC"):
        dataset[0]
    assert boxes_of(dataset[1]) == [[0, 0, 9, 9]] and dataset.dropped == 0
    with pytest.raises(ValueError, match="3.xml"):
        dataset[2]


def test_yolo_is_in_shares_of_the_image(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", {"a": "1 0.5 0.5 0.5 0.5\n0 0 0 0.2 0.2\n", "b": ""})
    with pytest.raises(ValueError, match="does not say what its classes are called"):
        open_dataset(root)
    (root / "labels.txt").write_text("cat\ndog\n")
    dataset = open_dataset(root)
    np.testing.assert_allclose(dataset[0].boxes, [[15, 10, 45, 30], [0, 0, 6, 4]], rtol=1e-6)
    assert dataset[0].labels.tolist() == [1, 0] and boxes_of(dataset[1]) == [] and dataset.training() is None
    (root / "labels.txt").unlink()
    (root / "data.yaml").write_text("names:\n  0: cat\n  1: dog\n")
    assert open_dataset(root).labels == ("cat", "dog")


def test_the_usual_folders_of_yolo_are_read(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "val" / "a.jpg")
    (tmp_path / "labels" / "val").mkdir(parents=True)
    (tmp_path / "labels" / "val" / "a.txt").write_text("0 .5 .5 1 1\n")
    (tmp_path / "data.yaml").write_text("names: [cat]\n")
    assert boxes_of(open_dataset(tmp_path)[0]) == [[0, 0, 60, 40]]


@pytest.mark.parametrize(
    ("text", "message"), [("0 1 2 3", "five numbers"), ("x 1 1 1 1", "five numbers"), ("2 0 0 1 1", "outside of 0..1")]
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    root = write_yolo(tmp_path / "set", {"a": text})
    (root / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=f"a.txt.*{message}"):
        open_dataset(root)[0]


def test_a_broken_or_exchanged_image_is_named(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set", {"1": voc_xml([]), "2": voc_xml([])}, {"val": ["1", "2"]})
    (root / "JPEGImages" / "1.jpg").write_bytes(b"cut short")
    write_image(root / "JPEGImages" / "2.jpg", (20, 30))
    dataset = open_dataset(root)
    with pytest.raises(ValueError, match="1.jpg is not a readable image"):
        dataset[0]
    with pytest.raises(ValueError, match="2.jpg is 30x20 and its boxes are of 60x40 pixels"):
        dataset[1]
    with pytest.raises(IndexError):
        dataset[2]


def test_the_hash_follows_the_boxes(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set", {"a": "0 .5 .5 1 1\n"})
    (root / "labels.txt").write_text("cat\n")
    before = data_hash(open_dataset(root))
    (root / "eval" / "label" / "a.txt").write_text("0 .5 .5 .5 1\n")
    changed = data_hash(open_dataset(root))
    assert changed != before
    (root / "labels.txt").write_text("dog\n")
    assert data_hash(open_dataset(root)) not in (changed, before)


@pytest.mark.parametrize(("name", "count", "labels"), [("coco", 64, COCO_LABELS), ("penn_fudan", 34, ("person",))])
def test_shared_data_is_found_by_name(name: str, count: int, labels: tuple[str, ...]) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not in {DATA}; set PERCEPTION_DATA")
    dataset = find_dataset(name, DATA)
    assert isinstance(dataset, BoxDataset) and dataset.labels == labels and len(dataset) == count
    training = dataset.training()
    assert training is not None and len(training) > count and training.labels == labels
    frame = dataset[0]
    assert (frame.boxes[:, 2:] > frame.boxes[:, :2]).all() and frame.boxes[:, 2].max() <= frame.rgb.shape[1]

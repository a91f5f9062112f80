"""Data sets of masks: folders, their lists and readings, Cityscapes, and what a broken mask says."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.evaluation.cityscapes import IDS, Cityscapes
from perception.evaluation.classes import Shared
from perception.evaluation.datasets import as_masks, data_hash, find_dataset, open_dataset
from perception.evaluation.mask_folder import NYU13, MaskFolder
from perception.evaluation.masks import SIGNATURE, STRANGE, Coding
from perception.evaluation.segmentation import SegmentationAssessment
from perception.tasks.config import ModelConfig, Output
from perception.tasks.labels import (
    CAMVID_LABELS,
    CITYSCAPES_LABELS,
    NAMED_LABELS,
    NYU13_LABELS,
    NYU_LABELS,
    UNLABELED,
)

DATA = Path(os.environ.get("PERCEPTION_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MASK = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [255, 255, 2, 1]], np.uint8)


def write_pair(image: Path, mask: Path, values: np.ndarray = MASK) -> None:
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(image), np.full((*values.shape[:2], 3), (250, 20, 20), np.uint8))
    cv2.imwrite(str(mask), values)


def write_plain(root: Path, names: Iterable[str], labels: str = "cat\ndog\neel\n") -> Path:
    for name in names:
        write_pair(root / "images" / f"{name}.jpg", root / "masks" / f"{name}.png")
    (root / "labels.txt").write_text(labels)
    return root


@pytest.mark.parametrize("places", ["{}/rgb, {}/label", "images/{}, masks/{}", "{}/images, {}/masks"])
def test_folders_of_splits(places: str, tmp_path: Path) -> None:
    images, masks = places.split(", ")
    for split in ("train", "val"):
        write_pair(tmp_path / images.format(split) / f"{split}.jpg", tmp_path / masks.format(split) / f"{split}.png")
    (tmp_path / "labels.txt").write_text("cat\n\ndog\neel\n")
    dataset = as_masks(open_dataset(tmp_path, task="segmentation"))
    assert dataset.task == "segmentation" and dataset.labels == ("cat", "dog", "eel")
    assert len(dataset) == 1 and dataset.label(0) == "val" and dataset.name == f"{tmp_path.name} eval"
    frame = dataset[0]
    assert (frame.mask == MASK).all() and frame.mask.dtype == np.uint8 and frame.truth()[0] is frame.mask
    assert frame.rgb[0, 0, 2] > 200 > 60 > frame.rgb[0, 0, 0], "RGB"
    assert [path.name for path in dataset.files(0)] == ["val.jpg", "val.png", "labels.txt"]
    training = dataset.training()
    assert training is not None and training.label(0) == "train" and training.training() is None


def test_lists_divide_a_plain_folder(tmp_path: Path) -> None:
    write_plain(tmp_path, "abc")
    whole = open_dataset(tmp_path)
    assert len(whole) == 3 == len(open_dataset(tmp_path, "train")) and whole.training() is None
    (tmp_path / "val.txt").write_text("b\n")
    with pytest.raises(ValueError, match="no known data set.*labels.txt"):
        open_dataset(tmp_path, "train")
    (tmp_path / "train.txt").write_text("a.jpg\nc\n\n")
    held_out = open_dataset(tmp_path)
    assert [held_out.label(0)] == ["b"] and len(held_out) == 1
    training = held_out.training()
    assert training is not None and [training.label(index) for index in range(len(training))] == ["a", "c"]
    write_plain(tmp_path, ("d.1",))
    (tmp_path / "val.txt").write_text("d.1\nlost.png\nb\n")
    listed = open_dataset(tmp_path)
    assert [listed.label(index) for index in range(len(listed))] == ["b", "d.1", "lost"]
    assert (listed[1].mask == MASK).all()
    with pytest.raises(ValueError, match="lost.* is not a readable image; remove or restore it"):
        listed[2]


def test_broken_samples_say_what_is_wrong(tmp_path: Path) -> None:
    dataset = open_dataset(write_plain(tmp_path, "abcdefg"))
    (tmp_path / "images" / "a.jpg").write_text("no image")
    (tmp_path / "masks" / "b.png").unlink()
    masks = {"c": MASK[:2], "d": MASK + np.uint8(7), "e": np.dstack([MASK] * 3), "f": MASK.astype(np.uint16)}
    for name, mask in masks.items():
        cv2.imwrite(str(tmp_path / "masks" / f"{name}.png"), mask)
    for index, said in enumerate(
        (
            "a.jpg is not a readable image",
            "b.png cannot be read",
            "c.jpg is 4x3 and its mask 4x2",
            "d.png has the values 6, 7, 8, 9, which are no class of 3, nor 255 for none",
            r"e.png is uint8 of shape \(3, 4, 3\); accepted are images of one channel of 8 bits",
            "f.png is uint16",
        )
    ):
        with pytest.raises(ValueError, match=said):
            dataset[index]
    assert (dataset[6].mask == MASK).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_whose_numbers_readers_stretch_are_refused(bits: int, tmp_path: Path) -> None:
    """A binary mask's class 1 is read as 255, which is no class."""
    dataset = open_dataset(write_plain(tmp_path, "a", "ground\nthing\n"))
    rows = np.packbits(np.tile([[0, 0, 0, 0, 0, 0, 0, 1]], (3, 1)), axis=1)  # eight, four or two pixels
    header = struct.pack(">IIBBBBB", 8 // bits, 3, bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    png = SIGNATURE
    for name, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")):
        png += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    (tmp_path / "masks" / "a.png").write_bytes(png)
    assert cv2.imread(str(tmp_path / "masks" / "a.png"), cv2.IMREAD_UNCHANGED).max() in (255, 85, 17)
    with pytest.raises(ValueError, match=f"a.png has {bits} bits a pixel, which readers stretch to 8"):
        dataset[0]


def test_a_folders_own_names_come_before_those_that_its_name_stands_for(tmp_path: Path) -> None:
    dataset = as_masks(open_dataset(write_plain(tmp_path / "camvid", "a")))
    assert dataset.labels == ("cat", "dog", "eel") and dataset.name == "camvid eval"
    stored = write_plain(tmp_path / "store", "a")
    (stored / "labels.txt").unlink()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "camvid").symlink_to(stored)
    assert as_masks(open_dataset(tmp_path / "links" / "camvid")).labels == CAMVID_LABELS
    root = write_nyu(tmp_path)
    (root / "nyu_depth_v2" / "labels.txt").write_text("\n".join(map(str, range(40))))
    whole = as_masks(find_dataset("nyu", tmp_path, task="segmentation"))
    assert len(whole.labels) == 40 and whole[0].mask.shape == (480, 640)
    assert as_masks(find_dataset("nyu:13", tmp_path)).labels == NYU13_LABELS, "what is asked for"


def test_a_model_of_39_classes_is_right_about_the_13_that_they_are_parts_of(tmp_path: Path) -> None:
    write_nyu(tmp_path)
    dataset = as_masks(find_dataset("nyu:13", tmp_path))
    shared = Shared(NYU_LABELS, dataset.labels, parts=dataset.parts)
    assert shared.places.tolist() == list(NYU13) and shared.known.all() and not shared.strangers
    some = Shared(("lamp", "bed"), dataset.labels, parts=dataset.parts)
    assert some.places.tolist() == [-1, 0] and some.strangers == ["lamp"], "not all of what is 'objects'"
    size = (426, 561)
    outputs = tuple(Output(name, (1, *size), "", "uint8") for name in ("mask", "confidence"))
    config = ModelConfig("rooms", "segmentation", size, outputs, labels=NYU_LABELS)
    said = as_masks(find_dataset("nyu", tmp_path, task="segmentation"))[0].mask[None]
    assessment = SegmentationAssessment()
    assert not assessment.remarks(config, dataset)
    scores = assessment.score(lambda _: {"mask": said, "confidence": said}, config, dataset, [dataset[0]])
    assert scores["mIoU"] == 1.0


def test_nyu_of_another_size_is_not_cut(tmp_path: Path) -> None:
    write_nyu(tmp_path)
    folder = tmp_path / "nyu_depth_v2" / "eval"
    write_pair(folder / "rgb" / "0000.jpg", folder / "label" / "0000.png", np.zeros((240, 320), np.uint8))
    with pytest.raises(ValueError, match="0000.png is 320x240, and which part is a photograph is known of 640x480"):
        as_masks(find_dataset("nyu", tmp_path, task="segmentation"))[0]


def test_a_folder_without_names_is_refused(tmp_path: Path) -> None:
    (write_plain(tmp_path, "a") / "labels.txt").unlink()
    with pytest.raises(ValueError, match="does not say what its classes are called; put their names into labels.txt"):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match="has no split 'eval'; expected eval/rgb with eval/label or images/eval with"):
        MaskFolder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="256 labels; a mask of 8 bits"):
        Coding.of([str(number) for number in range(256)])


@given(st.lists(st.integers(0, 254), unique=True, min_size=1, max_size=20), st.integers(0, 254))
def test_codings_place_every_value(values: list[int], other: int) -> None:
    coding = Coding.of([f"class {value}" for value in values], {value: place for place, value in enumerate(values)})
    assert [coding.classes[value] for value in values] == list(range(len(values)))
    assert coding.classes[255] == UNLABELED and (other in values or coding.classes[other] == STRANGE)


def test_names_of_well_known_classes() -> None:
    assert [len(NAMED_LABELS[name]) for name in ("camvid", "cityscapes", "nyu", "nyu13")] == [11, 19, 39, 13]
    assert all(len(set(labels)) == len(labels) for labels in NAMED_LABELS.values() if "" not in labels)
    merged = {NYU_LABELS[place]: NYU13_LABELS[target] for place, target in enumerate(NYU13)}
    same = [name for name in NYU_LABELS if name in NYU13_LABELS]
    assert len(same) == 11 and all(merged[name] == name for name in same), "all but furniture and objects"
    assert merged["door"] == "wall" and merged["desk"] == "table" and merged["curtain"] == "window"
    assert merged["lamp"] == "objects" and merged["dresser"] == "furniture" and merged["floor mat"] == "floor"


def write_nyu(root: Path) -> Path:
    values = np.full((480, 640), 39, np.uint8)
    values[45:471, 40:601] = 3
    values[45, 40], values[470, 600] = 34, 39
    write_pair(root / "nyu_depth_v2" / "eval" / "rgb" / "0000.jpg", root / "nyu_depth_v2/eval/label/0000.png", values)
    return root


def test_nyu_is_cut_and_read_in_two_ways(tmp_path: Path) -> None:
    write_nyu(tmp_path)
    (tmp_path / "nyu_depth_v2/eval/depth").mkdir()
    dataset = find_dataset("nyu", tmp_path, task="segmentation")
    frame = dataset[0]
    assert frame.mask.shape == (426, 561) and frame.rgb.shape == (426, 561, 3)
    assert [NYU_LABELS[frame.mask[place]] for place in ((0, 0), (0, 1))] == ["lamp", "bed"]
    assert frame.mask[-1, -1] == UNLABELED
    merged = find_dataset("nyu:13", tmp_path)
    assert merged.name == "nyu_depth_v2:13 eval" and merged.labels == NYU13_LABELS
    assert [NYU13_LABELS[merged[0].mask[place]] for place in ((0, 0), (0, 1))] == ["objects", "bed"]
    assert merged[0].mask[-1, -1] == UNLABELED and data_hash(merged) == data_hash(dataset)
    assert find_dataset(str(tmp_path / "nyu_depth_v2:13"), tmp_path, task="depth").labels == NYU13_LABELS
    assert find_dataset("nyu", tmp_path).task == "depth"
    with pytest.raises(ValueError, match="'nyu_depth_v2:14': what follows the colon .* known are nyu_depth_v2:13"):
        find_dataset("nyu:14", tmp_path)
    with pytest.raises(ValueError, match="nyu_depth_v2 eval has no masks"):
        as_masks(find_dataset("nyu", tmp_path))


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(kind: str, tmp_path: Path) -> None:
    values = np.array([[7, 33, 0, 3]], np.uint8) if kind == "labelIds" else np.array([[0, 18, 255, 255]], np.uint8)
    for split in ("train", "val"):
        for city in ("bonn", "ulm"):
            stem = f"{city}_000000_000019"
            mask = tmp_path / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png"
            write_pair(tmp_path / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", mask, values)
    dataset = open_dataset(tmp_path)
    assert isinstance(dataset, Cityscapes) and dataset.labels == CITYSCAPES_LABELS and len(dataset) == 2
    assert dataset[1].mask.tolist() == [[0, 18, UNLABELED, UNLABELED]]
    assert dataset.label(0) == "bonn_000000_000019_leftImg8bit"
    training = dataset.training()
    assert training is not None and training.name.endswith(" train") and training.training() is None
    with pytest.raises(ValueError, match="no split 'test': there is no leftImg8bit/test/CITY"):
        open_dataset(tmp_path, "test")


def test_cityscapes_label_ids_are_those_of_its_19_classes() -> None:
    known = {7: "road", 17: "pole", 24: "person", 26: "car", 33: "bicycle"}
    assert {value: CITYSCAPES_LABELS[IDS.index(value)] for value in known} == known and len(IDS) == 19


@pytest.mark.skipif(not (DATA / "camvid").is_dir(), reason="CamVid is not in ../shared/data or $PERCEPTION_DATA")
def test_camvid() -> None:
    dataset = as_masks(find_dataset("camvid", DATA))
    training = dataset.training()
    assert dataset.labels == CAMVID_LABELS and len(dataset) == 101 and training is not None and len(training) == 367
    mask = dataset[0].mask
    assert mask.shape == (360, 480) and set(np.unique(mask)) <= {*range(11), UNLABELED}
    assert CAMVID_LABELS[mask[340, 240]] == "road" and CAMVID_LABELS[mask[5, 240]] in ("sky", "building", "tree")


@pytest.mark.skipif(not (DATA / "nyu_depth_v2").is_dir(), reason="NYU is not in ../shared/data or $PERCEPTION_DATA")
def test_nyu_as_it_lies_here() -> None:
    dataset, merged = (as_masks(find_dataset(name, DATA, task="segmentation")) for name in ("nyu", "nyu:13"))
    fine, coarse = dataset[0].mask, merged[0].mask
    assert fine.shape == (426, 561) and len(dataset) == 100
    known = fine != UNLABELED
    assert (coarse[~known] == UNLABELED).all() and (np.array(NYU13)[fine[known]] == coarse[known]).all()

"""Data sets, found by name or by layout. Paths come from the user; nothing is downloaded."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from perception.evaluation.boxes import BoxDataset
from perception.evaluation.cityscapes import Cityscapes
from perception.evaluation.class_folder import ClassDataset, ClassFolder
from perception.evaluation.coco import CocoBoxes
from perception.evaluation.frames import Dataset
from perception.evaluation.mask_folder import MaskFolder
from perception.evaluation.masks import MaskDataset
from perception.evaluation.nyu import FastDepthH5, NYUDepth, NYUMat
from perception.evaluation.pairs import PairDataset
from perception.evaluation.posed_folder import PosedFolder
from perception.evaluation.rgbd_folder import RGBDFolder
from perception.evaluation.seven_scenes import SevenScenes
from perception.evaluation.views import PairedViews, ViewDataset
from perception.evaluation.voc import VocBoxes, find_list
from perception.evaluation.yolo import YoloBoxes
from perception.tasks.resources import share

__all__ = ["Dataset", "as_boxes", "as_classes", "as_masks", "data_hash", "data_root", "find_dataset", "open_dataset"]

NAMES = {"nyu": "nyu_depth_v2", "seven_scenes": "seven_scenes_redkitchen"}
"""Short names of folders below the data root."""
MAT_FILE = "nyu_depth_v2_labeled.mat"
VIEWS = "views"
"""Behind the colon of a path: frames with poses are to be read as novel views."""
BAG_SUFFIXES = (".mcap", ".db3", ".bag")
ACCEPTED = (
    "NYU Depth v2 as SPLIT/rgb and SPLIT/depth, as nyu_depth_v2_labeled.mat, or as FastDepth's val/official/*.h5; "
    "a folder of RGB-D frames (rgb/, depth/, camera.json), a sequence of 7-Scenes, or a rosbag with true depth; "
    "boxes as COCO's JSON (annotations/instances_SPLIT.json, or the file), as PASCAL VOC's folders (Annotations/, "
    "JPEGImages/, ImageSets/Main/), or as YOLO's texts (SPLIT/rgb and SPLIT/label, or images/SPLIT and labels/SPLIT); "
    "masks as PNG files of class numbers (SPLIT/rgb and SPLIT/label, or images/SPLIT and masks/SPLIT; labels.txt), "
    "or as Cityscapes (leftImg8bit/, gtFine/); pairs of dark and bright images as LOL's SPLIT/low and SPLIT/high; "
    "images of classes as SPLIT/CLASS/*.jpg, or SPLIT.tar with these in it, as CIFAR-10; "
    "novel views as NeRF's transforms.json or COLMAP's cameras.txt and images.txt, or of frames with poses, as "
    "PATH:views"
)


def data_root(given: Path | None = None) -> Path:
    """Where names are looked up: `given`, else $PERCEPTION_DATA, else ../shared/data beside the checkout."""
    if given:
        return given
    named = os.environ.get("PERCEPTION_DATA")
    return Path(named) if named else share("package.xml").parent.parent / "shared" / "data"


def find_dataset(
    name: str, root: Path, split: str = "eval", splits: Path | None = None, task: str | None = None
) -> Dataset[Any]:
    """The data set called `name`: a path; `clip`, the shipped clip; `rooms[:SEED[:FRAMES]]`, simulated rooms;
    `composed[:SEED[:SCENES]]`, views of simulated scenes; a name of `NAMES`; or a folder below `root`, such as `coco`.
    The rest is as in `open_dataset`.

    Raises:
        ValueError: nothing of that name, or nothing readable there; the message lists what is accepted.
    """
    if name == "clip":
        return RGBDFolder(share("clip"))
    if name == f"clip:{VIEWS}":
        return PairedViews(RGBDFolder(share("clip")))
    if name.split(":")[0] == "rooms":
        from perception.evaluation.simulated import SimulatedRooms  # ray casting is an extra

        return SimulatedRooms.from_name(name)
    if name.split(":")[0] == "composed":
        from perception.evaluation.composed import ComposedViews

        return ComposedViews.from_name(name)
    short, *reading = name.split(":")
    for path in (Path(name), root / ":".join([NAMES.get(short, short), *reading])):
        if _divided(path)[0].exists():
            return open_dataset(path, split, splits, task)
    raise ValueError(
        f"no data set {name!r}: there is no such path, and none in {root} (--data-root or $PERCEPTION_DATA); names: "
        f"clip, rooms, composed, {', '.join(NAMES)}, nyu:13, coco, penn_fudan, camvid, lol, cifar10, nerf_lego; "
        f"a path may be {ACCEPTED}"
    )


def open_dataset(path: Path, split: str = "eval", splits: Path | None = None, task: str | None = None) -> Dataset[Any]:
    """The data set at `path`, recognised by its layout.

    Args:
        path: where there are several ways to read a folder's masks, the way may follow a colon: `nyu_depth_v2:13`;
            and so may `views`, where frames with poses are to be read as novel views.
        split: "eval" or "train", where it has splits; of VOC and COCO any that it has.
        splits: which images belong to a split of the official .mat; see `NYUMat`.
        task: whose truth is meant where a folder has that of several; None: what is found first.

    Raises:
        ValueError: no known layout; the message lists those that are known.
    """
    finders: dict[str, Callable[[], Dataset[Any] | None]] = {
        "view_synthesis": lambda: find_views(path, split, task == "view_synthesis"),
        "depth": lambda: find_depth(path, split, splits),
        "detection": lambda: find_boxes(path, split),
        "segmentation": lambda: find_masks(path, split),
        "enhancement": lambda: PairDataset(path, split) if PairDataset.is_at(path) else None,
        "classification": lambda: ClassFolder(path, split) if ClassFolder.is_at(path) else None,
    }
    for kind in sorted(finders, key=lambda kind: kind != task):
        if (found := finders[kind]()) is not None:
            return found
    if (path / "val").is_dir():
        return FastDepthH5(path, split)
    raise ValueError(f"{path} holds no known data set; accepted: {ACCEPTED}")


def find_depth(path: Path, split: str = "eval", splits: Path | None = None) -> Dataset[Any] | None:
    """The data set of depth at `path`, None where there is none; see `open_dataset`."""
    if (path / split / "rgb").is_dir() and (path / split / "depth").is_dir():
        return NYUDepth(path, split)
    if path.suffix == ".mat" or (path / MAT_FILE).is_file():
        return NYUMat(path if path.suffix == ".mat" else path / MAT_FILE, split, splits)
    if is_bag(path):
        from perception.evaluation.bag_frames import BagFrames  # rosbags is not needed for the others

        return BagFrames(path)
    if SevenScenes.is_at(path):
        return SevenScenes(path)
    if (path / "rgb").is_dir() and (path / "camera.json").is_file():
        return RGBDFolder(path)
    if next(path.glob("*.h5"), None):
        return FastDepthH5(path, split)
    return None


def find_views(path: Path, split: str = "eval", wanted: bool = False) -> ViewDataset | None:
    """The data set of novel views at `path`, None where there is none; see `open_dataset`.

    Args:
        wanted: whether frames with poses are read so though the path does not say it.
    """
    folder, reading = _divided(path)
    if PosedFolder.is_at(folder):
        return PairedViews(PosedFolder(folder, split), 0, math.inf, metric=False)
    if reading != VIEWS and not wanted:
        return None
    frames = find_depth(folder, split)
    return PairedViews(frames) if isinstance(frames, (SevenScenes, RGBDFolder)) else None


def as_boxes(dataset: Dataset[Any]) -> BoxDataset:
    """The data set, if it is one of boxes.

    Raises:
        ValueError: it is one of something else.
    """
    if not isinstance(dataset, BoxDataset):
        raise ValueError(f"{dataset.name} has no boxes of objects; one as COCO's, VOC's or YOLO's is needed here")
    return dataset


def as_masks(dataset: Dataset[Any]) -> MaskDataset:
    """The data set, if it is one of masks.

    Raises:
        ValueError: it is one of something else.
    """
    if not isinstance(dataset, MaskDataset):
        raise ValueError(f"{dataset.name} has no masks; a folder of them, CamVid, NYU or Cityscapes is needed here")
    return dataset


def as_classes(dataset: Dataset[Any]) -> ClassDataset:
    """The data set, if it is one of images of classes.

    Raises:
        ValueError: it is one of something else.
    """
    if not isinstance(dataset, ClassDataset):
        raise ValueError(f"{dataset.name} does not say what whole images show; folders of classes are needed here")
    return dataset


def find_boxes(path: Path, split: str = "eval") -> BoxDataset | None:
    """The data set of boxes at `path`, None where there is none; see `open_dataset`."""
    if VocBoxes.is_at(path):
        return VocBoxes(path, find_list(path, split))
    if annotations := path if path.suffix == ".json" else CocoBoxes.find(path, split):
        return CocoBoxes(annotations)
    return YoloBoxes(path, split) if YoloBoxes.find(path, split) else None


def find_masks(path: Path, split: str = "eval") -> MaskDataset | None:
    """The data set of masks at `path`, None where there is none; see `open_dataset`."""
    folder, reading = _divided(path)
    if Cityscapes.is_at(folder):
        return Cityscapes(folder, split)
    return MaskFolder(folder, split, reading) if MaskFolder.find(folder, split) else None


def _divided(path: Path) -> tuple[Path, str]:
    """A path and what follows its last colon, where there is no such file."""
    name, colon, reading = path.name.rpartition(":")
    return (path.with_name(name), reading) if colon and name and not path.exists() else (path, "")


def is_bag(path: Path) -> bool:
    """Whether `path` is a rosbag: a file by its suffix, a folder by the metadata in it."""
    return path.suffix.lower() in BAG_SUFFIXES or (path / "metadata.yaml").is_file()


_hashes: dict[tuple[Path, int, int], str] = {}


def data_hash(dataset: Dataset[Any], places: Iterable[int] | None = None) -> str:
    """SHA-256 over the names and contents of the files of the samples at `places` (all if None); of the pixels of
    computed ones. A file that is missing counts as such, so that restoring it changes the hash.
    """
    digest = hashlib.sha256()
    seen: set[Path] = set()
    for index in range(len(dataset)) if places is None else places:
        digest.update(f"sample {dataset.label(index)}\n".encode())
        files = dataset.files(index)
        for path in files:
            if path not in seen:
                seen.add(path)
                digest.update(f"{path.name} {_file_hash(path)}\n".encode())
        if not files:
            frame = dataset[index]
            digest.update(b"".join(array.tobytes() for array in (frame.rgb, *frame.truth())))
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    """SHA-256 of a file's contents, remembered as long as its size and time of change stay."""
    if not path.is_file():
        return "missing"
    status = path.stat()
    key = path.resolve(), status.st_size, status.st_mtime_ns
    if key not in _hashes:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        _hashes[key] = digest.hexdigest()
    return _hashes[key]

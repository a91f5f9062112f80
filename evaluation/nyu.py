"""NYU Depth v2 (Silberman et al., ECCV 2012) in its three forms: folders of images, the official .mat, FastDepth's .h5.

A white frame surrounds each photograph, so every map is cut to rows 45..470 and columns 40..600 before anything else.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.evaluation.frames import Dataset, RGBDFrame
from perception.evaluation.hdf5 import open_hdf5
from perception.tasks.geometry import Camera

SIZE = (480, 640)
ROWS, COLUMNS = slice(45, 471), slice(40, 601)
FULL_CAMERA = Camera(640, 480, 518.8579, 519.4696, 325.5824, 253.7362)
"""The colour camera as the data set's toolbox gives it."""
CAMERA = FULL_CAMERA.cropped(40, 45, 561, 426)


def cut_frame(rgb: np.ndarray, metres: np.ndarray, camera: Camera, name: str) -> RGBDFrame:
    """A frame without the white border.

    Raises:
        ValueError: not 640x480 pixels.
    """
    if rgb.shape != (*SIZE, 3) or metres.shape != SIZE:
        raise ValueError(f"{name}: rgb of shape {rgb.shape} and depth of shape {metres.shape}; expected 480x640 each")
    depth = np.ascontiguousarray(metres[ROWS, COLUMNS], np.float32)
    return RGBDFrame(np.ascontiguousarray(rgb[ROWS, COLUMNS]), depth, camera, name=name)


class NYUDepth(Dataset[RGBDFrame]):
    """Folders `split/rgb` and `split/depth` of images with equal names. Metres = (8-bit code + 0.5) / 25.5.

    The maps are mirrored left-right alike, and so is the principal point. A sample with only one of its two files
    counts, as a broken one.
    """

    CAMERA = Camera(640, 480, FULL_CAMERA.fx, FULL_CAMERA.fy, 639 - FULL_CAMERA.cx, FULL_CAMERA.cy).cropped(
        40, 45, 561, 426
    )

    def __init__(self, root: Path, split: str) -> None:
        self.root, self.split, self.name = root, split, f"{root.resolve().name} {split}"
        self._images = {path.stem: path for path in (root / split / "rgb").glob("*.*")}
        if not self._images:
            raise ValueError(
                f"no images in {root / split / 'rgb'}; expected NYU Depth v2 as <root>/<split>/rgb and depth"
            )
        depths = {path.stem for path in (root / split / "depth").glob("*.png")}
        self._names = sorted(self._images.keys() | depths)

    def __len__(self) -> int:
        return len(self._names)

    def label(self, index: int) -> str:
        """File name without its suffix."""
        return self._names[index]

    def files(self, index: int) -> tuple[Path, ...]:
        """Image and depth."""
        name = self._names[index]
        image = self._images.get(name, self.root / self.split / "rgb" / f"{name}.jpg")
        return image, self.root / self.split / "depth" / f"{name}.png"

    def training(self) -> Dataset[RGBDFrame] | None:
        """The folder `train` beside this split."""
        return NYUDepth(self.root, "train") if (self.root / "train" / "rgb").is_dir() else None

    def __getitem__(self, index: int) -> RGBDFrame:
        image, depth = self.files(index)
        rgb = cv2.imread(str(image), cv2.IMREAD_COLOR)
        codes = cv2.imread(str(depth), cv2.IMREAD_GRAYSCALE)
        if rgb is None or codes is None:
            raise ValueError(f"{image} or its depth cannot be read as an image; restore the file")
        metres = (codes.astype(np.float32) + 0.5) / 25.5
        return cut_frame(cv2.cvtColor(rgb, cv2.COLOR_BGR2RGB), metres, self.CAMERA, image.stem)


class NYUMat(Dataset[RGBDFrame]):
    """The official nyu_depth_v2_labeled.mat (MATLAB 7.3, which is HDF5): in-painted depth in metres, single precision.

    MATLAB stores columns first, so HDF5 shows images as (n, 3, 640, 480) and depths as (n, 640, 480).

    Args:
        splits: the official splits.mat, or a text file of image numbers (from 1) to take. None: splits.mat beside the
            file, which split "all" does without.

    Raises:
        ValueError: h5py is missing, the file is another one, or the split is not known.
    """

    def __init__(self, path: Path, split: str = "eval", splits: Path | None = None) -> None:
        self.path, self.split, self.splits = path, split, splits
        self.name = f"{path.stem} {split}"
        self._file: Any = open_hdf5(path, "images", "depths")
        images, depths = self._file["images"].shape, self._file["depths"].shape
        if images[1:] != (3, *SIZE[::-1]) or depths != (images[0], *SIZE[::-1]):
            raise ValueError(f"{path} has images {images}, depths {depths}; expected (n, 3, 640, 480), (n, 640, 480)")
        self._numbers = read_split(splits or path.with_name("splits.mat"), split, images[0])

    def __len__(self) -> int:
        return len(self._numbers)

    def label(self, index: int) -> str:
        """The image's number in the file, from 1."""
        return f"{self._numbers[index]:04d}"

    def files(self, index: int) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def training(self) -> Dataset[RGBDFrame] | None:
        """The official training split, where the split comes from splits.mat."""
        source = self.splits or self.path.with_name("splits.mat")
        return NYUMat(self.path, "train", self.splits) if source.suffix == ".mat" and source.is_file() else None

    def __getitem__(self, index: int) -> RGBDFrame:
        place = self._numbers[index] - 1
        rgb = self._file["images"][place].transpose(2, 1, 0)
        return cut_frame(rgb, self._file["depths"][place].T, CAMERA, self.label(index))


class FastDepthH5(Dataset[RGBDFrame]):
    """The .h5 files of FastDepth and Sparse-to-Dense: `rgb` uint8 (3, 480, 640), `depth` float metres (480, 640).

    Args:
        root: holds `val/official/*.h5` and, for training, `train/*/*.h5`; or .h5 files directly.
        split: "eval" is `val`. As in FastDepth, "train" leaves out files ending in 00001.h5 and 00201.h5.

    Raises:
        ValueError: no such file.
    """

    FOLDERS = {"eval": "val", "train": "train"}

    def __init__(self, root: Path, split: str = "eval") -> None:
        self.root, self.name = root, f"{root.resolve().name} {split}"
        folder = root / self.FOLDERS.get(split, split)
        paths = sorted(folder.rglob("*.h5")) if folder.is_dir() else sorted(root.glob("*.h5"))
        self.paths = [path for path in paths if split != "train" or not path.name.endswith(("00001.h5", "00201.h5"))]
        if not self.paths:
            raise ValueError(f"no .h5 file in {folder} or {root}; expected FastDepth's val/official/*.h5")

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, index: int) -> str:
        """Folder and file name."""
        return f"{self.paths[index].parent.name}/{self.paths[index].stem}"

    def files(self, index: int) -> tuple[Path, ...]:
        """The sample's file."""
        return (self.paths[index],)

    def training(self) -> Dataset[RGBDFrame] | None:
        """The folder `train`."""
        return FastDepthH5(self.root, "train") if (self.root / "train").is_dir() else None

    def __getitem__(self, index: int) -> RGBDFrame:
        with open_hdf5(self.paths[index], "rgb", "depth") as file:
            rgb, metres = file["rgb"][()], file["depth"][()]
        if rgb.ndim != 3 or rgb.shape[0] != 3:
            raise ValueError(f"{self.paths[index]} has rgb of shape {rgb.shape}; expected (3, 480, 640)")
        return cut_frame(rgb.transpose(1, 2, 0), metres, CAMERA, self.label(index))


def read_split(path: Path, split: str, count: int) -> list[int]:
    """Numbers, from 1, of the images of a split of `count` images: by the official splits.mat or a text file.

    Raises:
        ValueError: no such file, no such split, or numbers outside of 1..count.
    """
    if split == "all":
        return list(range(1, count + 1))
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist; name the official splits.mat or a text file of image numbers with --splits, or "
            "take --split all"
        )
    if path.suffix == ".mat":
        names = {"eval": "testNdxs", "train": "trainNdxs"}
        arrays = read_mat5(path)
        if names.get(split) not in arrays:
            raise ValueError(f"{path} holds {', '.join(arrays)}; split {split!r} is not among: eval, train, all")
        numbers = [int(number) for number in arrays[names[split]].ravel()]
    else:
        words = path.read_text().replace(",", " ").split()
        if not all(word.isdigit() for word in words):
            raise ValueError(f"{path} holds something else than image numbers")
        numbers = list(map(int, words))
    if not numbers or not all(1 <= number <= count for number in numbers):
        raise ValueError(f"{path} names images outside of 1..{count}, or none")
    return numbers


_MAT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}


def read_mat5(path: Path) -> dict[str, np.ndarray]:
    """The numeric arrays of a MATLAB 5 file (MAT-File Format, MathWorks), by name; other contents are passed over.

    Raises:
        ValueError: not such a file, or one that is cut short.
    """
    data = path.read_bytes()
    if data[124:128] != b"\x00\x01IM":
        raise ValueError(f"{path} is no little-endian MATLAB 5 file; give its numbers as a text file instead")
    arrays = {}
    try:
        for kind, content in _elements(data[128:]):
            if kind == 15:
                ((kind, content),) = _elements(zlib.decompress(content))
            if kind == 14:
                (_, flags), (_, shape), (_, name), *values = _elements(content)
                if 6 <= flags[0] <= 15:  # mxDOUBLE .. mxUINT64
                    number, raw = values[0]
                    array = np.frombuffer(raw, f"<{_MAT_TYPES[number]}")
                    arrays[name.decode()] = array.reshape(np.frombuffer(shape, "<i4"), order="F")
    except (struct.error, zlib.error, KeyError, IndexError) as error:
        raise ValueError(f"{path} is a damaged MATLAB 5 file: {error!r}") from error
    return arrays


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """(type, content) of the elements that follow each other in `data`."""
    found, place = [], 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, place)
        if kind >> 16:  # a small element: size and type in one word, the content in the next
            found.append((kind & 0xFFFF, data[place + 4 : place + 4 + (kind >> 16)]))
            place += 8
            continue
        found.append((kind, data[place + 8 : place + 8 + size]))
        place += 8 + (size if kind == 15 else -(-size // 8) * 8)  # compressed elements are not padded
    return found

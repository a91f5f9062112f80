"""The tool that unpacks CIFAR-10, on small archives of both kinds."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perception.tasks.labels import CIFAR10_LABELS

TOOL = Path(__file__).resolve().parents[1] / "tools/unpack_cifar10.py"
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"folder/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("kind", ["binary", "package"])
def test_both_archives_become_folders_of_the_same_images(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 3, 32, 32, 3), dtype=np.uint8)  # three images a batch
    classes = rng.integers(0, 10, (6, 3), dtype=np.uint8)
    files = {}
    for name, batch, labels in zip(NAMES, images, classes, strict=True):
        if kind == "binary":
            planes = batch.transpose(0, 3, 1, 2).reshape(3, -1)
            files[f"{name}.bin"] = np.column_stack([labels, planes]).tobytes()
        else:
            buffer = io.BytesIO()
            Image.fromarray(batch.reshape(3, 1024, 3)).save(buffer, "PNG")
            files[f"{name}.png"] = buffer.getvalue()
    if kind == "package":
        files["train_lables.json"] = json.dumps(classes[:5].flatten().tolist()).encode()
        files["test_lables.json"] = json.dumps(classes[5].tolist()).encode()
    write_archive(tmp_path / "source.tgz", files)
    subprocess.run([sys.executable, str(TOOL), str(tmp_path / "source.tgz"), str(tmp_path / "out")], check=True)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 18
    for number, (image, label) in enumerate(zip(images[:5].reshape(-1, 32, 32, 3), classes[:5].flatten(), strict=True)):
        path = tmp_path / "out/train" / CIFAR10_LABELS[label] / f"{number:05d}.png"
        assert np.array_equal(np.asarray(Image.open(path)), image)
    path = tmp_path / "out/test" / CIFAR10_LABELS[classes[5, 2]] / "00002.png"
    assert np.array_equal(np.asarray(Image.open(path)), images[5, 2])


def test_another_archive_is_refused_by_name(tmp_path: Path) -> None:
    write_archive(tmp_path / "cifar-100.tgz", {"train.bin": b""})
    done = subprocess.run(
        [sys.executable, str(TOOL), str(tmp_path / "cifar-100.tgz"), str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and "cifar-10-binary.tar.gz" in done.stderr

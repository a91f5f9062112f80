"""A split's folder: what is written is read, and what is amiss is said."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from perception.tasks.vit_split import FILE, FusionFile, Split, SplitWorker, file_sha256, read_split


def make_split(folder: Path) -> Split:
    """Two workers on two devices, whose files hold a few bytes."""
    for name in ("worker_0.onnx", "worker_1.onnx", "fusion.npz"):
        (folder / name).write_bytes(name.encode())
    workers = tuple(
        SplitWorker(
            name=f"worker_{index}",
            device=f"pi_{index + 1}",
            classes=classes,
            graph=f"worker_{index}.onnx",
            sha256=file_sha256(folder / f"worker_{index}.onnx"),
            features=128,
            parameters=2_504_586,
            macs=603_000_000,
            bytes=10_018_344,
            latency_ms=20.5,
            energy_j=0.25,
        )
        for index, classes in enumerate((("cat", "dog"), ("ship",)))
    )
    fusion = FusionFile("fusion.npz", file_sha256(folder / "fusion.npz"))
    split = Split("vit_small", ("cat", "dog", "ship"), workers, fusion, {"accuracy": 0.9}, folder)
    (folder / FILE).write_text(split.text)
    return split


def test_what_is_written_is_read(tmp_path: Path) -> None:
    split = make_split(tmp_path)
    found = read_split(str(tmp_path))
    assert found == split and found.hash == split.hash and len(found.hash) == 64
    assert list(json.loads((tmp_path / FILE).read_text()))[:2] == ["format", "hash"]
    assert found.devices == ("pi_1", "pi_2")
    assert found.on_device("pi_2") == split.workers[1:]
    assert found.graph_path(found.workers[0]) == tmp_path / "worker_0.onnx"
    assert found.fusion_path() == tmp_path / "fusion.npz"


@pytest.mark.parametrize(
    "change",
    [{"labels": ("cat", "ship", "dog")}, {"model": "vit_base"}, {"predictions": {}}, {"fusion": FusionFile("a", "b")}],
    ids=lambda change: next(iter(change)),
)
def test_the_hash_tells_splits_apart(tmp_path: Path, change: dict[str, object]) -> None:
    split = make_split(tmp_path)
    other = dataclasses.replace(split, **change)  # type: ignore[arg-type]
    assert other.hash != split.hash and dataclasses.replace(split, folder=Path("elsewhere")).hash == split.hash


def rewrite(folder: Path, **changes: object) -> None:
    content = json.loads((folder / FILE).read_text())
    content |= changes
    (folder / FILE).write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


WORKER = {"name": "a", "device": "b", "classes": [], "graph": "c", "sha256": "d", "features": 1, "parameters": 1}
COMPLETE = WORKER | {"macs": 1, "bytes": 1, "latency_ms": 1.0, "energy_j": 1.0}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "has the format 2; this version of perception reads 1; make it again"),
        ({"model": "vit_base"}, "was changed after it was written"),
        ({"hash": None}, "was changed after it was written"),
        ({"labels": None}, "does not hold what a split needs: KeyError('labels')"),
        ({"labels": "cat"}, "should be a list of names"),
        ({"workers": []}, "a split needs workers of different names; these are none"),
        ({"workers": [COMPLETE, COMPLETE]}, "a split needs workers of different names; these are a, a"),
        ({"workers": [WORKER]}, "macs"),
        ({"workers": [COMPLETE | {"classes": ["cow"]}]}, "a is for cow, which is none of the labels"),
        ({"workers": [COMPLETE | {"name": "a-b"}]}, "worker 'a-b' must be named by letters, digits and _"),
        ({"workers": [COMPLETE | {"features": 0}]}, "a has 0 features; accepted: 1 or more"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_amiss_in_the_file_is_said(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    make_split(tmp_path)
    rewrite(tmp_path, **changes)
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        read_split(tmp_path)
    assert "perception vit split" in str(error.value) and str(tmp_path / FILE) in str(error.value)


@pytest.mark.parametrize("text", ["no JSON", "[1]", ""])
def test_a_file_that_is_none_of_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match="perception vit split"):
        read_split(tmp_path)


@pytest.mark.parametrize("folder", ["", "/nowhere"])
def test_a_folder_without_a_split(folder: str) -> None:
    with pytest.raises(ValueError, match=f"no split in '{folder}': there is no split.json; make one with"):
        read_split(folder)


def test_files_of_other_splits_are_refused(tmp_path: Path) -> None:
    split = make_split(tmp_path)
    (tmp_path / "worker_1.onnx").write_bytes(b"another")
    assert split.graph_path(split.workers[0])  # a board needs only its own
    with pytest.raises(ValueError, match=r"worker_1\.onnx has the SHA-256 .* it is of another split; copy the folder"):
        split.graph_path(split.workers[1])
    (tmp_path / "fusion.npz").unlink()
    with pytest.raises(ValueError, match=r"fusion\.npz is missing; copy it from where `perception vit split`"):
        split.fusion_path()


def test_names_that_are_not_in_it(tmp_path: Path) -> None:
    split = make_split(tmp_path)
    assert split.worker_of("worker_1.onnx") is split.workers[1]
    with pytest.raises(ValueError, match=r"other\.onnx is no worker of the split .*; it has worker_0\.onnx, "):
        split.worker_of("other.onnx")
    with pytest.raises(ValueError, match="device 'pi_9' is not in the split .*; it has pi_1, pi_2"):
        split.on_device("pi_9")

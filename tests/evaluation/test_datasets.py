"""Data sets by name and by layout, and what their hash depends on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.evaluation.datasets import data_hash, data_root, find_dataset, open_dataset
from perception.evaluation.rgbd_folder import RGBDFolder, RGBDWriter
from perception.tasks.geometry import Camera

CAMERA = Camera(32, 24, 30, 30, 15.5, 11.5)


def write_set(folder: Path, depths: tuple[float, ...] = (1.5,)) -> Path:
    writer = RGBDWriter(folder, CAMERA, 30, "Apache-2.0", "test")
    for depth in depths:
        writer.write_frame(np.zeros((24, 32, 3), np.uint8), np.full((24, 32), depth))
    return folder


def test_rgbd_folder_is_recognised(tmp_path: Path) -> None:
    frame = open_dataset(write_set(tmp_path / "set"))[0]
    assert frame.depth is not None and np.allclose(frame.depth, 1.5)


def test_the_task_decides_where_a_folder_has_truth_of_several_kinds(tmp_path: Path) -> None:
    for split in ("train", "eval"):
        for kind, suffix in (("rgb", "jpg"), ("depth", "png"), ("label", "txt")):
            (tmp_path / split / kind).mkdir(parents=True)
            (tmp_path / split / kind / f"a.{suffix}").touch()
    (tmp_path / "labels.txt").write_text("cat\n")
    assert open_dataset(tmp_path).task == "depth" == open_dataset(tmp_path, task="depth").task
    assert open_dataset(tmp_path, "train", task="detection").name == f"{tmp_path.name} train"
    assert find_dataset(tmp_path.name, tmp_path.parent, task="detection").task == "detection"
    assert open_dataset(tmp_path, task="juggling").task == "depth", "what it is for is told later"


def test_unknown_layout_names_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known data set.*camera.json"):
        open_dataset(tmp_path)


def test_names_are_looked_up_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "root" / "mine")
    assert find_dataset("mine", tmp_path / "root").label(0) == "000000"
    assert find_dataset(str(tmp_path / "root" / "mine"), tmp_path).label(0) == "000000"
    assert len(find_dataset("clip", tmp_path)) >= 100
    with pytest.raises(ValueError, match=r"no data set 'other'.*--data-root.*clip, rooms, composed, nyu"):
        find_dataset("other", tmp_path)
    monkeypatch.setenv("PERCEPTION_DATA", str(tmp_path))
    assert data_root() == tmp_path and data_root(Path("given")) == Path("given")


def test_the_hash_follows_names_contents_and_absence(tmp_path: Path) -> None:
    frames = open_dataset(write_set(tmp_path / "a", (1.0, 2.0)))
    same = open_dataset(write_set(tmp_path / "b", (1.0, 2.0)))
    assert data_hash(frames) == data_hash(same) and data_hash(frames) != data_hash(frames, [0])
    before = data_hash(frames)
    path = tmp_path / "a" / "depth" / "000001.png"
    content = path.read_bytes()
    path.unlink()
    assert data_hash(frames) != before
    path.write_bytes(content[:-1])
    assert data_hash(frames) != before
    path.write_bytes(content)
    assert data_hash(frames) == before


def test_a_folder_is_a_sequence_when_the_camera_moves_little(tmp_path: Path) -> None:
    for name, step, expected in (("drive", 0.05, True), ("views", 2.0, False)):
        writer = RGBDWriter(tmp_path / name, CAMERA, 30, "Apache-2.0", "test")
        for index in range(3):
            pose = np.eye(4)
            pose[0, 3] = index * step
            writer.write_frame(np.zeros((24, 32, 3), np.uint8), None, pose)
        assert RGBDFolder(tmp_path / name).sequence is expected
    assert not open_dataset(write_set(tmp_path / "no poses", (1.0, 1.0))).sequence


def test_simulated_rooms_are_the_same_for_a_seed() -> None:
    pytest.importorskip("embreex", reason="embreex is not installed (extra `simulate`)")
    from perception.evaluation.simulated import SimulatedRooms

    small = CAMERA.resized(48, 32)
    first, again, other = (SimulatedRooms(seed, 1, small, 1) for seed in (1, 1, 2))
    frame = first[0]
    assert frame.depth is not None and frame.rgb.shape == (32, 48, 3) and 0.3 < np.median(frame.depth) < 10
    assert frame is first[0] and data_hash(first) == data_hash(again) != data_hash(other)
    with pytest.raises(IndexError):
        first[1]
    named = find_dataset("rooms:3:5", Path("nowhere"))
    assert len(named) == 5 and named.name == "rooms:3:5" and named.label(4) == "room-0004"
    with pytest.raises(ValueError, match="rooms:1:32"):
        find_dataset("rooms:many", Path("nowhere"))

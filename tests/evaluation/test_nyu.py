"""NYU Depth v2 in its three forms: what is on disk comes out in metres, cut, with the right camera."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.evaluation.datasets import open_dataset
from perception.evaluation.nyu import CAMERA, FastDepthH5, NYUDepth, NYUMat, read_mat5, read_split

h5py = pytest.importorskip("h5py", reason="h5py is not installed (extra `eval`)")

# By scipy.io.savemat, compressed, without its 116 letters of text: trainNdxs uint16 [3, 1], testNdxs double [2, 4].
SPLITS = b"M" * 116 + base64.b64decode(
    "AAAAAAAAAAAAAUlNDwAAADEAAAB4nONjYGBwAGI2IOYAYm4GCGCF8pmAmBGKOYG4pCgxM88vpaIYqo4FCJmBsgBpyQRJDwAAADEAAAB4nONj"
    "YGDwAGI2IOaA0iDACuUzATEjFIP4JanFJX4pFcWcQLYAAxw4QCgBBwCIfASK"
)
RGB = np.stack(np.broadcast_arrays(np.arange(480)[:, None] % 256, np.arange(640) % 256, 7), 2).astype(np.uint8)
METRES = (np.arange(640) / 100 + np.arange(480)[:, None] / 1000 + 0.5).astype(np.float32)


def make_folder(root: Path) -> np.ndarray:
    """One frame whose depth code is its column modulo 200; the code map."""
    codes = np.broadcast_to(np.arange(640) % 200, (480, 640)).astype(np.uint8)
    for name, picture in (("rgb/0001.jpg", np.full((480, 640, 3), (30, 90, 200), np.uint8)), ("depth/0001.png", codes)):
        path = root / "eval" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture)
    return codes


def make_mat(path: Path, count: int = 4) -> Path:
    """As MATLAB writes it: columns first. Image n is n metres farther away."""
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([RGB.transpose(2, 1, 0)] * count)
        file["depths"] = np.stack([METRES.T + n for n in range(1, count + 1)])
    path.with_name("splits.mat").write_bytes(SPLITS)
    return path


def make_h5(path: Path, metres: np.ndarray = METRES) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["rgb"], file["depth"] = RGB.transpose(2, 0, 1), metres


def test_folders_are_cut_and_metric(tmp_path: Path) -> None:
    codes = make_folder(tmp_path)
    frames = open_dataset(tmp_path, "eval")
    assert isinstance(frames, NYUDepth) and len(frames) == 1 and frames.label(0) == "0001"
    frame = frames[0]
    assert frame.rgb.shape == (426, 561, 3) and frame.rgb[0, 0, 0] > 150, "RGB, not BGR"
    assert frame.depth is not None and np.allclose(frame.depth, (codes[45:471, 40:601] + 0.5) / 25.5)
    assert frame.camera is not None and (frame.camera.width, frame.camera.height) == (561, 426)
    assert frame.camera.cx == pytest.approx(639 - 325.5824 - 40) and frame.camera.cy == pytest.approx(253.7362 - 45)
    assert frames.training() is None


def test_a_damaged_lonely_or_small_file_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "eval" / "depth" / "0001.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="0001.jpg or its depth cannot be read"):
        open_dataset(tmp_path, "eval")[0]
    cv2.imwrite(str(tmp_path / "eval" / "depth" / "0001.png"), np.zeros((48, 64), np.uint8))
    cv2.imwrite(str(tmp_path / "eval" / "depth" / "0002.png"), np.zeros((480, 640), np.uint8))
    frames = open_dataset(tmp_path, "eval")
    assert len(frames) == 2, "a depth without its image counts"
    with pytest.raises(ValueError, match=r"0001: .*expected 480x640"):
        frames[0]
    with pytest.raises(ValueError, match="0002.jpg"):
        frames[1]


def test_the_official_file_is_transposed_split_and_cut(tmp_path: Path) -> None:
    frames = open_dataset(make_mat(tmp_path / "nyu_depth_v2_labeled.mat"), "eval")
    assert isinstance(frames, NYUMat) and [frames.label(i) for i in range(len(frames))] == ["0002", "0004"]
    frame = frames[1]
    assert frame.depth is not None and np.array_equal(frame.rgb, RGB[45:471, 40:601])
    np.testing.assert_allclose(frame.depth, METRES[45:471, 40:601] + 4)
    assert frame.camera == CAMERA and CAMERA.cx == pytest.approx(325.5824 - 40)
    training = frames.training()
    assert training is not None and [training.label(i) for i in range(len(training))] == ["0003", "0001"]
    assert len(open_dataset(tmp_path, "all")) == 4, "its folder will do"


def test_a_list_of_numbers_serves_as_split(tmp_path: Path) -> None:
    path = make_mat(tmp_path / "nyu.mat")
    (tmp_path / "mine.txt").write_text("4, 1\n")
    frames = open_dataset(path, "eval", tmp_path / "mine.txt")
    assert [frames.label(i) for i in range(len(frames))] == ["0004", "0001"] and frames.training() is None
    (tmp_path / "mine.txt").write_text("5")
    with pytest.raises(ValueError, match="outside of 1..4"):
        open_dataset(path, "eval", tmp_path / "mine.txt")
    (tmp_path / "mine.txt").write_text("one")
    with pytest.raises(ValueError, match="something else than image numbers"):
        open_dataset(path, "eval", tmp_path / "mine.txt")
    (tmp_path / "splits.mat").unlink()
    with pytest.raises(ValueError, match="--split all"):
        open_dataset(path, "eval")


def test_matlab_files_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.mat"
    path.write_bytes(SPLITS)
    arrays = read_mat5(path)
    assert arrays["trainNdxs"].tolist() == [[3], [1]] and arrays["testNdxs"].tolist() == [[2], [4]]
    assert read_split(path, "eval", 4) == [2, 4]
    with pytest.raises(ValueError, match="'val' is not among: eval, train, all"):
        read_split(path, "val", 4)
    path.write_bytes(SPLITS[:160])
    with pytest.raises(ValueError, match="damaged"):
        read_mat5(path)
    path.write_bytes(b"x" * 200)
    with pytest.raises(ValueError, match="no little-endian MATLAB 5 file"):
        read_mat5(path)


def test_files_of_fastdepth(tmp_path: Path) -> None:
    make_h5(tmp_path / "val" / "official" / "00002.h5")
    for name in ("00001.h5", "00002.h5", "00201.h5"):
        make_h5(tmp_path / "train" / "bedroom" / name)
    frames = open_dataset(tmp_path)
    assert isinstance(frames, FastDepthH5) and len(frames) == 1 and frames.label(0) == "official/00002"
    frame = frames[0]
    assert frame.depth is not None and np.array_equal(frame.rgb, RGB[45:471, 40:601]) and frame.camera == CAMERA
    np.testing.assert_allclose(frame.depth, METRES[45:471, 40:601])
    training = frames.training()
    assert training is not None and len(training) == 1, "00001 and 00201 are held out"
    assert len(open_dataset(tmp_path / "val" / "official")) == 1


def test_damaged_hdf5_is_named(tmp_path: Path) -> None:
    make_h5(tmp_path / "a.h5", METRES[:100])
    (tmp_path / "b.h5").write_bytes(b"nothing")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["rgb"] = RGB
    frames = open_dataset(tmp_path)
    for index, message in enumerate(("expected 480x640", "cannot be read as HDF5", "has no array depth; it holds rgb")):
        with pytest.raises(ValueError, match=message):
            frames[index]


def test_without_h5py_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_mat(tmp_path / "nyu.mat")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ValueError, match="pip install h5py"):
        open_dataset(path)

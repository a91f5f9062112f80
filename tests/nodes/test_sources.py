"""Every kind of source on files made here, and a camera that vanishes and comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.evaluation import bags
from perception.nodes import sources
from perception.nodes.sources import (
    ACCEPTED,
    BagSource,
    BoxSource,
    CameraSource,
    FolderSource,
    SourceFrame,
    VideoSource,
    open_source,
)
from perception.tasks.calibration import Calibration
from perception.tasks.geometry import Camera
from perception.tasks.image import Image

CALIBRATION = Calibration(Camera(32, 24, 30.0, 31.0, 15.5, 11.5))
OTHER = Calibration(Camera(32, 24, 40.0, 41.0, 15.5, 11.5), "plumb_bob", (-0.1, 0.0, 0.0, 0.0, 0.0))


def picture(red: int) -> np.ndarray:
    """RGB field of one colour."""
    return np.full((24, 32, 3), (red, 20, 10), np.uint8)


def red_of(frame: SourceFrame) -> int:
    return int(frame.image.data[5, 5, 0 if frame.image.encoding == "rgb8" else 2])


def image_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), picture(50 * index)[..., ::-1])
    return folder


def rgbd_folder(folder: Path) -> Path:
    image_folder(folder / "rgb")
    (folder / "depth").mkdir()
    about = {name: getattr(CALIBRATION.camera, name) for name in ("width", "height", "fx", "fy", "cx", "cy")}
    (folder / "camera.json").write_text(json.dumps(about | {"fps": 10.0}))
    for index in range(3):
        codes = np.full((24, 32), 1000 + 500 * index, np.uint16)
        codes[0, 0] = 0
        cv2.imwrite(str(folder / "depth" / f"{index}.png"), codes)
    return folder


def box_folder(folder: Path) -> Path:
    """YOLO's layout: a dog in each of three images."""
    image_folder(folder / "train" / "rgb")
    (folder / "train" / "label").mkdir()
    for index in range(3):
        (folder / "train" / "label" / f"{index}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "labels.txt").write_text("dog\n")
    return folder


def video(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (32, 24))
    assert writer.isOpened()
    for index in range(4):
        writer.write(np.ascontiguousarray(picture(60 * index)[..., ::-1]))
    writer.release()
    return path


def bag(path: Path, late_depth: bool = False, second_camera: bool = False, broken: int | None = None) -> Path:
    """Four frames at 5 Hz; the third has no true depth. `late_depth`: depth and calibration are recorded afterwards."""
    with bags.BagWriter(path) as writer:
        for index in range(4):
            stamp = (7 + index) * 200_000_000
            head = bags.header(stamp, "optical")
            image = bags.image_message(Image(picture(60 * index), "rgb8"), head)
            if index == broken:
                image.data = image.data[:-1]
            after = stamp + (250_000_000 if late_depth else 0)
            writer.write("/cam/image_raw", image, stamp)
            if index != 2:
                metres = np.full((24, 32), 1.0 + index, np.float32)
                writer.write("/cam/depth_true", bags.image_message(Image(metres, "32FC1"), head), after)
            writer.write("/cam/camera_info", bags.info_message(CALIBRATION, head), after)
            if second_camera:
                writer.write("/rear/image", bags.image_message(Image(picture(255), "rgb8"), head), stamp)
    return path


def test_a_folder_of_images(tmp_path: Path) -> None:
    source = open_source(str(image_folder(tmp_path / "images")))
    assert isinstance(source, FolderSource) and (source.length, source.live) == (3, False)
    for _ in range(2):  # every iteration starts anew
        frames = list(source)
        assert [red_of(frame) for frame in frames] == [0, 50, 100]
        assert frames[0].calibration is None and frames[0].depth_true is None
    assert np.allclose([frame.stamp for frame in frames], np.arange(3) / source.fps)


def test_a_folder_of_rgbd_frames(tmp_path: Path) -> None:
    source = open_source(str(rgbd_folder(tmp_path / "clip")))
    frames = list(source)
    assert source.fps == 10.0 and [red_of(frame) for frame in frames] == [0, 50, 100]
    assert [frame.calibration.camera if frame.calibration else None for frame in frames] == [CALIBRATION.camera] * 3
    depth = frames[2].depth_true
    assert depth is not None and depth.dtype == np.float32 and np.isnan(depth[0, 0]) and depth[1, 1] == 2.0


def test_a_calibration_given_goes_before_the_sources_own(tmp_path: Path) -> None:
    source = open_source(str(rgbd_folder(tmp_path / "clip")), OTHER)
    assert {frame.calibration for frame in source} == {OTHER}
    assert {frame.calibration for frame in open_source(str(bag(tmp_path / "bag")), OTHER)} == {OTHER}


def test_a_damaged_image_is_skipped_and_named(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images")
    (folder / "1.png").write_bytes(b"junk")
    said: list[str] = []
    assert [red_of(frame) for frame in open_source(str(folder), report=said.append)] == [0, 100]
    assert len(said) == 1 and "1.png" in said[0]


def test_images_of_a_data_set_come_with_its_boxes(tmp_path: Path) -> None:
    folder = box_folder(tmp_path / "set")
    (folder / "train" / "rgb" / "1.png").write_bytes(b"cut short")
    said: list[str] = []
    source = open_source(str(folder), CALIBRATION, report=said.append, split="train")
    assert isinstance(source, BoxSource) and (source.length, source.live, source.calibrated) == (3, False, True)
    frames = list(source)
    assert [red_of(frame) for frame in frames] == [0, 100] and frames[1].stamp == pytest.approx(2 / 30)
    boxes = frames[1].boxes_true
    assert boxes is not None and boxes.names == ("dog",) and boxes.boxes.tolist() == [[8, 6, 24, 18]]
    assert frames[0].calibration == CALIBRATION and len(said) == 1 and "frame 1 is skipped" in said[0]
    source.close()
    assert list(source) == []


def test_a_video(tmp_path: Path) -> None:
    source = open_source(str(video(tmp_path / "clip.avi")), CALIBRATION)
    assert isinstance(source, VideoSource) and source.fps == 12.5 and source.length == 4
    for _ in range(2):
        frames = list(source)
        assert np.abs(np.array([red_of(frame) for frame in frames]) - [0, 60, 120, 180]).max() <= 6
        assert [frame.stamp for frame in frames] == [0.0, 0.08, 0.16, 0.24]
        assert frames[0].image.encoding == "bgr8" and frames[0].calibration == CALIBRATION


@pytest.mark.parametrize("late_depth", [False, True])
def test_a_bag_pairs_depth_by_stamp_in_any_order(tmp_path: Path, late_depth: bool) -> None:
    source = open_source(str(bag(tmp_path / "bag", late_depth)))
    assert isinstance(source, BagSource) and source.topic == "/cam/image_raw"
    assert source.length == 4 and source.fps == pytest.approx(5.0)
    for _ in range(2):
        frames = list(source)
        assert [red_of(frame) for frame in frames] == [0, 60, 120, 180]
        assert [frame.stamp for frame in frames] == pytest.approx([1.4, 1.6, 1.8, 2.0])
        assert [None if f.depth_true is None else f.depth_true[3, 3] for f in frames] == [1.0, 2.0, None, 4.0]
        assert {frame.calibration.camera for frame in frames if frame.calibration} == {CALIBRATION.camera}
        assert all(frame.calibration for frame in frames)


def test_a_damaged_message_in_a_bag_is_skipped_and_named(tmp_path: Path) -> None:
    said: list[str] = []
    source = open_source(str(bag(tmp_path / "bag", broken=1)), report=said.append)
    assert [red_of(frame) for frame in source] == [0, 120, 180]
    assert len(said) == 1 and "/cam/image_raw is skipped" in said[0] and "truncated" in said[0]


def test_a_bag_with_two_cameras_asks_which(tmp_path: Path) -> None:
    path = bag(tmp_path / "bag", second_camera=True)
    with pytest.raises(ValueError, match="several image topics: /cam/image_raw, /rear/image; choose one"):
        open_source(str(path))
    source = open_source(str(path), topic="/rear/image")
    assert [red_of(frame) for frame in source] == [255] * 4
    assert {frame.calibration for frame in source} == {None}
    with pytest.raises(ValueError, match="no images on '/front'; it has /cam/depth_true, /cam/image_raw, /rear/image"):
        open_source(str(path), topic="/front")


def test_a_bag_with_depth_alone_is_refused(tmp_path: Path) -> None:
    with bags.BagWriter(tmp_path / "bag") as writer:
        message = bags.image_message(Image(np.ones((4, 4), np.float32), "32FC1"), bags.header(5, "optical"))
        writer.write("/depth", message, 5)
    with pytest.raises(ValueError, match="no readable colour images; its image topics: /depth"):
        open_source(str(tmp_path / "bag"))


@pytest.mark.parametrize("make", [image_folder, rgbd_folder, video, bag])
def test_closing_ends_the_iteration(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = open_source(str(make(tmp_path / "source.avi")))
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert len(list(frames)) <= 2


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing does not exist; accepted: a folder of images"):
        open_source(str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no image"):
        open_source(str(tmp_path / "empty"))
    (tmp_path / "broken.mp4").write_bytes(b"junk" * 100)
    with pytest.raises(ValueError, match=r"broken.mp4 cannot be decoded"):
        open_source(str(tmp_path / "broken.mp4"))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"notes.txt is of no known kind; .*videos end in .mp4"):
        open_source(str(tmp_path / "notes.txt"))
    with pytest.raises(ValueError, match="the source is empty") as caught:
        open_source("")
    assert ACCEPTED in str(caught.value)


class FakeCapture:
    """cv2.VideoCapture of a device that follows a script: each entry is how many frames one opening gives."""

    script: Iterator[int]
    opened: list[tuple[str, int]]

    def __init__(self, address: str, backend: int) -> None:
        self.opened.append((address, backend))
        self.left = next(self.script, 0)

    def get(self, _: int) -> float:
        return 25.0 if self.left else 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, picture(self.left)[..., ::-1]) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.left = 0


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> type[FakeCapture]:
    monkeypatch.setattr(sources.cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(sources.cv2.videoio_registry, "hasBackend", lambda backend: True)
    monkeypatch.setattr(sources, "RETRY_SECONDS", 0.001)
    FakeCapture.opened = []
    return FakeCapture


def test_a_camera_that_vanishes_is_reported_once_and_goes_on_when_it_is_back(device: type[FakeCapture]) -> None:
    device.script = iter([2, 0, 0, 0, 3, 0, 1])
    said: list[str] = []
    source = open_source("/dev/video7", CALIBRATION, report=said.append)
    assert isinstance(source, CameraSource) and source.live and source.length is None
    frames = iter(source)
    reds = []
    for _ in range(6):
        frame = next(frames)
        assert frame.stamp is None and frame.calibration == CALIBRATION
        reds.append(red_of(frame))
    assert reds == [1, 0, 2, 1, 0, 0] and source.fps == 25.0
    assert ["back" if "is back" in text else "gone" for text in said] == ["gone", "back", "gone", "back"]
    assert "/dev/video7 gives no frames; check the cable" in said[0]
    assert device.opened == [("/dev/video7", cv2.CAP_V4L2)] * 7
    source.close()
    assert list(frames) == []


def test_closing_wakes_a_camera_that_waits(device: type[FakeCapture], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "RETRY_SECONDS", 600)
    device.script = iter([])
    gone = threading.Event()
    source = open_source("/dev/video7", report=lambda text: gone.set())
    reader = threading.Thread(target=lambda: list(source))
    reader.start()
    assert gone.wait(10)
    source.close()
    reader.join(10)
    assert not reader.is_alive()


def test_a_gstreamer_pipeline_is_handed_on_as_it_is(device: type[FakeCapture]) -> None:
    device.script = iter([1])
    source = open_source("gstreamer:videotestsrc ! videoconvert ! appsink")
    assert len([next(iter(source))]) == 1
    assert device.opened == [("videotestsrc ! videoconvert ! appsink", cv2.CAP_GSTREAMER)]


def test_an_opencv_without_the_backend_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.cv2.videoio_registry, "hasBackend", lambda backend: False)
    with pytest.raises(ValueError, match="built without GStreamer; use the python3-opencv of the system"):
        open_source("gstreamer:videotestsrc ! appsink")
    with pytest.raises(ValueError, match="built without V4L2"):
        open_source("/dev/video0")

"""The image source on real topics: content, stamps, pace, loops, ends, and cameras that vanish."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Graph, overrides, wait_until
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage
from sensor_msgs.msg import Image as ImageMessage

from perception.evaluation.rgbd_folder import RGBDWriter
from perception.nodes import image_source_node
from perception.nodes.image_source_node import ImageSourceNode, Pace
from perception.nodes.node import SUCCESS
from perception.nodes.sources import SourceFrame
from perception.tasks.calibration import Calibration, save_calibration
from perception.tasks.geometry import Camera
from perception.tasks.image import Image
from perception.tasks.messages import image_from_message, stamp_of

CAMERA = Camera(32, 24, 30.0, 31.0, 15.5, 11.5)
COUNT = 6
RELIABLE = QoSProfile(depth=100)  # so that a test sees every message
TYPES = {"image": ImageMessage, "image/compressed": CompressedImage, "camera_info": CameraInfo,
         "depth_true": ImageMessage}  # fmt: skip


class Reader(Node):
    """Keeps the messages of the source's topics in order."""

    def __init__(self, *topics: str) -> None:
        super().__init__("reader", namespace="/robot")
        self.got: dict[str, list[Any]] = {topic: [] for topic in topics}
        for topic in topics:
            self.create_subscription(TYPES[topic], topic, self.got[topic].append, RELIABLE)

    def matched(self) -> bool:
        return all(self.count_publishers(self.resolve_topic_name(topic)) for topic in self.got)


def brightness(index: int) -> int:
    return 20 + 30 * index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frames of known brightness and depth, four a second."""
    writer = RGBDWriter(tmp_path / "clip", CAMERA, 4.0, "none", "test")
    for index in range(COUNT):
        rgb = np.full((24, 32, 3), brightness(index), np.uint8)
        writer.write_frame(rgb, np.full((24, 32), 1.0 + index, np.float32))
    return tmp_path / "clip"


@pytest.fixture
def start(graph: Graph) -> Callable[..., tuple[ImageSourceNode, Reader]]:
    """Start a source once the reader's topics have matched."""

    def started(*topics: str, **parameters: Any) -> tuple[ImageSourceNode, Reader]:
        values = {"rate": 200.0} | parameters
        node = graph.add(ImageSourceNode(namespace="/robot", parameter_overrides=overrides(**values)))
        reader = graph.add(Reader(*topics))
        assert node.trigger_configure() == SUCCESS
        wait_until(
            lambda: reader.matched() and all(node._outputs[key].wanted for key in node._outputs if key in topics),
            what="the reader's topics",
        )
        time.sleep(0.2)  # the reader's side of the match comes after the writer's
        assert node.trigger_activate() == SUCCESS
        return node, reader

    return started


def level(message: Any) -> int:
    return int(np.median(image_from_message(message).data))


def test_all_topics_carry_a_frame_under_one_header(start: Any, folder: Path) -> None:
    topics = ("image", "image/compressed", "camera_info", "depth_true")
    node, reader = start(*topics, source=str(folder), image_transport="both", frame_id="eye")
    wait_until(lambda: all(len(reader.got[topic]) == COUNT for topic in topics), what="every frame on every topic")
    assert node.statistics.counts["published"] == COUNT
    for index, (image, jpeg, info, depth) in enumerate(zip(*(reader.got[topic] for topic in topics), strict=True)):
        assert image.encoding == "rgb8" and (image.width, image.height) == (32, 24)
        assert abs(level(image) - brightness(index)) <= 2 and abs(level(jpeg) - brightness(index)) <= 3
        assert np.allclose(info.k, CAMERA.matrix.ravel())
        assert depth.encoding == "32FC1" and np.allclose(np.frombuffer(depth.data, np.float32), 1.0 + index, atol=1e-3)
        assert len({stamp_of(message) for message in (image, jpeg, info, depth)}) == 1
        assert {message.header.frame_id for message in (image, jpeg, info, depth)} == {"eye"}
    stamps = [stamp_of(message) for message in reader.got["image"]]
    assert stamps == sorted(set(stamps)) and abs(stamps[-1] / 1e9 - time.time()) < 60


def test_stamps_can_be_those_of_the_source(start: Any, folder: Path) -> None:
    _, reader = start("image", source=str(folder), stamps="source")
    wait_until(lambda: len(reader.got["image"]) == COUNT)
    assert [stamp_of(message) for message in reader.got["image"]] == [index * 250_000_000 for index in range(COUNT)]


def test_without_a_rate_the_sources_own_is_kept(start: Any, folder: Path) -> None:
    _, reader = start("image", source=str(folder), rate=0.0)
    wait_until(lambda: len(reader.got["image"]) == COUNT)
    first, *_, last = (stamp_of(message) / 1e9 for message in reader.got["image"])
    assert last - first >= (COUNT - 2) * 0.25  # the first one may have been late by a period


def test_calibration_file_goes_before_the_sources_own(start: Any, folder: Path, tmp_path: Path) -> None:
    other = Camera(32, 24, 55.0, 56.0, 15.0, 12.0)
    save_calibration(Calibration(other), tmp_path / "camera.yaml")
    _, reader = start("camera_info", source=str(folder), camera_info_url=f"file://{tmp_path}/camera.yaml")
    wait_until(lambda: reader.got["camera_info"])
    assert np.allclose(reader.got["camera_info"][0].k, other.matrix.ravel())


@pytest.mark.parametrize("cache", [0, 1])
def test_a_loop_starts_again(start: Any, folder: Path, cache: int) -> None:
    node, reader = start("image", source=str(folder), loop=True, cache=cache)
    wait_until(lambda: len(reader.got["image"]) > 3 * COUNT)
    node.trigger_deactivate()
    levels = [level(message) for message in reader.got["image"][: 3 * COUNT]]
    assert np.allclose(levels, 3 * [brightness(index) for index in range(COUNT)], atol=2)
    count = node.statistics.counts["published"]
    time.sleep(0.1)
    assert node.statistics.counts["published"] == count  # deactivate joined the thread


def test_at_its_end_the_node_stays_and_says_so(start: Any, folder: Path) -> None:
    node, reader = start("image", source=str(folder))
    wait_until(lambda: node.watch(), what="the end")
    assert node.watch() == [f"source {folder} has ended after {COUNT} images"]
    assert node.trigger_deactivate() == SUCCESS and node.trigger_activate() == SUCCESS
    wait_until(lambda: len(reader.got["image"]) == 2 * COUNT, what="the frames once more")


def test_a_missing_source_is_refused_in_words_and_can_come_later(
    graph: Graph, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    later = folder.parent / "later"
    node = graph.add(ImageSourceNode(namespace="/robot", parameter_overrides=overrides(source=str(later))))
    assert not node.autostart()
    assert f"source {later} does not exist; accepted: a folder of images" in capfd.readouterr().err
    folder.rename(later)
    assert node.autostart()


def test_a_source_without_a_usable_frame_ends_even_if_looped(start: Any, folder: Path) -> None:
    for path in (folder / "rgb").iterdir():
        path.write_bytes(b"no picture")
    node, _ = start("image", source=str(folder), loop=True)
    wait_until(lambda: node.watch(), what="the end")
    assert node.statistics.last_error == "it has no usable frame"


class Camcorder:
    """A live camera that a test unplugs. As `sources.CameraSource`, it reports once and goes on when it is back."""

    fps, live, length = 30.0, True, None

    calibrated = False

    def __init__(self, report: Callable[[str], None]) -> None:
        self.plugged, self.closed, self.report = threading.Event(), threading.Event(), report

    def __iter__(self) -> Iterator[SourceFrame]:
        while not self.closed.wait(0.005):
            if not self.plugged.is_set():
                self.report("camera is gone")
                while not (self.plugged.wait(0.01) or self.closed.is_set()):
                    pass
                continue
            yield SourceFrame(Image(np.full((24, 32), 77, np.uint8), "mono8"))

    def close(self) -> None:
        self.closed.set()


def test_a_camera_that_vanishes_and_returns(
    start: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cameras: list[Camcorder] = []

    def opened(text: str, calibration: Any, topic: str, report: Callable[[str], None]) -> Camcorder:
        cameras.append(Camcorder(report))
        cameras[-1].plugged.set()
        return cameras[-1]

    monkeypatch.setattr(image_source_node, "open_source", opened)
    monkeypatch.setattr(image_source_node, "LIVE_TIMEOUT", 0.2)
    node, reader = start("image", source="/dev/video9", stamps="source")
    wait_until(lambda: len(reader.got["image"]) > 5, what="frames")
    cameras[0].plugged.clear()
    problems = wait_until(node.watch, what="a problem")
    assert problems == ["no image from /dev/video9 for 0 s"]
    count = len(reader.got["image"])
    cameras[0].plugged.set()
    wait_until(lambda: len(reader.got["image"]) > count + 5 and not node.watch(), what="frames again")
    assert capfd.readouterr().err.count("camera is gone") == 1
    # A live camera has no time of its own: the node's clock stamps its images.
    assert abs(stamp_of(reader.got["image"][-1]) / 1e9 - time.time()) < 60
    assert node.trigger_deactivate() == SUCCESS and cameras[0].closed.is_set()


class Stalled:
    """A live camera that gives one bright frame and then none, until it is released; it cannot be closed meanwhile."""

    fps, live, length = 30.0, True, None

    calibrated = False

    def __init__(self) -> None:
        self.released = threading.Event()

    def __iter__(self) -> Iterator[SourceFrame]:
        yield SourceFrame(Image(np.full((24, 32), 77, np.uint8), "mono8"))
        self.released.wait()
        yield SourceFrame(Image(np.full((24, 32), 7, np.uint8), "mono8"))

    def close(self) -> None:
        pass


def test_a_camera_that_stalls_holds_up_nobody_and_sends_nothing_afterwards(
    start: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cameras: list[Stalled] = []

    def opened(*_: Any) -> Stalled:
        cameras.append(Stalled())
        return cameras[-1]

    monkeypatch.setattr(image_source_node, "open_source", opened)
    node, reader = start("image", source="/dev/video9")
    wait_until(lambda: reader.got["image"], what="the first frame")
    threads = [node._thread]
    too_late = threading.Timer(10.0, cameras[0].released.set)
    too_late.start()
    assert node.trigger_deactivate() == SUCCESS
    assert not cameras[0].released.is_set(), "nobody waits until the camera answers"
    too_late.cancel()
    assert "source /dev/video9 has stalled" in capfd.readouterr().err
    assert node.trigger_activate() == SUCCESS
    wait_until(lambda: len(reader.got["image"]) == 2, what="the first frame of the camera opened anew")
    cameras[0].released.set()
    threads[0].join(10.0)
    threads.append(node._thread)
    assert node.trigger_deactivate() == SUCCESS and node.trigger_cleanup() == SUCCESS
    cameras[1].released.set()
    threads[1].join(10.0)
    assert not any(thread.is_alive() for thread in threads)
    assert node.statistics.counts["published"] == 1 and not node.statistics.last_error
    assert [level(image) for image in reader.got["image"]] == [77, 77]


def test_pace_makes_up_for_one_period_but_not_for_more() -> None:
    stopped = threading.Event()
    pace = Pace(0.05)
    assert pace.wait(stopped) is not None
    time.sleep(0.3)  # five turns are missed
    start = time.monotonic()
    turns = [pace.wait(stopped) for _ in range(4)]
    assert time.monotonic() - start >= 0.09  # two at once at most, then at the pace again
    assert turns[0] is not None and turns[0] >= 0.2
    stopped.set()
    assert pace.wait(stopped) is None


def test_the_process_can_end_with_its_source(folder: Path) -> None:
    command = [sys.executable, "-m", "perception.nodes.image_source_node", "--ros-args", "-p", f"source:={folder}"]
    command += ["-p", "rate:=200.0", "-p", "exit_at_end:=true"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert f"source {folder} has ended after {COUNT} images, and so does the node" in result.stderr


def test_without_tf2_msgs_the_command_that_replaces_it_is_named(
    graph: Graph, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)
    values = overrides(source=str(folder), parent_frame="map", autostart=False)
    node = graph.add(ImageSourceNode(namespace="/robot", parameter_overrides=values))
    assert node.trigger_configure() == SUCCESS
    said = capfd.readouterr().err
    assert (
        "static_transform_publisher --roll -1.5708 --yaw -1.5708 --frame-id map --child-frame-id camera_optical" in said
    )

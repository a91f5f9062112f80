"""The enhancement node on real topics with an engine that multiplies: content, bypass, flicker, and nodes behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from conftest import FakeEngine, Graph, overrides, wait_until
from detecting import DetectionRobot, build_extents, scene, told
from robot import CAMERA, SMALL, Robot, metres
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from perception.evaluation.rgbd_folder import RGBDWriter
from perception.nodes import model_node
from perception.nodes.composition import make_node
from perception.nodes.convert import image_from_message, image_to_message
from perception.nodes.depth_node import DepthNode
from perception.nodes.enhancement_node import EnhancementNode
from perception.nodes.exchange import Inlet, exchange_of
from perception.nodes.image_source_node import ImageSourceNode
from perception.nodes.inputs import Frame
from perception.nodes.model_node import Job
from perception.nodes.pipeline import load_pipeline
from perception.tasks import enhancement as task
from perception.tasks.calibration import Calibration
from perception.tasks.config import DEPTH_MODEL, ENHANCEMENT_MODEL, ModelConfig, Output
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess, to_color

NAME = "/robot/enhancement_node"
INFO = "image_enhanced/camera_info"
BARREL = Calibration(SMALL, "plumb_bob", (-0.35, 0.12, 0.001, -0.002, 0.0))
TICK = 33_000_000
"""Nanoseconds between two images."""


class FakeEnhancer(FakeEngine):
    """Multiplies the image by its gain."""

    def __init__(self, gain: float = 4.0) -> None:
        super().__init__(lambda image: image)
        output = Output("enhanced", (1, 3, 32, 64), "intensity")
        self.config = ModelConfig("fake", "enhancement", (32, 64), (output,), interpolation="area")
        self.gain = gain

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self.runs += 1
        bright = np.minimum(image[0].astype(np.float32) * np.float32(self.gain) / 255, 1)
        return {"enhanced": bright.transpose(2, 0, 1)[None]}


class Eye(Robot):
    """Sends images of any encoding and keeps what is made of them."""

    TOPICS = {"image_enhanced": ImageMessage, INFO: CameraInfo}

    def connected(self) -> bool:
        return bool(
            self.image.get_subscription_count() and self.count_publishers(self.resolve_topic_name("image_enhanced"))
        )

    def ask(self, number: int, image: Image | ImageMessage) -> ImageMessage:
        """The answer to an image with this stamp; sent anew only when it must have been lost."""
        wait_until(self.connected, what="matching publishers and subscribers")
        message = image_to_message(image, self.header(number)) if isinstance(image, Image) else image

        def answered() -> bool:
            self.image.publish(message)
            end = time.monotonic() + 2.0
            while time.monotonic() < end and number not in self.got["image_enhanced"]:
                time.sleep(0.003)
            return number in self.got["image_enhanced"]

        wait_until(answered, 20, "an answer")
        return self.got["image_enhanced"][number]


@pytest.fixture
def enhancer(monkeypatch: pytest.MonkeyPatch) -> FakeEnhancer:
    fake = FakeEnhancer()
    depth = FakeEngine(lambda image: image.mean(axis=2) / 10)
    monkeypatch.setattr(model_node.engines, "load", lambda model, *_: depth if model == DEPTH_MODEL else fake)
    return fake


@pytest.fixture
def elsewhere() -> Iterator[Any]:
    """Another context, which is to this one what another process is."""
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


def start(graph: Graph, **values: Any) -> EnhancementNode:
    node = graph.add(EnhancementNode(namespace="/robot", parameter_overrides=overrides(**values)))
    assert node.autostart()
    return node


def picture(level: int, encoding: str = "rgb8", seed: int = 0) -> Image:
    """Noise of a mean intensity, at most half of that away from it."""
    shape = (32, 64) if encoding == "mono8" else (32, 64, 4 if encoding.endswith("a8") else 3)
    noise = np.random.default_rng(seed).integers(level - level // 2, level + level // 2 + 1, shape, np.uint8)
    return Image(noise, encoding)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_a_dark_image_comes_back_brighter_and_otherwise_the_same(
    graph: Graph, enhancer: FakeEnhancer, encoding: str
) -> None:
    start(graph)
    eye = graph.add(Eye("image_enhanced"))
    dark = picture(20, encoding)
    message = eye.ask(123, dark)
    assert message.header == eye.header(123) and message.encoding == encoding
    assert np.array_equal(image_from_message(message).data, 4 * dark.data)
    assert enhancer.runs >= 1 and not eye.errors() and not eye.warnings()


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_a_rectified_image_keeps_its_encoding_too(graph: Graph, enhancer: FakeEnhancer, encoding: str) -> None:
    start(graph, rectify=True)
    eye = graph.add(Eye("image_enhanced", INFO))
    wait_until(lambda: eye.info.get_subscription_count(), what="the node's interest in calibrations")
    image = picture(120, encoding)

    def rectified() -> Any:
        eye.calibrate(BARREL)
        time.sleep(0.05)
        message = eye.ask(1, image)
        eye.got["image_enhanced"].pop(1)
        return message if eye.got[INFO].get(1) else None

    message = wait_until(rectified, 20, "a calibration")
    assert message.encoding == encoding
    assert np.array_equal(image_from_message(message).data, BARREL.rectifier()(image.data))
    assert not any(eye.got[INFO][1].d), "the camera that sees the rectified image"


@pytest.mark.parametrize("level", [20, 120])
def test_other_encodings_become_bgr8_dark_or_not(graph: Graph, enhancer: FakeEnhancer, level: int) -> None:
    start(graph)
    eye = graph.add(Eye("image_enhanced"))
    image = picture(level, "rgba8")
    message = eye.ask(1, image)
    expected = to_color(image, "bgr") * np.uint8(4 if level == 20 else 1)
    assert message.encoding == "bgr8" and np.array_equal(image_from_message(message).data, expected)


def test_a_larger_image_keeps_its_size_and_its_details(graph: Graph, enhancer: FakeEnhancer) -> None:
    """As the task has it: which is tested there."""
    start(graph)
    eye = graph.add(Eye("image_enhanced"))
    scene = np.random.default_rng(0).integers(10, 60, (12, 16, 3), np.uint8).repeat(40, 0).repeat(40, 1)
    dark = Image(scene - np.random.default_rng(1).integers(0, 9, scene.shape, np.uint8), "rgb8")
    bright = image_from_message(eye.ask(1, dark)).data
    fit = Fit.of((480, 640), enhancer.config)
    outputs = enhancer.run(preprocess(dark, enhancer.config, fit))
    expected, enlarged = (task.parse(outputs, fit, enhancer.config, image).image for image in (dark, None))
    assert bright.shape == (480, 640, 3) and np.array_equal(bright, expected)
    assert np.abs(bright.astype(int) - enlarged).mean() > 2


def test_a_bright_image_passes_as_it_came(graph: Graph, enhancer: FakeEnhancer) -> None:
    """To the byte, those between the rows too, and the engine is not asked."""
    node = start(graph)
    runs = enhancer.runs
    eye = graph.add(Eye("image_enhanced"))
    bright = picture(120, "bgr8")
    padded = np.full((32, 200), 7, np.uint8)
    padded[:, :192] = bright.data.reshape(32, 192)
    message = image_to_message(bright, eye.header(5))
    message.step = 200
    message.data = padded.tobytes()
    answer = eye.ask(5, message)
    assert answer == message
    assert enhancer.runs == runs and node.statistics.counts["failed"] == 0
    values = wait_until(lambda: eye.values().get("bypassed", "0") != "0" and eye.values(), what="the diagnostics")
    assert 0 < int(values["bypassed"]) <= int(values["published"]) and values["enhanced"] == "0"
    eye.ask(6, picture(20))
    wait_until(lambda: eye.values().get("enhanced", "0") != "0", what="the diagnostics")


@pytest.mark.parametrize("bright_first", [True, False])
def test_what_was_decided_for_an_image_stays_with_it(graph: Graph, enhancer: FakeEnhancer, bright_first: bool) -> None:
    """The next image is prepared before this one is published."""
    node = start(graph)
    dark, bright = picture(20), picture(120)
    pictures = (bright, dark) if bright_first else (dark, bright)
    went: list[np.ndarray] = []
    inlet = Inlet("/robot/image_enhanced", lambda image, _header: went.append(image.data), lambda _: None)

    def prepared() -> list[Job]:
        frames = [Frame(Header(), image, None, None, False, {}) for image in pictures]
        return [node.make_ready(node.streams[0], frame) for frame in frames]

    unwanted = prepared()
    exchange_of(node).join(inlet)
    for job in unwanted + prepared():
        node.publish(job, node.run(job) if job.tensor is not None else {})
    exchange_of(node).leave(inlet)
    expected = [bright.data, *(image.data * np.uint8(4 if image is dark else 1) for image in pictures)]
    assert len(went) == 3 and all(map(np.array_equal, went, expected)), "a dark one that nobody wanted is left out"
    assert (node.statistics.counts["enhanced"], node.statistics.counts["bypassed"]) == (1, 2)


def test_between_the_thresholds_goes_on_what_was_before(graph: Graph, enhancer: FakeEnhancer) -> None:
    start(graph, flicker_time=0.0)
    eye = graph.add(Eye("image_enhanced"))
    levels, expected = [57, 45, 57, 70, 57, 45], [1, 4, 4, 1, 1, 4]  # 0.2 and 0.25 are 51 and 63.75
    for number, (level, gain) in enumerate(zip(levels, expected, strict=True), 1):
        flat = Image(np.full((32, 64, 3), level, np.uint8), "rgb8")
        assert (image_from_message(eye.ask(number, flat)).data == gain * level).all(), f"image {number}"


@pytest.mark.parametrize(("encoding", "scale"), [("rgb8", 1), ("bgr8", 3), ("mono8", 3), ("rgba8", 1)])
def test_brightening_fades_in_and_out(graph: Graph, enhancer: FakeEnhancer, encoding: str, scale: int) -> None:
    """By the stamps, until the engine is not asked any more, or the image is all the engine's."""
    node = start(graph, flicker_time=0.1)
    enhancer.gain = 2.0
    eye = graph.add(Eye("image_enhanced"))
    shape = (32 * scale, 64 * scale, *{"mono8": (), "rgba8": (4,)}.get(encoding, (3,)))
    levels, shares = [45] + 15 * [65] + 14 * [45], [1.0]
    for level in levels[1:]:
        share = shares[-1] + ((level == 45) - shares[-1]) * (1 - np.exp(-TICK / 1e8))
        shares.append(round(share) if abs(share - round(share)) < task.REST else share)
    assert shares[15] == 0 and shares[-1] == 1, "both are reached"
    for number, (level, share) in enumerate(zip(levels, shares, strict=True), 1):
        image = Image(np.full(shape, level, np.uint8), encoding)
        error = image_from_message(eye.ask(number * TICK, image)).data - level * (1 + share)
        assert np.abs(error).max() <= (0.6 if 0 < share < 1 else 0), f"image {number}"
    wait_until(lambda: node.statistics.counts["published"] >= len(levels), what="the counts")
    bypassed = node.statistics.counts["bypassed"]
    assert 0 < bypassed < 15 and node.statistics.counts["enhanced"] >= len(levels) - bypassed
    image = Image(np.full(shape, 65, np.uint8), encoding)
    assert (image_from_message(eye.ask(1, image)).data == 65).all(), "a recording that starts over"


def test_thresholds_change_what_comes_next(graph: Graph, enhancer: FakeEnhancer) -> None:
    node = start(graph, flicker_time=0.0)
    eye = graph.add(Eye("image_enhanced"))
    image = picture(60)
    assert np.array_equal(image_from_message(eye.ask(1, image)).data, image.data)
    (refused,) = eye.set(NAME, dark_below=0.6)
    assert not refused.successful and "must not be more than bright_above 0.25" in refused.reason
    assert not eye.set(NAME, bright_above=1.5)[0].successful and node.parameters.bright_above == 0.25
    assert np.array_equal(image_from_message(eye.ask(2, image)).data, image.data)
    (done,) = eye.set(NAME, together=True, dark_below=1.0, bright_above=1.0)
    assert done.successful, done.reason
    assert image_from_message(eye.ask(3, image)).data.mean() > 2 * image.data.mean()


def test_flicker_is_damped_until_time_jumps(graph: Graph, enhancer: FakeEnhancer) -> None:
    start(graph, flicker_time=1.0)
    eye = graph.add(Eye("image_enhanced"))
    flat = Image(np.full((32, 64, 3), 30, np.uint8), "rgb8")
    seen = []
    for number in range(1, 9):
        enhancer.gain = 4.0 if number % 2 else 5.0
        seen.append(int(image_from_message(eye.ask(number * TICK, flat)).data[0, 0, 0]))
    assert seen[0] == 120 and max(np.abs(np.diff(seen))) <= 2 and max(seen) < 125, seen
    enhancer.gain = 5.0
    assert image_from_message(eye.ask(1, flat)).data[0, 0, 0] == 150, "a recording that starts over"
    enhancer.gain = 4.0
    assert eye.set(NAME, flicker_time=0.0)[0].successful
    assert image_from_message(eye.ask(1 + TICK, flat)).data[0, 0, 0] == 120


def test_what_lies_around_an_image_has_no_part_in_its_gain(graph: Graph, enhancer: FakeEnhancer) -> None:
    enhancer.config = enhancer.config.replace(letterbox="center")
    start(graph, flicker_time=60.0)
    eye = graph.add(Eye("image_enhanced"))
    flat = Image(np.full((32, 32), 30, np.uint8), "mono8")
    seen = []
    for number, gain in enumerate((4.0, 5.0), 1):
        enhancer.gain = gain
        seen.append(int(image_from_message(eye.ask(number * TICK, flat)).data.max()))
    assert seen == [120, 120]


def test_only_the_calibration_is_wanted(graph: Graph, enhancer: FakeEnhancer) -> None:
    """Then the engine has nothing to do."""
    node = start(graph)
    eye = graph.add(Eye("image_enhanced", INFO))
    wait_until(lambda: eye.info.get_subscription_count(), what="the node's interest in calibrations")
    eye.calibrate(SMALL)
    eye.ask(1, picture(20))
    output = node.streams[0].results
    eye.destroy_subscription(next(entity for entity in eye.subscriptions if entity.topic_name == output.image.topic))
    wait_until(lambda: not output.image.wanted and output.camera_info.wanted, what="the listener to go")
    time.sleep(0.2)  # what is under way
    runs, enhanced = enhancer.runs, node.statistics.counts["enhanced"]

    def told() -> bool:
        eye.calibrate(SMALL)
        eye.image.publish(image_to_message(picture(20), eye.header(2)))
        time.sleep(0.05)
        return 2 in eye.got[INFO]

    wait_until(told, 20, "a camera_info")
    counts = node.statistics.counts
    assert enhancer.runs == runs and counts["enhanced"] == enhanced and not counts["bypassed"]


def test_overridden_qos_that_is_none_is_refused_at_once(graph: Graph, enhancer: FakeEnhancer) -> None:
    """Although the topic of the calibration comes later."""
    name = f"qos_overrides./robot/{INFO}.publisher.reliability"
    node = graph.add(EnhancementNode(namespace="/robot", parameter_overrides=overrides(**{name: "perfect"})))
    assert not node.autostart()


def test_without_stamps_nothing_is_damped_and_that_is_said(graph: Graph, enhancer: FakeEnhancer) -> None:
    start(graph)
    eye = graph.add(Eye("image_enhanced"))
    for gain in (4.0, 5.0):
        enhancer.gain = gain
        message = image_to_message(Image(np.full((32, 64), 30, np.uint8), "mono8"), eye.header(0))
        message.header.stamp.sec = 0
        eye.got["image_enhanced"].clear()
        assert image_from_message(eye.ask(0, message)).data[0, 0] == 30 * gain
    wait_until(lambda: any("flicker is not damped" in text for text in eye.warnings()), what="the warning")


def test_a_calibration_goes_on_with_its_image(graph: Graph, enhancer: FakeEnhancer) -> None:
    """Distorted as it is, and of whichever size: this node has no use for it."""
    node = start(graph)
    eye = graph.add(Eye("image_enhanced", INFO))
    wait_until(lambda: eye.info.get_subscription_count(), what="the node's interest in calibrations")
    for number, (calibration, level) in enumerate([(BARREL, 20), (BARREL, 120), (Calibration(CAMERA), 20)], 1):

        def told(number: int = number, calibration: Any = calibration, level: int = level) -> Any:
            eye.calibrate(calibration)
            time.sleep(0.05)
            eye.ask(number, picture(level))
            eye.got["image_enhanced"].pop(number)
            return eye.got[INFO].get(number)

        info = wait_until(told, 20, "a camera_info")
        assert info.header == eye.header(number)
        assert np.allclose(info.k, calibration.camera.matrix.ravel())
        assert tuple(info.d) == (calibration.distortion or (0.0,) * 5)
    assert not eye.warnings() and not eye.errors() and not node.statistics.counts["failed"]


def stereo(model: str = "plumb_bob", **fields: Any) -> CameraInfo:
    """What a driver says of the right camera of a pair, binned and cut."""
    message = CameraInfo(height=64, width=128, distortion_model=model, binning_x=2, binning_y=2)
    message.d, message.k = [-0.3, 0.1, 0.0, 0.0, 0.0], [90.0, 0, 64, 0, 91, 32, 0, 0, 1]
    message.r = [0.0, 1, 0, -1, 0, 0, 0, 0, 1]
    message.p = [80.0, 0, 60, -12.5, 0, 80, 30, 0, 0, 0, 1, 0]
    message.roi.width, message.roi.height, message.roi.x_offset, message.roi.do_rectify = 100, 60, 4, True
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize("message", [stereo(), stereo(k=[0.0] * 9), stereo("lens of ours", d=[1.0])])
def test_a_calibration_goes_on_word_for_word(graph: Graph, enhancer: FakeEnhancer, message: CameraInfo) -> None:
    """Also one that nobody can use: whoever is behind has to hear of it, and this node has no use for any."""
    node = start(graph)
    eye = graph.add(Eye("image_enhanced", INFO))
    wait_until(lambda: eye.info.get_subscription_count(), what="the node's interest in calibrations")

    def told() -> Any:
        eye.info.publish(message)
        time.sleep(0.05)
        eye.ask(7, picture(20))
        eye.got["image_enhanced"].pop(7)
        return eye.got[INFO].get(7)

    info = wait_until(told, 20, "a camera_info")
    assert info.header == eye.header(7) and tuple(info.r) == tuple(message.r) and tuple(info.p) == tuple(message.p)
    info.header = message.header
    assert info == message
    assert not eye.errors() and not eye.warnings() and node.statistics.counts["bad_calibration"] == 0


@pytest.mark.parametrize("apart", [False, True])
def test_an_uncalibrated_camera_does_not_stall_what_is_behind(
    graph: Graph, enhancer: FakeEnhancer, apart: bool, elsewhere: Any
) -> None:
    """In the same process and in another."""
    before = graph.add(EnhancementNode(namespace="/robot", **({"context": elsewhere} if apart else {})))
    behind = ["--ros-args", "-r", "image:=image_enhanced", "-r", f"camera_info:={INFO}"]
    depth = graph.add(DepthNode(namespace="/robot", cli_args=behind))
    robot = graph.add(Robot("depth"))
    assert depth.autostart() and before.autostart()
    wait_until(lambda: robot.info.get_subscription_count() and robot.connected(), what="matching")

    def answered() -> bool:
        robot.info.publish(stereo(k=[0.0] * 9))
        robot.image.publish(image_to_message(picture(20), robot.header(3)))
        time.sleep(0.05)
        return 3 in robot.got["depth"]

    wait_until(answered, 20, "depth")
    assert depth.statistics.counts["bad_calibration"] == 1 and before.statistics.counts["bad_calibration"] == 0


def test_without_a_calibration_none_is_promised(graph: Graph, enhancer: FakeEnhancer) -> None:
    """Nodes behind this one would wait for it."""
    start(graph)
    eye = graph.add(Eye("image_enhanced"))
    wait_until(eye.connected, what="matching")
    eye.destroy_publisher(eye.info)
    wait_until(lambda: not eye.count_publishers("/robot/camera_info"), what="the calibration to go")
    eye.ask(1, picture(20))
    assert not eye.count_publishers(f"/robot/{INFO}")


def test_a_bad_image_is_said_and_survived(graph: Graph, enhancer: FakeEnhancer) -> None:
    node = start(graph)
    eye = graph.add(Eye("image_enhanced"))
    eye.ask(1, picture(20))
    bad = image_to_message(Image(np.zeros((32, 64), np.float32), "32FC1"), eye.header(2))
    eye.image.publish(bad)
    wait_until(lambda: node.statistics.counts["failed"] == 1, what="the count")
    assert "'32FC1' is not an image in colour or grey" in node.statistics.last_error
    assert np.array_equal(image_from_message(eye.ask(3, picture(20))).data, 4 * picture(20).data)


def test_nodes_of_the_process_get_the_very_array_that_came(graph: Graph, enhancer: FakeEnhancer, clip: str) -> None:
    """A bright image goes through without a copy, a dark one without a message."""
    node = start(graph, bright_above=0.0, dark_below=0.0)
    came: list[Image] = []
    went: list[Image] = []
    inlets = [
        Inlet(f"/robot/{topic}", lambda image, _header, seen=seen: seen.append(image), lambda _: None)
        for topic, seen in (("image", came), ("image_enhanced", went))
    ]
    for inlet in inlets:
        exchange_of(node).join(inlet)
    source = graph.add(make_source(clip))
    assert source.autostart()
    wait_until(lambda: len(went) >= 3, what="images")
    source.trigger_deactivate()
    for inlet in inlets:
        exchange_of(node).leave(inlet)
    assert all(any(np.shares_memory(image.data, one.data) for one in came) for image in went)
    assert "/robot/image" not in {entity.topic_name for entity in node.subscriptions}


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """Ten frames of noise in the dark, some less so."""
    writer = RGBDWriter(tmp_path / "clip", SMALL, 20.0, "none", "test")
    noise = np.random.default_rng(0)
    for level in 2 * (20, 35, 45, 70, 80):
        writer.write_frame(noise.integers(level - 10, level + 10, (SMALL.height, SMALL.width, 3), np.uint8), None)
    return str(tmp_path / "clip")


def make_source(clip: str, **options: Any) -> ImageSourceNode:
    values = overrides(source=clip, stamps="source", loop=True, rate=10.0)
    return ImageSourceNode(namespace="/robot", parameter_overrides=values, **options)


def chained(graph: Graph, clip: str, **options: Any) -> dict[int, np.ndarray]:
    """Depth of every enhanced image of the clip, by stamp; `options` are those of the nodes before the depth node."""
    robot = graph.add(Robot("depth", name="listener"))
    behind = ["--ros-args", "-r", "image:=image_enhanced", "-r", f"camera_info:={INFO}"]
    depth = graph.add(DepthNode(namespace="/robot", cli_args=behind))
    given = overrides(flicker_time=0.0)  # else it matters which image came first
    before = EnhancementNode(namespace="/robot", parameter_overrides=given, **options)
    source = make_source(clip, **options)
    try:
        assert depth.autostart() and before.autostart()
        wait_until(lambda: depth.streams[0].results.depth.wanted, what="the listener")
        wait_until(lambda: before.streams[0].results.image.wanted, what="the depth node")
        assert source.autostart()
        wait_until(lambda: len(robot.got["depth"]) == 10, 30, "ten depth maps")
        subscribed = {entity.topic_name for entity in depth.subscriptions}
        assert ("/robot/image_enhanced" in subscribed) == bool(options), "messages only from another context"
        return {stamp: metres(message).copy() for stamp, message in robot.got["depth"].items()}
    finally:
        for node in (source, before):
            node.close()
            node.destroy_node()
        depth.trigger_deactivate()


def test_depth_behind_it_is_the_same_in_one_process_as_in_several(
    graph: Graph, enhancer: FakeEnhancer, clip: str, elsewhere: Any
) -> None:
    enhancer.gain = 1.5
    here = chained(graph, clip)
    graph.nodes[-1].trigger_cleanup()
    there = chained(graph, clip, context=elsewhere)
    assert here.keys() == there.keys() and all(np.array_equal(here[stamp], there[stamp]) for stamp in here)
    means = [float(depth.mean()) for depth in here.values()]
    assert (min(means), max(means)) == pytest.approx((2.9, 7.95), abs=0.1), "brightened from 2, and 8 as it came"


def test_the_pipeline_finds_objects_in_what_it_brightened(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its nodes as they are by default, in one process."""
    monkeypatch.setenv("PERCEPTION_ENGINES", str(tmp_path / "engines"))
    detector, load = build_extents(tmp_path), model_node.engines.load
    monkeypatch.setattr(
        model_node.engines,
        "load",
        lambda model, *options: FakeEnhancer(8.0) if model == ENHANCEMENT_MODEL else load(model, *options),
    )
    pipeline = load_pipeline("low_light_pipeline")
    descriptions = pipeline.nodes(pipeline.read({"namespace": "robot", "detection_model": detector}))
    before, detection = nodes = [graph.add(make_node(description)) for description in descriptions]
    robot = graph.add(DetectionRobot("detections"))
    assert all(node.autostart() for node in nodes)
    wait_until(lambda: robot.connected() and before.streams[0].results.image.wanted, what="matching")
    box, names = (2, 4, 60, 28), ("red thing", "green", "blue")

    def found(number: int, *levels: int) -> list[Any]:
        objects = ((box, label, level) for label, level in enumerate(levels))
        pixels = scene(*objects, size=(SMALL.height, SMALL.width))

        def answered() -> bool:
            robot.send(number, pixels, SMALL)
            time.sleep(0.05)
            return number in robot.got["detections"]

        wait_until(answered, 20, "detections")
        message = robot.got["detections"][number]
        assert message.header == robot.header(number)
        return told(message)

    assert found(1, 22) == [("red thing", round(8 * 22 / 255, 4), box, "")], "too dark for the detector as it came"
    assert found(2, 200, 190, 180) == [
        (name, round(level / 255, 4), box, "") for name, level in zip(names, (200, 190, 180), strict=True)
    ]
    counts = before.statistics.counts
    assert counts["enhanced"] and counts["bypassed"] and not counts["failed"] + detection.statistics.counts["failed"]
    subscribed = {entity.topic_name for entity in detection.subscriptions}
    assert "/robot/image_enhanced" not in subscribed, "no message is made between them"

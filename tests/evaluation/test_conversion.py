"""Bags cut, stamped anew, compressed and unpacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from perception.evaluation import bags
from perception.evaluation.bags import Bag, BagWriter
from perception.evaluation.conversion import Conversion, convert, to_ros2
from perception.tasks.geometry import Camera
from perception.tasks.image import Image
from perception.tasks.messages import image_from_message

SECOND = 1_000_000_000
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
CAMERA = Camera(8, 6, 10.0, 10.0, 3.5, 2.5)
NEVER = QosTime(0, 0)
LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, NEVER, NEVER,
    QosLiveliness.AUTOMATIC, NEVER, False,
)  # fmt: skip
DEPTH = np.arange(48, dtype=np.uint16).reshape(6, 8)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Five frames at 1 Hz from second 100 on, recorded 0.2 s after their stamps; the tf of each names its stamp."""
    path = tmp_path / "recording"
    with BagWriter(path, notes={"made by": "a test"}) as writer:
        for index in range(5):
            stamp = (100 + index) * SECOND
            head, time = bags.header(stamp, "optical"), stamp + SECOND // 5
            _, transform = bags.pose_messages(np.eye(4), head, "child")
            writer.write("/tf", transform, time)
            writer.write("/cam/camera_info", bags.info_message(CAMERA, head), time)
            writer.write("/cam/image", bags.image_message(Image(PIXELS, "rgb8"), head), time)
            writer.write("/cam/depth", bags.image_message(Image(DEPTH, "16UC1"), head), time)
            writer.write("/cam/metres", bags.image_message(Image(DEPTH.astype(np.float32), "32FC1"), head), time)
    return path


def converted(path: Path, storage: str = "mcap", **what: object) -> Bag:
    out = path.with_name("converted")
    with Bag(path) as bag, BagWriter(out, storage, bag.notes) as writer:
        count = convert(bag, writer, Conversion(**what))  # type: ignore[arg-type]
    made = Bag(out)
    assert sum(made.counts.values()) == count
    return made


def everything(bag: Bag) -> list[tuple[str, int, bytes]]:
    return sorted((raw.topic, raw.time, bytes(raw.data)) for raw in bag.raw(bag.types))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_without_a_change_every_byte_stays(recording: Path, storage: str) -> None:
    with Bag(recording) as before, converted(recording, storage) as after:
        assert everything(after) == everything(before)
        assert after.types == before.types and after.notes == before.notes


def test_cut_by_time_and_topic(recording: Path) -> None:
    with converted(recording, topics=("/cam/image", "/tf"), start=1.0, duration=2.0) as bag:
        assert bag.counts == {"/cam/image": 2, "/tf": 2}
        assert [raw.time / SECOND for raw in bag.raw(["/cam/image"])] == [101.2, 102.2]


@pytest.mark.parametrize(
    ("what", "begin"),
    [({}, 102.2), ({"begin": 7.0}, 7.0), ({"stamps": "header"}, 102.0), ({"stamps": "header", "begin": 7.0}, 7.0)],
)
def test_what_latched_topics_said_before_the_cut_comes_at_its_beginning(
    tmp_path: Path, what: dict[str, object], begin: float
) -> None:
    """Without /tf_static, which robots publish once, nobody knows where the camera is."""
    path = tmp_path / "latched"
    with BagWriter(path) as writer:
        for index in range(4):
            head, time = bags.header((100 + index) * SECOND, "optical"), (100 + index) * SECOND + SECOND // 5
            if index < 2:
                transform = bags.pose_messages(np.eye(4), head, f"child {index}")[1]
                for topic, message in (("/tf_static", transform), ("/info", bags.info_message(CAMERA, head))):
                    data = bags.TYPES.serialize_cdr(message, message.__msgtype__)
                    writer._append(topic, message.__msgtype__, time, data, bags.TYPES, [LATCHED])
            writer.write("/image", bags.image_message(Image(PIXELS, "rgb8"), head), time)
    with converted(path, start=2.0, **what) as bag:
        assert bag.counts == {"/image": 2, "/tf_static": 2, "/info": 2} and bags.latched(bag, "/tf_static")
        topics = ("/tf_static", "/info", "/image")
        statics, infos, images = (list(bag.messages([topic])) for topic in topics)
        assert [message.time / SECOND for message in (*statics, *infos, images[0])] == [begin] * 5
        assert [message.message.transforms[0].child_frame_id for message in statics] == ["child 0", "child 1"]
        assert next(bag.raw(topics)).topic in ("/tf_static", "/info"), "before the first image"
    with Bag(path) as bag, BagWriter(tmp_path / "empty") as writer:
        assert convert(bag, writer, Conversion(start=9.0, **what)) == 0  # type: ignore[arg-type]


def test_headers_get_the_time_of_recording(recording: Path) -> None:
    with converted(recording, stamps="recorded") as bag:
        for recorded in bag.messages(bag.types):
            head = recorded.message.transforms[0].header if recorded.topic == "/tf" else recorded.message.header
            assert head.stamp.sec * SECOND + head.stamp.nanosec == recorded.time
            assert recorded.time % SECOND == SECOND // 5


def test_the_recording_gets_the_time_of_headers_and_is_in_order(tmp_path: Path) -> None:
    path = tmp_path / "late"
    order = [3, 1, 2, 0]
    with BagWriter(path) as writer:
        for time, index in enumerate(order):
            head = bags.header((50 + index) * SECOND, "optical")
            writer.write(
                "/image", bags.image_message(Image(PIXELS + np.uint8(index), "rgb8"), head), 90 * SECOND + time
            )
    with converted(path, stamps="header") as bag:
        assert [raw.time // SECOND for raw in bag.raw(["/image"])] == [50, 51, 52, 53]
        for recorded in bag.messages(["/image"]):
            index = recorded.stamp // SECOND - 50
            assert (image_from_message(recorded.message).data == PIXELS + np.uint8(index)).all()


def test_what_has_no_header_goes_with_what_has_one(tmp_path: Path) -> None:
    """A bag recorded late, its transforms too; afterwards all happened when the headers say, from `begin` on."""
    path = tmp_path / "late"
    with BagWriter(path) as writer:
        for index in range(3):
            head, time = bags.header((50 + index) * SECOND, "optical"), (90 + index) * SECOND
            writer.write("/tf", bags.pose_messages(np.eye(4), head, "child")[1], time)
            writer.write("/image", bags.image_message(Image(PIXELS, "rgb8"), head), time + 5)
    with converted(path, stamps="header", begin=7.0) as bag:
        images = list(bag.messages(["/image"]))
        assert [recorded.time for recorded in images] == [recorded.stamp for recorded in images]
        assert bag.start == 7 * SECOND
        transforms = list(bag.messages(["/tf"]))
        gaps = [image.time - transform.time for image, transform in zip(images, transforms, strict=True)]
        assert gaps == [5, 5, 5]


def test_all_times_move_together(recording: Path) -> None:
    with converted(recording, begin=7.0) as bag:
        assert bag.start == 7 * SECOND and bag.duration == 4 * SECOND + 1
        for recorded in bag.messages(["/cam/image", "/cam/camera_info"]):
            assert recorded.time - recorded.stamp == SECOND // 5
        transform = next(bag.messages(["/tf"])).message.transforms[0]
        assert (transform.header.stamp.sec, transform.header.stamp.nanosec) == (6, 800_000_000)


def test_a_stamp_that_was_never_set_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "unset"
    with BagWriter(path) as writer:
        writer.write("/image", bags.image_message(Image(PIXELS, "rgb8"), bags.header(0, "optical")), 9 * SECOND)
    with converted(path, begin=7.0, stamps="header") as bag:
        (recorded,) = bag.messages(["/image"])
        assert (recorded.time, recorded.stamp) == (7 * SECOND, 0)


def test_images_are_compressed_and_unpacked(recording: Path) -> None:
    with converted(recording, images="png") as bag:
        assert set(bag.image_topics()) == {"/cam/image/compressed", "/cam/depth/compressed", "/cam/metres"}
        (first, *_) = bag.messages(["/cam/image/compressed"])
        assert first.stamp == 100 * SECOND and first.message.header.frame_id == "optical"
        np.testing.assert_array_equal(image_from_message(first.message).data, PIXELS[..., ::-1])
        assert bag.camera_info_topic("/cam/image/compressed") == "/cam/camera_info"
    compressed = recording.with_name("compressed")
    recording.with_name("converted").rename(compressed)
    with converted(compressed, images="raw") as bag:
        assert set(bag.image_topics()) == {"/cam/image", "/cam/depth", "/cam/metres"}
        (depth, *_) = bag.messages(["/cam/depth"])
        assert image_from_message(depth.message).encoding == "16UC1"
        np.testing.assert_array_equal(image_from_message(depth.message).data, DEPTH)


def test_a_compressed_topic_of_another_name_gets_a_raw_one(tmp_path: Path) -> None:
    path = tmp_path / "named"
    head = bags.header(SECOND, "optical")
    with BagWriter(path) as writer:
        writer.write("/cam/camera_info", bags.info_message(CAMERA, head), SECOND)
        writer.write("/cam/compressed_image", bags.compressed_message(Image(PIXELS, "rgb8"), head, "png"), SECOND)
    with converted(path, images="raw") as bag:
        assert bag.image_topics() == ["/cam/compressed_image_raw"]
        assert bag.camera_info_topic("/cam/compressed_image_raw") == "/cam/camera_info"


def test_jpeg_leaves_depth_exact(recording: Path) -> None:
    with converted(recording, images="jpeg", quality=95) as bag:
        (depth, *_) = bag.messages(["/cam/depth/compressed"])
        np.testing.assert_array_equal(image_from_message(depth.message).data, DEPTH)
        (image, *_) = bag.messages(["/cam/image/compressed"])
        assert image.message.format == "rgb8; jpeg compressed bgr8"


def test_an_image_that_cannot_be_read_stays_and_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    with BagWriter(path) as writer:
        for index in range(2):
            message = bags.image_message(Image(PIXELS, "rgb8"), bags.header(SECOND, "optical"))
            message.data = message.data[: len(message.data) - index]
            writer.write("/image", message, SECOND + index)
    said: list[str] = []
    with Bag(path) as bag, BagWriter(tmp_path / "out") as writer:
        assert convert(bag, writer, Conversion(images="png"), said.append) == 2
    with Bag(tmp_path / "out") as bag:
        assert bag.counts == {"/image": 1, "/image/compressed": 1}
    assert len(said) == 1 and "a message of /image stays as it is: image of 8x6 pixels" in said[0]


def test_two_topics_never_become_one(tmp_path: Path) -> None:
    path = tmp_path / "both"
    head = bags.header(SECOND, "optical")
    with BagWriter(path) as writer:
        writer.write("/image", bags.image_message(Image(PIXELS, "rgb8"), head), SECOND)
        writer.write("/image/compressed", bags.compressed_message(Image(PIXELS, "rgb8"), head), SECOND)
    with pytest.raises(
        ValueError, match="/image would become /image/compressed, which .*both has too; name the topics"
    ):
        converted(path, images="jpeg")
    assert not path.with_name("converted").exists()
    with converted(path, images="jpeg", topics=("/image",)) as bag:
        assert bag.counts == {"/image/compressed": 1}


def test_a_bag_of_ros_1_becomes_one_of_ros_2(tmp_path: Path) -> None:
    types = get_typestore(Stores.ROS1_NOETIC)
    stamp = types.types["builtin_interfaces/msg/Time"](sec=3, nanosec=4)
    head = types.types["std_msgs/msg/Header"](seq=0, stamp=stamp, frame_id="optical")
    image = types.types["sensor_msgs/msg/Image"](
        header=head, height=6, width=8, encoding="bgr8", is_bigendian=0, step=24, data=PIXELS.ravel()
    )
    with Ros1Writer(tmp_path / "old.bag") as old:
        connection = old.add_connection("/image", image.__msgtype__, typestore=types)
        old.write(connection, 9 * SECOND, types.serialize_ros1(image, image.__msgtype__))
    (tmp_path / "scratch").mkdir()
    made = to_ros2(tmp_path / "old.bag", tmp_path / "scratch")
    with converted(made, stamps="header") as bag:
        (recorded,) = bag.messages(["/image"])
        assert recorded.stamp == recorded.time == 3 * SECOND + 4
        np.testing.assert_array_equal(image_from_message(recorded.message).data, PIXELS)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({"stamps": "now"}, "stamps 'now' is unknown; accepted: keep, recorded, header"),
        ({"images": "webp"}, "images 'webp' is unknown; accepted: keep, raw, jpeg, png"),
        ({"start": -1.0}, "start -1 s"),
        ({"duration": 0.0}, "a duration more than 0"),
        ({"quality": 0}, "quality 0 is not possible; give 1 to 100"),
    ],
)
def test_what_cannot_be_is_said(what: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Conversion(**what)  # type: ignore[arg-type]

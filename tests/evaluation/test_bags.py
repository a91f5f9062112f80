"""Bags there and back in every storage, and the three real ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from perception.evaluation import bags
from perception.evaluation.bags import Bag, BagWriter
from perception.tasks.calibration import Calibration
from perception.tasks.geometry import Camera
from perception.tasks.image import Image
from perception.tasks.messages import calibration_from_message, image_from_message

DATA = Path(os.environ.get("PERCEPTION_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "rosbags"
CALIBRATION = Calibration(Camera(8, 6, 10.0, 11.0, 3.5, 2.5), "plumb_bob", (-0.1, 0.02, 0.0, 0.0, 0.0))
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def write_bag(path: Path, storage: str = "mcap") -> None:
    """Two frames of two cameras; /left has a calibration."""
    with BagWriter(path, storage, {"made by": "a test"}) as writer:
        for stamp in (5_000_000_007, 6_000_000_000):
            head = bags.header(stamp, "optical")
            writer.write("/left/camera_info", bags.info_message(CALIBRATION, head), stamp + 1)
            writer.write("/left/image_raw", bags.image_message(Image(PIXELS, "rgb8"), head), stamp + 2)
            jpeg = bags.compressed_message(Image(PIXELS, "rgb8"), head, "png")
            writer.write("/left/image_raw/compressed", jpeg, stamp + 3)
            writer.write("/right/image", bags.image_message(Image(PIXELS[..., 0], "mono8"), head), stamp + 4)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_is_the_same_there_and_back(tmp_path: Path, storage: str) -> None:
    path = tmp_path / "recording"
    write_bag(path, storage)
    assert [entry.name for entry in tmp_path.iterdir()] == ["recording"]
    with Bag(path) as bag:
        assert bag.image_topics() == ["/left/image_raw", "/left/image_raw/compressed", "/right/image"]
        assert bag.counts["/left/camera_info"] == 2 and bag.notes == {"made by": "a test"}
        assert bag.camera_info_topic("/left/image_raw") == "/left/camera_info"
        assert bag.camera_info_topic("/left/image_raw/compressed") == "/left/camera_info"
        assert bag.camera_info_topic("/right/image") is None
        images = list(bag.messages(["/left/image_raw"]))
        assert [(r.topic, r.stamp, r.time) for r in images] == [
            ("/left/image_raw", stamp, stamp + 2) for stamp in (5_000_000_007, 6_000_000_000)
        ]
        decoded = image_from_message(images[1].message)
        assert decoded.encoding == "rgb8" and images[1].message.header.frame_id == "optical"
        np.testing.assert_array_equal(decoded.data, PIXELS)
        (info, _) = bag.messages(["/left/camera_info"])
        assert calibration_from_message(info.message).distortion == CALIBRATION.distortion
        assert calibration_from_message(info.message).camera == CALIBRATION.camera
        png = image_from_message(next(bag.messages(["/left/image_raw/compressed"])).message)
        np.testing.assert_array_equal(png.data, PIXELS[..., ::-1])


def test_messages_of_several_topics_come_in_order_of_recording(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag")
    with Bag(tmp_path / "bag") as bag:
        recorded = list(bag.messages(bag.types))
    assert [r.time for r in recorded] == sorted(r.time for r in recorded) and len(recorded) == 8


def test_a_bag_of_ros_1_is_read(tmp_path: Path) -> None:
    types = get_typestore(Stores.ROS1_NOETIC)
    stamp = types.types["builtin_interfaces/msg/Time"](sec=3, nanosec=4)
    head = types.types["std_msgs/msg/Header"](seq=0, stamp=stamp, frame_id="optical")
    roi = types.types["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    k, d = np.array([10.0, 0, 3.5, 0, 11, 2.5, 0, 0, 1]), np.zeros(5)
    info = types.types["sensor_msgs/msg/CameraInfo"](
        header=head, height=6, width=8, distortion_model="plumb_bob", D=d, K=k, R=np.eye(3).ravel(), P=np.zeros(12),
        binning_x=0, binning_y=0, roi=roi,
    )  # fmt: skip
    image = types.types["sensor_msgs/msg/Image"](
        header=head, height=6, width=8, encoding="bgr8", is_bigendian=0, step=24, data=PIXELS.ravel()
    )
    with Ros1Writer(tmp_path / "old.bag") as writer:
        for topic, message in (("/image", image), ("/camera_info", info)):
            connection = writer.add_connection(topic, message.__msgtype__, typestore=types)
            writer.write(connection, 9, types.serialize_ros1(message, message.__msgtype__))
    with Bag(tmp_path / "old.bag") as bag:
        assert bag.image_topics() == ["/image"] and bag.camera_info_topic("/image") == "/camera_info"
        (recorded,) = bag.messages(["/image"])
        assert recorded.stamp == 3_000_000_004
        np.testing.assert_array_equal(image_from_message(recorded.message).data, PIXELS)
        (recorded,) = bag.messages(["/camera_info"])
        assert calibration_from_message(recorded.message).camera == CALIBRATION.camera


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing does not exist; give a bag folder"):
        Bag(tmp_path / "nothing")
    (tmp_path / "broken.mcap").write_bytes(b"\x89MCAP0\r\n" + b"junk" * 30)
    (tmp_path / "empty").mkdir()
    for name in ("broken.mcap", "empty"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a ROS bag"):
            Bag(tmp_path / name)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_bag_gives_its_messages_or_a_value_error(tmp_path: Path, storage: str, damage: str) -> None:
    write_bag(tmp_path / "bag", storage)
    (file,) = (path for path in (tmp_path / "bag").iterdir() if path.suffix in (".mcap", ".db3"))
    whole = file.read_bytes()
    refused = 0
    for share in np.linspace(0.01, 0.99, 25):
        at = int(share * len(whole))
        hurt = tmp_path / f"hurt{file.suffix}"
        hurt.write_bytes(whole[:at] if damage == "cut" else whole[:at] + b"\xa5" * 40 + whole[at + 40 :])
        try:
            with Bag(hurt) as bag:
                assert len(list(bag.messages(bag.types))) <= 8
        except ValueError as error:
            assert "hurt" in str(error)
            refused += 1
    assert refused > 2


def test_an_unknown_topic_is_named(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag")
    with Bag(tmp_path / "bag") as bag, pytest.raises(ValueError, match="has no topic /front; it has /left/camera_info"):
        next(bag.messages(["/front"]))


def test_nothing_is_left_of_a_bag_that_failed(tmp_path: Path) -> None:
    head = bags.header(1, "optical")
    with pytest.raises(OSError, match="disk is full"), BagWriter(tmp_path / "bag") as writer:
        writer.write("/image", bags.image_message(Image(PIXELS, "rgb8"), head), 1)
        raise OSError("disk is full")
    assert list(tmp_path.iterdir()) == []


def test_a_bag_is_never_overwritten(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag")
    with pytest.raises(FileExistsError, match="bag exists; remove it or give another name"):
        BagWriter(tmp_path / "bag")
    with pytest.raises(ValueError, match="'rosbag1' is unknown; accepted: mcap, sqlite3"):
        BagWriter(tmp_path / "other", "rosbag1")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"real bags are not at {DATA}")
@pytest.mark.parametrize(
    ("name", "images", "encoding", "mean"),
    [
        ("rosbag2_2025_09_10-13_03_56_0.mcap", {"/image": 1, "/compressed_image": 1}, "bgr8", 127.46),
        ("sample.db3", {"/image": 1}, "bgr8", 179.79),  # names types in the manner of early ROS 2
        ("soccer_goal_12.mcap", {"/camera/image_raw": 2}, "rgb8", 110.21),  # messages compressed, metadata absent
    ],
)
def test_real_bags_are_read(name: str, images: dict[str, int], encoding: str, mean: float) -> None:
    with Bag(DATA / name) as bag:
        assert {topic: bag.counts[topic] for topic in bag.image_topics()} == images
        image = image_from_message(next(bag.messages([bag.image_topics()[0]])).message)
        assert image.size == (480, 640) and image.encoding == encoding
        assert image.data.mean() == pytest.approx(mean, abs=0.1)
        if name.startswith("rosbag2"):
            (info,) = bag.messages(["/camera_info"])
            assert calibration_from_message(info.message).camera == Camera(640, 480, 500, 500, 320, 240)

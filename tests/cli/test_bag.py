"""`perception record`, `convert` and `bag` from the command line to the messages in the bag."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.cli.main import main
from perception.evaluation.bags import Bag
from perception.tasks.geometry import Camera
from perception.tasks.messages import boxes_from_message, calibration_from_message, image_from_message

CAMERA = Camera(32, 24, 30.0, 31.0, 15.5, 11.5)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A folder of RGB-D frames with three frames of falling depth."""
    folder = tmp_path / "clip"
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    about = {name: getattr(CAMERA, name) for name in ("width", "height", "fx", "fy", "cx", "cy")} | {"fps": 10.0}
    (folder / "camera.json").write_text(json.dumps(about))
    lines = []
    for index in range(3):
        cv2.imwrite(str(folder / "rgb" / f"{index:06d}.png"), np.full((24, 32, 3), (10, 20, 200 + index), np.uint8))
        codes = np.full((24, 32), 3000 - 1000 * index, np.uint16)
        codes[0, 0] = 0
        cv2.imwrite(str(folder / "depth" / f"{index:06d}.png"), codes)
        pose = np.array([[0, -1, 0, index], [1, 0, 0, 0.5], [0, 0, 1, 0.25], [0, 0, 0, 1.0]])
        lines.append(" ".join(str(value) for value in (index / 10, *pose.ravel())))
    (folder / "poses.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_holds_what_the_folder_holds(scene: Path, tmp_path: Path, storage: str) -> None:
    out = tmp_path / "bag"
    assert main(["record", str(scene), "--out", str(out), "--storage", storage]) == 0
    with Bag(out) as bag:
        assert bag.counts == dict.fromkeys(
            ("/camera/image_raw", "/camera/camera_info", "/camera/depth_true", "/camera/pose", "/tf"), 3
        )
        images = list(bag.messages(["/camera/image_raw"]))
        assert np.diff([r.stamp for r in images]).tolist() == [100_000_000] * 2 and images[0].stamp > 0
        for index, recorded in enumerate(images):
            image = image_from_message(recorded.message)
            assert image.encoding == "rgb8" and tuple(image.data[3, 4]) == (200 + index, 20, 10)
            assert recorded.message.header.frame_id == "camera_color_optical_frame"
        depths = list(bag.messages(["/camera/depth_true"]))
        assert [r.stamp for r in depths] == [r.stamp for r in images]
        metres = image_from_message(depths[1].message)
        assert metres.encoding == "32FC1" and np.isnan(metres.data[0, 0]) and metres.data[5, 5] == 2.0
        assert calibration_from_message(next(bag.messages(["/camera/camera_info"])).message).camera == CAMERA
        pose = list(bag.messages(["/camera/pose"]))[2].message
        assert (pose.pose.position.x, pose.pose.position.y, pose.pose.position.z) == (2, 0.5, 0.25)
        assert (pose.pose.orientation.z, pose.pose.orientation.w) == pytest.approx((0.5**0.5, 0.5**0.5))
        (transform,) = list(bag.messages(["/tf"]))[2].message.transforms
        assert (transform.header.frame_id, transform.child_frame_id) == ("world", "camera_color_optical_frame")
        assert transform.transform.translation.x == 2 and transform.transform.rotation == pose.pose.orientation


def test_compressed_images_under_another_namespace(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "bag"
    command = [
        "record",
        str(scene),
        "--out",
        str(out),
        "--compression",
        "jpeg",
        "--frames",
        "2",
        "--namespace",
        "a/left",
    ]
    assert main(command) == 0
    with Bag(out) as bag:
        assert bag.image_topics() == ["/a/left/depth_true", "/a/left/image_raw/compressed"]
        recorded = next(bag.messages(["/a/left/image_raw/compressed"]))
        assert bag.counts[recorded.topic] == 2 and recorded.message.header.frame_id == "a_left_color_optical_frame"
        bgr = image_from_message(recorded.message).data[3, 4].astype(int)
        assert np.abs(bgr - (10, 20, 200)).max() <= 4


def test_info_says_what_is_in_a_bag(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bag"
    main(["record", str(scene), "--out", str(out)])
    capsys.readouterr()
    assert main(["bag", str(out)]) == 0
    text = capsys.readouterr().out
    assert "15 messages in 0.2 s" in text
    assert "image /camera/image_raw: 32x24 rgb8, camera_info: /camera/camera_info" in text
    assert "/tf  tf2_msgs/msg/TFMessage  3" in text and "note source: clip" in text


def test_a_frame_that_cannot_be_read_is_named_and_left_out(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (scene / "rgb" / "000001.png").write_bytes(b"")
    assert main(["record", str(scene), "--out", str(tmp_path / "bag")]) == 0
    said = capsys.readouterr()
    assert "wrote 2 frames of 3 to" in said.out and "000001.png is not a readable image" in said.out + said.err
    with Bag(tmp_path / "bag") as bag:
        assert [recorded.stamp for recorded in bag.messages(["/camera/image_raw"])] == [1_000_000_000, 1_200_000_000]


def test_a_video_at_another_rate(tmp_path: Path) -> None:
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 25.0, (32, 24))
    for index in range(4):
        writer.write(np.full((24, 32, 3), 60 * index, np.uint8))
    writer.release()
    assert main(["record", str(video), "--out", str(tmp_path / "bag"), "--rate", "10"]) == 0
    with Bag(tmp_path / "bag") as bag:
        assert bag.counts == {"/camera/image_raw": 4}
        images = list(bag.messages(["/camera/image_raw"]))
        assert np.diff([recorded.stamp for recorded in images]).tolist() == [100_000_000] * 3
        assert abs(float(image_from_message(images[2].message).data.mean()) - 120) < 3


def test_convert_cuts_and_compresses(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["record", str(scene), "--out", str(tmp_path / "bag")])
    command = ["convert", str(tmp_path / "bag"), "--out", str(tmp_path / "cut"), "--duration", "0.15"]
    assert main([*command, "--images", "png", "--storage", "sqlite3", "--begin", "5"]) == 0
    assert "wrote 10 messages" in capsys.readouterr().out
    with Bag(tmp_path / "cut") as bag:
        assert bag.counts["/camera/image_raw/compressed"] == 2 and bag.counts["/camera/depth_true"] == 2
        assert bag.start == 5_000_000_000 and bag.notes == {"source": "clip"}
    assert main([*command[:-1], "0.1", "--start", "9"]) == 1
    assert main(["convert", str(tmp_path / "bag"), "--out", str(tmp_path / "none"), "--start", "9"]) == 1
    assert "has nothing to keep in that time; it lasts 0.2 s" in capsys.readouterr().err
    assert {entry.name for entry in tmp_path.iterdir()} == {"clip", "bag", "cut"}


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_boxes_of_a_data_set_are_in_the_bag(tmp_path: Path, layout: str) -> None:
    root, box = tmp_path / "set", [4, 6, 20, 18]
    image = np.full((24, 32, 3), 80, np.uint8)
    if layout == "coco":
        (root / "annotations").mkdir(parents=True)
        (root / "val").mkdir()
        cv2.imwrite(str(root / "val" / "a.png"), image)
        content = {
            "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24}],
            "categories": [{"id": 3, "name": "dog"}],
            "annotations": [{"image_id": 1, "category_id": 3, "bbox": [4, 6, 16, 12], "area": 9, "iscrowd": 0}],
        }
        (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    elif layout == "voc":
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (root / folder).mkdir(parents=True)
        cv2.imwrite(str(root / "JPEGImages" / "a.png"), image)
        (root / "ImageSets" / "Main" / "val.txt").write_text("a\n")
        edges = "<xmin>5</xmin><ymin>7</ymin><xmax>20</xmax><ymax>18</ymax>"
        entry = f"<object><name>dog</name><bndbox>{edges}</bndbox></object>"
        size = "<size><width>32</width><height>24</height></size>"
        (root / "Annotations" / "a.xml").write_text(f"<annotation>{size}{entry}</annotation>")
    else:
        for kind in ("images", "labels"):
            (root / kind / "val").mkdir(parents=True)
        cv2.imwrite(str(root / "images" / "val" / "a.png"), image)
        (root / "labels" / "val" / "a.txt").write_text("0 0.375 0.5 0.5 0.5\n")
        (root / "labels.txt").write_text("dog\n")
    assert main(["record", str(root), "--split", "val", "--out", str(tmp_path / "bag")]) == 0
    with Bag(tmp_path / "bag") as bag:
        assert bag.counts == {"/camera/image_raw": 1, "/camera/detections_true": 1}
        (known,) = bag.messages(["/camera/detections_true"])
        (image_message,) = bag.messages(["/camera/image_raw"])
        boxes = boxes_from_message(known.message)
        assert boxes.names == ("dog",) and boxes.boxes.tolist() == [box] and known.stamp == image_message.stamp
    assert main(["convert", str(tmp_path / "bag"), "--out", str(tmp_path / "later"), "--begin", "7"]) == 0
    with Bag(tmp_path / "later") as bag:
        (known,) = bag.messages(["/camera/detections_true"])
        assert known.stamp == 7_000_000_000 and known.message.detections[0].header.stamp.sec == 7


def test_mistakes_are_one_sentence_and_leave_nothing(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bag"
    assert main(["record", str(tmp_path / "none"), "--out", str(out)]) == 1
    assert main(["record", str(scene), "--out", str(out), "--frames", "0"]) == 1
    assert main(["record", str(scene), "--out", str(out), "--rate", "-1"]) == 1
    assert main(["record", str(scene), "--out", str(scene)]) == 1
    assert main(["bag", str(out)]) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip"]
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 5 and all(line.startswith("perception: ") for line in errors)
    assert "--frames 0" in errors[1] and "--rate -1" in errors[2] and "exists; remove it" in errors[3]

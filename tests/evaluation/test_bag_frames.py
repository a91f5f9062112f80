"""A bag with true depth: images, depth, calibration and poses of one moment come out together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.evaluation import bag_frames, bags
from perception.evaluation.bag_frames import BagFrames
from perception.evaluation.bags import BagWriter
from perception.evaluation.datasets import data_hash, open_dataset
from perception.tasks.calibration import Calibration
from perception.tasks.geometry import Camera
from perception.tasks.image import Image
from perception.tasks.poses import pose_of

CAMERA = Camera(16, 12, 10.0, 11.0, 7.5, 5.5)
SECOND = 1_000_000_000


def pose(index: int) -> np.ndarray:
    return pose_of((index, 2, 3), (0.1, 0.2 * index, 0.3, 1))


def write(
    path: Path, shift: int = 0, depth: str = "/camera/depth_true", calibration: Calibration | None = None
) -> Path:
    """Three frames a second apart; depth comes `shift` nanoseconds later and is missing for the second frame."""
    with BagWriter(path) as writer:
        for index in range(3):
            stamp = (index + 1) * SECOND
            head, later = bags.header(stamp, "optical"), bags.header(stamp + shift, "optical")
            image = Image(np.full((12, 16, 3), (200, 10, index), np.uint8), "rgb8")
            writer.write("/camera/image_raw", bags.image_message(image, head), stamp + 5)
            writer.write("/camera/camera_info", bags.info_message(calibration or CAMERA, head), stamp + 6)
            writer.write("/camera/pose", bags.pose_messages(pose(index), head, "optical")[0], stamp + 7)
            if index != 1:
                codes = np.full((12, 16), 1000 * (index + 1), np.uint16)
                codes[0, 0] = 0
                writer.write(depth, bags.image_message(Image(codes, "16UC1"), later), stamp + shift + 8)
    return path


def test_frames_are_matched_by_stamp(tmp_path: Path) -> None:
    frames = open_dataset(write(tmp_path / "bag", shift=7_000_000))
    assert isinstance(frames, BagFrames) and frames.sequence and len(frames) == 3
    for index in (2, 0):
        frame = frames[index]
        assert frame.depth is not None and frame.pose is not None and frame.rgb[3, 3].tolist() == [200, 10, index]
        assert np.isnan(frame.depth[0, 0]) and frame.depth[5, 5] == index + 1
        assert frame.camera == CAMERA and frame.stamp == index + 1 and frame.name == f"{index + 1}.000000"
        np.testing.assert_allclose(frame.pose, pose(index), atol=1e-12)
    with pytest.raises(ValueError, match="no depth within 20 ms of the image at 2.000000 s"):
        frames[1]
    assert data_hash(frames) == data_hash(open_dataset(tmp_path / "bag"))


def test_depth_that_is_too_late_does_not_match(tmp_path: Path) -> None:
    frames = BagFrames(write(tmp_path / "bag", shift=30_000_000))
    with pytest.raises(ValueError, match="no depth within"):
        frames[0]


def test_the_only_depth_topic_is_taken(tmp_path: Path) -> None:
    frames = BagFrames(write(tmp_path / "bag", depth="/camera/aligned_depth_to_color/image_raw"))
    assert frames.depth_topic == "/camera/aligned_depth_to_color/image_raw" and frames[0].depth is not None


def test_distorted_frames_are_rectified(tmp_path: Path) -> None:
    calibration = Calibration(CAMERA, "plumb_bob", (-0.3, 0.1, 0.0, 0.0, 0.0))
    frame = BagFrames(write(tmp_path / "bag", calibration=calibration))[0]
    assert frame.camera is not None and frame.depth is not None
    assert set(np.unique(frame.depth[np.isfinite(frame.depth)])) == {1.0}, "no mean of depth and nothing"


def test_a_bag_without_depth_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        image = bags.image_message(Image(np.zeros((4, 4, 3), np.uint8), "rgb8"), bags.header(SECOND, "optical"))
        writer.write("/camera/image_raw", image, SECOND)
    with pytest.raises(ValueError, match="no depth beside /camera/image_raw.*perception record"):
        open_dataset(tmp_path / "bag")


def test_what_a_report_says_of_a_bag(tmp_path: Path) -> None:
    with bags.Bag(write(tmp_path / "bag")) as bag:
        found = bag_frames.outline(bag, "/camera/image_raw")
        assert found["images"] == 3 and found["form"] == "16x12 rgb8" and found["name"] == "bag"
        assert found["topic"] == "/camera/image_raw" and found["seconds"] == pytest.approx(2.0, abs=0.1)

"""Arrays to rclpy's messages and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, PointField
from std_msgs.msg import Header

from perception.nodes.convert import (
    calibration_from_message,
    calibration_to_message,
    image_from_message,
    image_to_compressed,
    image_to_message,
    points_to_message,
)
from perception.tasks.calibration import Calibration
from perception.tasks.geometry import Camera
from perception.tasks.image import COLOR_ENCODINGS, ENCODINGS, Image, layout, to_color


def header() -> Header:
    message = Header(frame_id="camera_optical")
    message.stamp.sec, message.stamp.nanosec = 12, 345
    return message


def random_image(encoding: str, size: tuple[int, int], seed: int) -> Image:
    shape, dtype = layout(encoding, size)
    values = np.random.default_rng(seed).integers(0, 65536, shape)
    return Image((values / 7.0).astype(dtype) if dtype.kind == "f" else values.astype(dtype), encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(half=st.tuples(st.integers(2, 9), st.integers(2, 9)), seed=st.integers(0, 2**32 - 1))
def test_an_image_is_the_same_there_and_back(encoding: str, half: tuple[int, int], seed: int) -> None:
    size = 2 * half[0], 2 * half[1]
    image = random_image(encoding, size, seed)
    message = image_to_message(image, header())
    assert (message.height, message.width) == size and message.header == header()
    assert message.step * image.data.shape[0] == len(message.data) == image.data.nbytes
    back = image_from_message(message)
    assert back.encoding == encoding
    np.testing.assert_array_equal(back.data, image.data)


def test_a_view_with_gaps_is_packed() -> None:
    wide = np.random.default_rng(3).integers(0, 256, (20, 40, 3), np.uint8)
    window = Image(wide[3:11, 5:17], "rgb8")
    message = image_to_message(window, header())
    assert message.step == 36
    np.testing.assert_array_equal(image_from_message(message).data, window.data)


def test_depth_keeps_its_special_values() -> None:
    metres = np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32)
    np.testing.assert_array_equal(image_from_message(image_to_message(Image(metres, "32FC1"), header())).data, metres)


@pytest.mark.parametrize("encoding", COLOR_ENCODINGS)
def test_compressed_color_comes_back(encoding: str) -> None:
    shape, dtype = layout(encoding, (16, 24))
    image = Image(np.full(shape, 120, dtype), encoding)
    kind = "png" if dtype.itemsize > 1 else "jpeg"
    message = image_to_compressed(image, header(), kind, quality=95)
    assert message.format.startswith(f"{encoding}; {kind} compressed") and message.header == header()
    expected = to_color(image, "bgr").astype(int)
    assert np.abs(to_color(image_from_message(message), "bgr") - expected).max() <= 3


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_compressed_16_bit_is_lossless(encoding: str) -> None:
    image = random_image(encoding, (10, 12), 1)
    back = image_from_message(image_to_compressed(image, header(), "png"))
    assert back.encoding == encoding
    np.testing.assert_array_equal(back.data, image.data)


@pytest.mark.parametrize("model", ["plumb_bob", "rational_polynomial", "equidistant"])
def test_a_calibration_is_the_same_there_and_back(model: str) -> None:
    camera, rectified = Camera(640, 480, 501.0, 502.0, 319.0, 241.0), Camera(640, 480, 480.0, 481.0, 320.0, 240.0)
    calibration = Calibration(camera, model, (0.1, -0.2, 0.003, 0.004), rectified)
    message = calibration_to_message(calibration, header())
    assert isinstance(message, CameraInfo) and message.header == header()
    assert calibration_from_message(message) == calibration


def test_a_bare_camera_has_no_distortion() -> None:
    camera = Camera(640, 480, 501.0, 502.0, 319.0, 241.0)
    message = calibration_to_message(camera, header())
    assert message.distortion_model == "plumb_bob" and list(message.d) == [0.0] * 5
    np.testing.assert_array_equal(message.k.reshape(3, 3), camera.matrix)
    np.testing.assert_array_equal(message.p.reshape(3, 4), np.hstack([camera.matrix, np.zeros((3, 1))]))
    np.testing.assert_array_equal(message.r.reshape(3, 3), np.eye(3))
    assert calibration_from_message(message).camera == camera


def test_points_are_organised_and_keep_nan() -> None:
    points = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    points[2, 3] = np.nan
    message = points_to_message(points, header())
    assert (message.height, message.width, message.point_step, message.row_step) == (5, 7, 12, 84)
    assert message.is_dense is False and message.header == header()
    assert [(field.name, field.offset, field.datatype, field.count) for field in message.fields] == [
        (name, offset, PointField.FLOAT32, 1) for name, offset in (("x", 0), ("y", 4), ("z", 8))
    ]
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32).reshape(5, 7, 3), points)


def test_points_with_colors_are_packed_as_pcl_reads_them() -> None:
    random = np.random.default_rng(1)
    points = random.normal(size=(5, 7, 3)).astype(np.float32)
    bgr = random.integers(0, 256, (5, 7, 3), np.uint8)
    message = points_to_message(points, header(), bgr)
    assert message.fields[3].name == "rgb" and message.fields[3].offset == 12 and message.point_step == 16
    words = np.frombuffer(message.data, np.uint32).reshape(5, 7, 4)
    b, g, r = np.moveaxis(bgr.astype(np.uint32), -1, 0)
    np.testing.assert_array_equal(words[..., 3], r << 16 | g << 8 | b)
    np.testing.assert_array_equal(words[..., :3].copy().view(np.float32), points)


def test_points_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"points of shape \(4, 3\)"):
        points_to_message(np.zeros((4, 3), np.float32), header())
    with pytest.raises(ValueError, match=r"colours of shape \(2, 2, 3\)"):
        points_to_message(np.zeros((4, 4, 3), np.float32), header(), np.zeros((2, 2, 3), np.uint8))

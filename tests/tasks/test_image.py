"""Every encoding against colours that this file computes itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks.config import GREY, ModelConfig, Output
from perception.tasks.geometry import Camera, Fit
from perception.tasks.image import (
    COLOR_ENCODINGS,
    ENCODINGS,
    Image,
    layout,
    preprocess,
    resize,
    to_color,
)

channel = st.integers(0, 255)
colors = st.tuples(channel, channel, channel)


def yuv_of(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """BT.601 with the video range 16..235 that V4L2 cameras send."""
    r, g, b = (value / 255 for value in color)
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    return round(y), round(u), round(v)


def picture(encoding: str, color: tuple[int, int, int], height: int = 8, width: int = 12) -> Image:
    """A field of one colour (R, G, B), or of its red value for grey encodings, laid out byte by byte."""
    shape, dtype = layout(encoding, (height, width))
    data = np.zeros(shape, dtype)
    r, g, b = color
    y, u, v = yuv_of(color)
    if encoding in ("rgb8", "bgr8", "rgba8", "bgra8"):
        values = dict(zip("rgba", (r, g, b, 77), strict=True))
        data[:] = [values[letter] for letter in encoding[:-1]]
    elif encoding in ("yuv422", "uyvy"):
        data[:, 0::2], data[:, 1::2] = (u, y), (v, y)
    elif encoding in ("yuv422_yuy2", "yuyv"):
        data[:, 0::2], data[:, 1::2] = (y, u), (y, v)
    elif encoding == "nv12":
        data[:height], data[height:, 0::2], data[height:, 1::2] = y, u, v
    elif encoding.startswith("bayer"):
        values = {"r": r, "g": g, "b": b}
        for index, letter in enumerate(encoding[6:10]):  # the letters are the 2x2 cell, row by row
            data[index // 2 :: 2, index % 2 :: 2] = values[letter]
    else:
        data[:] = r * 256 + 200 if encoding == "mono16" else r
    return Image(data, encoding)


@pytest.mark.parametrize("encoding", COLOR_ENCODINGS)
@given(color=colors)
def test_color_is_right_in_both_orders(encoding: str, color: tuple[int, int, int]) -> None:
    image = picture(encoding, color)
    assert image.size == (8, 12)
    expected = (color[0],) * 3 if encoding.startswith("mono") else color
    tolerance = 4 if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12") else 0
    rgb, bgr = to_color(image, "rgb"), to_color(image, "bgr")
    assert rgb.shape == (8, 12, 3) and rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - expected).max() <= tolerance
    np.testing.assert_array_equal(rgb, bgr[..., ::-1])


def test_packed_yuv_orders_are_not_swapped_by_place() -> None:
    """A red left half and a blue right half, so that luma in place of chroma would show."""
    for encoding in ("yuv422", "yuv422_yuy2"):
        halves = [picture(encoding, color).data[:, :6] for color in ((255, 0, 0), (0, 0, 255))]
        rgb = to_color(Image(np.concatenate(halves, axis=1), encoding))
        assert np.abs(rgb[:, 0].astype(int) - (255, 0, 0)).max() <= 4
        assert np.abs(rgb[:, -1].astype(int) - (0, 0, 255)).max() <= 4


def test_color_is_a_view_where_nothing_changes() -> None:
    data = np.zeros((4, 6, 3), np.uint8)
    assert to_color(Image(data, "rgb8"), "rgb") is data
    assert to_color(Image(data, "bgr8"), "bgr") is data


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_is_no_color(encoding: str) -> None:
    shape, dtype = layout(encoding, (4, 6))
    with pytest.raises(ValueError, match=f"'{encoding}' is not an image in colour or grey; accepted: rgb8"):
        to_color(Image(np.zeros(shape, dtype), encoding))


@pytest.mark.parametrize(
    ("shape", "dtype", "encoding", "message"),
    [
        ((4, 6, 3), np.uint8, "jpeg2000", "encoding 'jpeg2000' is unknown; accepted: rgb8"),
        ((4, 6), np.uint8, "rgb8", r"expected uint8 \(4, 6, 3\)"),
        ((4, 6, 3), np.uint16, "rgb8", r"array of uint16 \(4, 6, 3\) is not a rgb8 image"),
        ((4, 6), np.float64, "32FC1", "expected float32"),
        ((0, 6), np.uint8, "mono8", "6x0 pixels is empty"),
        ((4, 5, 2), np.uint8, "yuv422", "5x4 pixels cannot be yuv422"),
        ((5, 4), np.uint8, "nv12", "cannot be nv12"),
        ((2, 2), np.uint8, "bayer_rggb8", "at least 3x3"),
        ((4,), np.uint8, "mono8", "needs rows and columns"),
    ],
)
def test_an_array_that_is_not_its_encoding_is_refused(
    shape: tuple[int, ...], dtype: type, encoding: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Image(np.zeros(shape, dtype), encoding)


@given(st.sampled_from(ENCODINGS), st.integers(2, 20), st.integers(2, 20))
def test_size_of_an_image_is_the_size_of_its_layout(encoding: str, half_height: int, half_width: int) -> None:
    size = 2 * half_height, 2 * half_width
    shape, dtype = layout(encoding, size)
    assert Image(np.zeros(shape, dtype), encoding).size == size


def test_resize_keeps_the_object_where_the_size_is_right() -> None:
    array = np.zeros((4, 6), np.float32)
    assert resize(array, (4, 6)) is array
    assert resize(array, (8, 3)).shape == (8, 3)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("encoding", COLOR_ENCODINGS)
def test_preprocess_gives_the_models_size_and_color_order(encoding: str, order: str) -> None:
    config = ModelConfig(
        "test", "depth", input_size=(32, 64), outputs=(Output("depth", (1, 1, 32, 64), "m"),), color=order
    )
    color = (180, 180, 180) if encoding.startswith("mono") else (220, 120, 40)
    image = picture(encoding, color)
    pixels = preprocess(image, config, Fit.of(image.size, config))
    assert pixels.shape == (1, 32, 64, 3) and pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert np.abs(pixels[0].astype(int) - (color if order == "rgb" else color[::-1])).max() <= 4


def test_preprocess_lays_a_narrow_view_into_grey() -> None:
    config = ModelConfig(
        "test", "depth", (32, 64), (Output("depth", (1, 1, 32, 64), "m"),), focal=(1.0, 2.0), pads_narrow_views=True
    )
    fit = Fit.of((40, 80), config, Camera(80, 40, 2 * 80, 1.5 * 40, 40, 20))  # narrow across, wide down
    pixels = preprocess(Image(np.full((40, 80, 3), (200, 10, 60), np.uint8), "rgb8"), config, fit)
    assert pixels.shape == (1, 32, 64, 3) and pixels.flags.c_contiguous
    assert (pixels[0, :, 16:48] == (200, 10, 60)).all()
    assert (pixels[0, :, :16] == GREY).all() and (pixels[0, :, 48:] == GREY).all()


def test_area_is_the_mean_of_the_pixels_where_they_can_be_halved() -> None:
    """Of 4x4 blocks here; of 3x3, which cannot, nearly."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 144, 3), np.uint8)
    blocks = pixels.reshape(24, 4, 36, 4, 3).mean((1, 3))
    assert np.abs(resize(pixels, (24, 36), "area") - blocks).max() <= 1
    smooth = cv2.GaussianBlur(pixels, (0, 0), 3)
    thirds = smooth.reshape(32, 3, 48, 3, 3).mean((1, 3))
    assert np.abs(resize(smooth, (32, 48), "area") - thirds).mean() < 1


@pytest.mark.parametrize("size", [(480, 640), (720, 1280), (1080, 1920), (426, 561), (240, 320), (100, 150)])
def test_area_averages_what_it_leaves_out(size: tuple[int, int]) -> None:
    """A checkerboard finer than the target is grey after averaging; a smooth ramp stays where it is."""
    rows, columns = np.indices(size)
    shrinks = min(size) >= 2 * 96
    checkers = resize(((rows + columns) % 2 * 200).astype(np.uint8), (96, 128), "area")
    if shrinks:
        assert np.abs(checkers.astype(int) - 100).mean() < 25
    ramp = resize((columns * 250 / size[1]).astype(np.float32), (96, 128), "area")
    expected = ((np.arange(128) + 0.5) * size[1] / 128 - 0.5) * 250 / size[1]
    assert ramp.shape == (96, 128) and np.abs(ramp - expected)[:, 1:-1].max() < 2 * 250 / size[1]

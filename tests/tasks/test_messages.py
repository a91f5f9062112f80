"""Messages that are laid out byte by byte here, good and bad, against what the reader makes of them."""

from __future__ import annotations

from array import array
from types import SimpleNamespace as Message

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.tasks.geometry import Camera
from perception.tasks.image import ENCODINGS, Image, layout
from perception.tasks.messages import (
    MessageError,
    boxes_from_message,
    calibration_from_message,
    encode,
    image_from_message,
    info_fields,
    metres_of,
    stamp_of,
)


def raw_message(data: np.ndarray, encoding: str, size: tuple[int, int], padding: int = 0, big: bool = False) -> Message:
    """An Image message whose rows end in `padding` bytes of 0xEE."""
    rows = [row.astype(row.dtype.newbyteorder(">" if big else "<")).tobytes() + b"\xee" * padding for row in data]
    return Message(
        height=size[0],
        width=size[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=len(rows[0]),
        data=array("B", b"".join(rows)),
    )


def random_pixels(encoding: str, size: tuple[int, int], seed: int) -> np.ndarray:
    shape, dtype = layout(encoding, size)
    values = np.random.default_rng(seed).integers(0, 65536, shape)
    return (values / 7.0).astype(dtype) if dtype.kind == "f" else values.astype(dtype)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(
    half=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    padding=st.integers(0, 9),
    big=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_encoding_with_any_step_and_byte_order(
    encoding: str, half: tuple[int, int], padding: int, big: bool, seed: int
) -> None:
    size = 2 * half[0], 2 * half[1]
    pixels = random_pixels(encoding, size, seed)
    image = image_from_message(raw_message(pixels, encoding, size, padding, big))
    assert image.encoding == encoding and image.size == size
    assert image.data.dtype == pixels.dtype and image.data.dtype.isnative and not image.data.flags.writeable
    np.testing.assert_array_equal(image.data, pixels)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "nv12", "bayer_grbg8", "yuv422"])
def test_reading_is_a_view_of_the_messages_data(encoding: str, padding: int) -> None:
    message = raw_message(random_pixels(encoding, (6, 8), 1), encoding, (6, 8), padding)
    image = image_from_message(message)
    message.data[0] ^= 0xFF
    assert image.data.reshape(6 if encoding != "nv12" else 9, -1)[0, 0] == message.data[0]
    with pytest.raises(ValueError, match="read-only"):
        image.data[0] = 0


def test_numbers_that_are_not_aligned_are_copied() -> None:
    """As in a recording, where the data begins anywhere in a buffer."""
    pixels = random_pixels("32FC1", (3, 4), 5)
    message = raw_message(pixels, "32FC1", (3, 4))
    message.data = memoryview(b"\0" + message.data.tobytes())[1:]
    image = image_from_message(message)
    assert image.data.flags.aligned
    np.testing.assert_array_equal(image.data, pixels)


def bad(**changes: object) -> Message:
    message = raw_message(random_pixels("rgb8", (4, 6), 0), "rgb8", (4, 6))
    return Message(**(vars(message) | changes))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (bad(encoding="rgb101010"), "'rgb101010' is unknown; accepted: rgb8, bgr8"),
        (bad(encoding=""), "'' is unknown"),
        (bad(data=array("B", bytes(71))), "truncated: 71 bytes came, 72 are needed"),
        (bad(data=array("B")), "truncated: 0 bytes came"),
        (bad(step=17), "step 17 does not fit: a row has 18 bytes"),
        (bad(step=0), "step 0 does not fit"),
        (bad(step=2**32 - 1), "truncated: 72 bytes came, 12884901903 are needed"),
        (bad(height=0), "6x0 pixels is empty"),
        (bad(width=0, step=0), "0x4 pixels is empty"),
        (bad(height=2**32 - 1, width=2**32 - 1), "its size is damaged"),
        (bad(data=None), "data of type NoneType are no bytes"),
        (bad(encoding="yuv422", width=5), "5x4 pixels cannot be yuv422"),
        (bad(encoding="nv12", height=3), "cannot be nv12"),
    ],
)
def test_a_bad_image_is_refused_in_one_sentence(message: Message, words: str) -> None:
    with pytest.raises(MessageError) as caught:
        image_from_message(message)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@given(
    st.fixed_dictionaries(
        {
            "height": st.integers(0, 40),
            "width": st.integers(0, 40),
            "step": st.integers(0, 200),
            "encoding": st.sampled_from((*ENCODINGS, "x")),
            "is_bigendian": st.integers(0, 1),
            "data": st.binary(max_size=3000).map(lambda data: array("B", data)),
        }
    )
)
def test_nothing_but_a_message_error_comes_of_random_fields(fields: dict) -> None:
    try:
        image = image_from_message(Message(**fields))
    except MessageError:
        return
    assert image.size == (fields["height"], fields["width"])
    image.data.sum()  # reading every pixel stays inside the data


def smooth(height: int = 40, width: int = 60) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([4 * columns, 255 - 4 * rows, 2 * (rows + columns)], axis=-1).clip(0, 255).astype(np.uint8)


def compressed(pixels: np.ndarray, suffix: str, form: str) -> Message:
    done, data = cv2.imencode(suffix, pixels)
    assert done
    return Message(format=form, data=array("B", data.tobytes()))


@pytest.mark.parametrize("form", ["jpeg", "rgb8; jpeg compressed bgr8", "jpg", ""])
def test_jpeg_holds_colors_in_the_right_order(form: str) -> None:
    image = image_from_message(compressed(smooth(), ".jpg", form))
    assert image.encoding == "bgr8"
    assert np.abs(image.data.astype(int) - smooth()).mean() < 4  # lossy; swapped channels would differ by tens


@pytest.mark.parametrize(
    ("pixels", "form", "encoding"),
    [
        (smooth(), "png", "bgr8"),
        (smooth(), "rgb8; png compressed bgr8", "bgr8"),
        (np.dstack([smooth(), smooth()[..., 0]]), "bgra8; png compressed bgra8", "bgra8"),
        (smooth()[..., 0], "mono8; png compressed ", "mono8"),
        (smooth()[..., 0], "bayer_rggb8; png compressed bayer_rggb8", "bayer_rggb8"),
        (smooth()[..., 0].astype(np.uint16) * 257, "16UC1; png compressed ", "16UC1"),
        (smooth()[..., 0].astype(np.uint16) * 251, "png", "16UC1"),
        (smooth()[..., 0].astype(np.uint16) * 3, "mono16; png compressed mono16", "mono16"),
    ],
)
def test_png_is_lossless(pixels: np.ndarray, form: str, encoding: str) -> None:
    image = image_from_message(compressed(pixels, ".png", form))
    assert image.encoding == encoding and not image.data.flags.writeable
    np.testing.assert_array_equal(image.data, pixels)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.7, 0.999])
def test_a_truncated_compressed_image_is_refused(kind: str, keep: float) -> None:
    data, form = encode(Image(smooth(), "bgr8"), kind)
    with pytest.raises(MessageError, match=r"truncated|corrupt|starts with|cannot be decoded"):
        image_from_message(Message(format=form, data=data[: int(keep * data.size)]))


def test_a_truncated_jpeg_with_a_preview_inside_is_refused() -> None:
    """The preview's own end marker is not the end of the picture."""
    data, _ = encode(Image(smooth(), "bgr8"))
    preview, _ = encode(Image(smooth(8, 8), "bgr8"))
    segment = b"\xff\xe1" + (preview.size + 2).to_bytes(2, "big") + preview.tobytes()
    whole = data.tobytes()[:2] + segment + data.tobytes()[2:]
    assert image_from_message(Message(format="jpeg", data=whole)).size == (40, 60)
    with pytest.raises(MessageError, match="truncated: its end marker is missing"):
        image_from_message(Message(format="jpeg", data=whole[:-2]))


def test_padding_behind_a_jpeg_is_accepted() -> None:
    data, form = encode(Image(smooth(), "bgr8"))
    assert image_from_message(Message(format=form, data=data.tobytes() + bytes(100))).size == (40, 60)


@pytest.mark.parametrize(
    ("form", "data", "words"),
    [
        ("32FC1; compressedDepth png", b"\0" * 50, "compressedDepth; accepted: jpeg and png; subscribe to the raw"),
        ("jpeg", b"GIF89a", "starts with 47 49 46 38; accepted: jpeg and png"),
        ("jpeg", b"", "starts with nothing"),
        ("jpeg", b"\xff\xd8\xff\xe0" + b"junk" * 9 + b"\xff\xd9", "corrupt and cannot be decoded"),
    ],
)
def test_what_is_no_picture_is_refused(form: str, data: bytes, words: str) -> None:
    with pytest.raises(MessageError, match=words):
        image_from_message(Message(format=form, data=array("B", data)))


def test_colors_of_16_bits_are_refused() -> None:
    with pytest.raises(MessageError, match="3 channels of uint16; accepted: grey and colour of 8 bits"):
        image_from_message(compressed(smooth().astype(np.uint16), ".png", "png"))


def test_encode_refuses_what_it_cannot_hold() -> None:
    metres = Image(np.ones((4, 4), np.float32), "32FC1")
    with pytest.raises(ValueError, match="32FC1 cannot be held by png"):
        encode(metres, "png")
    with pytest.raises(ValueError, match="16UC1 cannot be held by jpeg"):
        encode(Image(np.ones((4, 4), np.uint16), "16UC1"), "jpeg")
    with pytest.raises(ValueError, match="'webp' is unknown; accepted: jpeg, png"):
        encode(metres, "webp")


def info(**changes: object) -> Message:
    fields = info_fields(Camera(640, 480, 500.0, 510.0, 320.5, 239.5))
    roi = Message(x_offset=0, y_offset=0, width=0, height=0)
    return Message(**(fields | {"binning_x": 0, "binning_y": 0, "roi": roi} | changes))


def test_camera_info_gives_the_calibration() -> None:
    calibration = calibration_from_message(info(d=[-0.2, 0.1, 0.0, 0.0, 0.0]))
    assert calibration.camera == calibration.rectified == Camera(640, 480, 500.0, 510.0, 320.5, 239.5)
    assert calibration.distorted and calibration.distortion == (-0.2, 0.1, 0.0, 0.0, 0.0)
    assert calibration_from_message(info()).distorted is False


def test_camera_info_without_projection_matrix_has_no_rectified_camera() -> None:
    assert calibration_from_message(info(p=[0.0] * 12)).rectified is None


def test_capital_letters_of_ros_1_are_read() -> None:
    message = info()
    capitals = {name.upper() if name in "dkrp" else name: value for name, value in vars(message).items()}
    assert calibration_from_message(Message(**capitals)) == calibration_from_message(message)


def test_region_and_binning_give_the_camera_of_the_published_image() -> None:
    roi = Message(x_offset=100, y_offset=50, width=400, height=200)
    camera = calibration_from_message(info(roi=roi, binning_x=2, binning_y=2)).camera
    assert (camera.width, camera.height, camera.fx, camera.fy) == (200, 100, 250.0, 255.0)
    assert (camera.cx, camera.cy) == ((220.5 + 0.5) / 2 - 0.5, (189.5 + 0.5) / 2 - 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": [0.0] * 9}, "fx=0.0, fy=0.0"),
        ({"k": [float("nan"), 0, 320, 0, 500, 240, 0, 0, 1]}, "fx=nan"),
        ({"k": [500.0] * 4}, "4 numbers in K"),
        ({"width": 0}, "size 0x480 is not possible"),
        ({"distortion_model": "mirror_ball"}, "'mirror_ball' is unknown; accepted: plumb_bob"),
        ({"d": [float("nan")] * 5}, "not finite"),
    ],
)
def test_a_bad_camera_info_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(MessageError, match=r"camera_info of .* is not usable") as caught:
        calibration_from_message(info(**changes))
    assert words in str(caught.value)


def detection(*hypotheses: tuple[str, float], theta: float = 0.0, width: float = 20.0) -> Message:
    """A box 5 high around 30, 10."""
    results = [Message(hypothesis=Message(class_id=name, score=score)) for name, score in hypotheses]
    center = Message(position=Message(x=30.0, y=10.0), theta=theta)
    return Message(results=results, bbox=Message(center=center, size_x=width, size_y=5.0), id="7")


def test_boxes_have_the_likeliest_class() -> None:
    boxes = boxes_from_message(Message(detections=[detection(("cat", 0.25), ("dog", 0.75)), detection(("eel", 1))]))
    assert boxes.boxes.tolist() == [[20, 7.5, 40, 12.5]] * 2 and boxes.boxes.dtype == np.float32
    assert boxes.scores.tolist() == [0.75, 1] and boxes.names == ("dog", "eel") and boxes.ids == ("7", "7")
    empty = boxes_from_message(Message(detections=[]))
    assert empty.boxes.shape == (0, 4) and empty.scores.shape == (0,) and empty.names == ()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (detection(), "detection 1 has 0 classes"),
        (detection(("dog", 1), theta=0.5), "turned by 0.5; accepted: one class or more"),
        (detection(("dog", 1), width=float("nan")), "a box of nanx5 at 30, 10"),
    ],
)
def test_a_bad_detection_is_refused(bad: Message, words: str) -> None:
    with pytest.raises(MessageError, match=words):
        boxes_from_message(Message(detections=[detection(("cat", 1)), bad]))


def test_stamp_is_in_nanoseconds() -> None:
    stamp = Message(sec=1_700_000_000, nanosec=123_456_789)
    assert stamp_of(Message(header=Message(stamp=stamp))) == 1_700_000_000_123_456_789


def test_millimetres_become_metres() -> None:
    codes = Image(np.array([[0, 1500]], np.uint16), "16UC1")
    np.testing.assert_array_equal(metres_of(codes), np.array([[np.nan, 1.5]], np.float32))
    with pytest.raises(MessageError, match="'mono8' is no depth; accepted: 16UC1, 32FC1"):
        metres_of(Image(np.zeros((2, 2), np.uint8), "mono8"))

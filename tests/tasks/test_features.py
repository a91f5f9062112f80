"""Features as bytes and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perception.tasks.features import KINDS, LEAST, Features, decode_features, encode_features

HASH = "0123456789abcdef"


def of(values: object) -> Features:
    return Features(np.asarray(values, np.float32), "worker_0", HASH)


@settings(max_examples=50)
@given(arrays(np.float32, st.integers(0, 400), elements=st.floats(-60000, 60000, width=32)))
def test_float16_comes_back_as_it_rounds(values: np.ndarray) -> None:
    data, text = encode_features(of(values))
    found = decode_features(data, text)
    assert (found.values == values.astype(np.float16)).all() and found.values.dtype == np.float32
    assert (found.worker, found.split) == ("worker_0", HASH)


@example(np.array([1e-45, 0.0], np.float32))
@settings(max_examples=50)
@given(arrays(np.float32, st.integers(1, 400), elements=st.floats(-100, 100, width=32)))
def test_int8_comes_back_within_half_a_step(values: np.ndarray) -> None:
    found = decode_features(*encode_features(of(values), "int8"))
    step = np.abs(values).max() / 127
    assert np.abs(found.values - values).max() <= max(step, LEAST) * 0.5001


@pytest.mark.parametrize(("kind", "per_number"), [("float16", 2), ("int8", 1)])
def test_size(kind: str, per_number: int) -> None:
    data, text = encode_features(of(np.linspace(-3, 3, 128)), kind)
    assert len(data) == 128 * per_number and len(text) < 100
    assert text.startswith(f"features {kind}") and text.endswith(f"length=128 worker=worker_0 split={HASH}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("values", [[np.nan], [np.inf, 0], [70000.0]])
def test_what_cannot_be_sent(kind: str, values: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot be sent; accepted is up to 65504"):
        encode_features(of(values), kind)


def test_zeros_and_names() -> None:
    assert (decode_features(*encode_features(of([0, 0]), "int8")).values == 0).all()
    with pytest.raises(ValueError, match="cannot be sent as 'int4'; accepted: float16, int8"):
        encode_features(of([0]), "int4")
    with pytest.raises(ValueError, match="must not be empty or have spaces"):
        encode_features(Features(np.zeros(1, np.float32), "a b", HASH))


GOOD = f"features int8 scale=0.5 length=2 worker=w split={HASH}"


@pytest.mark.parametrize(
    ("data", "text", "says"),
    [
        (b"ab", "jpeg", "a message of the format 'jpeg' is not features"),
        (b"ab", GOOD + " more", "is not features"),
        (b"ab", GOOD.replace("int8", "int4"), "is not features"),
        (b"abc", GOOD, "came with 3 bytes; expected are 2"),
        (b"ab", GOOD.replace("int8 scale=0.5", "float16"), "came with 2 bytes; expected are 4"),
        (b"ab", GOOD.replace("0.5", "none"), "have the scale 'none'; accepted is a positive number"),
        (b"ab", GOOD.replace("0.5", "-1"), "have the scale '-1'"),
        (b"ab", GOOD.replace("0.5", "nan"), "have the scale 'nan'"),
        (b"ab", GOOD.replace("0.5", "1e300"), "have the scale '1e300'"),
        (np.array([np.nan, 1], "<f2").tobytes(), GOOD.replace("int8 scale=0.5", "float16"), "not finite"),
    ],
)
def test_what_is_not_features(data: bytes, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode_features(data, text)

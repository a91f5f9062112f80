"""Every field of the key counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny import CONFIG, FakeRuntime

from perception.engines.key import Key, hash_frames, make_key

FIELDS = [field.name for field in dataclasses.fields(Key)]


def _key() -> Key:
    return Key(**{name: f"{name} of today" for name in FIELDS})


def test_equal_fields_are_an_equal_key() -> None:
    assert _key().digest() == _key().digest()
    assert _key().difference(_key()) is None


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_changes_the_digest_and_is_named(name: str) -> None:
    changed = dataclasses.replace(_key(), **{name: "another"})
    assert changed.digest() != _key().digest()
    assert _key().difference(changed) == f"{name} was '{name} of today' when it was built and is 'another' now"


def test_make_key_says_what_is_there() -> None:
    key = make_key(FakeRuntime(), "int8", CONFIG, source="s", graph="g", calibration="c")
    assert key.shapes == "image 1x32x32x3, depth 1x1x32x32"
    assert key.options == "none, int8 activations, 32-bit sums"
    assert (key.device, key.capability, key.runtime, key.version) == ("Processor", "fast", "fake", "1.0")


def test_frames_are_hashed_with_shape_and_order() -> None:
    a, b = np.zeros((1, 2, 3, 3), np.uint8), np.zeros((1, 3, 2, 3), np.uint8)
    hashes = {hash_frames(frames) for frames in ([a], [b], [a, b], [b, a], [a + 1])}
    assert len(hashes) == 5

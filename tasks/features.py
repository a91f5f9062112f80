"""What a worker of a split sends for an image: numbers as few bytes, and a line that says what they are.

The line is the `format` of a sensor_msgs/CompressedImage, so that features travel, and are recorded, without a message
type of their own: `features int8 scale=0.0123 length=128 worker=worker_0 split=0123456789abcdef`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

KINDS = ("float16", "int8")
"""Two bytes a number, or one: signed, symmetric, with one scale for all."""
LARGEST = 65504.0
"""What float16 holds."""
LEAST = 1e-30
"""Of the scale of int8: float32 must hold it, and divide by it."""
_FORMAT = re.compile(
    r"features (?P<kind>float16|int8 scale=(?P<scale>\S+)) length=(?P<length>\d{1,6}) worker=(?P<worker>\S+) "
    r"split=(?P<split>\S+)"
)


@dataclass(frozen=True)
class Features:
    """Features of an image, from one worker."""

    values: np.ndarray
    """float32 (length,)."""
    worker: str
    split: str
    """`Split.short_hash` of the split that the worker runs."""


def encode_features(features: Features, kind: str = "float16") -> tuple[bytes, str]:
    """The bytes, little-endian, and the line that says what they are.

    Raises:
        ValueError: an unknown kind, numbers that are not finite or beyond float16, or a name with spaces.
    """
    if kind not in KINDS:
        raise ValueError(f"features cannot be sent as {kind!r}; accepted: {', '.join(KINDS)}")
    if re.search(r"\s", features.worker) or not features.worker:
        raise ValueError(f"worker's name {features.worker!r} must not be empty or have spaces")
    values = features.values
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= LARGEST:
        raise ValueError(f"features up to {largest:g} in size cannot be sent; accepted is up to {LARGEST:g}")
    if kind == "float16":
        data, said = values.astype("<f2").tobytes(), kind
    else:
        scale = max(largest / 127, LEAST)
        data, said = np.rint(values / scale).astype(np.int8).tobytes(), f"{kind} scale={scale:.9g}"
    return data, f"features {said} length={len(values)} worker={features.worker} split={features.split}"


def decode_features(data: bytes, text: str) -> Features:
    """The inverse of `encode_features`.

    Raises:
        ValueError: a line that says something else, or other bytes than it says.
    """
    found = _FORMAT.fullmatch(text)
    if not found:
        raise ValueError(
            f"a message of the format {text[:60]!r} is not features; expected is what a vit_worker_node of this "
            "version of perception sends"
        )
    whole = found["scale"] is not None
    length, expected = len(data), int(found["length"]) * (1 if whole else 2)
    if length != expected:
        raise ValueError(f"{text!r} came with {length} bytes; expected are {expected}")
    values = np.frombuffer(data, np.int8 if whole else "<f2").astype(np.float32)
    if whole:
        values *= _scale(found["scale"])
    if not np.isfinite(values).all():
        raise ValueError(f"{text!r} came with numbers that are not finite")
    return Features(values, found["worker"], found["split"])


def _scale(text: str) -> np.float32:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0 < scale <= LARGEST:
        raise ValueError(f"features have the scale {text!r}; accepted is a positive number up to {LARGEST:g}")
    return np.float32(scale)

"""What separates the simulated rooms of one split from those of another: random streams, colours, constructions."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

SPLITS = ("train", "clip")

# sRGB hex colours by what they are used for. No colour appears in both splits.
PALETTES: dict[str, dict[str, str]] = {
    "train": {
        "wall": "e8e4da d8d2c4 f0ece6 c9d2d6 d9c9a8 b8c4a8 e2d0c8 c8b890 a8b4c8 8a9a7c d8c060 c09a80 7f8fa0 f4f2ee",
        "trim": "f2f0ea e8e2d4 7a5a3c fafafa 54402e",
        "wood": "8a5a34 b98a58 5a3a24 d2b080 74482c c49a6c 3c2a20 a8703c e0c8a0",
        "fabric": "8c3030 34486c 6c6458 a89878 3c3c40 50704c b07840 702c50 c8bca8 28303c 946c7c 5c88a0 d8d0c4 c06030",
        "floor": "b8a890 8c8478 a09070 6c645c 7c5c44 c8bcac 94a0a0 5c4c40 a8a49c",
        "object": "c02820 2858a8 e0b020 38803c e8e8e4 202024 d86c20 703890 30a0a8 c87090 806040 98b048 6080c0 f0e0c0",
        "leaf": "3c6c2c 587c34 2c5434 74903c",
        "metal": "b4b4b8 8c8c90 d0d0d0 545458 b09858 2c2c30",
        "lamp": "fff0d0 ffe2b0 fff8f0 ffd898",
        "sky": "dce8f8 f4f6fa c8dcf4 e8e4dc",
    },
    "clip": {
        "wall": "dfe3dd ead9be cfdbe3 e9e1ef d3cbb9",
        "trim": "f7f5f1 e3ddd1 65513f",
        "wood": "9b6d43 c7a577 6b472f ab8b67",
        "fabric": "47656b b5855b 7b8b91 cdb99d 5b4b57 9b4541",
        "floor": "ad9d87 8f7b65 bfb3a3",
        "object": "b53b2f 2f6da1 d9a93b 4b8b57 efebe5 2b2b31 cb7b47 5d4b8b",
        "leaf": "47753b 61854d",
        "metal": "a9adb1 77797d 3b3d41",
        "lamp": "ffefd9 ffe5bd",
        "sky": "e1ebf7 d1e1f1",
    },
}

# Which construction of an object a split may use; the builders in room_furniture.py and room_objects.py know them all.
VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "table": ("legs", "pedestal", "apron"),
        "chair": ("panel", "slats", "swivel", "stool"),
        "sofa": ("block", "rounded"),
        "bed": ("panel", "boards"),
        "shelf": ("case", "backed"),
        "cabinet": ("knobs", "drawers", "bars"),
        "lamp": ("cone", "globe"),
        "plant": ("bush", "ficus"),
        "picture": ("landscape", "blocks", "rings"),
        "wall": ("plain", "stripes", "dots", "bricks", "panels"),
        "floor": ("planks", "tiles", "carpet", "checker"),
        "window": ("cross", "blinds", "curtains"),
        "fabric": ("weave", "stripes", "plaid"),
    },
    "clip": {
        "table": ("trestle", "sled"),
        "chair": ("shell", "ladder"),
        "sofa": ("slim",),
        "bed": ("rails",),
        "shelf": ("ladder",),
        "cabinet": ("grip",),
        "lamp": ("drum",),
        "plant": ("spikes",),
        "picture": ("waves", "triangles"),
        "wall": ("trellis", "bands"),
        "floor": ("herringbone", "slabs"),
        "window": ("bars", "drapes"),
        "fabric": ("melange", "chevron"),
    },
}


class Draw:
    """The random choices of one room.

    Streams of different (split, seed, room, purpose) are independent. On top of that no length and no colour can
    coincide between splits: lengths are whole millimetres and colour channels whole 8-bit codes, even in one split and
    odd in the other.

    Raises:
        ValueError: unknown split.
    """

    def __init__(self, split: str, seed: int, room: int = 0, purpose: str = "room") -> None:
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown; accepted: {', '.join(SPLITS)}")
        self.split = split
        self.parity = SPLITS.index(split)
        self.rng = np.random.default_rng([zlib.crc32(f"{split} {purpose}".encode()), seed, room])

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return int(self.rng.integers(low, high + 1))

    def length(self, low: float, high: float) -> float:
        """Metres in about [low, high], on the millimetres of this split."""
        return (2 * round(self.rng.uniform(low, high) * 500) + self.parity) / 1000

    def choice(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def variant(self, thing: str) -> str:
        """A construction of `thing` that this split may use."""
        return self.choice(VARIANTS[self.split][thing])

    def colour(self, palette: str, spread: float = 0.05) -> np.ndarray:
        """An sRGB colour near one of the palette's, float32 of shape (3,) in [0, 1]."""
        text = self.choice(PALETTES[self.split][palette].split())
        base = np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        shifted = base * (1 + self.rng.normal(0, spread)) + self.rng.normal(0, spread / 3, 3)
        codes = 2 * np.clip(np.round(shifted * 127.5), 1, 126) + self.parity
        return (codes / 255).astype(np.float32)

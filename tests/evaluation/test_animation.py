"""Animations are what was put in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.evaluation.animation import write_animation

pytest.importorskip("PIL", reason="Pillow is not installed; it comes with matplotlib")


def test_an_animation_shows_every_picture_for_its_time(tmp_path: Path) -> None:
    from PIL import Image

    colours = [(250, 10, 20), (10, 200, 30), (0, 0, 240)]
    write_animation(tmp_path / "a.gif", [np.full((12, 16, 3), colour, np.uint8) for colour in colours], 0.12)
    with Image.open(tmp_path / "a.gif") as moving:
        assert (moving.n_frames, moving.size, moving.info["loop"]) == (3, (16, 12), 0)
        for number, colour in enumerate(colours):
            moving.seek(number)
            assert moving.info["duration"] == 120
            assert np.abs(np.asarray(moving.convert("RGB"), int) - colour).max() <= 8

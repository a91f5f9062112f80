"""Frames for calibration and parity (engines/frames.py)."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import CONFIG

from perception.engines.errors import EngineError
from perception.engines.frames import CALIBRATION_FRAMES, PARITY_FRAMES, find_frames, load_frames, split


def test_calibration_and_parity_share_no_frame(frames: Path) -> None:
    calibration, parity = split(find_frames(frames))
    assert len(parity) == PARITY_FRAMES
    assert 0 < len(calibration) <= CALIBRATION_FRAMES
    assert not set(calibration) & set(parity)
    assert [frame.shape for frame in load_frames(parity, CONFIG)] == [(1, 32, 32, 3)] * PARITY_FRAMES


def test_too_few_or_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="has 0 images .* at least 32"):
        find_frames(tmp_path)
    with pytest.raises(EngineError, match="--frames"):
        find_frames(tmp_path / "missing")


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(EngineError, match="broken.png is not an image"):
        load_frames([tmp_path / "broken.png"], CONFIG)


def test_the_shipped_clip_is_as_dark_as_the_task_has_it(tmp_path: Path) -> None:
    """Or engines that brighten would be calibrated, and compared, on what they never get. Other folders are not."""
    config = CONFIG.replace(task="enhancement", input_size=(96, 128))
    shipped = find_frames()[:3]
    bright, dark = load_frames(shipped, config.replace(task="depth")), load_frames(shipped, config)
    assert all(b.mean() > 60 and 5 < d.mean() < 40 for b, d in zip(bright, dark, strict=True))
    assert all(np.array_equal(*pair) for pair in zip(dark, load_frames(shipped, config), strict=True))
    other = Path(shutil.copy(shipped[0], tmp_path))
    assert np.array_equal(load_frames([other], config)[0], bright[0])

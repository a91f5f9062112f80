"""`perception rooms` writes a folder that the reader takes, the same one every time."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("embreex")

from perception.cli.main import main
from perception.evaluation.rgbd_folder import RGBDFolder


def make(out, *more: str) -> RGBDFolder:
    arguments = ["--rooms", "1", "--frames", "2", "--size", "64x48", "--samples", "1", *more]
    assert main(["rooms", "--out", str(out), *arguments]) == 0
    return RGBDFolder(out)


def test_the_same_command_makes_the_same_frames_and_none_over_others(tmp_path, capsys):
    first, again = make(tmp_path / "a"), make(tmp_path / "b")
    other = make(tmp_path / "c", "--seed", "1")
    assert "2 frames" in capsys.readouterr().out
    assert len(first) == 2 and first.about["licence"] == "Apache-2.0" and "--split train" in first.about["command"]
    for index in range(2):
        frame, twin = first[index], again[index]
        assert np.array_equal(frame.rgb, twin.rgb) and np.array_equal(frame.depth, twin.depth)
        assert np.array_equal(frame.pose, twin.pose) and frame.camera == twin.camera
        assert np.isfinite(frame.depth).all() and 0.3 < np.median(frame.depth) < 8
    assert not np.array_equal(first[0].rgb, other[0].rgb)
    assert main(["rooms", "--out", str(tmp_path / "a")]) == 1
    assert "holds frames already" in capsys.readouterr().err


def test_bad_sizes_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["rooms", "--out", str(tmp_path / "b"), "--size", "64"])
    assert "WIDTHxHEIGHT" in capsys.readouterr().err

"""What tests of several folders need."""

from __future__ import annotations

import gc
from pathlib import Path

import hypothesis
import pytest

from perception.tasks.vit_split import FILE, FusionFile, Split, SplitWorker

hypothesis.settings.register_profile("untimed", deadline=None)  # how long a test takes says what else the machine does
hypothesis.settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """What has been imported stays: searches for garbage need not go through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """A split of two workers on the devices pi_1 and pi_2, without the files of its networks."""
    about = {"sha256": "0", "features": 64, "parameters": 1, "macs": 1, "bytes": 1, "latency_ms": 1.0, "energy_j": 1.0}
    workers = tuple(
        SplitWorker(f"worker_{number}", f"pi_{number + 1}", (), f"worker_{number}.onnx", **about)  # type: ignore[arg-type]
        for number in range(2)
    )
    folder = tmp_path / "split"
    split = Split("vit_tiny", ("cat", "dog"), workers, FusionFile("fusion.npz", "0"), {}, folder)
    folder.mkdir()
    (folder / FILE).write_text(split.text)
    return split

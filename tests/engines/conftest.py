"""What tests of engines share: a tiny model as a file, its frames, an empty store."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import FakeRuntime, tiny_graph, write_frames

from perception.engines.graph import to_bytes


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Path of the tiny model's ONNX file."""
    path = tmp_path / "tiny.onnx"
    path.write_bytes(to_bytes(tiny_graph()))
    return str(path)


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 images."""
    return write_frames(tmp_path_factory.mktemp("frames") / "rgb")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where engines go; does not exist yet."""
    return tmp_path / "engines"


@pytest.fixture
def fake() -> FakeRuntime:
    """The one instance behind `{"fake": lambda: fake}`."""
    return FakeRuntime()

"""Engines on disk: whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from tiny import CONFIG, FakeRuntime

from perception.engines.errors import EngineError
from perception.engines.key import make_key
from perception.engines.store import Record, Store, default_directory, write_atomically


def _record(graph: str = "g") -> Record:
    key = make_key(FakeRuntime(), "fp32", CONFIG, source="s", graph=graph, calibration="")
    return Record(CONFIG, "tiny", key, "", "", parity=0.001, bound=0.002, milliseconds=1.5, built=1000.0)


def test_what_is_saved_is_read_again(directory: Path) -> None:
    store = Store(directory)
    path = store.save(_record(), b"plan")
    assert path.name == "tiny-32x32-fake-fp32.json"
    record = store.read(path)
    assert (record.config, record.key, record.milliseconds) == (CONFIG, _record().key, 1.5)
    assert store.plan(record) == b"plan"


def test_a_newer_engine_replaces_the_older_one(directory: Path) -> None:
    store = Store(directory)
    store.save(_record("old"), b"old plan")
    path = store.save(_record("new"), b"new plan")
    assert store.plan(store.read(path)) == b"new plan"
    assert len(list(directory.iterdir())) == 2  # one plan, one record, no temporary file


@pytest.mark.parametrize("content", [b"plan of"[:-3], b"", b"another plan"])
def test_a_plan_cut_short_or_changed_is_refused(directory: Path, content: bytes) -> None:
    store = Store(directory)
    record = store.read(store.save(_record(), b"plan of an engine"))
    (directory / record.plan).write_bytes(content)
    with pytest.raises(EngineError, match=f"of {len(content)} bytes is not what was built"):
        store.plan(record)


def test_a_missing_plan_is_refused(directory: Path) -> None:
    store = Store(directory)
    record = store.read(store.save(_record(), b"plan"))
    (directory / record.plan).unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        store.plan(record)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"fast"', '"slow"'),
        lambda text: json.dumps(json.loads(text) | {"format": 99}),
        lambda text: json.dumps({name: value for name, value in json.loads(text).items() if name != "parity"}),
    ],
    ids=["cut short", "another JSON", "edited key", "another format", "a field less"],
)
def test_a_spoiled_record_is_an_error_that_names_the_file(directory: Path, spoil) -> None:
    store = Store(directory)
    path = store.save(_record(), b"plan")
    path.write_text(spoil(path.read_text()))
    with pytest.raises(EngineError, match=r"tiny-32x32-fake-fp32.json cannot be used: .*build it again"):
        store.read(path)
    assert isinstance(store.records()[path], EngineError)


@pytest.mark.parametrize("failing_write", [1, 2], ids=["plan", "record"])
def test_a_full_disk_leaves_the_old_engine(directory: Path, monkeypatch, failing_write: int) -> None:
    store = Store(directory)
    path = store.save(_record("old"), b"old plan")
    before = sorted(directory.iterdir())
    calls = 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing_write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="No space left on device; nothing was left there"):
        store.save(_record("new"), b"new plan")
    assert sorted(directory.iterdir()) == before
    assert store.plan(store.read(path)) == b"old plan"


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "engine", b"x")


def test_the_environment_names_the_directory(monkeypatch) -> None:
    monkeypatch.setenv("PERCEPTION_ENGINES", "/somewhere")
    assert default_directory() == Path("/somewhere")
    monkeypatch.delenv("PERCEPTION_ENGINES")
    assert default_directory() == Path.home() / ".cache/perception/engines"

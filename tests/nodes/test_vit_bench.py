"""A split on several hosts, real namespaces with links of their own, while something goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from robot import total
from splitting import LABELS, build_split

from perception.evaluation.class_folder import ClassFolder
from perception.nodes.network import DISCOVERY, obstacle
from perception.nodes.vit_bench import SCENARIOS, Throttle, images
from perception.tasks.vit_split import Split

needs_hosts = pytest.mark.skipif(bool(obstacle()), reason=obstacle())
RATE, DEADLINE = 10.0, 0.25
Bench = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    yield build_split(tmp_path_factory.mktemp("colors"))


@pytest.fixture
def bench(split: Split, tmp_path: Path) -> Bench:
    """Runs the command in a process of its own, because it moves to another network; a scenario's figures."""

    def bench(scenario: str, frames: int, *options: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "perception.cli.main", "vit", "bench", str(split.folder)]
        command += ["--scenarios", scenario, "--frames", str(frames), "--rate", str(RATE), "--out", str(tmp_path)]
        command += ["--deadline", str(DEADLINE), *options]
        environment = os.environ | {"PERCEPTION_ENGINES": str(split.folder / "engines")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / split.folder.name / "report.json").read_text())
        assert scenario in done.stdout and report["hash"] == split.hash
        assert ("An image took" in done.stdout) == (scenario == "plain")
        return dict(report["scenarios"][scenario])

    return bench


def test_a_process_is_slowed_as_long_as_that_is_wanted_and_so_is_what_follows_it() -> None:
    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def states(seconds: float = 0.5) -> set[str]:
        """Stopped (T) or not."""
        end, seen = time.monotonic() + seconds, set()
        while time.monotonic() < end:
            seen.add(Path(f"/proc/{processes['worker'].pid}/stat").read_text().rpartition(") ")[2][0])
            time.sleep(0.002)
        return {state == "T" for state in seen}

    processes = {"worker": begin()}
    throttle = Throttle(lambda: processes.get("worker"), 1.0)
    try:
        assert states() == {False}
        throttle.share = 0.2
        assert states() == {False, True}
        for share, expected in ((0.2, {False, True}), (1.0, {False})):
            throttle.share = share
            killed = processes.pop("worker")
            killed.kill()
            killed.wait()
            processes["worker"] = begin()
            time.sleep(0.1)
            assert states() == expected
    finally:
        throttle.end()
        for process in processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that are called as the colour which is strongest in them."""
    folder = tmp_path_factory.mktemp("data")
    for place, label in enumerate(LABELS):
        (folder / label).mkdir()
        for level in range(3):
            pixels = np.full((32, 32, 3), 20 * level, np.uint8)
            pixels[..., 2 - place] = 200 + 20 * level
            cv2.imwrite(str(folder / label / f"{level}.png"), pixels)
    return folder


@needs_hosts
@pytest.mark.parametrize("discovery", DISCOVERY)
def test_hosts_find_each_other_and_all_goes_over_their_links(bench: Bench, colors: Path, discovery: str) -> None:
    figures = bench("plain", 20, "--discovery", discovery, "--data", str(colors))
    assert figures["sent"] == 20 and figures["answered"] >= 18
    assert figures["accuracy_of_answered"] > 0.8  # the first may come before all have found each other
    assert set(figures["infer_ms"]) == {f"worker_{number}" for number in range(3)}
    assert 0 < max(figures["infer_ms"].values()) < figures["latency_ms"]["p50"]
    sent = figures["answered"] * 32 * 32 * 3
    assert figures["link_bytes"]["base"] > 3 * sent
    assert all(figures["link_bytes"][f"pi_{number}"] > sent for number in (1, 2, 3))


@needs_hosts
def test_images_are_answered_whatever_happens(bench: Bench, colors: Path) -> None:
    """The fusion starts again, a link is cut, all links lose, a host is slow, a worker is killed, a clock is ahead."""
    frames = 200
    figures = bench("all", frames, "--data", str(colors))
    counts = figures["counts"]
    assert figures["longest_gap_s"] < 20  # a process starts, on a machine that may have others to run
    assert figures["answered"] > 0.3 * frames
    assert total(counts) == counts["received"] and not counts["refused"]
    assert counts["missing_worker_0"] > 10
    assert counts["missing_worker_2"] < counts["received"] / 2  # that with the clock ahead
    assert figures["accuracy_of_answered"] > 0.7  # a third of the images need the worker that is missing now and then


def test_images_are_those_of_the_splits_classes(colors: Path) -> None:
    dataset = ClassFolder(colors)
    found = images(dataset, LABELS)
    assert len(found) == 9 and {one.label for one in found} == set(LABELS)
    for one in found:
        assert LABELS[one.pixels.mean((0, 1)).argmax()] == one.label
    with pytest.raises(ValueError, match="data0 has images of blue, green, which the split does not know"):
        images(dataset, ("red", "yellow"))
    assert images(None, LABELS)[0].label == ""


def test_the_command_offers_what_can_be_measured() -> None:
    from perception.cli import vit

    assert vit.SCENARIOS == SCENARIOS and vit.DISCOVERY == DISCOVERY

"""The report of a replay and its plots, without ROS."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from perception.evaluation.replay_report import rewrite, write_report

COUNT = 100
Series = dict[str, np.ndarray]


def make_run(key: str, asked: str, lost: int, seconds: float) -> tuple[dict[str, Any], Series]:
    """Latencies of 1 to 100 ms, the longest of them lost, and memory that grows."""
    latency = np.arange(1, COUNT + 1) / 1e3
    latency[COUNT - lost :] = np.nan
    times = np.linspace(0, seconds, 50)
    stages = {name: {"p50": 2.0, "p95": 3.0, "p99": 4.0, "max": 5.0} for name in ("infer", "age")}
    run = {
        "asked": asked, "series": key, "input_hz": 10.0, "output_hz": 9.0, "sent": COUNT, "lost": lost,
        "unknown_stamps": 0,
        "latency_ms": {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}, "jitter_ms": 1.0,
        "nodes": {"/eye": {"stages_ms": stages, "engine": {"model": "m"}, "engine_load_s": 0.25}},
        "processes": {"eye": {"cores": 0.5, "memory_mib": 210.0, "growth_mib": 5.0}},
        "lost_where": {"slot": lost}, "temperature_c": None, "clock_mhz": None, "ready_s": 1.5, "first_result_ms": 9.0,
    }  # fmt: skip
    series = {"sent_s": np.linspace(0, seconds, COUNT), "latency_s": latency}
    series["memory_mib/eye"] = np.stack([times, 200 + times / 6], 1)
    return run, {f"{key}/{name}": values for name, values in series.items()}


@pytest.fixture
def measured() -> tuple[dict[str, Any], Series]:
    """Two subjects, the first of which loses 20 of 100 images and runs for a minute."""
    subjects, series = [], {}
    for number, (name, lost, seconds) in enumerate((("mine", 20, 60.0), ("theirs", 0, 5.0))):
        run, found = make_run(f"{number}/0", "10 Hz", lost, seconds)
        subjects.append({"name": name, "build_s": 0.5, "runs": [run]})
        series |= found
    machine = {"cpu": "c", "cores": 2, "ros": "jazzy", "rmw": "r"}
    bag = {"name": "bag", "images": 100, "form": "4x4 rgb8", "topic": "/image", "seconds": 10.0}
    return {"subjects": subjects, "bag": bag, "machine": machine, "date": "today", "command": "c"}, series


@pytest.fixture
def drawn(measured: tuple[dict[str, Any], Series], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The axes of each picture, by its file's name."""
    figure = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed (extra `eval`)").Figure
    axes: dict[str, Any] = {}
    monkeypatch.setattr(figure, "savefig", lambda self, path, **_: axes.update({path.name: self.axes}))
    write_report(*measured, tmp_path)
    return axes


def test_pictures_can_be_drawn_again(measured: tuple[dict[str, Any], Series], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra `eval`)")
    paths = write_report(*measured, tmp_path)
    text = paths[1].read_text()
    names = ("latency.png", "distribution.png", "stages.png", "memory.png")
    for name in names:
        picture = cv2.imread(str(tmp_path / name))
        assert f"]({name})" in text and picture.shape[1] == 1190 and picture.std() > 5
        (tmp_path / name).unlink()
    paths[1].unlink()
    rewrite(tmp_path)
    assert paths[1].read_text() == text and all((tmp_path / name).is_file() for name in names)
    assert json.loads(paths[0].read_text()) == measured[0]


def test_load_build_and_start_are_told_apart(measured: tuple[dict[str, Any], Series], tmp_path: Path) -> None:
    text = write_report(*measured, tmp_path)[1].read_text()
    assert (
        "Engines built, or found built, in 0.5 s before the start; topics there 1.5 s after it, in which engines "
        "loaded in 0.25 s (/eye); first result 9.0 ms after the first image."
    ) in text


def test_every_run_has_its_stages_processes_and_temperature(
    measured: tuple[dict[str, Any], Series], tmp_path: Path
) -> None:
    report, series = measured
    for asked, stage, growth, celsius in (("as recorded", 41.0, 42.0, 43.0), ("10 Hz", 51.0, 52.0, 53.0)):
        run, found = make_run(f"0/{asked}", asked, 0, 5.0)
        run["nodes"]["/eye"]["stages_ms"] = {"age": dict.fromkeys(("p50", "p95", "p99", "max"), stage)}
        run["processes"]["eye"]["growth_mib"], run["temperature_c"] = growth, celsius
        report["subjects"][0]["runs"].append(run)
        series |= found
    text = write_report(report, series, tmp_path)[1].read_text()
    assert text.count("## mine, 10 Hz\n") == text.count("## theirs, 10 Hz\n") == 1
    for head, stage, growth, celsius in (("as recorded", 41, 42, 43.0), ("10 Hz, round 2", 51, 52, 53.0)):
        section = text.partition(f"## mine, {head}\n")[2].partition("\n## ")[0]
        assert f"| age | {stage} | {stage} | {stage} | {stage} |" in section
        assert f"| eye | 0.5 | 210 | {growth} |" in section and f"Temperature: {celsius} °C" in section


def test_latency_is_that_of_results_and_ages_are_the_nodes(
    measured: tuple[dict[str, Any], Series], tmp_path: Path
) -> None:
    text = write_report(*measured, tmp_path)[1].read_text()
    head, _, row = text.partition("## Runs\n\n")[2].splitlines()[:3]
    assert "| latency p50 ms | latency p95 ms | latency p99 ms | latency max ms | jitter ms |" in head
    assert "| 50 | 95 | 99 | 100 | 1 |" in row and "age" not in head and "| age | 2 | 3 | 4 | 5 |" in text


def test_results_that_belong_to_no_image_are_told_of(measured: tuple[dict[str, Any], Series], tmp_path: Path) -> None:
    said = "with 3 stamps that no image was sent with, and their images count as lost"
    assert "stamps that no image" not in write_report(*measured, tmp_path)[1].read_text()
    measured[0]["subjects"][1]["runs"][0]["unknown_stamps"] = 3
    assert f"Results of theirs came {said}" in write_report(*measured, tmp_path)[1].read_text()


def test_without_matplotlib_the_report_says_so(
    measured: tuple[dict[str, Any], Series], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "perception.evaluation.replay_plots", raising=False)
    text = write_report(*measured, tmp_path)[1].read_text()
    assert "No plots, because matplotlib cannot be imported" in text and "## Runs" in text and ".png" not in text
    assert (tmp_path / "series.npz").is_file() and not list(tmp_path.glob("*.png"))


def test_dots_are_results_and_ticks_are_losses(drawn: dict[str, Any]) -> None:
    (panel,) = drawn["latency.png"]
    dots = [line for line in panel.lines if line.get_marker() == "."]
    ticks = [line for line in panel.lines if line.get_marker() == "|"]
    assert [np.isfinite(line.get_ydata()).sum() for line in dots] == [80, 100]
    assert [len(line.get_xdata()) for line in ticks] == [20, 0]
    np.testing.assert_allclose(ticks[0].get_xdata(), np.linspace(0, 60, COUNT)[80:])
    assert [line.get_label() for line in dots] == ["mine, 10 Hz: 20 of 100 lost", "theirs, 10 Hz: 0 of 100 lost"]
    assert panel.get_yscale() == "log" and dots[0].get_color() != dots[1].get_color()


def test_the_distribution_counts_losses_as_longest(drawn: dict[str, Any]) -> None:
    (panel,) = drawn["distribution.png"]
    mine, theirs = panel.lines
    for line in (mine, theirs):
        x, y = line.get_xdata(), line.get_ydata()
        assert y[0] == 1 and (np.diff(y) <= 0).all() and (np.diff(x) >= 0).all()
        assert y[np.searchsorted(x, 50.0 + 1e-6) - 1] == pytest.approx(0.5), "half of them take longer than 50 ms"
    assert mine.get_ydata()[-1] == pytest.approx(0.2) and mine.get_xdata()[-1] == panel.get_xlim()[1]
    assert theirs.get_ydata()[-1] < 0.01 and theirs.get_xdata()[-1] == pytest.approx(100)
    assert panel.get_xscale() == "log"


def test_stages_and_memory_say_what_was_measured(drawn: dict[str, Any]) -> None:
    (panel,) = drawn["stages.png"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["infer", "age"]
    assert [bar.get_width() for bar in panel.patches] == [2.0] * 4
    assert {line.get_xdata()[-1] for line in panel.lines} == {4.0}
    (panel,) = drawn["memory.png"]
    (line,) = panel.lines  # the other run is no soak
    assert line.get_label() == "mine, 10 Hz: +5.0 MiB over the second half"
    assert line.get_ydata()[[0, -1]] == pytest.approx([200, 210])


def test_a_run_of_which_nothing_came_is_drawn(measured: tuple[dict[str, Any], Series], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra `eval`)")
    report, series = measured
    for subject in report["subjects"]:
        subject["runs"][0] |= {"latency_ms": None, "nodes": {}}
    series = {key: np.full(COUNT, np.nan) if key.endswith("latency_s") else series[key] for key in series}
    text = write_report(report, series, tmp_path)[1].read_text()
    assert "](latency.png)" in text and "stages.png" not in text

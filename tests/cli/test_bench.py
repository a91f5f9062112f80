"""`perception bench` on a small pipeline: what it measures stands in its report."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed; run tools/set_up.py or source a ROS 2")

from perception.cli import bench
from perception.cli.main import build_parser, main
from perception.evaluation import bags
from perception.evaluation.bags import Bag, BagWriter, choose_images
from perception.nodes.bag_bench import Feed
from perception.tasks.image import Image

SECOND = 1_000_000_000
SCRIPT = Path(__file__).parents[1] / "nodes" / "passing_node.py"
ROBOT = "42"


@pytest.fixture(autouse=True)
def robot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A robot's ROS domain is exported; the bench leaves it, and after a test all is as before."""
    monkeypatch.setenv("ROS_DOMAIN_ID", ROBOT)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images at 20 Hz."""
    path = tmp_path_factory.mktemp("bench") / "recording"
    with BagWriter(path) as writer:
        _, transform = bags.pose_messages(np.eye(4), bags.header(40 * SECOND, "world"), "eye")
        writer.write("/tf", transform, 40 * SECOND)  # of a type that need not be installed
        for index in range(20):
            stamp = 40 * SECOND + index * SECOND // 20
            pixels = np.full((24, 32, 3), index, np.uint8)
            writer.write("/eye/image", bags.image_message(Image(pixels, "rgb8"), bags.header(stamp, "eye")), stamp)
    return path


def test_a_comparison_of_two_commands(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"{sys.executable} {SCRIPT} /eye/image"
    options = ["--output", "/result", "--compare", command, "--rounds", "1", "--out", str(tmp_path)]
    assert main(["bench", str(recording), command, *options]) == 0
    assert os.environ["ROS_DOMAIN_ID"] != ROBOT
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["bag"]["images"] == 20 and report["bag"]["form"] == "32x24 rgb8"
    for subject in report["subjects"]:
        (run,) = subject["runs"]
        assert run["sent"] == 20 and run["lost"] == 4 and run["asked"] == "as recorded"
    first, second = (subject["runs"][0]["latency_ms"]["p50"] for subject in report["subjects"])
    assert report["ratios"]["as recorded: latency p50"] == pytest.approx(second / first, abs=1e-3)
    with np.load(tmp_path / "series.npz") as series:
        keys = [subject["runs"][0]["series"] for subject in report["subjects"]]
        assert [np.isnan(series[f"{key}/latency_s"]).sum() for key in keys] == [4, 4] and keys[0] != keys[1]
    text = (tmp_path / "report.md").read_text()
    assert "](latency.png)" in text and (tmp_path / "latency.png").is_file()
    assert "20 images of 32x24 rgb8 on `/eye/image`" in text and "4 of 20" in text and "Second over first" in text
    assert text.strip() in capsys.readouterr().out


def test_compressed_images_that_no_node_would_get_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Image(np.zeros((24, 32, 3), np.uint8), "rgb8")
    with BagWriter(tmp_path / "bag") as writer:
        for index in range(2):
            head = bags.header(40 * SECOND + index, "eye")
            writer.write("/eye/compressed_image", bags.compressed_message(image, head), 40 * SECOND + index)
    assert main(["bench", str(tmp_path / "bag"), "depth_pipeline", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "/eye/compressed_image has compressed images" in error and "perception convert BAG --images raw" in error
    assert main(["convert", str(tmp_path / "bag"), "--images", "raw", "--out", str(tmp_path / "raw")]) == 0
    with Bag(tmp_path / "raw") as bag:
        assert choose_images(bag) == "/eye/compressed_image_raw"


@pytest.mark.parametrize(
    ("options", "outputs"),
    [
        (["depth_pipeline", "--compare", "a b", "--compare-output", "/theirs"], ["/depth", "/theirs"]),
        (["a b", "--output", "/theirs", "--compare", "depth_pipeline"], ["/theirs", "/depth"]),
        (["a b", "--output", "/theirs", "--compare", "c d"], ["/theirs", "/theirs"]),
        (["depth_pipeline", "--compare", "depth_pipeline", "--compare-output", "raw"], ["/depth", "/raw"]),
        (["depth_pipeline", "--output", "raw", "--compare", "depth_pipeline threads:=1"], ["/raw", "/raw"]),
    ],
)
def test_each_of_two_has_an_output_of_its_own(options: list[str], outputs: list[str]) -> None:
    args = build_parser().parse_args(["bench", "bag", *options])
    assert [subject.output for subject in bench._subjects(args, "/eye/image", False, None)] == outputs


@pytest.mark.parametrize(
    ("options", "seconds"),
    [([], [None, None, None]), (["--seconds", "3"], [3, 3, 3]), (["--soak", "2"], [None, None, None, 120])],
)
def test_a_run_goes_through_the_whole_bag_unless_seconds_are_given(
    options: list[str], seconds: list[float | None]
) -> None:
    args = build_parser().parse_args(["bench", "bag", "pipeline", "--rate", "30", "60", "--fast", *options])
    feeds = bench._feeds(args)
    assert [feed.seconds for feed in feeds] == seconds
    assert [feed.rate for feed in feeds[:3]] == [30, 60, 0] and feeds[2].one_by_one
    assert all(feed.least == bench.SECONDS for feed in feeds[:3])
    (recorded,) = bench._feeds(build_parser().parse_args(["bench", "bag", "pipeline", "--seconds", "3"]))
    assert recorded == Feed(seconds=3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["depth_pipeline", "depth:=3"], "has no argument depth"),
        (["depth_pipeline", "threads"], "'threads' is not understood; write name:=value"),
        (["ros2 launch mine it.launch.py"], "cannot be measured; give both"),
        (["depth_pipeline", "--rate", "0"], "--rate 0 (0) cannot be measured; give numbers above 0"),
        (["dept_pipeline"], "there is no pipeline dept_pipeline; there are: depth_pipeline"),
        (["depth_pipeline", "--soak", "-1"], "--soak (-1) cannot be measured"),
        (["depth_pipeline", "--images", "/nose"], "has no images on '/nose'"),
    ],
)
def test_mistakes_are_one_sentence(
    recording: Path, tmp_path: Path, options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(recording), *options, "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert says in error and len(error.splitlines()) == 1

"""The bench on a pipeline that is not ours and on one that is, with a bag of known content."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from conftest import Graph, wait_until
from detecting import build_extents, scene
from sensor_msgs.msg import Image as ImageMessage

from perception import engines
from perception.cli.main import main
from perception.evaluation import bags
from perception.evaluation.bags import Bag, BagWriter
from perception.evaluation.datasets import open_dataset
from perception.evaluation.detection import DetectionAssessment
from perception.evaluation.replayed import Passage
from perception.evaluation.truth import DepthTruth
from perception.nodes import session
from perception.nodes.bag_bench import PLAYED, BagBench, Feed, Trial, Watcher, lost_where, node_figures, playable
from perception.nodes.subject import Subject, any_command, our_pipeline
from perception.tasks.image import Image

COUNT, HZ = 20, 20
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "recording"
    with BagWriter(path) as writer:
        for index in range(COUNT):
            stamp = 40 * SECOND + index * SECOND // HZ
            pixels = np.full((24, 32, 3), index, np.uint8)
            writer.write("/eye/image", bags.image_message(Image(pixels, "rgb8"), bags.header(stamp, "eye")), stamp)
    return path


def test_another_pipeline_and_its_losses(recording: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("passing_node.py")
    subject = any_command(f"{sys.executable} {script} /eye/image", "/eye/image", "/result")
    bench = BagBench(recording, (), tmp_path)
    truth = DepthTruth({40 * SECOND: np.ones((6, 8), np.float32)})
    trial = bench.run(subject, Feed(), [truth])
    figures = trial.figures
    assert figures["sent"] == COUNT and figures["lost"] == COUNT // 5 and figures["unknown_stamps"] == 0
    assert figures["lost_where"]["unexplained"] == figures["lost"]
    missing = np.flatnonzero(np.isnan(trial.passage.latencies)) + 1
    assert (missing % 5 == 0).all(), "each of the lost ones is known"
    assert 0 < figures["latency_ms"]["p50"] < 500 and abs(figures["input_hz"] - HZ) < 1
    assert figures["processes"]["pipeline"]["memory_mib"] > 20
    samples = trial.series["memory_mib/pipeline"]
    assert (
        len(samples) >= 2
        and -1 < samples[0, 0] < 1
        and samples[:, 1].max() == pytest.approx(figures["processes"]["pipeline"]["memory_mib"], abs=0.06)
    )
    assert trial.series["sent_s"][0] == 0 and np.isnan(trial.series["latency_s"]).sum() == figures["lost"]
    assert not trial.kept and figures["unreadable"] == 1, "a colour image is no depth"
    faster = bench.run(subject, Feed(100.0, 1.0)).figures
    assert 80 < faster["sent"] < 120 and abs(faster["input_hz"] - 100) < 5
    whole = bench.run(subject, Feed(20 * HZ, least=0.5)).figures["sent"]
    assert whole > COUNT and whole % COUNT == 0, "the bag again, and to its end"


def test_where_frames_were_lost_adds_up() -> None:
    sent = np.stack([np.arange(10), np.arange(10) * SECOND], 1)
    passage = Passage(sent, sent[:6])
    first = {"received": 9, "dropped": 1, "failed": 0, "skipped": 0, "published": 8}
    second = {"received": 8, "dropped": 0, "failed": 1, "skipped": 0, "published": 7}
    places = lost_where(passage, [first, second])
    assert places == {"transport": 1, "slot": 1, "error": 1, "unwanted": 0, "unexplained": 1}
    assert sum(places.values()) == passage.lost


def test_frames_are_lost_on_the_way_to_the_result_alone(graph: Graph) -> None:
    """A node that branches off has losses of its own."""
    ways = {"before": ("/image", "bright"), "behind": ("/robot/bright", "depth"), "beside": ("/robot/bright", "boxes")}
    nodes = {f"/robot/{name}": images for name, (images, _) in ways.items()}
    for name, (_, output) in ways.items():
        node = graph.add(rclpy.create_node(name, namespace="/robot"))
        node.create_publisher(ImageMessage, output, 1)

    def way(output: str, images: str = "/image/compressed") -> list[str]:
        watcher = graph.add(Watcher(output, ()))
        wait_until(lambda: watcher.count_publishers("/robot/boxes"), what="the last publisher")
        return watcher.way(Subject("three", {}, images, output, nodes))

    assert way("/robot/depth") == ["/robot/before", "/robot/behind"]
    assert way("/robot/boxes") == ["/robot/before", "/robot/beside"]
    assert way("/robot/bright") == ["/robot/before"]
    assert way("/robot/depth", "/robot/bright") == ["/robot/behind"]
    assert way("/robot/nothing") == way("/robot/depth", "/other") == []


def test_the_search_counts_no_rate_that_the_player_did_not_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: BagBench, subject: Subject, feed: Feed) -> Trial:
        """Loses nothing up to 50 Hz; the player reaches 40."""
        rate = 20.0 if feed.one_by_one else feed.rate
        sent = np.stack([np.arange(10), np.arange(10) * SECOND], 1)
        reached = min(rate, 40.0)
        return Trial(Passage(sent, sent if rate <= 50 else sent[:5]), {"input_hz": reached, "output_hz": reached}, {})

    monkeypatch.setattr(BagBench, "run", run)
    said: list[str] = []
    found = BagBench(tmp_path, (), tmp_path, said.append).search(any_command("cat", "/image", "/result"), 1.0)
    assert 39 < found["0"] < 40 / PLAYED and found["0.01"] == found["0"]
    assert any("the player reached only 40.0 Hz: such a rate is not counted" in line for line in said)


def test_what_a_node_says_of_its_engine() -> None:
    counts = dict.fromkeys(("received", "published", "dropped", "failed", "skipped", "bad_calibration"), "0")
    told = node_figures(counts | {"model": "m", "load_s": "0.25"})
    assert told["engine_load_s"] == 0.25 and told["engine"] == {"model": "m"}
    assert "engine_load_s" not in node_figures(counts) and node_figures({"bag": "x"}) == {}


def test_what_cannot_be_sent_here_is_told_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    with BagWriter(path) as writer:
        _, transform = bags.pose_messages(np.eye(4), bags.header(SECOND, "world"), "eye")
        writer.write("/tf", transform, SECOND)
        pixels = np.zeros((4, 4, 3), np.uint8)
        writer.write("/image", bags.image_message(Image(pixels, "rgb8"), bags.header(SECOND, "eye")), SECOND)
    said: list[str] = []
    with Bag(path) as bag:
        bag.types["/tf"] = "nowhere_msgs/msg/Nothing"
        assert playable(bag, ("/image", None, "/tf", "/tf_static"), said.append) == ("/image",)
    (line,) = said
    assert line.startswith("/tf is not played: messages of type nowhere_msgs/msg/Nothing are not known here")


@pytest.mark.parametrize("host", ["processes", "one"])
def test_a_pipeline_of_ours_gets_the_bags_topics(host: str) -> None:
    given = {"namespace": "front", "threads": "2"}
    subject = our_pipeline("depth_pipeline", given, "/eye/image/compressed", True, "/eye/camera_info", host)
    assert subject.output == "/front/depth" and subject.nodes == {"/front/depth_node": "/eye/image"}
    (command,) = subject.commands.values()
    text = " ".join(command)
    separator = ":=" if host == "one" else " -p "
    assert "image:=/eye/image" in text and "camera_info:=/eye/camera_info" in text and separator in text
    assert ("image_transport:=compressed" if host == "one" else 'image_transport:="compressed"') in text
    assert "use_sim_time:=true" in text
    assert subject.builds and "fastdepth_mobilenet_v2" in subject.builds[0]


def test_whether_images_are_compressed_is_not_a_matter_of_the_topics_name() -> None:
    command = our_pipeline("depth_pipeline", {}, "/eye/compressed", False, None, "one").commands["depth_pipeline"]
    assert "image:=/eye/compressed" in command and "image_transport:=raw" in command
    with pytest.raises(ValueError, match="/compressed_image has compressed images, which depth_pipeline takes from"):
        our_pipeline("depth_pipeline", {}, "/compressed_image", True, None, "one")


@pytest.mark.parametrize(
    ("namespace", "output", "topic"),
    [
        ("", "", "/depth"),
        ("robot", "", "/robot/depth"),
        ("robot", "depth/points", "/robot/depth/points"),
        ("robot", "/a", "/a"),
    ],
)
def test_a_topic_of_results_is_in_the_namespace(namespace: str, output: str, topic: str) -> None:
    assert (
        our_pipeline("depth_pipeline", {"namespace": namespace}, "/image", False, None, "one", output).output == topic
    )
    assert any_command("cat", "/image", "result").output == "/result"


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(ValueError, match="host 'two' is unknown; accepted: processes, one"):
        our_pipeline("depth_pipeline", {}, "/image", False, None, "two")
    with pytest.raises(ValueError, match="cameras 'front left' cannot be measured"):
        our_pipeline("depth_pipeline", {"cameras": "front left"}, "/image", False, None, "one")
    with pytest.raises(ValueError, match="cannot be measured; give both"):
        any_command("ros2 launch a b", "/image", "")


def test_boxes_are_held_against_those_in_the_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a data set through `record`, the detection node and `bench`; the same data set offline is the measure."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `eval`)")
    monkeypatch.setenv("PERCEPTION_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setattr(session, "isolate", lambda: None)  # this process is on a domain already
    model, data = build_extents(tmp_path), tmp_path / "set"
    for kind in ("rgb", "label"):
        (data / "eval" / kind).mkdir(parents=True)
    (data / "labels.txt").write_text("green\nred thing\npurple\n")
    for number in range(COUNT):
        left = 20 * number
        pixels = scene(((left, 60, left + 200, 300), number % 2, 255 - number))
        cv2.imwrite(str(data / "eval/rgb" / f"{number:02}.png"), pixels[..., ::-1])
        place = 1 - number % 2 if number else 2  # of the first nobody knows what it is
        wider = 40 * (number // 8)  # the later the worse
        center, size = ((left + 100 + wider / 2) / 640, 180 / 480), ((200 + wider) / 640, 240 / 480)
        text = f"{place} {center[0]} {center[1]} {size[0]} {size[1]}\n"
        (data / "eval/label" / f"{number:02}.txt").write_text(text)
    assert main(["record", str(data), "--rate", "5", "--out", str(tmp_path / "bag")]) == 0
    arguments = [f"model:={model}", "target:=onnxruntime", "precision:=fp32", "threads:=1"]
    assert main(["bench", str(tmp_path / "bag"), "detection_pipeline", *arguments, "--out", str(tmp_path)]) == 0
    (run,) = json.loads((tmp_path / "report.json").read_text())["subjects"][0]["runs"]
    assert run["lost"] == 0 and run["accuracy"]["task"] == "detection" and run["accuracy"]["frames"] == COUNT
    dataset = open_dataset(data)
    with engines.load(model, "onnxruntime", "fp32") as engine:
        expected = DetectionAssessment(score_threshold=0.5).score(engine.run, engine.config, dataset, iter(dataset))
    assert 0.3 < expected["mAP"] < expected["AP50"] < 1, "purple is never found, and what is too wide only at first"
    for name in ("mAP", "AP50", "AP75"):
        assert run["accuracy"]["metrics"][name] == pytest.approx(expected[name], abs=1e-6)
    assert f"mAP {expected['mAP']:.3f} ± " in capsys.readouterr().out

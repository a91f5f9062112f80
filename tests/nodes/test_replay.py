"""A replay end to end: real processes, a real engine, real topics; then the report is held against the input."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; the engine under test is built with it")

from detecting import build_extents
from detecting import scene as picture_of
from segmenting import build_brightest
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo, VisionClass

from perception import engines
from perception.cli import replay as cli_replay
from perception.cli.main import main
from perception.evaluation.rgbd_folder import RGBDWriter
from perception.nodes.convert import image_to_message
from perception.nodes.replay import Replay
from perception.nodes.replay_observers import SegmentationObserver
from perception.nodes.session import Observer, Session, SessionError
from perception.tasks import resources
from perception.tasks.geometry import Camera
from perception.tasks.image import Image

FRAMES = 32


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames with true depth, small enough for many a second."""
    folder = tmp_path_factory.mktemp("replay") / "scene"
    writer = RGBDWriter(folder, Camera(160, 120, 130, 130, 79.5, 59.5), 20.0, "Apache-2.0", "test")
    rng = np.random.default_rng(0)
    for _ in range(FRAMES):
        noise = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (160, 120))
        writer.write_frame(noise, np.full((120, 160), 2.5))
    return folder


@pytest.fixture(scope="module")
def engine_store(scene: Path) -> Path:
    """A store with one built engine, which the processes under test find through the environment."""
    store = scene.parent / "engines"
    engines.build("fastdepth_pruned", "onnxruntime", "fp32", directory=store, frames=scene / "rgb")
    return store


def replay(scene: Path, out: Path, *options: str) -> int:
    arguments = ["replay", str(scene), "--model", "fastdepth_pruned", "--out", str(out)]
    return main([*arguments, "--target", "onnxruntime", "--precision", "fp32", *options])


def test_report_and_picture(
    scene: Path, engine_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERCEPTION_ENGINES", str(engine_store))
    assert replay(scene, tmp_path) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["engine"]["target"] == "onnxruntime" and report["engine"]["precision"] == "fp32"
    assert report["frames"] >= FRAMES and 0 < report["rate_hz"] < 25
    counts, stages = report["counts"], report["stages_ms"]
    assert counts["failed"] == 0 and counts["published"] >= FRAMES
    assert counts["received"] == counts["published"] + counts["dropped"] + counts["skipped"], "of the same frames"
    assert report["frames"] <= counts["published"] and counts["received"] <= counts["sent"]
    assert {"receive", "wait", "decode", "preprocess", "infer", "publish", "latency", "age"} <= stages.keys()
    assert all(0 <= s["p50"] <= s["p95"] <= s["p99"] <= s["max"] for s in stages.values())
    assert stages["infer"]["p50"] < stages["latency"]["p50"] <= stages["age"]["p50"] + 1
    assert report["accuracy"]["frames"] > FRAMES // 2 and 0 <= report["accuracy"]["metrics"]["delta1"] <= 1
    picture = cv2.imread(report["picture"])
    assert picture.shape == (120, 3 * 160, 3)
    shown = [cv2.imread(str(path)) for path in sorted((scene / "rgb").glob("*.jpg"))]
    assert min(np.abs(picture[:, :160].astype(int) - frame).mean() for frame in shown) < 3, (
        "its left is one of the frames"
    )
    assert "accuracy   delta1 " in capsys.readouterr().out


def test_objects_are_counted_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    model = build_extents(tmp_path)
    monkeypatch.setenv("PERCEPTION_ENGINES", str(tmp_path / "engines"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(8):
        image = picture_of(((100, 60, 300, 300), number % 2, 200), size=(480, 640))
        cv2.imwrite(str(pictures / f"{number}.png"), image[..., ::-1])
    arguments = ["replay", str(pictures), "--pipeline", "detection_pipeline", "--model", model, "--frames", "16"]
    assert main([*arguments, "--rate", "8", "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["objects"].keys() == {"red thing", "green"}
    counts = [seen["images"] for seen in report["objects"].values()]
    assert all(seen["found"] == seen["images"] for seen in report["objects"].values())
    assert sum(counts) == report["frames"] >= 16 and abs(counts[0] - counts[1]) <= 2
    assert cv2.imread(report["picture"]).shape == (480, 2 * 640, 3)
    assert "red thing in" in capsys.readouterr().out


def test_a_demonstration_is_dark_where_a_node_brightens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the clip itself elsewhere, which has true depth."""
    (tmp_path / "clip/rgb").mkdir(parents=True)
    for name in ("000.png", "001.png"):
        cv2.imwrite(str(tmp_path / "clip/rgb" / name), np.full((48, 64, 3), 120, np.uint8))
    share = resources.share
    monkeypatch.setattr(resources, "share", lambda name: tmp_path / name if "clip" in name else share(name))
    assert cli_replay._demonstration("depth_node", tmp_path / "out") == tmp_path / "clip"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("kept")
    dark = sorted(cli_replay._demonstration("enhancement_node", tmp_path / "out").glob("*.png"))
    assert (tmp_path / "out/mine.txt").read_text() == "kept"
    images = [cv2.imread(str(path)) for path in dark]
    assert len(images) == 2 and all(5 < image.mean() < 40 for image in images) and (images[0] != images[1]).any()


def test_classes_are_counted_by_pixels_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    model = build_brightest(tmp_path)
    monkeypatch.setenv("PERCEPTION_ENGINES", str(tmp_path / "engines"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(8):
        image = picture_of(((0, 0, 640, 480), 1, 100), ((0, 0, 320, 480), 2, 200), size=(480, 640))
        cv2.imwrite(str(pictures / f"{number}.png"), image[..., ::-1])
    arguments = ["replay", str(pictures), "--pipeline", "segmentation_pipeline", "--model", model, "--frames", "8"]
    assert main([*arguments, "--rate", "8", "--out", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["classes"] == {"wall": pytest.approx(0.5), "chair": pytest.approx(0.5)}
    assert cv2.imread(report["picture"]).shape == (480, 2 * 640, 3)
    assert "wall 50.0%" in capsys.readouterr().out


def test_a_still_image_is_shown_from_all_around(
    scene: Path, engine_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERCEPTION_ENGINES", str(engine_store))
    assert replay(scene, tmp_path, "--pipeline", "view_synthesis_pipeline", "--frames", "4") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["frames"] >= 4 and report["counts"]["failed"] == 0
    assert cv2.imread(report["picture"]).shape == (120, 3 * 160, 3)
    sheet = cv2.imread(report["sheet"])
    assert sheet.shape == (4 * 60, 6 * 80, 3)
    tiles = [sheet[y : y + 60, x : x + 80].astype(int) for y in range(0, 240, 60) for x in range(0, 480, 80)]
    apart = [np.abs(tiles[0] - tile).mean() for tile in tiles]
    assert all(apart[1:]) and apart[12] > max(apart[1], apart[23]), "it goes away and comes back"
    if "animation" in report:
        assert Path(report["animation"]).read_bytes().startswith(b"GIF89a")


def test_missing_engine_is_told_with_the_command(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERCEPTION_ENGINES", str(tmp_path / "empty"))
    assert replay(scene, tmp_path) == 1
    assert "perception engines build fastdepth_pruned" in capsys.readouterr().err


def test_missing_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(tmp_path / "absent", tmp_path) == 1
    assert "does not exist" in capsys.readouterr().err


def test_session_tells_what_an_ended_process_said(tmp_path: Path) -> None:
    with Session(Observer, tmp_path) as session:
        process = session.start("image_source_node", {"source": "/nowhere"})
        with pytest.raises(SessionError, match="(?s)image_source_node ended with status 1.*/nowhere does not exist"):
            session.wait(lambda: False, 20, "nothing")
        assert process.poll() == 1
    assert not session.processes


def test_session_leaves_no_process(tmp_path: Path, scene: Path) -> None:
    with Session(Observer, tmp_path) as session:
        pid = session.start("image_source_node", {"source": str(scene), "loop": True}).pid
        session.wait(lambda: session.observer.diagnostics.get("/image_source_node"), 20, "diagnostics")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_shares_of_classes_sum_ids_without_a_name(ros: None) -> None:
    observer = SegmentationObserver()
    try:
        observer._on_labels(LabelInfo(class_map=[VisionClass(class_id=1, class_name="floor")]))
        mask = np.array([[1, 1, 1, 1, 7, 8, 9, 255]], np.uint8)
        observer.keep(image_to_message(Image(mask, "mono8"), Header()))
        expected = {"floor": 0.5, "ids without a name": 0.375, "no class": 0.125}
        assert observer.report()["classes"] == pytest.approx(expected)
    finally:
        observer.destroy_node()


def test_a_replay_says_which_nodes_of_the_pipeline_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Replay) -> None:
        raise ValueError("no nodes here")

    monkeypatch.setattr(Replay, "run", run)
    for pipeline, said in (("depth_segmentation_pipeline", True), ("segmentation_pipeline", False)):
        main(["replay", "anything", "--frames", "1", "--pipeline", pipeline, "--out", str(tmp_path)])
        words = f"of {pipeline} this is segmentation_node alone, without depth_node"
        assert (words in capsys.readouterr().out) is said

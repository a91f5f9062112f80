"""A vision transformer split over devices: whole small runs, what they write, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; training needs it")

from interruption import interrupt_once  # noqa: E402
from test_classification_training import NAMES, SIZE, small_recipe, write_shapes  # noqa: E402

from perception.cli.main import main  # noqa: E402
from perception.engines.source import open_source  # noqa: E402
from perception.evaluation.class_folder import ClassFolder  # noqa: E402
from perception.evaluation.vit_split import evaluate, told_scores  # noqa: E402
from perception.tasks.fusion import load_fusion  # noqa: E402
from perception.tasks.vit_split import read_split  # noqa: E402
from perception.training import split as module  # noqa: E402
from perception.training.placement import Device, Fleet  # noqa: E402
from perception.training.split import SplitSettings, Whole, resampled, split  # noqa: E402
from perception.training.train import train  # noqa: E402

LARGE = Device("large", memory=100.0, gflops=20.0, watts=10.0, bandwidth=100.0)
SMALL = Device("small", memory=0.5, gflops=5.0, watts=2.0, bandwidth=10.0, overhead=3.0)
FLEET = Fleet((SMALL, LARGE), fusion_overhead=0.5)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images in shapes/, and a trained network in whole/."""
    root = tmp_path_factory.mktemp("home")
    write_shapes(root / "shapes")
    network = {"heads": 3, "patch": 8, "depth": 1, "stem": "convolutions"}
    train(small_recipe(network=network), root, root / "whole")
    return root


def settings(home: Path, **changes: object) -> SplitSettings:
    chosen = SplitSettings(
        model=str(home / "whole/vit_tiny.safetensors"), data=str(home / "shapes"), heads=2, images=4, retrain=2, fuse=4,
        batch=4,
    )  # fmt: skip
    return dataclasses.replace(chosen, **changes)


@pytest.fixture(scope="module")
def made(home: Path) -> Path:
    split(settings(home), FLEET, home / "out", say=lambda line: None)
    return home / "out"


def test_a_split_is_what_nodes_read(made: Path, home: Path) -> None:
    found = read_split(made)
    assert found.model == "vit_tiny" and found.labels == NAMES
    first, second = found.workers
    assert (first.classes, second.classes) == (("disc",), ("ring", "square"))
    assert (first.device, second.device) == ("large", "small") and (first.features, second.features) == (128, 64)
    for worker in found.workers:
        source = open_source(str(found.graph_path(worker)))
        assert source.config.task == "classification" and source.config.labels == worker.classes
        outputs = next(source.reference([np.zeros((1, *SIZE, 3), np.uint8)]))
        assert outputs["features"].shape == (1, worker.features)
        assert worker.macs == Whole(settings(home).model).cost(worker.features // 64).macs
        assert worker.parameters * 2 < worker.bytes < worker.parameters * 2 + 100_000, "in half precision"
    assert load_fusion(found).classes == 3
    said = found.predictions
    assert {"accuracy", "accuracy_full", "accuracy_one_missing", "latency_ms", "energy_j"} <= set(said)
    computed, sent = 2 * second.macs / 5e6, 8 * (2 * 64 + 256) / 1e4
    assert second.latency_ms == pytest.approx(3 + computed + sent, abs=1e-4) and first.latency_ms < 3
    fused = 2 * (192 * 256 + 256 * 3) / 20e6
    assert said["fusion_ms"] == pytest.approx(0.5 + fused, abs=1e-5)
    assert said["latency_ms"] == pytest.approx(second.latency_ms + 0.5 + fused, abs=1e-3)
    assert said["overhead_ms"] == 3.5 and said["latency_full_ms"] < 3, "of the large device, which has none"
    assert said["times_smaller_largest"] > 1


def test_the_graphs_are_the_workers_that_were_trained_together(made: Path, home: Path) -> None:
    """What the split answers from graphs and NumPy is what the trained network answers in PyTorch."""
    chosen, found = settings(home), read_split(made)
    whole = Whole(chosen.model)
    weights = [made / "work" / worker.name / "vit_tiny.safetensors" for worker in found.workers]
    fused = module._fused(whole, weights, chosen, made / "work/fusion", "cpu")
    dataset = ClassFolder(home / "shapes")
    scores = evaluate(found, dataset)
    images = [
        module.Normalize(whole.config)(torch.from_numpy(frame.rgb.copy()).permute(2, 0, 1)[None] / 255)
        for frame in dataset
    ]
    with torch.no_grad():
        said = [int(fused(image).argmax()) for image in images]
    assert scores.accuracy == np.mean([one == frame.label for one, frame in zip(said, dataset, strict=True)])
    assert set(scores.one_missing) == set(scores.alone) == {"worker_0", "worker_1"} and not scores.two_missing
    assert scores.alone["worker_0"] == scores.one_missing["worker_1"], "of two workers"
    assert len(evaluate(found, dataset, limit=3).by_class) == 3, "one of each class"
    assert "any one missing" in told_scores(found, scores) and scores.fusion_ms > 0


def test_the_report_says_who_holds_what(made: Path, home: Path) -> None:
    text = (made / "report.md").read_text()
    found = read_split(made)
    trained = json.loads((home / "whole/vit_tiny.json").read_text())["vit_tiny"]["metrics"]["top1"]
    assert found.predictions["accuracy_full"] == pytest.approx(trained, abs=1e-4), "of the same images"
    assert f"| worker_1 | small | ring, square | 64 | {found.workers[1].parameters:,} |" in text
    assert found.short_hash in text and "2 bytes a feature" in text and "of the devices file: 3.50 ms" in text
    report = json.loads((made / "report.json").read_text())
    assert report["measured"]["images"] == 9 and report["split"] == found.hash
    assert set(report["own_classifier"]) == {"worker_0", "worker_1"}


def test_an_interrupted_split_goes_on_and_gives_the_same(
    made: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second worker, in the fusion, then before the graphs; what is done is not done again."""
    out, sliced = home / "again", home / "again/work/worker_0/slice/vit_tiny.safetensors"
    for call in (4, 3):
        seen = interrupt_once(monkeypatch, call)
        with pytest.raises(KeyboardInterrupt):
            split(settings(home), FLEET, out, say=lambda line: None)
        monkeypatch.undo()
    assert seen == [0, 1, 0], "the second worker's two steps, then the fusion"
    before = sliced.stat().st_mtime_ns

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write_graphs", stop)
    with pytest.raises(KeyboardInterrupt):
        split(settings(home), FLEET, out, say=lambda line: None)
    assert sliced.stat().st_mtime_ns == before
    for part in ("worker_1/slice", "worker_1", "fusion"):
        ours, theirs = (folder / "work" / part / "vit_tiny.safetensors" for folder in (out, made))
        assert ours.read_bytes() == theirs.read_bytes()
    monkeypatch.undo()
    assert split(settings(home), FLEET, out, say=lambda line: None).hash == read_split(made).hash
    assert split(settings(home), FLEET, made, say=lambda line: None).hash == read_split(made).hash, "nothing is left"
    spelled = settings(home, data=str(home / "out/../shapes"), model=str(home / "out/../whole/vit_tiny.safetensors"))
    assert split(spelled, FLEET, made, say=lambda line: None).hash == read_split(made).hash, "the same, named otherwise"
    with pytest.raises(ValueError, match="holds the work of another split; choose another --out or remove it"):
        split(settings(home, rate=0.1), FLEET, out, say=lambda line: None)


def test_other_devices_change_predictions_and_nothing_that_was_trained(made: Path, home: Path) -> None:
    out = home / "moved"
    shutil.copytree(made, out)
    slower = dataclasses.replace(LARGE, overhead=7.0)
    found, before = split(settings(home), Fleet((SMALL, slower), fusion_overhead=0.5), out, say=print), read_split(made)
    assert found.workers[0].latency_ms == pytest.approx(before.workers[0].latency_ms + 7)
    assert found.predictions["overhead_ms"] == 7.5 and found.predictions["accuracy"] == before.predictions["accuracy"]
    trained = sorted(path for path in (made / "work").rglob("*.safetensors"))
    assert trained and all(
        path.stat().st_mtime_ns == (out / path.relative_to(made)).stat().st_mtime_ns for path in trained
    )
    assert [worker.sha256 for worker in found.workers] == [worker.sha256 for worker in before.workers]


def test_one_worker_for_all_classes_has_no_others(home: Path) -> None:
    chosen = settings(home, workers=1, heads=1, tuned=False, teacher=str(home / "teacher/vit_tiny.safetensors"))
    train(small_recipe(name="teacher"), home, home / "teacher")
    found = split(chosen, Fleet((LARGE,)), home / "one", say=lambda line: None)
    assert [worker.classes for worker in found.workers] == [NAMES] and found.workers[0].device == "large"
    assert "accuracy_one_missing" not in found.predictions
    assert "The devices file states no overhead" in (home / "one/report.md").read_text()
    listed = json.loads((home / "one/work/worker_0/vit_tiny.json").read_text())["vit_tiny"]
    assert listed["options"]["labels"] == list(NAMES) and listed["options"]["heads"] == 1


def test_images_are_half_of_a_workers_own_classes(home: Path) -> None:
    dataset = ClassFolder(home / "shapes", "train")
    images = resampled(dataset, ("disc",), 7, np.random.default_rng(0))
    discs = {dataset[number].rgb.tobytes() for number in range(8)}
    rng = np.random.default_rng(1)
    assert len(images) == 7 and sum(image.tobytes() in discs for image in images) == 4
    again = resampled(dataset, ("disc",), 7, np.random.default_rng(0))
    assert all((one == other).all() for one, other in zip(images, again, strict=True))
    assert len(resampled(dataset, NAMES, 7, rng)) == 7 and len(resampled(dataset, ("disc",), 100, rng)) == 24


def test_what_cannot_be_split_is_refused(home: Path) -> None:
    with pytest.raises(ValueError, match="vit_small cannot be split: it is 'vit_small' with weights ''"):
        split(settings(home, model="vit_small"), FLEET, home / "no")
    with pytest.raises(ValueError, match="3 workers and 2 devices"):
        split(settings(home, workers=3), FLEET, home / "no")
    with pytest.raises(ValueError, match="4 heads are asked of .* which has 3"):
        split(settings(home, heads=4), FLEET, home / "no")
    with pytest.raises(ValueError, match="fastdepth_mobilenet_v2 cannot teach: it is for depth"):
        split(settings(home, teacher="fastdepth_mobilenet_v2"), FLEET, home / "no")
    with pytest.raises(ValueError, match="retrain is 0; accepted: 1 or more"):
        settings(home, retrain=0)


def test_the_commands(made: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    devices = home / "devices.yaml"
    lines = ", ".join(
        str({key: value for key, value in vars(one).items() if value is not None}) for one in FLEET.devices
    )
    devices.write_text(f"devices: [{lines}]\nfusion_overhead: 0.5")
    arguments = ["vit", "split", "--model", str(home / "whole/vit_tiny.safetensors"), "--devices", str(devices)]
    options = ["--heads", "2", "--images", "4", "--retrain", "2", "--fuse", "4", "--batch", "4", "--missing", "0.5"]
    data, figures = ["--data", str(home / "shapes")], home / "figures.json"
    assert main([*arguments, *data, "--out", str(made), *options]) == 0
    assert "# vit_tiny on 2 devices" in capsys.readouterr().out
    assert main(["vit", "eval", str(made), *data, "--features", "int8", "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    assert "features as int8" in out and "The whole network:" in out
    assert json.loads(figures.read_text())["images"] == 9
    assert main(["vit", "eval", str(home), *data]) == 1 and "no split in" in capsys.readouterr().err

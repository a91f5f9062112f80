"""A trained vision transformer split over several devices (after ED-ViT, arXiv 2410.11650).

The classes are divided among workers; for each, what matters least to the network is cut away, heads and all that
goes with them, until it fits a device; it is trained again to tell its classes from all others; and a small network
learns to make one answer of all workers' features, while some are missing. Each step leaves its file in `work/`, and a
second call goes on after the last.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from perception.engines.export import FromImage, export_graph
from perception.engines.graph import to_bytes
from perception.engines.precision import pack
from perception.engines.rewrites import simplify
from perception.engines.store import write_atomically
from perception.evaluation.class_folder import ClassDataset
from perception.evaluation.classification import ClassificationAssessment
from perception.evaluation.datasets import as_classes, open_dataset
from perception.evaluation.vit_split import Progress, evaluate
from perception.models import count_macs, count_parameters, create_model, model_config, model_options
from perception.models.registry import load_weights
from perception.models.vit import SHAPES, FusedViT, ViT
from perception.tasks.config import ModelConfig
from perception.tasks.fusion import save_fusion
from perception.tasks.image import resize
from perception.tasks.vit_split import FILE, FusionFile, Split, SplitWorker, file_sha256, read_split
from perception.training.class_data import ClassAugmentation
from perception.training.classification import OTHER, ClassificationRecipe, Teacher
from perception.training.data import Normalize, stack_images, to_unit
from perception.training.fusion import Fusing, FusionLesson, fusion_layers
from perception.training.placement import (
    Cost,
    Fleet,
    Placed,
    compute_ms,
    energy_j,
    latency_ms,
    partition,
    place,
)
from perception.training.recipe import Source, Stage, told
from perception.training.slicing import choose_units, importance, slice_state, unit_counts
from perception.training.split_report import write_report
from perception.training.train import torch_predict, train, write_entry

Say = Callable[[str], None]
AUGMENTATION = ClassAugmentation(shift=0.125, zoom=1.1, color=0.1, jpeg=0.25, cutmix=0.1)
"""Mild: what is left of a network learns rather too little than too much by heart."""


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """What is split, and how."""

    model: str
    """A trained vision transformer: registered, or a .safetensors file that training wrote."""
    data: str
    """Folder of images by class with the splits `train`, which is trained on, and `eval`, which is measured."""
    workers: int = 0
    """0: one a device, as far as there are classes."""
    heads: int = 0
    """That every worker begins with, before limits cost it some; 0: as many as all together have what the whole has."""
    images: int = 256
    """By which is measured what matters; half of them are of a worker's own classes."""
    retrain: int = 300
    """Steps of training a worker again: few, as it learns on with the fusion network."""
    fuse: int = 6000
    """Steps of training the fusion network."""
    tuned: bool = True
    """Whether the workers learn on with the fusion network."""
    hidden: int = 256
    """Width of the fusion network between features and classes."""
    missing: float = 0.5
    """Share of the images in its training that lack one worker's features or two's."""
    knows: float = 1.0
    """How much a worker learns of the classes that are not its own; see `ClassificationRecipe`."""
    teacher: str = ""
    """A trained classifier from which workers and fusion learn, given as `model` is; empty: the network that is split.
    """
    rate: float = 5e-4
    batch: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("workers", "heads"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted: 1 or more, or 0 to let it be chosen")
        for name in ("images", "retrain", "fuse", "hidden", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; accepted: 1 or more")
        if not 0 <= self.missing <= 1:
            raise ValueError(f"missing is {self.missing}; it is a share and must lie between 0 and 1")


class Whole:
    """The network that is split.

    Raises:
        ValueError: no trained vision transformer.
    """

    def __init__(self, model: str) -> None:
        self.model, self.config = model, model_config(model)
        self.name = self.config.name
        if self.name not in SHAPES or not self.config.weights:
            raise ValueError(
                f"{model} cannot be split: it is {self.name!r} with weights {self.config.weights!r}; name a trained "
                f"{', '.join(SHAPES)}"
            )
        self.options = model_options(model)
        self.heads = int(self.options.get("heads", SHAPES[self.name].heads))

    def part(self, heads: int, **options: Any) -> ViT:
        """A network like it, with so many heads, and random weights."""
        built = create_model(self.name, False, self.config.input_size, **self.options | {"heads": heads} | options)
        assert isinstance(built, ViT)
        return built

    def cost(self, heads: int, **options: Any) -> Cost:
        """Of a worker with so many heads."""
        with torch.device("meta"):
            part = self.part(heads, **{"classifies": False} | options)
        return Cost(count_parameters(part), count_macs(part, self.config.input_size), unit_counts(part)["width"])

    def accuracy(self, dataset: ClassDataset) -> float:
        """Top-1 on a data set."""
        model = torch_predict(create_model(self.model), self.config)
        return ClassificationAssessment().score(model, self.config, dataset, dataset)["top1"]


def split(
    settings: SplitSettings,
    fleet: Fleet,
    out: Path,
    device: str = "cpu",
    say: Say = print,
    show: Progress | None = None,
) -> Split:
    """Split a network, or do what is left of it; the folder `out` is then what nodes read.

    With the same arguments the result is the same, whether or not it was interrupted. With other devices on which the
    same workers fit, nothing is trained again: graphs and report are made anew.

    Raises:
        ValueError: no such model or data, limits that cannot be met, or `out` holds another split's work.
    """
    whole = Whole(settings.model)
    Teacher.check(settings.teacher, whole.config.labels)
    data = Path(settings.data).resolve()
    training = as_classes(open_dataset(data, "train", task="classification"))
    final = as_classes(open_dataset(data, "eval", task="classification"))
    count = settings.workers or min(len(fleet.devices), len(whole.config.labels))
    if count > len(fleet.devices):
        raise ValueError(f"{count} workers and {len(fleet.devices)} devices; a device runs one worker")
    groups = partition(whole.config.labels, count)
    heads = settings.heads or -(-whole.heads // count)
    if heads > whole.heads:
        raise ValueError(f"{heads} heads are asked of {settings.model}, which has {whole.heads}")
    placed = place(groups, fleet, heads, functools.cache(whole.cost), say)
    work = out / "work"
    _bind(work / "plan.json", settings, whole, placed)
    _note_devices(work / "devices.json", fleet, out / FILE)
    if (out / FILE).is_file():  # which is written last
        return read_split(out)
    weights = []
    for number, part in enumerate(placed):
        say(f"worker_{number}: {', '.join(part.classes)}; {part.heads} of {whole.heads} heads, on {part.device.name}")
        weights.append(_worker(whole, part, number, training, settings, work / f"worker_{number}", device))
    say("fusion")
    fused = _fused(whole, weights, settings, work / "fusion", device)
    found = _write_graphs(whole, fused, placed, out)
    scores = evaluate(found, final, progress=show)
    alone = [
        json.loads(path.with_suffix(".json").read_text())[whole.name]["metrics"]["mean_accuracy"] for path in weights
    ]
    say("the whole network, for comparison")
    predictions = scores.summary() | predict(whole, placed, fleet, fused) | {"accuracy_full": whole.accuracy(final)}
    found = dataclasses.replace(found, predictions={name: round(value, 6) for name, value in predictions.items()})
    write_report(out, found, scores, dict(zip((worker.name for worker in found.workers), alone, strict=True)), fleet)
    write_atomically(out / FILE, found.text.encode())
    return found


def _bind(path: Path, settings: SplitSettings, whole: Whole, placed: list[Placed]) -> None:
    """Write down what the work belongs to, or refuse to go on with that of something else."""
    # However networks and data are named, they are these.
    plain = dataclasses.replace(settings, model="", teacher="", data=str(Path(settings.data).resolve()))
    text = json.dumps(
        {
            "settings": told(plain),
            "weights": whole.config.weights_sha256,
            "teacher": model_config(settings.teacher or settings.model).weights_sha256,
            "workers": [{"classes": part.classes, "heads": part.heads} for part in placed],
        },
        indent=1,
    )
    if path.is_file() and path.read_text() != text:
        raise ValueError(f"{path.parent} holds the work of another split; choose another --out or remove it")
    write_atomically(path, text.encode())


def _note_devices(path: Path, fleet: Fleet, result: Path) -> None:
    """Write down for which devices predictions are made, and drop a result that was made for others."""
    text = json.dumps(dataclasses.asdict(fleet), indent=1)
    if path.is_file() and path.read_text() != text:
        result.unlink(missing_ok=True)
    write_atomically(path, text.encode())


def _worker(
    whole: Whole, part: Placed, number: int, training: ClassDataset, settings: SplitSettings, out: Path, device: str
) -> Path:
    """The weights of a worker that was cut out and trained again."""
    done = out / f"{whole.name}.safetensors"
    if done.with_suffix(".json").is_file():  # which training writes last
        return done
    gathers = len(part.classes) < len(whole.config.labels)
    labels = (OTHER, *part.classes) if gathers else part.classes
    start = out / "slice" / f"{whole.name}.safetensors"
    # A slice has so few channels left that going round its blocks would only keep it from learning.
    network = {key: value for key, value in whole.options.items() if key not in ("labels", "drop")}
    network["heads"] = part.heads
    if not start.with_suffix(".json").is_file():
        rng = np.random.default_rng((settings.seed, number))
        _slice(whole, part, labels, resampled(training, part.classes, settings.images, rng), start, device)
    recipe = _recipe(
        f"worker_{number}", whole, settings, settings.retrain,
        labels=labels, others="gather" if gathers else "refuse", network=network, weights=str(start),
        knows=settings.knows,
    )  # fmt: skip
    return train(recipe, Path(), out, device)


def _recipe(name: str, whole: Whole, settings: SplitSettings, steps: int, **fields: Any) -> ClassificationRecipe:
    """What all training of a split has in common."""
    return ClassificationRecipe(
        name=name,
        model=whole.name,
        sources=(Source(str(Path(settings.data).resolve())),),
        evaluate=str(Path(settings.data).resolve()),
        stages=(Stage(steps, whole.config.input_size, settings.batch),),
        data_licence=whole.config.data_licence,
        augmentation=AUGMENTATION,
        teacher=settings.teacher or whole.model,
        remembered=True,
        temperature=2.0,
        rate=settings.rate,
        weight_decay=0.02,
        warmup=min(100, steps // 10),
        average=0.998,
        bfloat16=True,
        seed=settings.seed,
        **fields,
    )


def resampled(
    dataset: ClassDataset, classes: tuple[str, ...], count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """So many images, half of them of some classes and half of all others; fewer where there are not so many."""
    own = [dataset.labels.index(name) for name in classes]
    wanted = {True: -(-count // 2), False: count // 2} if len(own) < len(dataset.labels) else {True: count, False: 0}
    found = []
    for number in rng.permutation(len(dataset)):
        if not any(wanted.values()):
            break
        frame = dataset[int(number)]
        if wanted[frame.label in own]:
            wanted[frame.label in own] -= 1
            found.append(frame.rgb)
    return found


def _slice(
    whole: Whole, part: Placed, labels: tuple[str, ...], images: list[np.ndarray], path: Path, device: str
) -> None:
    """Write the weights of what is left of the whole network for some classes."""
    model = create_model(whole.model).to(device)
    assert isinstance(model, ViT)
    batch = to_unit(stack_images([resize(image, whole.config.input_size, "area") for image in images]))
    found = importance(model, Normalize(whole.config)(batch).to(device))
    units = choose_units(found, unit_counts(model, part.heads))
    rows = torch.zeros(len(labels), len(whole.config.labels))
    for place_, name in enumerate(whole.config.labels):
        rows[labels.index(name) if name in labels else labels.index(OTHER), place_] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(slice_state(model.cpu(), units, rows), path)
    options = whole.options | {"heads": part.heads, "labels": labels}
    write_entry(path, whole.name, {"input_size": whole.config.input_size, "options": options, "data_licence": "-"})


def _fused(whole: Whole, weights: list[Path], settings: SplitSettings, out: Path, device: str) -> FusedViT:
    """The fusion network with its workers, trained."""
    path = out / f"{whole.name}.safetensors"
    fusing = Fusing(tuple(map(str, weights)), (settings.hidden,), settings.missing, settings.tuned)
    network = {key: value for key, value in whole.options.items() if key != "labels"}
    recipe = _recipe("fusion", whole, settings, settings.fuse, labels=whole.config.labels, network=network)
    lesson = FusionLesson.of(recipe, fusing, out)
    if not path.with_suffix(".json").is_file():  # which training writes last
        train(recipe, Path(), out, device, lesson)
    fused = lesson.build()
    load_weights(fused, path)
    return fused.eval()


def _write_graphs(whole: Whole, fused: FusedViT, placed: list[Placed], out: Path) -> Split:
    """Write each worker's graph and the fusion network; the split without predictions."""
    workers = []
    for number, part in enumerate(placed):
        name = f"worker_{number}"
        path = out / f"{name}.onnx"
        model = fused.workers[number]
        config = _worker_config(whole, part, name)
        graph = simplify(export_graph(FromImage(model, config).eval(), config))
        write_atomically(path, to_bytes(pack(graph)))
        workers.append(
            SplitWorker(
                name=name,
                device=part.device.name,
                classes=part.classes,
                graph=path.name,
                sha256=file_sha256(path),
                features=part.cost.features,
                parameters=part.cost.parameters,
                macs=part.cost.macs,
                bytes=path.stat().st_size,
                latency_ms=round(latency_ms(part.device, part.cost), 4),
                energy_j=round(energy_j(part.device, part.cost), 6),
            )
        )
    path = out / "fusion.npz"
    save_fusion(path, fusion_layers(fused))
    fusion = FusionFile(path.name, file_sha256(path))
    return Split(whole.name, whole.config.labels, tuple(workers), fusion, {}, out)


def _worker_config(whole: Whole, part: Placed, name: str) -> ModelConfig:
    options = whole.options | {"heads": part.heads, "classifies": False, "labels": part.classes}
    config = model_config(whole.name, whole.config.input_size, **options)
    return config.replace(
        name=f"{whole.name}_{name}", weights=f"{name}.onnx", weights_sha256="", metrics={},
        data_licence=whole.config.data_licence,
    )  # fmt: skip


def predict(whole: Whole, placed: list[Placed], fleet: Fleet, fused: FusedViT) -> dict[str, float]:
    """Milliseconds and joules of an image, and how much smaller parts are than the whole.

    The answer is there when the last features have arrived and are fused; `overhead` is the part of that which does not
    hang on what is computed; `full` is the whole network on the fastest device, which need not have the memory for it.
    """
    full = whole.cost(whole.heads, classifies=True)
    fusion = fleet.fusion_ms(sum(layer.weight.numel() for layer in fused.layers))
    slowest = max(placed, key=lambda part: latency_ms(part.device, part.cost))
    full_ms = fleet.fastest.overhead + compute_ms(fleet.fastest, full.macs)
    return {
        "latency_ms": latency_ms(slowest.device, slowest.cost) + fusion,
        "overhead_ms": slowest.device.overhead + fleet.fusion_overhead,
        "fusion_ms": fusion,
        "energy_j": sum(energy_j(part.device, part.cost) for part in placed) + fleet.fusing.watts * fusion / 1e3,
        "latency_full_ms": full_ms,
        "energy_full_j": fleet.fastest.watts * full_ms / 1e3,
        "times_smaller_largest": full.parameters / max(part.cost.parameters for part in placed),
        "times_smaller_sum": full.parameters / sum(part.cost.parameters for part in placed),
        "times_fewer_macs_largest": full.macs / max(part.cost.macs for part in placed),
    }

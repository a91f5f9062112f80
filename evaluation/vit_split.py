"""A split vision transformer against the truth: all workers, each alone, without any one or two, and how long it takes.

Through what nodes run: each worker's graph, features as they travel, and the fusion network in NumPy.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from perception.engines.source import open_source
from perception.evaluation.class_folder import ClassDataset
from perception.evaluation.tables import percent, table
from perception.tasks.features import Features, decode_features, encode_features
from perception.tasks.fusion import Fusion, load_fusion
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, preprocess
from perception.tasks.vit_split import Split

Item = TypeVar("Item")
Progress = Callable[[Iterable[Item], str], Iterable[Item]]
SUBSETS = 10
"""So many choices of three workers or more are tried, at random, that do not answer."""
TIMED = 300
"""Runs of the fusion network that are timed."""


@dataclass(frozen=True)
class SplitScores:
    """Shares of right answers, and milliseconds of this machine (medians, one image after another).

    `alone`: with only that worker, of all images, and of those of its own classes; `one_missing` and `two_missing`: by
    the names of the workers that do not answer; `more_missing`: by how many do not, three or more, the mean of some
    choices of them; `compute_ms`: of each worker's graph, in ONNX Runtime; `fusion_ms`.
    """

    images: int
    accuracy: float
    one_missing: dict[str, float] = field(default_factory=dict)
    two_missing: dict[str, float] = field(default_factory=dict)
    more_missing: dict[int, float] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)
    own_classes: dict[str, float] = field(default_factory=dict)
    by_class: dict[str, float] = field(default_factory=dict)
    compute_ms: dict[str, float] = field(default_factory=dict)
    fusion_ms: float = float("nan")

    def summary(self) -> dict[str, float]:
        """Accuracies, means and worst cases, by the names that split.json has for them."""
        found = {"accuracy": self.accuracy}
        for name, values in (("one_missing", self.one_missing), ("two_missing", self.two_missing)):
            if values:
                found[f"accuracy_{name}"] = float(np.mean(list(values.values())))
                found[f"accuracy_{name}_worst"] = min(values.values())
        found |= {f"accuracy_without_{name}": value for name, value in self.one_missing.items()}
        return found | {f"accuracy_{count}_missing": value for count, value in self.more_missing.items()}


def evaluate(
    split: Split,
    dataset: ClassDataset,
    kind: str = "float16",
    limit: int | None = None,
    progress: Progress | None = None,
) -> SplitScores:
    """Measure a split on a data set.

    Args:
        kind: as what features travel; see `encode_features`.
        limit: only so many images, evenly spread: those of a class come one after another.
        progress: shows what is being gone through, such as `tqdm`.

    Raises:
        ValueError: a file of the split is missing, or the data set has other classes.
    """
    if missing := sorted(set(split.labels) - set(dataset.labels)):
        raise ValueError(f"{dataset.name} does not have the classes {', '.join(missing)} of the split {split.folder}")
    count = len(dataset) if limit is None else min(limit, len(dataset))
    show: Progress = progress or (lambda items, _: items)
    places = {place: split.labels.index(name) for place, name in enumerate(dataset.labels) if name in split.labels}
    chosen = [number * len(dataset) // count for number in range(count)]
    frames = [frame for frame in (dataset[number] for number in show(chosen, "read")) if frame.label in places]
    if not frames:
        raise ValueError(f"{dataset.name} has no image of the split's classes")
    truth = np.array([places[frame.label] for frame in frames])
    features: dict[str, list[np.ndarray]] = {}
    times: dict[str, list[float]] = {}
    for worker in split.workers:
        source = open_source(str(split.graph_path(worker)))
        images = [Image(frame.rgb, "rgb8") for frame in frames]
        inputs = [preprocess(image, source.config, Fit.of(image.size, source.config)) for image in images]
        features[worker.name], times[worker.name] = [], []
        before = time.perf_counter()
        for outputs in show(source.reference(inputs), worker.name):
            times[worker.name].append(1e3 * (time.perf_counter() - before))
            sent = encode_features(Features(outputs["features"][0], worker.name, split.short_hash), kind)
            features[worker.name].append(decode_features(*sent).values)
            before = time.perf_counter()
    return _scores(split, truth, features, times, show)


def _scores(
    split: Split,
    truth: np.ndarray,
    features: Mapping[str, list[np.ndarray]],
    times: Mapping[str, list[float]],
    show: Progress,
) -> SplitScores:
    fusion, names = load_fusion(split), [worker.name for worker in split.workers]

    def answers(missing: Sequence[str] = ()) -> np.ndarray:
        parts = [[None] * len(truth) if name in missing else features[name] for name in names]
        return np.array([int(fusion(row).scores.argmax()) for row in zip(*parts, strict=True)])

    def accuracy(missing: Sequence[str] = ()) -> float:
        return float((answers(missing) == truth).mean())

    found = answers()
    several = len(names) > 1
    alone, own = {}, {}
    for worker in split.workers:
        said = answers([name for name in names if name != worker.name])
        mine = np.isin(truth, [split.labels.index(name) for name in worker.classes])
        alone[worker.name] = float((said == truth).mean())
        own[worker.name] = float((said == truth)[mine].mean()) if mine.any() else float("nan")
    pairs = list(itertools.combinations(names, 2)) if len(names) > 2 else []
    return SplitScores(
        images=len(truth),
        accuracy=float((found == truth).mean()),
        one_missing={name: accuracy([name]) for name in show(names, "one missing")} if several else {},
        two_missing={" ".join(pair): accuracy(pair) for pair in show(pairs, "two missing")},
        more_missing={
            count: float(np.mean([accuracy(chosen) for chosen in _choices(names, count)]))
            for count in show(range(3, len(names)), "more missing")
        },
        alone=alone,
        own_classes=own,
        by_class={
            name: float((found == truth)[truth == place].mean())
            for place, name in enumerate(split.labels)
            if (truth == place).any()
        },
        compute_ms={name: float(np.median(values)) for name, values in times.items()},
        fusion_ms=_fusion_ms(fusion, [features[name][0] for name in names]),
    )


def _choices(names: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """All choices of so many names, or `SUBSETS` of them."""
    found = list(itertools.combinations(names, count))
    if len(found) <= SUBSETS:
        return found
    places = np.random.default_rng(count).choice(len(found), SUBSETS, replace=False)
    return [found[place] for place in sorted(places.tolist())]


def _fusion_ms(fusion: Fusion, features: Sequence[np.ndarray]) -> float:
    times = []
    for _ in range(TIMED):
        before = time.perf_counter()
        fusion(features)
        times.append(1e3 * (time.perf_counter() - before))
    return float(np.median(times))


def told_scores(split: Split, scores: SplitScores) -> str:
    """The figures in Markdown."""
    summary = scores.summary()
    lines = [("all workers", percent(scores.accuracy), "-")]
    for name, word in (("one_missing", "any one missing"), ("two_missing", "any two missing")):
        if f"accuracy_{name}" in summary:
            lines.append((word, percent(summary[f"accuracy_{name}"]), percent(summary[f"accuracy_{name}_worst"])))
    lines += [(f"{count} missing", percent(value), "-") for count, value in scores.more_missing.items()]
    head = ("worker", "device", "classes", "alone", "of these, its own classes", "without it", "ms here")
    workers = [
        (
            worker.name,
            worker.device,
            ", ".join(worker.classes),
            percent(scores.alone[worker.name]),
            percent(scores.own_classes[worker.name]),
            percent(scores.one_missing[worker.name]) if scores.one_missing else "-",
            f"{scores.compute_ms[worker.name]:.2f}",
        )
        for worker in split.workers
    ]
    classes = [(name, percent(value)) for name, value in scores.by_class.items()]
    return (
        f"Of {scores.images} images, top-1. Alone: the fusion network with that worker's features only.\n\n"
        + table(("", "accuracy", "worst"), lines)
        + "\n\n"
        + table(head, workers)
        + "\n\n"
        + table(("class", "accuracy"), classes)
        + f"\n\nFusion on this machine: {scores.fusion_ms:.3f} ms. Milliseconds here are medians of ONNX Runtime in "
        "float32, one image after another, on all cores."
    )


def public(scores: SplitScores) -> dict[str, Any]:
    """The figures as plain data."""
    return dict(vars(scores)) | {"summary": scores.summary()}

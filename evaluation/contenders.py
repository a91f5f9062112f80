"""The engines that are evaluated: which ones a command means, getting them, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception import engines
from perception.engines import Engine, EngineError
from perception.engines.key import DESCRIPTIONS
from perception.engines.runtimes import PRECISIONS, RUNTIMES, Progress, get_runtime
from perception.engines.store import Record, Store
from perception.evaluation.judge import find_judge
from perception.tasks import typical_inputs
from perception.tasks.config import WEIGHTS_SUFFIX

REFERENCES = (("torch", "fp32"), ("onnxruntime", "fp32"))
"""What the others are held against; the second one where a model is an ONNX file, which torch does not run."""


@dataclass(frozen=True)
class Contender:
    """A model with the runtime and precision it shall run in; "auto" as in `engines.load`."""

    model: str
    target: str = "auto"
    precision: str = "auto"


def contenders(models: Sequence[str], choices: Sequence[str], precision: str = "auto") -> list[Contender]:
    """Every model with every choice: "TARGET[:PRECISION]", or "all": every runtime and precision of this machine, the
    float32 reference first.

    Args:
        precision: of the choices that name none.

    Raises:
        ValueError: an unknown runtime or precision.
    """
    pairs: list[tuple[str, str]] = []
    for choice in choices or ["auto"]:
        target, _, named = choice.partition(":")
        if target not in ("auto", "all", *RUNTIMES) or (named or precision) not in ("auto", *PRECISIONS):
            raise ValueError(
                f"engine {choice!r} is unknown; accepted: all, auto or TARGET[:PRECISION] with a target out of "
                f"{', '.join(RUNTIMES)} and a precision out of {', '.join(PRECISIONS)}"
            )
        pairs += _possible(named or precision) if target == "all" else [(target, named or precision)]
    return [Contender(model, *pair) for model in models for pair in dict.fromkeys(pairs)]


def short_name(model: str, taken: dict[str, str]) -> str:
    """What tables call a model: a file by its stem, with its folder or the whole path where another one is called so.

    Args:
        taken: names to models, those of before; this one's is added.
    """
    path = Path(model)
    if path.suffix not in (".onnx", *DESCRIPTIONS, WEIGHTS_SUFFIX):
        return model
    names = path.stem, f"{path.parent.name}/{path.stem}"
    return next((name for name in names if taken.setdefault(name, model) == model), model)


def _possible(precision: str) -> list[tuple[str, str]]:
    """All pairs of this machine; a runtime that is not installed stays, so that the report says why."""
    pairs = []
    for target in sorted(RUNTIMES, key=lambda name: name != REFERENCES[0][0]):
        try:
            found = get_runtime(target).precisions()
        except EngineError:
            found = ("auto",)
        pairs += [(target, name) for name in found if precision in ("auto", name) or name == "auto"]
    return pairs


def obtain(
    contender: Contender, directory: Path, threads: int, progress: Progress, frames: Path | None = None
) -> Engine:
    """The engine, which is built if none that fits was built before, and run once.

    What auto chooses is what a robot runs: it is built as `perception engines build` does, with its check of accuracy.
    An engine that was named is only to be measured, and might fail that check; it goes to `directory`.

    Args:
        frames: folder of images by which one that is built gets its parity and its int8 scales; None: the shipped clip.

    Raises:
        EngineError: it cannot be built here, or is of a model without weights.
    """
    what = (contender.model, contender.target, contender.precision)
    is_choice = contender.target == "auto"
    where = None if is_choice else directory
    try:
        engine = _load(what, threads, where)
        if frames:
            progress(f"{contender.model} on {engine.info['target']} was built before: {frames} is not used for it")
    except EngineError as error:
        progress(f"building, because {error}")
        judge = find_judge if is_choice else None
        for part in engines.part_names(contender.model, directory=where):
            engines.build(*what, directory=where, frames=frames, judge=judge, part=part, progress=progress)
        engine = engines.load_whole(*what, threads, where)
    if not engine.trained:
        engine.close()
        raise EngineError(f"{contender.model} has no weights yet, so there is nothing to measure; train it first")
    image = np.zeros((1, *engine.config.input_size, 3), np.uint8)
    engine.run({"image": image} | typical_inputs(engine.config, 0) if engine.config.more_inputs else image)
    return engine


def _load(what: tuple[str, str, str], threads: int, directory: Path | None) -> Engine:
    """From the robot's own store, else from `directory`."""
    try:
        return engines.load_whole(*what, threads)
    except EngineError:
        if directory is None:
            raise
        return engines.load_whole(*what, threads, directory)


def facts(engine: Engine, directory: Path) -> dict[str, Any]:
    """What results are bound to and reports print: `engine.info`, the whole `key`, `identity` (SHA-256 of the weights
    or model file) and `bytes`, the size of the compiled engine, or of those of all parts; None where no store has it
    any more.
    """
    known: dict[str, Any] = dict(engine.info) | {"identity": engine.config.weights_sha256, "bytes": None}
    stored = [
        (record, (store.directory / record.plan).stat().st_size)
        for part in engine.parts
        for store in (Store(), Store(directory))
        for record in store.records().values()
        if isinstance(record, Record) and record.short_key == part.info["key"]
    ]
    found = {record.short_key: (record, size) for record, size in reversed(stored)}
    if len(found) < len(engine.parts):
        return known
    records, sizes = zip(*(found[part.info["key"]] for part in engine.parts), strict=True)
    key = " ".join(record.key.digest() for record in records)
    return known | {"key": key, "identity": records[0].key.source, "bytes": sum(sizes)}

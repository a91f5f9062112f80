"""Loading and running a built engine. Neither torch nor onnx nor the model definitions are imported here."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from perception.engines.errors import EngineError
from perception.engines.key import file_identity, make_key
from perception.engines.runtimes import RUNTIMES, Frame, Runtime, Session, by_name, get_runtime
from perception.engines.store import Record, Store
from perception.tasks.config import WEIGHTS_SUFFIX, ModelConfig

Runtimes = Mapping[str, Callable[[], Runtime]]


class Engine:
    """A loaded engine. One thread uses it at a time, not necessarily the one that loaded it."""

    def __init__(self, record: Record, session: Session, threads: int, load_seconds: float) -> None:
        self.config: ModelConfig = record.config
        self.info: dict[str, str] = {
            "model": " ".join(filter(None, (record.config.name, record.config.part))),
            "target": record.key.runtime,
            "runtime": f"{record.key.runtime} {record.key.version}",
            "precision": record.key.precision,
            "key": record.short_key,
            "threads": str(threads or "all"),
            "device": session.device,
            "load_s": f"{load_seconds:.3f}",
        }
        """For diagnostics: model (and part), target, runtime with its version, precision, key (short), threads, device,
        and the seconds that loading took."""
        self.chosen = record.chosen > 0
        """Whether `build --target auto` chose this engine; otherwise it was built by name, and others may be faster."""
        self.trained = bool(record.config.weights) or record.model.endswith(".onnx")
        """Whether what it says means something: a registered model may be without weights, an ONNX file has its own."""
        self._session: Session | None = session

    @property
    def parts(self) -> tuple[Engine, ...]:
        """The engines that it consists of: itself."""
        return (self,)

    def run(self, frame: Frame) -> dict[str, np.ndarray]:
        """Run the network once.

        Args:
            frame: uint8 (1, height, width, 3) as `perception.tasks.image.preprocess` makes it; or every input by name,
                as the config has them.

        Returns:
            Arrays by output name, as the config has them. They are buffers of the engine: the next `run` overwrites
            them, `close` frees them. Copy what must live longer.

        Raises:
            EngineError: closed, or arrays of other names, shapes or dtypes.
        """
        if self._session is None:
            raise EngineError(f"engine {self.config.name!r} is closed; load it again")
        self._check(frame)
        return self._session.run(frame)

    @cached_property
    def _accepted(self) -> dict[str, tuple[tuple[int, ...], str]]:
        return {tensor.name: (tensor.shape, tensor.dtype) for tensor in self.config.inputs}

    def _check(self, frame: Frame) -> None:
        given = {name: (array.shape, array.dtype.name) for name, array in by_name(frame).items()}
        if given != self._accepted:
            raise EngineError(
                f"engine {self.config.name!r} was given {_words(given)}; accepted is {_words(self._accepted)}, images "
                "as perception.tasks.image.preprocess makes them"
            )

    def close(self) -> None:
        """Free everything. A second call does nothing."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WholeEngine(Engine):
    """The engines of all parts of a network as one, which runs them in turn: what harnesses take, that look at a frame
    once."""

    def __init__(self, parts: Sequence[Engine]) -> None:
        self._parts = tuple(parts)
        configs = [part.config for part in parts]
        outputs = {tensor.name: tensor for config in configs for tensor in config.outputs}
        inputs = {tensor.name: tensor for config in configs for tensor in config.more_inputs}
        self.config = configs[0].replace(
            part="",
            sees=any(config.sees for config in configs),
            more_inputs=tuple(tensor for name, tensor in inputs.items() if name not in outputs),
            outputs=tuple(outputs.values()),
        )
        told = {name: list(dict.fromkeys(part.info[name] for part in parts)) for name in parts[0].info}
        self.info = {name: " and ".join(values) for name, values in told.items()} | {"model": self.config.name}
        self.chosen = all(part.chosen for part in parts)
        self.trained = all(part.trained for part in parts)

    @property
    def parts(self) -> tuple[Engine, ...]:
        """Those of the parts, in turn."""
        return self._parts

    def run(self, frame: Frame) -> dict[str, np.ndarray]:
        """See `Engine.run`; all outputs of all parts."""
        self._check(frame)
        known = dict(by_name(frame))
        for part in self._parts:
            known |= part.run({tensor.name: known[tensor.name] for tensor in part.config.inputs})
        return {tensor.name: known[tensor.name] for tensor in self.config.outputs}

    def close(self) -> None:
        """See `Engine.close`."""
        for part in self._parts:
            part.close()


def _words(tensors: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{name} {dtype} of shape {shape}" for name, (shape, dtype) in tensors.items()) or "nothing"


def load(
    model: str,
    target: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    directory: Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    part: str = "",
    runtimes: Runtimes = RUNTIMES,
) -> Engine:
    """Load an engine that was built before. Nothing is ever built here.

    Args:
        model: registered name, or the path of the ONNX file that the engine was built from.
        target, precision: names; "auto" takes what `build --target auto` chose last, else the fastest that was built.
        threads: CPU threads of the engine; 0: all cores.
        directory: of the engines; None: $PERCEPTION_ENGINES or ~/.cache/perception/engines.
        size: (height, width); needed only where engines of several sizes were built.
        part: of a network that has parts, each of which is an engine.

    Raises:
        EngineError: not built, stale, cut short, of another machine, or not loadable. The message says which command
            builds it.
    """
    start = time.perf_counter()
    if threads < 0:
        raise EngineError(f"threads is {threads}; accepted: 0 for all cores, or a positive number")
    store = Store(directory)
    built = _matching(store, model, target, precision, size, part)
    command = build_command(model, target, precision, size)
    wanted = f"{model!r} ({part and f'part {part}, '}target {target}, precision {precision})"
    if not built:
        raise EngineError(f"no engine for {wanted} in {store.directory}; {_hint(model)}build it: {command}")
    if len({record.config.input_size for record in built}) > 1:
        sizes = sorted({"x".join(map(str, record.config.input_size)) for record in built})
        raise EngineError(f"engines of {model!r} for {' and '.join(sizes)} were built; say which size is meant")
    record = next((record for record in built if stale(record, runtimes) is None), None)
    if record is None:
        reason = stale(built[0], runtimes)
        raise EngineError(f"the engine for {wanted} is stale: {reason}; build it: {command}")
    try:
        session = get_runtime(record.key.runtime, runtimes).load(
            store.plan(record), record.config, record.key.precision, threads
        )
    except EngineError as error:
        raise EngineError(f"{error}: {command}") from error
    return Engine(record, session, threads, time.perf_counter() - start)


def load_whole(
    model: str, target: str = "auto", precision: str = "auto", threads: int = 0, directory: Path | None = None
) -> Engine:
    """`load`, and of a network that has parts the engines of all of them as one."""
    names = built_parts(model, directory)
    if len(names) < 2:
        return load(model, target, precision, threads, directory, part=names[0] if names else "")
    with ExitStack() as stack:
        parts = [stack.enter_context(load(model, target, precision, threads, directory, part=name)) for name in names]
        stack.pop_all()
    return WholeEngine(parts)


def built_parts(model: str, directory: Path | None = None) -> list[str]:
    """Names of the parts of a model of which engines were built; [""] if it has none, and [] if nothing was built."""
    try:
        built = _matching(Store(directory), model, "auto", "auto", None, None)
    except EngineError:
        return []
    return [part.name for part in built[0].config.parts] or [""] if built else []


def build_command(
    model: str, target: str = "auto", precision: str = "auto", size: tuple[int, int] | None = None
) -> str:
    """The shell command that builds an engine."""
    words = ["perception engines build", model]
    words += [f"--target {target}"] + ([f"--precision {precision}"] if precision != "auto" else [])
    return " ".join(words + ([f"--size {size[0]}x{size[1]}"] if size else []))


def _hint(model: str) -> str:
    """What is wrong with a model that nothing was built from, as far as that can be told without building."""
    if model.endswith(".onnx") and not Path(model).is_file():
        return f"there is no file {model} either; put it there and "
    return ""


def _matching(
    store: Store, model: str, target: str, precision: str, size: tuple[int, int] | None, part: str | None
) -> list[Record]:
    """Records of a model, the one to take first. An unreadable file counts only where no other engine fits."""
    found: list[Record] = []
    broken: list[EngineError] = []
    name = str(Path(model).resolve()) if Path(model).is_file() else model
    identity = file_identity(Path(model)) if Path(model).is_file() else None
    for path, record in store.records().items():
        if isinstance(record, EngineError):
            if path.name.startswith(f"{Path(model).stem}-"):
                broken.append(record)
            continue
        fits = name == record.model or (identity is not None and identity == record.key.source)
        if (
            fits
            and target in ("auto", record.key.runtime)
            and precision in ("auto", record.key.precision)
            and size in (None, record.config.input_size)
            and part in (None, record.config.part)
        ):
            found.append(record)
    if broken and not found:
        raise EngineError(f"{broken[0]}: {build_command(model, target, precision, size)}")
    return sorted(found, key=lambda record: (-record.chosen, record.milliseconds))


def stale(record: Record, runtimes: Runtimes = RUNTIMES) -> str | None:
    """What has changed since an engine was built, in words; None if nothing has.

    The graph is not made again for this: that its weights are still the shipped ones is told by `source`.
    """
    try:
        runtime = get_runtime(record.key.runtime, runtimes)
    except EngineError as error:
        return str(error)
    now = make_key(
        runtime,
        record.key.precision,
        record.config,
        source=_current_source(record),
        graph=record.key.graph,
        calibration=record.key.calibration,
        float_layers=record.key.float_layers,
    )
    return record.key.difference(now) or _lens_difference(record)


def _current_source(record: Record) -> str:
    """SHA-256 of what the engine would be built from now; the record's own where that is not on this machine."""
    path = Path(record.model)
    if path.is_absolute():
        return (file_identity(path) if path.is_file() else None) or record.key.source
    entry = _listed(record)
    return record.key.source if entry is None else str(entry.get("weights_sha256", ""))


def _lens_difference(record: Record) -> str | None:
    """What the list of weights says otherwise of the lens than the engine's config: no part of the compiled graph, and
    yet what metres mean."""
    entry = _listed(record)
    if not entry:
        return None
    focal = tuple(entry["focal"]) if entry.get("focal") else None
    for name, now in (("focal", focal), ("pads_narrow_views", entry.get("pads_narrow_views", False))):
        was = getattr(record.config, name)
        if was != now:
            return f"{name} was {was} when it was built and is {now} now"
    return None


def _listed(record: Record) -> dict[str, Any] | None:
    """What is listed of the model's weights; None for an ONNX file, and where the list is not on this machine."""
    path = Path(record.model)
    if path.is_absolute():
        beside = path.with_suffix(".json")
        if path.suffix != WEIGHTS_SUFFIX or not beside.is_file():
            return None
        return next(iter(json.loads(beside.read_text()).values()))
    package = importlib.util.find_spec("perception.models")
    for folder in package.submodule_search_locations or () if package else ():
        listed = Path(folder) / "weights" / "weights.json"
        if listed.is_file():
            return json.loads(listed.read_text()).get(record.model, {})
    return None

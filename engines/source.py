"""Where engines come from: a registered model, or an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import onnx

from perception.engines.errors import EngineError
from perception.engines.graph import extract_part, read, read_config
from perception.engines.key import DESCRIPTIONS, sha256
from perception.engines.precision import is_float32, unpack
from perception.engines.rewrites import simplify
from perception.engines.runtimes import Frame, by_name
from perception.tasks import typical_inputs
from perception.tasks.config import WEIGHTS_SUFFIX, ModelConfig

if TYPE_CHECKING:
    import onnxruntime as ort


class Source(Protocol):
    """A float32 definition and what engines need of it."""

    model: str
    """Name, or absolute path."""
    whole: ModelConfig
    """Of the network with all of its parts."""
    config: ModelConfig
    """Of what engines are built of here: the network, or one part of it."""
    identity: str
    """SHA-256 of the weights or of the file."""
    formats: tuple[Literal["onnx", "torch"], ...]

    def of_part(self, name: str) -> Source:
        """The same network's part of this name; raises EngineError where there is none."""

    def plain(self) -> onnx.ModelProto:
        """The float32 graph as it came."""

    def graph(self) -> onnx.ModelProto:
        """The float32 graph that engines are built from; same results as `plain`."""

    def program(self) -> bytes:
        """An exported PyTorch program; only where `formats` has "torch"."""

    def reference(self, frames: Sequence[Frame]) -> Iterator[dict[str, np.ndarray]]:
        """Outputs of the definition in float32, frame by frame."""


class OnnxSource:
    """An ONNX file with our metadata, exported by us or made elsewhere.

    Args:
        data: what to take for the file's content.
        part: of a network that has parts; empty: all of it.

    Raises:
        EngineError: no ONNX file, not one of ours, not in float32, or a part that it does not have.
    """

    formats: tuple[Literal["onnx", "torch"], ...] = ("onnx",)

    def __init__(self, path: Path, data: bytes | None = None, part: str = "") -> None:
        self.model = str(path.resolve())
        try:
            data = path.read_bytes() if data is None else data
        except OSError as error:
            raise EngineError(f"model file {path} cannot be read: {error.strerror}") from error
        self._plain = unpack(read(data, str(path)))
        self.whole = self.config = read_config(self._plain, str(path))
        self.identity = sha256(data)
        if not is_float32(self._plain):
            raise EngineError(
                f"{path} is quantised or in half precision already; engines are built from float32 graphs"
            )
        if part:
            self._plain = extract_part(self._plain, self.whole, part)
            self.config = read_config(self._plain, f"part {part} of {path}")

    def of_part(self, name: str) -> OnnxSource:
        """See `Source.of_part`."""
        return OnnxSource(Path(self.model), part=name)

    def plain(self) -> onnx.ModelProto:
        """See `Source.plain`."""
        return onnx.ModelProto.FromString(self._plain.SerializeToString())

    def graph(self) -> onnx.ModelProto:
        """See `Source.graph`."""
        return simplify(self.plain())

    def program(self) -> bytes:
        """Not possible."""
        raise EngineError(f"target 'torch' needs a registered model, and {self.model} is an ONNX file")

    def reference(self, frames: Sequence[Frame]) -> Iterator[dict[str, np.ndarray]]:
        """See `Source.reference`; ONNX Runtime computes it."""
        names = [output.name for output in self.config.outputs]
        for frame in frames:
            yield dict(zip(names, self._session.run(names, dict(by_name(frame))), strict=True))

    @cached_property
    def _session(self) -> ort.InferenceSession:
        import onnxruntime as ort

        return ort.InferenceSession(self._plain.SerializeToString(), providers=["CPUExecutionProvider"])


def _open_file(path: Path) -> OnnxSource:
    if path.suffix not in DESCRIPTIONS:
        return OnnxSource(path)
    from perception.engines.foreign import ForeignSource  # which is an OnnxSource

    return ForeignSource(path)


def onnx_file(path: Path) -> Path:
    """The ONNX file itself, where `path` may be the description of one.

    Raises:
        EngineError: a description that cannot be read.
    """
    if path.suffix not in DESCRIPTIONS:
        return path
    from perception.engines.foreign import read_description

    return path.parent / str(read_description(path)["file"])


def is_onnx(model: str) -> bool:
    """Whether `model` means an ONNX file or the description of one, not a registered name or trained weights."""
    if model.endswith(WEIGHTS_SUFFIX):
        return False
    return model.endswith((".onnx", *DESCRIPTIONS)) or "/" in model or Path(model).is_file()


def open_source(model: str, size: tuple[int, int] | None = None, part: str = "") -> Source:
    """The source called `model`: a registered name, the path of weights that training wrote, or that of an ONNX file.

    Args:
        part: of a network that has parts; empty: all of it.

    Raises:
        EngineError: see `ModelSource` and `OnnxSource`; or a size was asked of a file, which has one already.
    """
    if not is_onnx(model):
        from perception.engines.export import ModelSource  # PyTorch is wanted only where something is exported

        return ModelSource(model, size, part)
    source: Source = _open_file(Path(model))
    if size and size != source.config.input_size:
        height, width = source.config.input_size
        raise EngineError(f"{model} was exported for {height}x{width}; another size needs another export")
    return source.of_part(part) if part else source


def complete(source: Source, images: Sequence[np.ndarray]) -> list[Frame]:
    """What a source's network, or part of one, takes of each image: what else goes in is as its task's
    `typical_inputs` has it, and what earlier parts give is what they give for the image."""
    wanted = [tensor.name for tensor in source.config.inputs]
    if wanted == ["image"]:
        return list(images)
    parts = [source.of_part(part.name) for part in source.whole.parts if part.name != source.config.part]
    frames: list[Frame] = []
    for number, image in enumerate(images):
        known = {"image": image} | typical_inputs(source.whole, number)
        for part in parts:
            if set(wanted) <= known.keys():
                break
            outputs = next(iter(part.reference([{tensor.name: known[tensor.name] for tensor in part.config.inputs}])))
            known |= {name: array.copy() for name, array in outputs.items()}
        frames.append({name: known[name] for name in wanted})
    return frames

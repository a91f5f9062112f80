"""From a registered PyTorch model to graphs. The only file of engines that imports `perception.models`."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from torch import nn

from perception.engines.errors import EngineError
from perception.engines.graph import OPSET, finish, read_config, to_bytes, with_outputs
from perception.engines.rewrites import simplify
from perception.engines.runtimes import Frame, by_name
from perception.models import create_model, list_models, model_config
from perception.tasks.config import WEIGHTS_SUFFIX, ModelConfig


class FromImage(nn.Module):
    """A model, or the part that a config is of, behind the normalisation of its image.

    Shapes: all of `config.inputs` to a tuple of tensors in the order of `config.outputs`.
    """

    def __init__(self, model: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        self.model, self.part, self.sees = model, config.part, config.sees
        mean, std = torch.tensor(config.mean), torch.tensor(config.std)
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", (1 / (255 * std)).reshape(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).reshape(1, 3, 1, 1))
        self.shifts = any(config.mean)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.sees:
            x = inputs[0].float().permute(0, 3, 1, 2) * self.scale
            inputs = (x + self.shift if self.shifts else x, *inputs[1:])
        outputs = (getattr(self.model, self.part) if self.part else self.model)(*inputs)
        return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


class ModelSource:
    """A registered model, or one with weights that training wrote, as the source of engines.

    Args:
        name: of the model, or the path of the weights.
        size: (height, width) other than the model's own.
        part: of a network that has parts; empty: all of it.
        network: the model itself, if it is there already.

    Raises:
        EngineError: unknown model, a size that it cannot take, or a part that it does not have.
    """

    formats: tuple[Literal["onnx", "torch"], ...] = ("onnx", "torch")

    def __init__(
        self, name: str, size: tuple[int, int] | None = None, part: str = "", network: nn.Module | None = None
    ) -> None:
        try:
            self.whole = model_config(name, size)
            self.config = self.whole.of_part(part) if part else self.whole
            self._network = network or create_model(name, input_size=self.whole.input_size)
        except ValueError as error:
            raise EngineError(str(error)) from error
        self._module = FromImage(self._network, self.config).eval()
        self.model = str(Path(name).resolve()) if name.endswith(WEIGHTS_SUFFIX) else name
        self.identity = self.config.weights_sha256

    def of_part(self, name: str) -> ModelSource:
        """See `Source.of_part`."""
        return ModelSource(self.model, self.whole.input_size, name, self._network)

    @cached_property
    def _traced(self) -> torch.export.ExportedProgram:
        """What graph and program are both made from; tracing takes long."""
        return torch.export.export(self._module, _examples(self.config))

    @cached_property
    def _exported(self) -> bytes:
        model = export_graph(self._traced, self.config)
        read_config(model, f"the export of {self.model!r}")
        return to_bytes(model)

    def plain(self) -> onnx.ModelProto:
        """The float32 graph as PyTorch exports it, BatchNorm folded, with our metadata."""
        return onnx.ModelProto.FromString(self._exported)

    def graph(self) -> onnx.ModelProto:
        """The float32 graph that engines are built from."""
        return simplify(self.plain())

    def program(self) -> bytes:
        """The model as an exported PyTorch program."""
        buffer = io.BytesIO()
        torch.export.save(self._traced, buffer)
        return buffer.getvalue()

    def reference(self, frames: Sequence[Frame]) -> Iterator[dict[str, np.ndarray]]:
        """Outputs of the definition in float32, frame by frame."""
        names = [output.name for output in self.config.outputs]
        for frame in map(by_name, frames):
            with torch.inference_mode():
                tensors = self._module(*(torch.from_numpy(frame[tensor.name]) for tensor in self.config.inputs))
                yield {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}


def registered_models() -> list[ModelConfig]:
    """Configs of all registered models."""
    return [model_config(name) for name in list_models()]


def _examples(config: ModelConfig) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(tensor.shape, dtype=getattr(torch, tensor.dtype)) for tensor in config.inputs)


def export_graph(module: FromImage | torch.export.ExportedProgram, config: ModelConfig) -> onnx.ModelProto:
    """The float32 graph of a model behind its normalisation, in eval mode, as PyTorch exports it, with our metadata.

    Args:
        module: the model, or what PyTorch has traced of it.
    """
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision, which nobody here needs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                _examples(config),
                dynamo=True,
                input_names=[tensor.name for tensor in config.inputs],
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    if program is None:
        raise EngineError(f"PyTorch {torch.__version__} exported nothing for {config.name!r}")
    return finish(with_outputs(program.model_proto, [output.name for output in config.outputs]), config)

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
from perception.engines.graph import OPSET, finish, read_config, to_bytes
from perception.engines.rewrites import simplify
from perception.models import create_model, list_models, model_config
from perception.tasks.config import WEIGHTS_SUFFIX, ModelConfig


class FromImage(nn.Module):
    """A model behind its normalisation.

    Shapes: uint8 (1, height, width, 3) to a tuple of tensors in the order of `config.outputs`.
    """

    def __init__(self, model: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        self.model = model
        mean, std = torch.tensor(config.mean), torch.tensor(config.std)
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", (1 / (255 * std)).reshape(1, 3, 1, 1))
        self.register_buffer("shift", (-mean / std).reshape(1, 3, 1, 1))
        self.shifts = any(config.mean)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = image.float().permute(0, 3, 1, 2) * self.scale
        outputs = self.model(x + self.shift if self.shifts else x)
        return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)


class ModelSource:
    """A registered model, or one with weights that training wrote, as the source of engines.

    Args:
        name: of the model, or the path of the weights.
        size: (height, width) other than the model's own.

    Raises:
        EngineError: unknown model, or a size that it cannot take.
    """

    formats: tuple[Literal["onnx", "torch"], ...] = ("onnx", "torch")

    def __init__(self, name: str, size: tuple[int, int] | None = None) -> None:
        try:
            self.config = model_config(name, size)
            self._module = FromImage(create_model(name, input_size=self.config.input_size), self.config).eval()
        except ValueError as error:
            raise EngineError(str(error)) from error
        self.model = str(Path(name).resolve()) if name.endswith(WEIGHTS_SUFFIX) else name
        self.identity = self.config.weights_sha256

    @cached_property
    def _exported(self) -> bytes:
        model = export_graph(self._module, self.config)
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
        torch.export.save(torch.export.export(self._module, (_example(self.config),)), buffer)
        return buffer.getvalue()

    def reference(self, frames: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Outputs of the definition in float32, frame by frame."""
        names = [output.name for output in self.config.outputs]
        for frame in frames:
            with torch.inference_mode():
                yield dict(
                    zip(names, (tensor.numpy() for tensor in self._module(torch.from_numpy(frame))), strict=True)
                )


def registered_models() -> list[ModelConfig]:
    """Configs of all registered models."""
    return [model_config(name) for name in list_models()]


def _example(config: ModelConfig) -> torch.Tensor:
    return torch.zeros(1, *config.input_size, 3, dtype=torch.uint8)


def export_graph(module: FromImage, config: ModelConfig) -> onnx.ModelProto:
    """The float32 graph of a model behind its normalisation, in eval mode, as PyTorch exports it, with our metadata."""
    names = [output.name for output in config.outputs]
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision, which nobody here needs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (_example(config),),
                dynamo=True,
                input_names=["image"],
                output_names=names,
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    if program is None:
        raise EngineError(f"PyTorch {torch.__version__} exported nothing for {config.name!r}")
    return finish(program.model_proto, config)

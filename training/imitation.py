"""Features that a student's encoder learns from a teacher's: every place of every image teaches, labelled or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from perception.models import create_model, model_config
from perception.tasks.config import ModelConfig
from perception.training.data import Normalize
from perception.training.losses import feature_loss
from perception.training.norms import absorb_norms

LEVELS = 3
"""The last ones of an encoder are learned, of stride 8, 16 and 32 mostly; shallower ones hold little that ImageNet
weights lack."""


def watch(module: nn.Module) -> tuple[list[torch.Tensor], RemovableHandle]:
    """A list that always holds what `module` returned last, and the handle that ends this."""
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, outputs: Sequence[torch.Tensor] | torch.Tensor) -> None:
        seen[:] = (outputs,) if isinstance(outputs, torch.Tensor) else outputs

    return seen, module.register_forward_hook(keep)


def watched_parts(student: nn.Module) -> tuple[Sequence[nn.Module], Sequence[int]]:
    """What gives a network's features, stride by stride, and their channels: its encoder, or single layers where it has
    `levels` instead, as a vision transformer has in its stem."""
    if hasattr(student, "levels"):
        layers: Sequence[nn.Sequential] = student.levels  # type: ignore[assignment]
        return layers, [layer[0].out_channels for layer in layers]  # type: ignore[misc]
    return [student.encoder], student.encoder.channels  # type: ignore[union-attr, list-item, return-value]


class Imitation(nn.Module):
    """How unlike a teacher's an encoder's features are. Its parameters are adaptors to the teacher's channels.

    Build it after all copies of the student are made: a copy would report its features here too. `remove` ends the
    watch over the student.

    Args:
        student: see `watched_parts`.
        channels: of the teacher's features, stride by stride; the last ones are of the stride of the student's last.

    Raises:
        ValueError: a student without such features.
    """

    def __init__(self, student: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        parts, own = watched_parts(student)
        levels = min(LEVELS, len(own), len(channels))
        if not levels:
            raise ValueError(f"this {type(student).__name__} has no convolutions that could imitate others")
        self._watched = [watch(part) for part in parts]
        pairs = zip(own[-levels:], channels[-levels:], strict=True)
        self.adaptors = nn.ModuleList(nn.Conv2d(mine, theirs, 1) for mine, theirs in pairs)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """The mean of `feature_loss` over levels, to be called right after the student has seen the images.

        Args:
            features: the teacher's, of the same images.
        """
        seen = [each for outputs, _ in self._watched for each in outputs]
        levels = len(self.adaptors)
        pairs = zip(self.adaptors, seen[-levels:], features[-levels:], strict=True)
        return torch.stack([feature_loss(adapt(mine.float()), theirs.float()) for adapt, mine, theirs in pairs]).mean()

    def remove(self) -> None:
        """Leave the student as it was."""
        for _, handle in self._watched:
            handle.remove()


class TeacherInput(Normalize):
    """Images, RGB in [0, 1], (N, 3, H, W), in the order of colours and normalised as a config wants them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.flips = config.color != "rgb"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.flip(1) if self.flips else images)


class Teacher:
    """A trained network, frozen, in eval mode, norms absorbed, with its own normalisation. Images are RGB in [0, 1], of
    the shape (N, 3, H, W).

    Raises:
        ValueError: a model without weights.
    """

    def __init__(self, model: str) -> None:
        self.config = model_config(model)
        if not self.config.weights:
            raise ValueError(f"{model} has no weights, so nothing can be learned from it; name a trained one")
        self.normalize = TeacherInput(self.config)
        self.network = create_model(model).requires_grad_(False)
        absorb_norms(self.network)

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Images as the network wants them, at the size that they have; where they are, the network is from now on."""
        self.network.to(images.device)
        prepared: torch.Tensor = self.normalize.to(images.device)(images)
        return prepared

    def resize(self, images: torch.Tensor) -> torch.Tensor:
        """Images at the network's own size."""
        size = self.config.input_size
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)


class EncoderTeacher(Teacher):
    """The encoder of a trained network."""

    @property
    def channels(self) -> Sequence[int]:
        """Of its features."""
        return self.network.encoder.channels  # type: ignore[return-value, union-attr]

    def features(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        """Features of images, through which gradients reach the images."""
        found: Sequence[torch.Tensor] = self.network.encoder(self.prepare(images))  # type: ignore[operator]
        return found

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        """The same without gradients."""
        return self.features(images)

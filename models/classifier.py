"""Classifiers on encoders: the mean of the coarsest features, and a layer that tells classes apart.

They serve as teachers of smaller or split networks, which ImageNet's weights of an encoder make of few images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from perception.models.registry import EncoderEntry, find_encoder, register_model
from perception.tasks.config import ModelConfig, Output
from perception.tasks.labels import CIFAR10_LABELS

DROPPED = 0.2
"""Share of the features that a step of training does without."""


class EncoderClassifier(nn.Module):
    """Shapes: (N, 3, H, W), normalised, to logits (N, classes)."""

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.drop = nn.Dropout(DROPPED)
        self.classify = nn.Linear(encoder.channels[-1], classes)  # type: ignore[arg-type, index]

    @property
    def class_layers(self) -> list[nn.Module]:
        """What tells the classes apart, and means nothing to a network of other classes."""
        return [self.classify]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.drop(self.encoder(x)[-1].mean((2, 3))))


def configure_classifier(config: ModelConfig, options: Mapping[str, Any]) -> ModelConfig:
    """Outputs and labels of a network whose builder takes `labels`, names of classes."""
    labels = tuple(options.get("labels", config.labels))
    return config.replace(outputs=(Output("logits", (1, len(labels)), "logit"),), labels=labels)


def register_classifier(name: str, size: tuple[int, int], encoder: EncoderEntry) -> None:
    """Register a classifier on an encoder, called like that; its builder takes `labels`, names of classes."""

    def build(labels: Sequence[str] = CIFAR10_LABELS) -> EncoderClassifier:
        return EncoderClassifier(encoder.build(), len(labels))

    config = ModelConfig(
        name=f"classifier_{name}",
        task="classification",
        input_size=size,
        outputs=(),
        mean=encoder.mean,
        std=encoder.std,
        interpolation="area",
        labels=CIFAR10_LABELS,
    )
    register_model(config, configure_classifier, listed=False)(build)


register_classifier("efficientnet_lite0", (224, 224), find_encoder("efficientnet_lite0"))

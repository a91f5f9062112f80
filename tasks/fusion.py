"""The network that makes one answer of the features of a split's workers, in NumPy: it is too small for an engine.

`fusion.npz` holds float32 weight_0 (outputs, inputs), bias_0 (outputs,), weight_1 and so on. Inputs are the workers'
features one after another, in the split's order, zeros for a worker that is missing (as training has it at random);
between layers negative values become zero (ReLU); the last layer has an output for each label, and softmax follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perception.tasks.classification import Classification, softmax
from perception.tasks.vit_split import Split


class Fusion:
    """The fusion network of a split.

    Args:
        lengths: of the workers' features, in the split's order.
        layers: (weight, bias) of each layer.

    Raises:
        ValueError: shapes that do not fit each other.
    """

    def __init__(self, lengths: Sequence[int], layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        ends = np.cumsum(lengths)
        self._places = [slice(int(end - length), int(end)) for length, end in zip(lengths, ends, strict=True)]
        self._layers = [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in layers]
        size = int(ends[-1])
        for number, (weight, bias) in enumerate(layers):
            if weight.ndim != 2 or weight.shape[1] != size or bias.shape != weight.shape[:1]:
                raise ValueError(
                    f"layer {number} of the fusion network has a weight of shape {weight.shape} and a bias of shape "
                    f"{bias.shape}; after {size} values expected are (outputs, {size}) and (outputs,)"
                )
            size = len(bias)
        self.classes = size

    def __call__(self, features: Sequence[np.ndarray | None]) -> Classification:
        """What the image shows.

        Args:
            features: float32 of each worker's length, in the split's order; None for those that are missing.

        Raises:
            ValueError: not that many workers, features of another length or not finite, or none at all.
        """
        if len(features) != len(self._places) or all(part is None for part in features):
            there = sum(part is not None for part in features)
            raise ValueError(f"{there} of {len(features)} features; expected {len(self._places)}, one of them at least")
        values = np.zeros(self._places[-1].stop, np.float32)
        for number, (part, place) in enumerate(zip(features, self._places, strict=True)):
            if part is None:
                continue
            if part.shape != (place.stop - place.start,) or not np.isfinite(part).all():
                raise ValueError(
                    f"features of worker {number} have the shape {part.shape}; expected are "
                    f"{place.stop - place.start} finite numbers"
                )
            values[place] = part
        for number, (weight, bias) in enumerate(self._layers):
            values = weight @ (values if number == 0 else np.maximum(values, 0)) + bias
        return Classification(softmax(values))


def save_fusion(path: Path, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write (weight, bias) of each layer as `fusion.npz`."""
    arrays: dict[str, Any] = {}
    for number, (weight, bias) in enumerate(layers):
        arrays |= {f"weight_{number}": weight.astype(np.float32), f"bias_{number}": bias.astype(np.float32)}
    with path.open("wb") as file:  # given a name, NumPy would add a suffix to it
        np.savez(file, **arrays)


def load_fusion(split: Split) -> Fusion:
    """The fusion network of a split.

    Raises:
        ValueError: its file is missing, of another split, or does not fit the split's workers and labels.
    """
    path = split.fusion_path()
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        fusion = Fusion([worker.features for worker in split.workers], _layers(arrays))
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is no fusion network: {error}; make the split again") from error
    if fusion.classes != len(split.labels):
        raise ValueError(f"{path} knows {fusion.classes} classes, but the split has {len(split.labels)} labels")
    return fusion


def _layers(arrays: Mapping[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    count = len(arrays) // 2
    if not count:
        raise ValueError("it holds no layers")
    return [(arrays[f"weight_{number}"], arrays[f"bias_{number}"]) for number in range(count)]

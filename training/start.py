"""Where training starts from: encoders trained elsewhere, brought into the shape that is to be trained."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from perception.models.mobilenet_v1 import MobileNetV1
from perception.tasks.config import WEIGHTS_SUFFIX

SITE_PACKAGES = "package:"
"""A start with this prefix is a file of an installed Python package: `package:NAME/PATH`."""
ENCODER = "encoder."
"""Begins the names of an encoder's tensors in a network's."""

Layer = tuple[np.ndarray, np.ndarray]
"""Weight (outputs, inputs / groups, k, k) and bias (outputs,) of a convolution with its BatchNorm folded in."""


def start_encoder(encoder: nn.Module, start: str, data: Path, images: torch.Tensor, seed: int) -> None:
    """Load an encoder's weights from a file that somebody else has made.

    Args:
        start: MobileNetV1 as `.tflite`, or a state dict of PyTorch whose tensors come in the order of the encoder's:
            torchvision's MobileNetV2, efficientnet_pytorch's EfficientNet-Lite; or, as `.safetensors`, any network that
            training wrote, on the same encoder. Relative to `data`, or `package:...`.
        images: float (N, 3, H, W), normalised, a sample of the training set, for statistics that the file lacks.

    Raises:
        ValueError: no such file, or it does not fit the encoder.
    """
    path = _find(start, data)
    if path.suffix == WEIGHTS_SUFFIX:
        return load_encoder(encoder, load_file(path))
    if path.suffix != ".tflite":
        return load_in_order(encoder, torch.load(path, weights_only=True, map_location="cpu"))
    if not isinstance(encoder, MobileNetV1):
        raise ValueError(f"{path} starts a mobilenet_v1, and the encoder is a {type(encoder).__name__}")
    layers = resize_widths(read_mobilenet_v1_tflite(path), encoder.widths, np.random.default_rng(seed))
    start_folded(encoder, layers, images)


def _find(start: str, data: Path) -> Path:
    path = data / start
    if start.startswith(SITE_PACKAGES):
        package, _, file = start.removeprefix(SITE_PACKAGES).partition("/")
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise ValueError(f"the recipe starts from {start!r}: pip install {package}")
        path = Path(found.submodule_search_locations[0]) / file
    if not path.is_file():
        raise ValueError(f"the recipe starts from {path}, which does not exist; --data names the folder of `start`")
    return path


def load_in_order(encoder: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load the first tensors of a state dict, whatever their names, into the encoder; the classifier is left over.

    Raises:
        ValueError: too few tensors, or one of another shape than the encoder's in its place.
    """
    own, theirs = _uncounted(encoder.state_dict()), _uncounted(tensors)
    if len(theirs) < len(own):
        raise ValueError(f"the start has {len(theirs)} tensors, and the encoder {len(own)}: it is of another network")
    for (key, mine), (name, tensor) in zip(own.items(), theirs.items(), strict=False):
        if mine.shape != tensor.shape:
            raise ValueError(
                f"the start's {name} has shape {tuple(tensor.shape)}, but the encoder's {key} {tuple(mine.shape)}: "
                "it is of another network or width; choose the start of this encoder, or none"
            )
        mine.copy_(tensor)


def _uncounted(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the numbers of batches that BatchNorms have seen, which not all files have."""
    return {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}


def load_encoder(encoder: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load the encoder out of a network of ours, one of another task, say.

    An encoder that halves the resolution in its first stage, too, has a layer more than the plain one that it starts
    from, as FFNet's deeper forms do from their classifiers: that one stays as it is. One that ends earlier than the
    other takes what it has.

    Raises:
        ValueError: the network's encoder is another one.
    """
    own, theirs = _uncounted(encoder.state_dict()), _uncounted(tensors)
    theirs = {key.removeprefix(ENCODER): tensor for key, tensor in theirs.items() if key.startswith(ENCODER)}
    missing = [key for key in own.keys() - theirs.keys() if not key.startswith("stages.0.0.shortcut.")]
    theirs = {key: tensor for key, tensor in theirs.items() if key in own}
    other = [key for key, tensor in theirs.items() if own[key].shape != tensor.shape]
    if missing or other or not theirs:
        raise ValueError(
            f"the start does not have this {type(encoder).__name__}: {len(missing)} of its tensors are missing, and "
            f"{len(other)} have another shape or name; choose a network on the same encoder, or no start"
        )
    encoder.load_state_dict(theirs, strict=False)


def read_mobilenet_v1_tflite(path: Path) -> list[Layer]:
    """The 27 convolutions of MobileNetV1 from a quantised TFLite file, for RGB input in [0, 1].

    The file's own input is uint8 with (byte - zero point) * scale, which is folded into the first convolution.
    """
    import tflite  # only this start needs the schema

    model = tflite.Model.GetRootAsModel(path.read_bytes(), 0)
    graph = model.Subgraphs(0)

    def dequantised(index: int) -> np.ndarray:
        tensor = graph.Tensors(index)
        dtype = {tflite.TensorType.UINT8: np.uint8, tflite.TensorType.INT32: np.int32}[tensor.Type()]
        values = model.Buffers(tensor.Buffer()).DataAsNumpy().view(dtype).reshape(tensor.ShapeAsNumpy())
        quantisation = tensor.Quantization()
        zero = quantisation.ZeroPointAsNumpy()[0]
        return (values.astype(np.float32) - np.float32(zero)) * quantisation.ScaleAsNumpy()[0]

    layers = []
    for index in range(27):
        operator = graph.Operators(index)
        _, weight, bias = operator.InputsAsNumpy()
        depthwise = index % 2 == 1
        # TFLite: full convolutions (out, k, k, in), depthwise (1, k, k, out)
        layers.append((dequantised(weight).transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2)), dequantised(bias)))
    image = graph.Tensors(graph.Operators(0).InputsAsNumpy()[0]).Quantization()
    scale, zero = image.ScaleAsNumpy()[0], image.ZeroPointAsNumpy()[0]
    weight, bias = layers[0]
    layers[0] = (weight * np.float32(255 * scale), bias - np.float32(scale * zero) * weight.sum((1, 2, 3)))
    return layers


def resize_widths(layers: list[Layer], widths: Sequence[int], rng: np.random.Generator) -> list[Layer]:
    """MobileNetV1 with other widths: wider by repeating channels (Net2Net, Chen et al., ICLR 2016), narrower by keeping
    those whose weights are largest.

    A repeated channel's outgoing weights are divided among its copies, so that the function stays; a little noise lets
    the copies part ways in training.

    Args:
        layers: full convolution, then 13 pairs of depthwise and 1x1 convolutions.
        widths: output channels of the first convolution and of the 13 pairs.
    """
    resized = []
    kept = np.arange(3)  # for each input channel now, which channel of the original it is
    for index, (weight, bias) in enumerate(layers):
        depthwise = index % 2 == 1
        if depthwise:
            resized.append((weight[kept], bias[kept]))
            continue
        copies = np.bincount(kept, minlength=weight.shape[1])[kept]
        incoming = weight[:, kept] / copies[None, :, None, None]
        width, target = len(weight), widths[index // 2]
        if target <= width:
            outputs = np.sort(np.argsort(-np.abs(weight).sum((1, 2, 3)))[:target])
        else:
            outputs = np.concatenate([np.arange(width), rng.choice(width, target - width, replace=target > 2 * width)])
        noise = rng.normal(0, 0.02 * incoming.std(), (len(outputs), *incoming.shape[1:])).astype(np.float32)
        resized.append((incoming[outputs] + noise, bias[outputs]))
        kept = outputs
    return resized


def start_folded(encoder: nn.Module, layers: list[Layer], images: torch.Tensor) -> None:
    """Load folded convolutions into an encoder and give its BatchNorms the statistics of `images`.

    A folded convolution's bias becomes BatchNorm's; its mean and variance are measured layer by layer in one pass, with
    weight and bias chosen so that the function is the folded one, in training and in evaluation mode alike.

    Args:
        images: float (N, 3, H, W) as the encoder takes them, a sample of the training set.
    """
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = []
    for convolution, norm, (weight, bias) in zip(convolutions, norms, layers, strict=True):
        convolution.weight.data.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        hooks.append(norm.register_forward_pre_hook(_calibrate(torch.from_numpy(np.ascontiguousarray(bias)))))
    with torch.no_grad():
        encoder.eval()(images)
    for hook in hooks:
        hook.remove()


def _calibrate(bias: torch.Tensor) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def calibrate(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(bias + mean)

    return calibrate

"""FFNet: semantic segmentation with residual networks and a plain head (Mehta et al., CVPR workshops 2022).

The head takes an encoder's features of four resolutions to common widths, adds them from the coarsest to the finest,
puts what it has at each resolution together at the finest, and tells the classes apart there. Published networks are
named as in the paper: depth and family of the encoder (see `perception.models.resnet`); letters of stem, up head and
segmentation head, after a d where the first stage has a stride, too; `mobile` where the head repeats pixels instead of
interpolating; `pre_down` where a Gaussian halves the image first. An x in place of the last letter names the form that
tells whole images apart, as which the published encoders learn ImageNet before they segment.

Small ones of ours stand on any registered encoder, and tell four sub-pixels of the finest level apart: where CamVid's
training labels at 480x360 are averaged over the places that are told, poles, two pixels wide, keep an intersection over
union of 0.50 at a quarter of the resolution, and of 0.74 at half of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from perception.models.classifier import configure_classifier
from perception.models.layers import IMAGENET_MEAN, IMAGENET_STD, convolution, initialize
from perception.models.registry import find_encoder, register_model
from perception.models.resnet import EXPANSION, FAMILIES, Residual, ResNet
from perception.tasks.config import ModelConfig, Output
from perception.tasks.labels import CITYSCAPES_LABELS

LEVELS = 4
GAUSSIAN = (0.009678, 0.205408, 0.569842, 0.205408, 0.009678)
"""Taps of standard deviation 0.7 that sum to 1."""


class Up(NamedTuple):
    """Widths of an up head, from the finest level to the coarsest."""

    base: tuple[int, ...]
    """At which levels are added."""
    outputs: tuple[int, ...]


class Seg(NamedTuple):
    """A segmentation head: a 3x3 layer of this width, then one of this kernel that gives the logits."""

    width: int
    kernel: int


UP: Mapping[str, Up] = {
    "a": Up((64, 128, 256, 512), (128, 128, 128, 128)),
    "b": Up((64, 128, 128, 256), (96, 96, 64, 32)),
    "c": Up((128, 128, 128, 128), (128, 16, 16, 16)),
    "small": Up((32, 48, 64, 96), (32, 16, 16, 16)),
}
SEG: Mapping[str, Seg] = {"a": Seg(512, 1), "b": Seg(256, 3), "c": Seg(128, 1), "small": Seg(64, 1)}
CLASS_WIDTHS = (128, 256, 512, 1024)
"""Channels of a classification head's levels, from the finest to the coarsest."""
CLASS_FEATURES = 2048
"""Channels whose mean over the image tells its class."""
CLASS_DROPPED = 0.2
"""Share of them that a step of training does without."""
IMAGENET_LABELS = tuple(map(str, range(1000)))
"""ImageNet's classes, by number."""


class Gaussian(nn.Module):
    """The image at half its resolution without aliasing: (N, 3, H, W) to (N, 3, H / 2 - 1, W / 2 - 1), fixed."""

    kernel: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor(GAUSSIAN)
        self.register_buffer("kernel", torch.outer(taps, taps).expand(3, 1, -1, -1).clone(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Rows alone are padded, as published: 1024x2048 become 511x1022.
        return F.conv2d(F.pad(x, (0, 0, 1, 1), mode="reflect"), self.kernel, stride=2, groups=3)


def _resize(x: torch.Tensor, size: Sequence[int], smooth: bool) -> torch.Tensor:
    """(N, C, h, w) to (N, C, *size); by whole factors where such lead there, which rewrites of graphs look for."""
    if smooth:
        return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
    if size[0] % x.shape[-2] == 0 and size[1] % x.shape[-1] == 0:
        return F.interpolate(x, scale_factor=[float(a // b) for a, b in zip(size, x.shape[-2:], strict=True)])
    return F.interpolate(x, size=tuple(size))


class UpHead(nn.Module):
    """Features of four levels, finest first, to one map of the finest level's size.

    Args:
        channels: of the features.
        smooth: levels are resized bilinearly, not by repeating the nearest pixel.
    """

    def __init__(self, channels: Sequence[int], widths: Up, smooth: bool) -> None:
        super().__init__()
        base, outputs = widths
        self.smooth = smooth
        self.adapters = nn.ModuleList(convolution(c, b, 1, nn.ReLU) for c, b in zip(channels, base, strict=True))
        self.steps = nn.ModuleList(convolution(b, a, 1, nn.ReLU) for a, b in zip(base, base[1:], strict=False))
        """From each level but the finest to the next finer one."""
        self.outputs = nn.ModuleList(convolution(b, o, 3, nn.ReLU) for b, o in zip(base, outputs, strict=True))

    def levels(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The map of each level at its own size, finest first."""
        adapted = [adapter(x) for adapter, x in zip(self.adapters, features, strict=True)]
        for level in range(LEVELS - 2, -1, -1):
            step = self.steps[level](adapted[level + 1])
            adapted[level] = adapted[level] + _resize(step, adapted[level].shape[-2:], self.smooth)
        return [output(x) for output, x in zip(self.outputs, adapted, strict=True)]

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        maps = self.levels(features)
        return torch.cat([_resize(x, maps[0].shape[-2:], self.smooth) for x in maps], 1)


def _biased(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Convolution with a bias, which BatchNorm makes idle but the published weights have, BatchNorm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class SegHead(nn.Sequential):
    """(N, C, H, W) to logits (N, classes, fine * H, fine * W)."""

    def __init__(self, inputs: int, widths: Seg, classes: int, fine: int) -> None:
        width, kernel = widths
        last = nn.Conv2d(width, classes * fine**2, kernel, padding=kernel // 2)
        super().__init__(*_biased(inputs, width, 3), last, *([nn.PixelShuffle(fine)] if fine > 1 else []))
        initialize(self)
        with torch.no_grad():  # sub-pixels begin alike: what differs at random draws grids
            for parameter in last.parameters():
                parameter.copy_(parameter[:: fine**2].repeat_interleave(fine**2, 0))


class ClassHead(nn.Module):
    """Maps of four levels, finest first, to logits (N, classes): each is widened by a bottleneck, and from the finest
    on halved and added to the next, as HRNet tells images apart (Wang et al., TPAMI 2021)."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        widened = zip(channels, CLASS_WIDTHS, strict=True)
        self.widen = nn.ModuleList(Residual(c, width // EXPANSION, 1, bottleneck=True) for c, width in widened)
        steps = zip(CLASS_WIDTHS, CLASS_WIDTHS[1:], strict=False)
        self.steps = nn.ModuleList(nn.Sequential(*_biased(a, b, 3, 2)) for a, b in steps)
        self.last = nn.Sequential(*_biased(CLASS_WIDTHS[-1], CLASS_FEATURES, 1))
        self.drop = nn.Dropout(CLASS_DROPPED)
        self.classify = nn.Linear(CLASS_FEATURES, classes)
        initialize(self)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        finest, *others = (widen(x) for widen, x in zip(self.widen, maps, strict=True))
        x = finest
        for step, coarser in zip(self.steps, others, strict=True):
            x = coarser + step(x)
        return self.classify(self.drop(self.last(x).mean((2, 3))))


class FFNetClassifier(nn.Module):
    """The form that tells whole images apart; its encoder is one for an `FFNet` to start from.

    Args:
        encoder, up, smooth: see `FFNet`.
        classes: how many.

    Shapes: (N, 3, H, W) as the encoder wants it normalised, to logits (N, classes).
    """

    def __init__(self, encoder: nn.Module, up: str, classes: int, smooth: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.up = UpHead(encoder.channels[-LEVELS:], UP[up], smooth)  # type: ignore[index, arg-type]
        self.head = ClassHead(UP[up].outputs, classes)
        initialize(self.up)

    @property
    def class_layers(self) -> list[nn.Module]:
        """What tells the classes apart, and means nothing to a network of other classes."""
        return [self.head.classify]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.up.levels(self.encoder(x)[-LEVELS:]))


class FFNet(nn.Module):
    """The network.

    Args:
        encoder: its last four features are taken.
        up, seg: letters of the heads, or "small".
        classes: at most 255.
        smooth: see `UpHead`.
        pre_down: a Gaussian halves the image first.
        fine: into how many sub-pixels a side the finest level's places are parted.

    Shapes: (N, 3, H, W) as the encoder wants it normalised, to logits (N, classes, fine * H / 4, fine * W / 4) in
    training (H / 8 of a deeper encoder, or with `pre_down`); in eval mode to the mask and its confidence, uint8
    (N, H, W), as `perception.tasks.segmentation` has them.
    """

    def __init__(
        self,
        encoder: nn.Module,
        up: str,
        seg: str,
        classes: int,
        smooth: bool = False,
        pre_down: bool = False,
        fine: int = 1,
    ) -> None:
        super().__init__()
        self.before = Gaussian() if pre_down else nn.Identity()
        self.encoder = encoder
        self.up = UpHead(encoder.channels[-LEVELS:], UP[up], smooth)  # type: ignore[index, arg-type]
        self.seg = SegHead(sum(UP[up].outputs), SEG[seg], classes, fine)
        initialize(self.up)

    @property
    def class_layers(self) -> list[nn.Module]:
        """What tells the classes apart, and means nothing to a network of other classes."""
        return [self.seg[3]]

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Of the classes, in either mode."""
        return self.seg(self.up(self.encoder(self.before(x))[-LEVELS:]))

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        logits = self.logits(x)
        return logits if self.training else classify(logits, x.shape[-2:])


def classify(logits: torch.Tensor, size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask and confidence, uint8 (N, *size), of logits (N, C, h, w).

    Pixels are told apart at half of `size`, to which coarser logits are interpolated: at all of it, on a CPU, that
    would take as long as a small network does. There the confidence is the softmax of the class that was chosen, so
    that it is low along a border, whatever lies on either side.
    """
    height, width = size
    half = height // 2, width // 2
    fine = logits if logits.shape[-2:] == half else F.interpolate(logits, size=half, mode="bilinear")
    mask = fine.argmax(1, keepdim=True).float()
    # The largest softmax, without computing the others.
    confidence = 1 / (fine - fine.amax(1, keepdim=True)).exp().sum(1, keepdim=True)
    outputs = (F.interpolate(x, scale_factor=2.0) for x in (mask, (255 * confidence).round()))
    return tuple(x.squeeze(1).to(torch.uint8) for x in outputs)  # type: ignore[return-value]


def _configure(config: ModelConfig, options: Mapping[str, Any]) -> ModelConfig:
    shape = (1, *config.input_size)
    outputs = (Output("mask", shape, "class", "uint8"), Output("confidence", shape, "1/255", "uint8"))
    return config.replace(outputs=outputs, labels=tuple(options.get("labels", config.labels)))


def _config(name: str, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]) -> ModelConfig:
    return ModelConfig(
        name=name,
        task="segmentation",
        input_size=size,
        outputs=(),
        mean=mean,  # type: ignore[arg-type]
        std=std,  # type: ignore[arg-type]
        interpolation="area",
        size_divisor=8,
        labels=CITYSCAPES_LABELS,
    )


_PUBLISHED = re.compile(r"(\d+(n?s?))_(d?)([abc])([abc])([abcx])(_mobile)?(_pre_down)?")


def published(name: str, labels: Sequence[str] | None = None) -> FFNet | FFNetClassifier:
    """A network under its name in the paper, in small letters and without "ffnet": 40s_dbbb_mobile, 101_aaa; and the
    classifier 40s_bbx_mobile.

    Args:
        labels: None: those of Cityscapes, or of ImageNet.

    Raises:
        ValueError: no such network.
    """
    found = _PUBLISHED.fullmatch(name)
    if found is None or found[4] != "abcc"[list(FAMILIES).index(found[2])] or (found[6] == "x" and found[8]):
        raise ValueError(
            f"no FFNet is called {name!r}; names are like 40s_dbbb_mobile, with the stem a, s b or n, ns c, and "
            "40s_bbx_mobile for the classifier, which has no _pre_down"
        )
    encoder, smooth = ResNet(found[1], deeper=bool(found[3])), not found[7]
    if found[6] == "x":
        return FFNetClassifier(encoder, found[5], len(labels or IMAGENET_LABELS), smooth)
    classes = len(labels or CITYSCAPES_LABELS)
    return FFNet(encoder, found[5], found[6], classes, smooth, pre_down=bool(found[8]))


def _register_published(name: str, size: tuple[int, int], listed: bool = False) -> None:
    """Register a published network; its builder takes `labels`, names of classes."""

    def build(labels: Sequence[str] | None = None) -> FFNet | FFNetClassifier:
        return published(name, labels)

    config, configure = _config(f"ffnet_{name}", size, IMAGENET_MEAN, IMAGENET_STD), _configure
    if "x" in name:
        config = config.replace(task="classification", size_divisor=1, labels=IMAGENET_LABELS)
        configure = configure_classifier
    register_model(config, configure, listed=listed)(build)


def _register_on(name: str, encoder: str, heads: tuple[str, str] = ("small", "small")) -> None:
    """Register a network on an encoder; its builder takes `labels`, names of classes."""
    entry = find_encoder(encoder)

    def build(labels: Sequence[str] = CITYSCAPES_LABELS) -> FFNet:
        return FFNet(entry.build(), *heads, len(labels), fine=2)

    register_model(_config(name, (360, 480), entry.mean, entry.std), _configure)(build)


# All that were published, with their images' sizes. The least of the slim and of the narrow stand for all in lists.
for _depth in ("86s", "78s", "54s", "40s"):
    _register_published(f"{_depth}_dbbb_mobile", (1024, 2048))
for _depth in ("150s", "86s", "78s", "54s", "40s", "30s", "22s"):
    for _letters in ("bbb", "bcc"):
        _register_published(f"{_depth}_{_letters}_mobile", (512, 1024), listed=_depth + _letters == "22sbcc")
        _register_published(f"{_depth}_{_letters}_mobile_pre_down", (1024, 2048))
for _depth in ("122ns", "74ns", "46ns"):
    for _letters in ("cbb", "ccc"):
        _register_published(f"{_depth}_{_letters}_mobile", (512, 1024), listed=_depth + _letters == "46nsccc")
        _register_published(f"{_depth}_{_letters}_mobile_pre_down", (1024, 2048))
for _name in (
    *("101_aaa", "50_aaa", "150_aaa", "134_aaa", "86_aaa", "56_aaa", "34_aaa", "150_abb", "86_abb", "56_abb", "34_abb"),
    *("150s_bbb", "86s_bbb", "122n_cbb", "74n_cbb", "46n_cbb"),
    *("101_daaa", "50_daaa", "150_daaa", "134_daaa", "86_daaa", "56_daaa", "34_daaa", "18_daaa"),
    *("150_daac", "86_daac", "34_daac", "18_daac", "150s_dbbb", "86s_dbbb"),
):
    _register_published(_name, (1024, 2048))
# Classifiers, of which every network above takes the encoder of its depth.
for _depth in ("150s", "86s", "78s", "54s", "40s"):
    _register_published(f"{_depth}_bbx_mobile", (224, 224))
for _depth in ("122ns", "74ns", "46ns"):
    _register_published(f"{_depth}_cbx_mobile", (224, 224))
for _name in (
    *("150_aax", "134_aax", "101_aax", "86_aax", "56_aax", "50_aax", "34_aax", "18_aax", "150s_bbx", "86s_bbx"),
    *("122n_cbx", "74n_cbx", "46n_cbx"),
):
    _register_published(_name, (224, 224))
_register_on("ffnet_mobilenet_v2", "mobilenet_v2")
_register_on("ffnet_efficientnet_lite0", "efficientnet_lite0")
_register_on("ffnet_efficientnet_lite2", "efficientnet_lite2", ("c", "c"))
# What these tell apart goes with their weights.
_register_on("ffnet_mobilenet_v2_road", "mobilenet_v2")
_register_on("ffnet_mobilenet_v2_road_large", "mobilenet_v2")  # the same weights, on larger images
_register_on("ffnet_mobilenet_v2_indoor", "mobilenet_v2")

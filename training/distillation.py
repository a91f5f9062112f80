"""Distillation: a student learns metric depth and features from one network, and relative depth from another.

The metric teacher sees every batch. The relative one is a file that only the CPU runs, at 0.3 s of one core an image,
so its maps are computed once a frame, kept on disk, and cropped and turned with the image like any depth.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from perception.engines.store import write_atomically
from perception.evaluation.frames import Dataset, RGBDFrame
from perception.models import model_config
from perception.tasks.geometry import Camera, Fit
from perception.tasks.image import resize
from perception.training.imitation import Imitation, Teacher, watch
from perception.training.losses import (
    NEAREST,
    Alignment,
    affine_invariant_loss,
    output_loss,
    shown,
)

Form = Literal["depth", "inverse"]


@dataclass(frozen=True)
class Distillation:
    """Teachers (empty: none), and what their losses weigh beside that of true depth."""

    teacher: str = ""
    """For metres: a registered model with shipped weights, or a .safetensors file as training writes it."""
    output: float = 1.0
    features: float = 0.0
    relative_teacher: str = ""
    """For depth up to scale and shift: a file for `RelativeTeacher`, relative to --data, which serves the sources
    marked `relative`."""
    relative_form: Form = "depth"
    """"depth" where its map grows with depth, "inverse" where it falls."""
    relative: float = 0.5
    alignment: Alignment = "median"
    trim: float = 0.2
    """Share of a relative map's pixels, the least alike, that do not count."""


class MetricTeacher(Teacher):
    """A trained depth network, with its own input size and canonical camera.

    Args:
        focal: canonical camera of the images that it will see, (fx / width, fy / height).

    Raises:
        ValueError: not a depth model, or one without weights.
    """

    def __init__(self, model: str, focal: tuple[float, float]) -> None:
        config = model_config(model)
        if config.task != "depth" or not config.weights:
            raise ValueError(
                f"{model} cannot teach metric depth: it is for {config.task}, weights {config.weights!r}; "
                "name a depth model with shipped weights or a .safetensors file that training wrote"
            )
        super().__init__(model)
        self.features, _ = watch(self.network.encoder)  # type: ignore[arg-type]
        size = self.config.input_size
        self.scale = Fit(size, size, Camera.canonical(focal, size), self.config.focal).depth_scale

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Metres (N, 1, H', W') behind the camera of the images, and the encoder's features.

        Args:
            images: RGB in [0, 1], (N, 3, H, W).
        """
        metres = self.network(self.prepare(self.resize(images)))
        return metres * self.scale, tuple(self.features)


class Distiller(nn.Module):
    """The losses of distillation. Its parameters are those of `Imitation`, which see for when to build it; the teacher
    is neither saved nor trained.

    Args:
        student: with `encoder` as models register it, where features are distilled.
        focal: canonical camera of the images, (fx / width, fy / height).
    """

    def __init__(self, student: nn.Module, distillation: Distillation, focal: tuple[float, float]) -> None:
        super().__init__()
        self.distillation = distillation
        self._teacher: MetricTeacher | None = None
        self.imitation: Imitation | None = None
        if not distillation.teacher:
            return
        self._teacher = MetricTeacher(distillation.teacher, focal)
        if distillation.features:
            self.imitation = Imitation(student, self._teacher.network.encoder.channels)  # type: ignore[union-attr, arg-type]

    def forward(self, images: torch.Tensor, depths: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the losses, to be called right after the student has made `prediction`.

        Args:
            images: RGB in [0, 1], (N, 3, H, W), as they were before the student's normalisation.
            depths: (N, 1, H, W); what is negative is relative, see `RelativeFrames`.
            prediction: the student's metres, float32.
        """
        settings = self.distillation
        loss = prediction.new_zeros(())
        if self._teacher:
            metres, features = self._teacher(images)
            metres = metres * shown(images, (metres.shape[2], metres.shape[3]))
            loss = loss + settings.output * output_loss(prediction, metres)
            if self.imitation:
                loss = loss + settings.features * self.imitation(features)
        relative = depths < 0
        if settings.relative and relative.any():
            inverse = 1 / prediction.clamp_min(NEAREST)
            loss = loss + settings.relative * affine_invariant_loss(
                inverse, -depths, relative, settings.alignment, settings.trim
            )
        return loss

    def remove(self) -> None:
        """Leave the student as it was."""
        if self.imitation:
            self.imitation.remove()


class RelativeTeacher:
    """A network for relative depth in a .tflite or .onnx file, run by OpenVINO on the CPU.

    The file takes one RGB image in [0, 1], float32, (1, H, W, 3) or (1, 3, H, W), and its first output is a map that
    is affine in inverse depth (form "inverse"), or whose inverse is ("depth").

    Raises:
        ValueError: no such file, or one that takes something else.
    """

    def __init__(self, path: Path, form: Form = "depth", threads: int = 0) -> None:
        if not path.is_file():
            raise ValueError(f"the relative teacher {path} does not exist; give a .tflite or .onnx file below --data")
        self.path, self.form, self.threads = path, form, threads
        self.key = hashlib.sha256(path.read_bytes() + form.encode()).hexdigest()[:16]
        """Tells maps of this teacher from those of others."""

    @cached_property
    def _network(self) -> Any:
        import openvino as ov  # only where maps are still to be computed

        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if self.threads:
            properties["INFERENCE_NUM_THREADS"] = self.threads
        network = ov.Core().compile_model(self.path, "CPU", properties)
        shape = list(network.input(0).shape) if network.input(0).partial_shape.is_static else []
        if len(network.inputs) != 1 or len(shape) != 4 or shape[0] != 1 or 3 not in (shape[1], shape[3]):
            raise ValueError(f"{self.path} takes {network.inputs}; a relative teacher takes one image of a fixed size")
        return network

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Relative inverse depth, float32 (H, W) of the network's output, 0 farthest and 1 nearest.

        Args:
            rgb: uint8 (height, width, 3), stretched to the network's size.
        """
        shape = tuple(self._network.input(0).shape)
        channels_last = shape[3] == 3
        pixels = resize(rgb, shape[1:3] if channels_last else shape[2:], "area").astype(np.float32) / 255
        image = pixels[None] if channels_last else np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
        output = np.squeeze(self._network(image)[0])
        if self.form == "depth":
            # A network may say 0 or less here and there; a hundredth of its median is nearer than anything real.
            output = 1 / np.maximum(output, 0.01 * max(float(np.median(output)), 1e-6))
        low, high = output.min(), output.max()
        return np.asarray((output - low) / max(high - low, 1e-12), np.float32)


class RelativeFrames(Sequence[RGBDFrame]):
    """Frames with a teacher's relative depth in place of what depth and camera they have.

    A frame's `depth` is -(1 + relative inverse depth), -2 nearest and -1 farthest: metric losses count positive depth
    only, and no crop or change of scale turns it into metres. Maps that the cache lacks are computed first, with
    progress, and each is kept at once: an interrupted run goes on where it stopped.

    Args:
        frames: anything indexed that has images; read anew whenever a frame is asked for.
        cache: folder for the maps, float16 at half the teacher's resolution; files are named by teacher and image.
    """

    def __init__(self, frames: Dataset | Sequence[RGBDFrame], teacher: RelativeTeacher, cache: Path) -> None:
        self.frames = frames
        self.paths: list[Path] = []
        folder = cache / teacher.key
        folder.mkdir(parents=True, exist_ok=True)
        for index in tqdm(range(len(frames)), desc="relative depth"):
            rgb = frames[index].rgb
            path = folder / f"{hashlib.sha256(np.ascontiguousarray(rgb).data).hexdigest()[:32]}.npy"
            if not path.is_file():
                write_atomically(path, _halved(teacher(rgb)))
            self.paths.append(path)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        """Frame `index`."""
        frame = self.frames[index]
        inverse = np.load(self.paths[index]).astype(np.float32)
        height, width = frame.rgb.shape[:2]
        return RGBDFrame(frame.rgb, -1 - resize(inverse, (height, width)), name=frame.name)


def _halved(relative: np.ndarray) -> bytes:
    """A map at half its size as the bytes of a .npy file."""
    height, width = relative.shape
    file = io.BytesIO()
    np.save(file, cv2.resize(relative, (width // 2, height // 2), interpolation=cv2.INTER_AREA).astype(np.float16))
    return file.getvalue()

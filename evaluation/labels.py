"""Photographs with the depth or the boxes that a trained network sees in them, from which another one can learn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from perception.engines.acceptance import Predict
from perception.evaluation.confidence import Confidence
from perception.evaluation.depth import predict_depth
from perception.evaluation.frames import RGBDFrame
from perception.evaluation.rgbd_folder import IMAGE_SUFFIXES, RGBDWriter
from perception.evaluation.yolo import YoloWriter
from perception.tasks import detection as detection_task
from perception.tasks.config import ModelConfig
from perception.tasks.decoders import FoundDecoder
from perception.tasks.geometry import Camera, Fit
from perception.tasks.image import Image, preprocess, resize
from perception.tasks.labels import UNUSED


def find_photographs(folder: Path) -> list[Path]:
    """Every image in a folder and the folders in it, by name; of folders of RGB-D frames, the colour images.

    Raises:
        ValueError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give a folder of photographs")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and not _is_depth(path))
    if not found:
        raise ValueError(f"{folder} holds no image; accepted: {', '.join(IMAGE_SUFFIXES)}")
    return found


def _is_depth(path: Path) -> bool:
    return path.parent.name == "depth" and (path.parent.parent / "camera.json").is_file()


def training_camera(config: ModelConfig) -> Camera:
    """The camera that the network takes every photograph to be made with, the one it learned with, at its input size.

    Raises:
        ValueError: not a depth model, or one that does not say its camera.
    """
    if config.task != "depth" or config.focal is None:
        raise ValueError(
            f"{config.name} cannot label photographs: it must give depth and say its training camera, and its task is "
            f"{config.task!r} and its focal {config.focal}; name another teacher, or train this one"
        )
    return Camera.canonical(config.focal, config.input_size)


def label(predict: Predict, config: ModelConfig, photographs: Iterable[Path], writer: RGBDWriter) -> list[Path]:
    """Write a frame for each photograph, cut to the writer's aspect; returns those that cannot be read.

    Args:
        writer: its camera is the network's `training_camera`.
    """
    broken = []
    for path in photographs:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            broken.append(path)
            continue
        frame = RGBDFrame(_cut(image[..., ::-1], (writer.camera.height, writer.camera.width)))
        writer.write_frame(frame.rgb, predict_depth(predict, config, frame).metres)
    return broken


def used_labels(config: ModelConfig) -> np.ndarray:
    """Places of the classes that a detector can find, int64 (K,), in its order.

    Raises:
        ValueError: not a detector.
    """
    if config.task != "detection":
        raise ValueError(f"{config.name} cannot label photographs with boxes: its task is {config.task!r}")
    return np.array([place for place, label in enumerate(config.labels) if label != UNUSED], np.int64)


def label_boxes(
    predict: Predict,
    config: ModelConfig,
    photographs: Iterable[Path],
    writer: YoloWriter,
    score: float,
    confidence: Confidence | None = None,
) -> list[Path]:
    """Write each photograph with what a detector finds in it; returns those that cannot be read.

    Args:
        writer: of the detector's `used_labels`.
        score: what scores less is not there.
        confidence: what the detector's scores are worth, which then stands for them; `score` too is meant so.
    """
    used, broken = used_labels(config), []
    if confidence:
        asked, score = score, confidence.score_of(score)
        if score > 1:
            raise ValueError(f"no box of {config.name} is right {asked:.0%} of the time; ask for less")
    if isinstance(config.decoder, FoundDecoder) and score < config.decoder.least:
        raise ValueError(
            f"{config.name}'s engine itself drops what scores less than {config.decoder.least:g}; ask for no "
            "less, or build it with --suppression numpy"
        )
    for path in photographs:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            broken.append(path)
            continue
        height, width = image.shape[:2]
        fit = Fit.of((height, width), config)
        found = detection_task.parse(predict(preprocess(Image(image, "bgr8"), config, fit)), fit, config, score)
        shares = found.boxes / (width, height, width, height)
        scores = confidence(found.scores) if confidence else found.scores
        writer.write_image(path, shares, np.searchsorted(used, found.labels), scores)
    return broken


def _cut(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The largest window of the wanted aspect in the middle of an image, at the wanted size."""
    scale = min(rgb.shape[0] / size[0], rgb.shape[1] / size[1])
    height, width = max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
    top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    return resize(np.ascontiguousarray(rgb[top : top + height, left : left + width]), size, "area")

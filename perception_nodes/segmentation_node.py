"""Semantic segmentation: images in; a mask, its confidence, the table of names and an overlay out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perception.nodes.model_node import Job, ModelNode, ModelParameters, Stream
from perception.nodes.node import run_node
from perception.nodes.outputs import ImageOutput
from perception.nodes.parameters import parameter
from perception.nodes.vision import LabelsOutput
from perception.tasks import segmentation as task
from perception.tasks.colors import class_colors
from perception.tasks.config import SEGMENTATION_MODEL
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, to_color
from perception.tasks.labels import chosen


@dataclass(frozen=True)
class SegmentationParameters(ModelParameters):
    model: str = parameter(
        SEGMENTATION_MODEL, "Registered name of the model, or path of an ONNX file made by `perception`."
    )
    classes: str = parameter(
        "",
        "Names of the classes that the mask has, separated by commas; the others become 255, no class. Empty: all.",
        live=True,
    )
    colors: str = parameter(
        "",
        "Colours of classes in the overlay, such as floor=#804080, person=#dc143c; the others have some.",
        live=True,
    )
    overlay_opacity: float = parameter(
        0.5, "How much of the overlay is classes rather than image.", live=True, minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True)
class SegmentationOutputs:
    """The topics of one camera."""

    mask: ImageOutput
    confidence: ImageOutput
    labels: LabelsOutput
    overlay: ImageOutput


class SegmentationNode(ModelNode):
    """Publishes `mask` and `confidence` (mono8 of the image's size), `labels` (latched) and `mask/overlay`."""

    parameters_type = SegmentationParameters
    tasks = ("segmentation",)
    parameters: SegmentationParameters

    def __init__(self, name: str = "segmentation_node", **options: object) -> None:
        super().__init__(name, **options)

    def review(self, parameters: SegmentationParameters) -> None:
        if self.engine:  # until then nobody knows the names
            chosen(parameters.classes, self.engine.config.labels)
            class_colors(parameters.colors, self.engine.config.labels)

    def try_out(self, outputs: Mapping[str, np.ndarray]) -> None:
        assert self.engine
        task.parse(outputs, Fit.of(self.engine.config.input_size, self.engine.config), self.engine.config)

    def create_outputs(self, stream: Stream) -> SegmentationOutputs:
        assert self.engine
        topics = SegmentationOutputs(
            self.add_output(stream, ImageOutput, "mask"),
            self.add_output(stream, ImageOutput, "confidence"),
            self.add_output(stream, LabelsOutput, "labels"),
            self.add_output(stream, ImageOutput, "mask/overlay"),
        )
        topics.labels.publish(self.engine.config.labels, 0.0)
        return topics

    def publish(self, job: Job, outputs: Mapping[str, np.ndarray]) -> None:
        assert self.engine
        parameters, config, header = self.parameters, self.engine.config, job.frame.header
        topics: SegmentationOutputs = job.stream.results
        topics.labels.publish(config.labels, 0.0)  # is silent but for a node that has come to publish there too
        classes, size = chosen(parameters.classes, config.labels), job.fit.source
        out = topics.mask.pixels(size, "mono8"), topics.confidence.pixels(size, "mono8")
        found = task.parse(outputs, job.fit, config, classes, out)
        if topics.mask.wanted:
            topics.mask.publish(Image(found.mask, "mono8"), header)
        if topics.confidence.wanted:
            topics.confidence.publish(Image(found.confidence, "mono8"), header)
        if topics.overlay.wanted:
            colors, image = class_colors(parameters.colors, config.labels), to_color(job.image, "bgr")
            picture = task.overlay(image, found.mask, colors, parameters.overlay_opacity)
            topics.overlay.publish(Image(picture, "bgr8"), header)


def main() -> int:
    return run_node(SegmentationNode)


if __name__ == "__main__":
    sys.exit(main())

"""Object detection: images in; boxes with names, the table of names and an overlay out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from perception.nodes.model_node import Job, ModelNode, ModelParameters, Stream
from perception.nodes.node import run_node
from perception.nodes.outputs import ImageOutput
from perception.nodes.parameters import parameter
from perception.nodes.vision import DetectionsOutput, LabelsOutput
from perception.tasks import detection as task
from perception.tasks.config import DETECTION_MODEL
from perception.tasks.decoders import FoundDecoder
from perception.tasks.detection import Detections
from perception.tasks.geometry import Fit
from perception.tasks.image import Image, to_color
from perception.tasks.labels import chosen
from perception.tasks.messages import stamp_of
from perception.tasks.tracking import Tracker


@dataclass(frozen=True)
class DetectionParameters(ModelParameters):
    model: str = parameter(
        DETECTION_MODEL, "Registered name of the model, or path of an ONNX file or of its description."
    )
    score_threshold: float = parameter(
        task.REPORTED, "Objects that score less are not reported.", live=True, minimum=0.0, maximum=1.0
    )
    nms_threshold: float = parameter(
        task.IOU,
        "Of two boxes of a class that overlap by more than this (IoU), the worse is left out.",
        live=True,
        minimum=0.0,
        maximum=1.0,
    )
    max_detections: int = parameter(
        task.MOST, "How many objects of an image are reported, the best.", live=True, minimum=1, maximum=1000
    )
    classes: str = parameter(
        "", "Names of the classes that are reported, separated by commas; empty reports all.", live=True
    )
    tracking: bool = parameter(False, "Give objects ids that stay from image to image (ByteTrack).", live=True)
    tracking_score: float = parameter(
        0.1,
        "An object that has an id is reported down to this score; score_threshold is what it begins with.",
        live=True,
        minimum=0.01,
        maximum=1.0,
    )
    tracking_memory: float = parameter(
        1.0,
        "Seconds by the stamps for which an object that is not seen keeps its id.",
        live=True,
        minimum=0.01,
        maximum=60.0,
    )

    @property
    def least_score(self) -> float:
        """Score from which on a box is of interest."""
        return min(self.score_threshold, self.tracking_score) if self.tracking else self.score_threshold


@dataclass(frozen=True)
class DetectionOutputs:
    """The topics of one camera, and the objects that it follows."""

    detections: DetectionsOutput
    labels: LabelsOutput
    overlay: ImageOutput
    tracker: Tracker = field(default_factory=Tracker)


class DetectionNode(ModelNode):
    """Publishes `detections` (boxes in pixels of the image), `labels` (latched) and `detections/overlay`."""

    parameters_type = DetectionParameters
    tasks = ("detection",)
    parameters: DetectionParameters

    def __init__(self, name: str = "detection_node", **options: object) -> None:
        super().__init__(name, **options)

    def review(self, parameters: DetectionParameters) -> None:
        if not self.engine:  # until then nobody knows the names
            return
        config = self.engine.config
        chosen(parameters.classes, config.labels)
        if not isinstance(config.decoder, FoundDecoder):
            return
        least, overlap, most = config.decoder.least, config.decoder.threshold, config.outputs[0].shape[1]
        if parameters.nms_threshold != overlap:  # a lower one either; see `perception.engines.suppression`
            raise ValueError(
                f"this engine itself leaves out what overlaps by more than {overlap:g}; set nms_threshold to that, or "
                "build it with --suppression numpy"
            )
        if parameters.least_score < least or parameters.max_detections > most:
            raise ValueError(
                f"this engine itself drops what scores less than {least:g} or comes after the best {most}; ask for no "
                "more than that, or build it with --suppression numpy"
            )

    def try_out(self, outputs: Mapping[str, np.ndarray]) -> None:
        assert self.engine
        task.parse(outputs, Fit.of(self.engine.config.input_size, self.engine.config), self.engine.config)

    def create_outputs(self, stream: Stream) -> DetectionOutputs:
        topics = DetectionOutputs(
            self.add_output(stream, DetectionsOutput, "detections"),
            self.add_output(stream, LabelsOutput, "labels"),
            self.add_output(stream, ImageOutput, "detections/overlay"),
        )
        self._tell_labels(topics)
        return topics

    def adopt(self) -> None:
        for stream in self.streams:
            self._tell_labels(stream.results)
            if not self.parameters.tracking:
                stream.results.tracker.forget()

    def publish(self, job: Job, outputs: Mapping[str, np.ndarray]) -> None:
        assert self.engine
        topics: DetectionOutputs = job.stream.results
        header, labels = job.frame.header, self.engine.config.labels
        found = self._found(job, outputs, topics.tracker)
        if topics.detections.wanted:
            topics.detections.publish(found, labels, header)
        if topics.overlay.wanted:
            topics.overlay.publish(Image(task.overlay(to_color(job.image, "bgr"), found, labels), "bgr8"), header)

    def _found(self, job: Job, outputs: Mapping[str, np.ndarray], tracker: Tracker) -> Detections:
        assert self.engine
        parameters, config = self.parameters, self.engine.config
        classes = chosen(parameters.classes, config.labels)
        least, most, overlap = parameters.least_score, parameters.max_detections, parameters.nms_threshold
        decoder = config.decoder
        if classes is not None and isinstance(decoder, FoundDecoder) and decoder.full(outputs, least):
            self.advise_once(
                job.stream,
                "full",
                f"objects of classes = {parameters.classes!r} may be missing: this engine itself keeps the best "
                f"{config.outputs[0].shape[1]} boxes of all classes, and there are so many; build it with "
                "--suppression numpy",
            )
        found = task.parse(outputs, job.fit, config, least, overlap, most, classes)
        if not parameters.tracking:
            return found
        if not (stamp := stamp_of(job.frame)):
            self.advise_once(
                job.stream, "unstamped", "no object gets an id: the images have no stamps; set them in the driver"
            )
        return tracker.update(found, stamp, parameters.score_threshold, parameters.tracking_memory)

    def _tell_labels(self, topics: DetectionOutputs) -> None:
        assert self.engine
        topics.labels.publish(self.engine.config.labels, self.parameters.score_threshold)


def main() -> int:
    return run_node(DetectionNode)


if __name__ == "__main__":
    sys.exit(main())

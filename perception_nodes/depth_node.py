"""Monocular metric depth: images in; depth, its camera_info, points and an overlay out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perception.nodes.model_node import Job, ModelNode, ModelParameters, Stream
from perception.nodes.node import run_node
from perception.nodes.outputs import CalibrationOutput, ImageOutput, PointsOutput
from perception.nodes.parameters import parameter
from perception.tasks import depth as task
from perception.tasks.config import DEPTH_MODEL
from perception.tasks.geometry import Camera, back_project
from perception.tasks.image import Image, to_color


@dataclass(frozen=True)
class DepthParameters(ModelParameters):
    model: str = parameter(DEPTH_MODEL, "Registered name of the model, or path of an ONNX file made by `perception`.")
    min_depth: float = parameter(
        0.0, "Metres; nearer pixels become -Inf (REP 117).", live=True, minimum=0.0, maximum=1000.0
    )
    max_depth: float = parameter(
        10.0, "Metres; farther pixels become +Inf (REP 117).", live=True, minimum=0.01, maximum=1000.0
    )
    points_stride: int = parameter(1, "Every how many pixels a point is published.", live=True, minimum=1, maximum=64)
    points_edge: float = parameter(
        0.0,
        "Points whose depth differs from a neighbour's by more than this share are left out (NaN); 0 keeps all. "
        "Depth is smooth across object edges, which leaves points in mid-air.",
        live=True,
        minimum=0.0,
        maximum=1.0,
    )
    points_color: bool = parameter(False, "Whether points carry the image's colours as rgb.", live=True)
    overlay_opacity: float = parameter(
        0.5, "How much of the overlay is depth rather than image.", live=True, minimum=0.0, maximum=1.0
    )

    def check(self) -> None:
        super().check()
        if self.min_depth >= self.max_depth:
            raise ValueError(f"min_depth {self.min_depth} must be less than max_depth {self.max_depth}")


@dataclass(frozen=True)
class DepthOutputs:
    """The topics of one camera."""

    depth: ImageOutput
    camera_info: CalibrationOutput
    points: PointsOutput
    overlay: ImageOutput


class DepthNode(ModelNode):
    """Publishes `depth` (32FC1 metres along camera Z, REP 118), its camera_info, `depth/points` and `depth/overlay`."""

    parameters_type = DepthParameters
    tasks = ("depth",)
    spatial = True
    parameters: DepthParameters

    def __init__(self, name: str = "depth_node", **options: object) -> None:
        super().__init__(name, **options)

    def create_outputs(self, stream: Stream) -> DepthOutputs:
        return DepthOutputs(
            self.add_output(stream, ImageOutput, "depth"),
            self.add_output(stream, CalibrationOutput, "depth/camera_info"),
            self.add_output(stream, PointsOutput, "depth/points"),
            self.add_output(stream, ImageOutput, "depth/overlay"),
        )

    def publish(self, job: Job, outputs: Mapping[str, np.ndarray]) -> None:
        assert self.engine
        parameters, header = self.parameters, job.frame.header
        topics: DepthOutputs = job.stream.results
        pixels = topics.depth.pixels(job.fit.source, "32FC1")
        depth = task.parse(outputs, job.fit, self.engine.config, parameters.min_depth, parameters.max_depth, pixels)
        if topics.depth.wanted:
            topics.depth.publish(Image(depth.metres, "32FC1"), header)
        if topics.camera_info.wanted and job.calibration:
            topics.camera_info.publish(job.calibration, header)
        if topics.points.wanted and depth.camera:
            points, colors = self._cloud(job, depth.metres, depth.camera)
            topics.points.publish(points, header, colors)
        if topics.overlay.wanted:
            picture = task.overlay(to_color(job.image, "bgr"), depth, parameters.overlay_opacity)
            topics.overlay.publish(Image(picture, "bgr8"), header)

    def _cloud(self, job: Job, metres: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray | None]:
        parameters = self.parameters
        if parameters.points_edge:
            metres = task.without_edges(metres, parameters.points_edge)
        every = np.s_[:: parameters.points_stride, :: parameters.points_stride]
        points = back_project(metres, camera)[every]
        return points, to_color(job.image, "bgr")[every] if parameters.points_color else None


def main() -> int:
    return run_node(DepthNode)


if __name__ == "__main__":
    sys.exit(main())

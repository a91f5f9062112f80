"""Novel views: images and poses in; what the camera would see from there, its camera_info and depth out."""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Header

from perception import engines
from perception.nodes.inputs import Frame, durations_of
from perception.nodes.model_node import Job, ModelNode, ModelParameters, Stream
from perception.nodes.node import run_node
from perception.nodes.outputs import CalibrationOutput, ImageOutput
from perception.nodes.parameters import parameter
from perception.nodes.receiver import Receiver
from perception.nodes.transforms import TransformOutput, Transforms, pose_from_message
from perception.nodes.view_methods import Rendering, Scene, ViewMethod, Warping, black
from perception.tasks.calibration import Calibration
from perception.tasks.config import DEPTH_MODEL
from perception.tasks.image import Image
from perception.tasks.messages import stamp_of
from perception.tasks.poses import orbit_pose
from perception.tasks.view_synthesis import Reach

WAITING = 10
"""Poses that wait for their views; what comes beyond them takes the place of the oldest, which counts as dropped."""
REQUESTS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=WAITING, reliability=ReliabilityPolicy.RELIABLE)
"""Of poses, which may be asked for once only, and must not be lost as an image may."""


@dataclass(frozen=True)
class ViewSynthesisParameters(ModelParameters):
    model: str = parameter(
        DEPTH_MODEL,
        "A model for depth, by which images are warped, or one for view synthesis: registered name, or path of an ONNX "
        "file made by `perception`.",
    )
    depth_model: str = parameter(
        "", "Model for depth that tells one for view synthesis how far away the scene is; empty: nothing does."
    )
    max_distance: float = parameter(
        Reach.distance,
        "Metres between camera and view beyond which a view is refused.",
        live=True,
        minimum=0.0,
        maximum=1000.0,
    )
    max_angle: float = parameter(
        Reach.angle,
        "Degrees by which a view is turned beyond which it is refused.",
        live=True,
        minimum=0.0,
        maximum=180.0,
    )
    view_frame: str = parameter(
        "view_optical", "Frame of the views; where it stands is on /tf where the package tf2_msgs is installed."
    )
    transform_timeout: float = parameter(
        0.1,
        "Seconds to wait for the transform from a pose's frame to the image's at the image's stamp.",
        live=True,
        minimum=0.0,
        maximum=5.0,
    )
    orbit: bool = parameter(
        False, "Make a view of every image, on a circle around the camera's line of sight.", live=True
    )
    orbit_angle: float = parameter(
        6.0, "Degrees between the lines of sight of camera and circle.", live=True, minimum=0.0, maximum=90.0
    )
    orbit_distance: float = parameter(
        2.0,
        "Metres ahead of the camera to the point that views of the circle look at.",
        live=True,
        minimum=0.0,
        maximum=1000.0,
    )
    orbit_period: float = parameter(
        4.0, "Seconds once around the circle, by the stamps.", live=True, minimum=0.1, maximum=3600.0
    )

    def check(self) -> None:
        super().check()
        if not self.view_frame:
            raise ValueError("view_frame is empty; views need a frame of their own, such as view_optical")


@dataclass
class Request(Frame):
    """An image of which a view is wanted; `stages` and `arrived` are of the request."""

    of: Frame | None = None
    """The image as it came."""
    target: PoseStamped | None = None
    """Where the view is to be; None: where the orbit is."""


@dataclass
class ViewJob(Job):
    """A view to make."""

    scene: Scene
    pose: np.ndarray
    """Of the target camera in the image's optical frame, 4x4, metres."""


@dataclass
class ViewOutputs:
    """The topics of one camera, and what is remembered of it."""

    view: ImageOutput
    camera_info: CalibrationOutput
    depth: ImageOutput
    newest: Frame | None = None
    """Its newest image."""
    asked: int = 0
    """How many poses have come."""
    last: ViewJob | None = None
    """The last view, of whose image others are made with less work."""


class ViewSynthesisNode(ModelNode):
    """Publishes for each pose `view` (rgb8), its camera_info and `view/depth` (32FC1, NaN unknown, REP 117 and 118).

    Views have the stamp of the image that they are made of, the newest one. A pose is where the optical frame of the
    target camera is to stand. Counts are of views that were asked for; `refused` of those that were too far away, or
    whose pose was none.
    """

    parameters_type = ViewSynthesisParameters
    tasks = ("depth", "view_synthesis")
    spatial = True
    parameters: ViewSynthesisParameters

    def __init__(self, name: str = "view_synthesis_node", **options: object) -> None:
        super().__init__(name, **options)
        self._method: ViewMethod | None = None
        self._engines: list[engines.Engine] = []
        self._receiver: Receiver | None = None
        self._transforms: Transforms | None = None
        self._frames: TransformOutput | None = None

    def setup(self) -> None:
        super().setup()
        try:
            self._frames = TransformOutput(self)
        except ImportError:
            self._frames = None

    def load(self) -> engines.Engine:
        parameters = self.parameters
        choice = (parameters.target, parameters.precision, parameters.threads)
        parts = engines.load_whole(parameters.model, *choice).parts
        self._engines += parts
        if parts[0].config.task == "depth":
            self._method = Warping(parts[0])
        elif parts[0].config.task == "view_synthesis":
            depth = engines.load(parameters.depth_model, *choice) if parameters.depth_model else None
            self._engines += [depth] if depth else []
            self._method = Rendering(parts, depth)
        return parts[0]

    def first_run(self) -> Mapping[str, np.ndarray]:
        assert self._method
        return self._method.run(black(self._method.engine), np.eye(4))

    def try_out(self, outputs: Mapping[str, np.ndarray]) -> None:
        assert self._method
        scene = black(self._method.engine)
        self._method.known_depth(scene, self._method.view(scene, outputs, np.eye(4)), np.eye(4))

    def create_outputs(self, stream: Stream) -> ViewOutputs:
        return ViewOutputs(
            self.add_output(stream, ImageOutput, "view"),
            self.add_output(stream, CalibrationOutput, "view/camera_info"),
            self.add_output(stream, ImageOutput, "view/depth"),
        )

    def teardown(self) -> None:
        super().teardown()
        if self._frames:
            self._frames.close()
        for engine in self._engines:
            engine.close()
        self._engines = []
        self._frames = self._method = None

    def start(self) -> None:
        super().start()
        self._transforms = Transforms(self)
        self._receiver = Receiver(self, lambda _topic, reason: self._on_refused("failed", reason))
        for stream in self.streams:
            topic, callback = f"{stream.prefix}target_pose", partial(self._on_pose, stream)
            options = QoSOverridingOptions.with_default_policies()
            # rclpy writes overrides into the profile that it is given.
            self._receiver.add(PoseStamped, topic, callback, copy.copy(REQUESTS), qos_overriding_options=options)

    def stop(self) -> None:
        if self._receiver:
            self._receiver.close()
        super().stop()
        if self._transforms:
            self._transforms.close()
        self._receiver = self._transforms = None
        for stream in self.streams:
            stream.results.newest = stream.results.last = None

    def describe(self) -> dict[str, str]:
        method = {"method": self._method.name} if self._method else {}
        return super().describe() | method | {"refused": str(self.statistics.counts["refused"])}

    def _on_frame(self, stream: Stream, frame: Frame) -> None:
        stream.results.newest = frame
        if self.parameters.orbit:
            self._ask(stream, None, frame.stages)

    def _on_pose(self, stream: Stream, message: PoseStamped, info: Mapping[str, int]) -> None:
        self._ask(stream, message, durations_of(info))

    def _ask(self, stream: Stream, target: PoseStamped | None, stages: dict[str, float]) -> None:
        """Ask for a view of the newest image."""
        self.statistics.count("received")
        newest: Frame | None = stream.results.newest
        age = time.perf_counter() - newest.arrived if newest else 0.0
        if newest is None or age > self.parameters.input_timeout:
            came = f"the last came {age:.0f} s ago" if newest else "none has come yet"
            topic = stream.input.topic if stream.input else "image"
            reason = f"a view is asked for, but there is no image on {topic}: {came}; see that the camera runs"
            self._on_failed((stream, newest), ValueError(reason))
            return
        fields = {field.name: getattr(newest, field.name) for field in dataclasses.fields(newest)}
        request = Request(**fields | {"stages": stages, "arrived": time.perf_counter()}, of=newest, target=target)
        turn = None
        if target is not None:
            turn = stream.results.asked % WAITING
            stream.results.asked += 1
        self._worker.put((stream, request), (stream.name, turn))

    def _awaits_calibration(self, stream: Stream, frame: Frame) -> bool:
        # Who asks for a view is told at once that none can be made.
        return isinstance(frame, Request) and frame.target is None and super()._awaits_calibration(stream, frame)

    def make_ready(self, stream: Stream, frame: Frame) -> ViewJob:
        assert isinstance(frame, Request)
        topics: ViewOutputs = stream.results
        pose = self._pose(frame)
        if topics.last is None or not isinstance(topics.last.frame, Request) or topics.last.frame.of is not frame.of:
            topics.last = self._see(super().make_ready(stream, frame), pose)
        wanted = topics.view.wanted or topics.depth.wanted
        tensor = topics.last.scene.tensor if wanted else None
        return dataclasses.replace(topics.last, frame=frame, pose=pose, tensor=tensor)

    def _see(self, job: Job, pose: np.ndarray) -> ViewJob:
        camera = job.calibration.camera if isinstance(job.calibration, Calibration) else job.calibration
        if camera is None:
            topic = job.stream.input.info_topic if job.stream.input else "camera_info"
            raise ValueError(
                f"no view can be made without the camera's focal length: there is no usable calibration on {topic}; "
                "calibrate the camera, and publish what came of it"
            )
        assert job.tensor is not None
        return ViewJob(**vars(job), scene=Scene(job.image, camera, job.tensor), pose=pose)

    def _pose(self, request: Request) -> np.ndarray:
        """Where the view is to be made from, 4x4 in the image's frame; raises ValueError where it must not."""
        parameters = self.parameters
        try:
            if request.target is None:
                seconds = (stamp_of(request) or time.monotonic_ns()) / 1e9
                turn = seconds / parameters.orbit_period % 1
                pose = orbit_pose(turn, parameters.orbit_angle, parameters.orbit_distance)
            else:
                pose = self._resolved(request.target, request.header)
            Reach(parameters.max_distance, parameters.max_angle).check(pose)
            return pose
        except ValueError:
            self.statistics.count("refused")
            raise

    def _resolved(self, target: PoseStamped, image: Header) -> np.ndarray:
        pose = pose_from_message(target.pose)
        frame = target.header.frame_id or image.frame_id
        if frame == image.frame_id:
            return pose
        assert self._transforms
        return self._transforms.pose(frame, image.frame_id, image.stamp, self.parameters.transform_timeout) @ pose

    def run(self, job: Job) -> Mapping[str, np.ndarray]:
        assert self._method and isinstance(job, ViewJob)
        return self._method.run(job.scene, job.pose)

    def publish(self, job: Job, outputs: Mapping[str, np.ndarray]) -> None:
        assert self._method and isinstance(job, ViewJob)
        topics: ViewOutputs = job.stream.results
        image = job.frame.header
        header = Header(stamp=image.stamp, frame_id=f"{job.stream.prefix}{self.parameters.view_frame}")
        # First what belongs to the view, for whoever has that.
        if self._frames and self._frames.wanted:
            self._frames.publish(job.pose, image, header.frame_id)
        if topics.camera_info.wanted:
            topics.camera_info.publish(job.scene.camera, header)
        if not outputs:
            return
        view = self._method.view(job.scene, outputs, job.pose)
        if topics.view.wanted:
            topics.view.publish(Image(view.image, "rgb8"), header)
        if topics.depth.wanted:
            topics.depth.publish(Image(self._method.known_depth(job.scene, view, job.pose), "32FC1"), header)


def main() -> int:
    return run_node(ViewSynthesisNode)


if __name__ == "__main__":
    sys.exit(main())

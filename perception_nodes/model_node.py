"""The base of the nodes that run a model on images: one engine and one worker for the images of all its cameras."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, TypeVar

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo

from perception import engines
from perception.nodes.inputs import TRANSPORTS, Frame, ImageInput
from perception.nodes.names import NAMES
from perception.nodes.node import BaseNode, NodeParameters
from perception.nodes.outputs import Output
from perception.nodes.parameters import parameter
from perception.nodes.worker import Worker
from perception.tasks.calibration import Calibration
from perception.tasks.geometry import Camera, Fit, Rectifier
from perception.tasks.image import RESIZABLE, Image, preprocess, to_color

AnyOutput = TypeVar("AnyOutput", bound=Output)


@dataclass(frozen=True)
class ModelParameters(NodeParameters):
    """Parameters that every node with a model has."""

    model: str = parameter("", "Registered name of the model, or path of an ONNX file exported by `perception`.")
    target: str = parameter("auto", "Runtime of the engine; auto takes the one that the build found fastest.")
    precision: str = parameter("auto", "Precision of the engine; auto takes the one that the build found fastest.")
    threads: int = parameter(0, "Threads of the runtime; 0 means all cores.", minimum=0, maximum=256)
    opencv_threads: int = parameter(1, "Threads of OpenCV; 0 means all cores.", minimum=0, maximum=256)
    cameras: str = parameter(
        "", "Names of several cameras, separated by spaces: topics are NAME/image and so on, and one engine serves all."
    )
    image_transport: str = parameter("raw", "How images come: raw, or compressed (JPEG, PNG).", choices=TRANSPORTS)
    rectify: bool = parameter(False, "Undo lens distortion first; outputs then belong to the rectified image.")
    input_timeout: float = parameter(
        5.0, "Seconds without an image before the node says why.", live=True, minimum=0.1, maximum=3600.0
    )

    def check(self) -> None:
        names = self.cameras.split()
        if wrong := [name for name in names if not re.fullmatch(NAMES, name)]:
            raise ValueError(f"camera {wrong[0]!r} is no ROS name, such as front or left/wide")
        if len(set(names)) < len(names):
            raise ValueError(f"cameras {self.cameras!r} names one twice")


@dataclass
class Stream:
    """One of a node's cameras: its topics, its input while the node is active, and what is remembered of it."""

    name: str
    """Empty where the node has one camera only."""
    results: Any = None
    """What `create_outputs` returned."""
    outputs: list[Output] = field(default_factory=list)
    input: ImageInput | None = None
    rectifier: tuple[Calibration, Rectifier] | None = None
    advised: set[str] = field(default_factory=set)
    published: int = 0

    @property
    def prefix(self) -> str:
        """Of the names of its topics."""
        return f"{self.name}/" if self.name else ""


@dataclass
class Job:
    """A frame made ready for the engine. Outputs belong to `image` and `calibration`, rectified if asked for."""

    stream: Stream
    frame: Frame
    image: Image
    calibration: Calibration | Camera | None
    fit: Fit
    tensor: np.ndarray | None
    """None: the engine is not asked, see `ModelNode.infers`."""
    decision: Any
    """What `ModelNode.infers` decided for `publish`: the stream has gone on to the next image by then."""

    @property
    def info(self) -> CameraInfo | Calibration | Camera | None:
        """What describes the camera of `image`: what came with it, or of a rectified image the camera that sees it."""
        return self.frame.info if self.image is self.frame.image else self.calibration


class ModelNode(BaseNode):
    """Images in, results of one model out.

    A subclass names its `tasks`, adds the outputs of one camera in `create_outputs` and publishes a frame's results in
    `publish`. Cameras take turns, the newest image of each.
    """

    parameters_type: ClassVar[type[NodeParameters]] = ModelParameters
    tasks: ClassVar[tuple[str, ...]]
    """Which one of a model may be for."""
    spatial: ClassVar[bool] = False
    """Whether outputs tell places in space, for which the lens must be known whatever the model."""
    passes_calibration: ClassVar[bool] = False
    """Whether a calibration goes on with its image, even where results do not follow the lens."""
    parameters: Any

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.engine: engines.Engine | None = None
        self.streams: list[Stream] = []
        self._worker: Worker[tuple[Stream, Frame], Job, dict[str, np.ndarray]] = Worker(
            self._prepare,
            self._infer,
            self._finish,
            self._on_failed,
            lambda _: self.statistics.count("dropped"),
            lambda job: job.tensor is not None,
        )

    def create_outputs(self, stream: Stream) -> Any:
        """Create a camera's topics with `add_output`; what is returned is the stream's `results`."""
        raise AttributeError(f"{type(self).__name__} must define create_outputs")

    def load(self) -> engines.Engine:
        """What is built of the model; on configure."""
        parameters = self.parameters
        return engines.load(parameters.model, parameters.target, parameters.precision, parameters.threads)

    def first_run(self) -> Mapping[str, np.ndarray]:
        """What the engine says of a black image, on configure: a runtime's first run is a slow one."""
        assert self.engine
        return self.engine.run(np.zeros((1, *self.engine.config.input_size, 3), np.uint8))

    def try_out(self, outputs: Mapping[str, np.ndarray]) -> None:
        """Parse those of `first_run`; raises ValueError where that cannot be done."""

    def infers(self, job: Job) -> bool:
        """Whether the engine is asked about a job's image; asked in the order of a camera's images. It may fill the
        job's `decision`."""
        return True

    def make_ready(self, stream: Stream, frame: Frame) -> Job:
        """Make a job of a frame; raises ValueError where it cannot be used."""
        assert self.engine
        start = time.perf_counter()
        image = frame.image
        decoded = time.perf_counter()
        image, calibration = self._rectified(stream, image, frame.calibration)
        camera = calibration.camera if isinstance(calibration, Calibration) else calibration
        fit = Fit.of(image.size, self.engine.config, camera if self._follows_lens else None)
        job = Job(stream, frame, image, calibration, fit, tensor=None, decision=None)
        if self.infers(job):
            job.tensor = preprocess(image, self.engine.config, fit)
        frame.stages |= {"decode": decoded - start, "preprocess": time.perf_counter() - decoded}
        return job

    def run(self, job: Job) -> Mapping[str, np.ndarray]:
        """What the engine says of a job; valid until the next one's."""
        assert self.engine and job.tensor is not None
        return self.engine.run(job.tensor)

    def publish(self, job: Job, outputs: Mapping[str, np.ndarray]) -> None:
        """Parse the engine's outputs, which are none where it was not asked, and publish what is wanted, with
        `job.frame.header` in every message."""
        raise AttributeError(f"{type(self).__name__} must define publish")

    def add_output(self, stream: Stream, kind: type[AnyOutput], topic: str) -> AnyOutput:
        """Create a topic of a camera that is withdrawn on cleanup."""
        output = kind(self, f"{stream.prefix}{topic}")
        stream.outputs.append(output)
        return output

    def setup(self) -> None:
        parameters = self.parameters
        cv2.setNumThreads(parameters.opencv_threads or -1)
        self.engine = self.load()
        config = self.engine.config
        if config.task not in self.tasks:
            accepted = " or ".join(map(repr, self.tasks))
            raise ValueError(f"model {config.name!r} is for the task {config.task!r}; this node needs {accepted}")
        if not self.engine.trained:
            self.get_logger().warning(
                f"model {config.name!r} has no trained weights: what it says means nothing; `perception engines list` "
                "shows those that have, `perception train` makes some"
            )
        self.review(parameters)
        self.try_out(self.first_run())
        for name in parameters.cameras.split() or [""]:
            self.streams.append(Stream(name))
            self.streams[-1].results = self.create_outputs(self.streams[-1])

    def teardown(self) -> None:
        for stream in self.streams:
            for output in stream.outputs:
                output.close()
        self.streams = []
        if self.engine:
            self.engine.close()
        self.engine = None

    def start(self) -> None:
        self._worker.start()
        for stream in self.streams:
            stream.advised.clear()
            stream.published = 0
            stream.input = ImageInput(
                self,
                self.parameters.image_transport,
                partial(self._on_frame, stream),
                self._on_refused,
                stream.prefix,
                self._follows_lens or self.passes_calibration,
            )

    def stop(self) -> None:
        for stream in self.streams:
            if stream.input:
                stream.input.close()
            stream.input = None
        self._worker.stop()

    def watch(self) -> list[str]:
        inputs, timeout = [stream.input for stream in self.streams if stream.input], self.parameters.input_timeout
        problems = [
            problem for entrance in inputs for problem in (entrance.silence(timeout), entrance.waiting(timeout))
        ]
        return [problem for problem in problems if problem]

    def describe(self) -> dict[str, str]:
        engine = dict(self.engine.info) if self.engine else {}
        return engine | {f"published_{stream.name}": str(stream.published) for stream in self.streams if stream.name}

    def advise_once(self, stream: Stream, topic: str, advice: str) -> None:
        """Log a warning once for each camera and activation."""
        if topic not in stream.advised:
            stream.advised.add(topic)
            self.get_logger().warning(f"{stream.name}: {advice}" if stream.name else advice)

    def _on_frame(self, stream: Stream, frame: Frame) -> None:
        self.statistics.count("received")
        self._worker.put((stream, frame), stream.name)

    def _prepare(self, arrival: tuple[Stream, Frame]) -> Job | None:
        stream, frame = arrival
        frame.stages["wait"] = time.perf_counter() - frame.arrived
        if not any(output.wanted for output in stream.outputs) or self._awaits_calibration(stream, frame):
            self.statistics.count("skipped")
            return None
        return self.make_ready(stream, frame)

    @property
    def _follows_lens(self) -> bool:
        """Whether a calibration changes anything. Where none does, none is waited for and none can be wrong."""
        return self.spatial or self.parameters.rectify or bool(self.engine and self.engine.config.focal)

    def _awaits_calibration(self, stream: Stream, frame: Frame) -> bool:
        """Depth without the lens's scale is wrong: where a calibration is published, the first frames wait for it."""
        if frame.calibration is not None or not self._follows_lens:
            return False
        if frame.calibration_due:
            return True
        topic = stream.input.info_topic if stream.input else "camera_info"  # none: deactivated meanwhile
        consequences = {
            "results assume the lens the model was trained with": bool(self.engine and self.engine.config.focal),
            "images are not rectified": self.parameters.rectify,
            "nothing that needs points in space is published": self.spatial,
        }
        what = "; ".join(text for text, holds in consequences.items() if holds)
        self.advise_once(stream, "uncalibrated", f"no usable calibration on {topic}: {what}")
        return False

    def _rectified(
        self, stream: Stream, image: Image, calibration: Calibration | None
    ) -> tuple[Image, Calibration | Camera | None]:
        if calibration is None or not calibration.distorted:
            return image, calibration
        if not self.parameters.rectify:
            if self._follows_lens:
                self.advise_once(
                    stream,
                    "distorted",
                    "the image is not rectified: results follow the lens's distortion; set rectify:=true",
                )
            return image, calibration
        if stream.rectifier is None or stream.rectifier[0] != calibration:
            stream.rectifier = calibration, calibration.rectifier()
        rectifier = stream.rectifier[1]
        if image.encoding in RESIZABLE:
            return Image(rectifier(image.data), image.encoding), rectifier.camera
        return Image(rectifier(to_color(image, "bgr")), "bgr8"), rectifier.camera

    def _infer(self, job: Job) -> dict[str, np.ndarray]:
        if job.tensor is None:
            return {}
        start = time.perf_counter()
        # Copied, because the engine's buffers belong to the next frame while this one is published.
        outputs = {name: array.copy() for name, array in self.run(job).items()}
        job.frame.stages["infer"] = time.perf_counter() - start
        return outputs

    def _finish(self, job: Job, outputs: dict[str, np.ndarray]) -> None:
        frame, stages = job.frame, job.frame.stages
        start = time.perf_counter()
        self.publish(job, outputs)
        now = time.perf_counter()
        here = now - frame.arrived
        stages["publish"] = now - start
        stages["latency"] = stages.get("receive", 0.0) + here
        inferred = stages.get("infer", 0.0)
        stages["overhead"] = stages["latency"] - inferred
        stages["callback_overhead"] = here - inferred
        if "transport" in stages:
            stages["age"] = stages["transport"] + here
        self.statistics.time(stages)
        self.statistics.count("published")
        job.stream.published += 1

    def _on_failed(self, _arrival: object, error: Exception) -> None:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        self.statistics.fail("failed", reason)
        self.complain("failed", reason)

    def _on_refused(self, event: str, reason: str) -> None:
        """An input could not use what came."""
        if event == "bad_calibration" and not self._follows_lens:
            return  # it only goes on with its image
        self.statistics.refuse(event, reason)
        self.complain(event, reason)

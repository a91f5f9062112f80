"""Images of low light brightened: images in; the same out, brighter where they are dark, for any node behind it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from sensor_msgs.msg import Image as ImageMessage

from perception.nodes.model_node import Job, ModelNode, ModelParameters, Stream
from perception.nodes.node import run_node
from perception.nodes.outputs import CalibrationOutput, ImageOutput
from perception.nodes.parameters import parameter
from perception.tasks import enhancement as task
from perception.tasks.config import ENHANCEMENT_MODEL
from perception.tasks.image import Image
from perception.tasks.messages import stamp_of

INFO = "image_enhanced/camera_info"


@dataclass(frozen=True)
class EnhancementParameters(ModelParameters):
    model: str = parameter(
        ENHANCEMENT_MODEL, "Registered name of the model, or path of an ONNX file made by `perception`."
    )
    dark_below: float = parameter(
        0.2,
        "From an image with less mean intensity on (0 black, 1 white) images are brightened; 1 with bright_above 1 "
        "brightens all.",
        live=True,
        minimum=0.0,
        maximum=1.0,
    )
    bright_above: float = parameter(
        0.25, "From an image with more mean intensity on they pass as they are.", live=True, minimum=0.0, maximum=1.0
    )
    flicker_time: float = parameter(
        0.5,
        "Time constant in seconds, by the stamps, with which the gain follows the network's, and brightened images "
        "take the place of others or give way to them; 0 does both at once.",
        live=True,
        minimum=0.0,
        maximum=60.0,
    )

    def check(self) -> None:
        super().check()
        if self.dark_below > self.bright_above:
            raise ValueError(f"dark_below {self.dark_below} must not be more than bright_above {self.bright_above}")


@dataclass
class EnhancementOutputs:
    """The topics of one camera, and what is remembered of its images."""

    image: ImageOutput
    camera_info: CalibrationOutput | None = None
    """None while nobody publishes a calibration: those who see the topic would wait for one."""
    dark: bool = False
    exposure: task.Exposure = field(default_factory=task.Exposure)
    fade: task.Fade = field(default_factory=task.Fade)


class EnhancementNode(ModelNode):
    """Publishes `image_enhanced` and its camera_info.

    rgb8, bgr8 and mono8 stay so. Others become bgr8, dark or not, so that the topic has one encoding.
    """

    parameters_type = EnhancementParameters
    tasks = ("enhancement",)
    passes_calibration = True
    parameters: EnhancementParameters

    def __init__(self, name: str = "enhancement_node", **options: object) -> None:
        super().__init__(name, **options)

    def create_outputs(self, stream: Stream) -> EnhancementOutputs:
        # What comes later must be possible: overridden QoS that is none is refused now, and not with every frame.
        CalibrationOutput(self, f"{stream.prefix}{INFO}").close()
        return EnhancementOutputs(self.add_output(stream, ImageOutput, "image_enhanced"))

    def describe(self) -> dict[str, str]:
        counts = self.statistics.counts
        return super().describe() | {name: str(counts[name]) for name in ("enhanced", "bypassed")}

    def infers(self, job: Job) -> bool:
        """Decides how much of the brightened image is published, in [0, 1]: see `Fade`."""
        topics: EnhancementOutputs = job.stream.results
        level = task.brightness(job.image)
        if level < self.parameters.dark_below:
            topics.dark = True
        elif level > self.parameters.bright_above:
            topics.dark = False
        job.decision = topics.fade.weight(topics.dark, level, stamp_of(job.frame), self._damping(job))
        return job.decision > 0 and topics.image.wanted

    def _damping(self, job: Job) -> float:
        """The time constant in seconds; 0 for images without stamps."""
        return self.parameters.flicker_time if stamp_of(job.frame) else 0.0

    def publish(self, job: Job, outputs: Mapping[str, np.ndarray]) -> None:
        topics: EnhancementOutputs = job.stream.results
        self._pass_calibration(job, topics)
        if not topics.image.wanted:
            return
        if outputs:
            topics.image.publish(self._enhanced(job, outputs, topics), job.frame.header)
            self.statistics.count("enhanced")
        elif not job.decision:  # else nobody wanted it a moment ago
            self._bypass(job, topics.image)
            self.statistics.count("bypassed")

    def _pass_calibration(self, job: Job, topics: EnhancementOutputs) -> None:
        """The calibration first: whoever has the image then has what belongs to it, usable or not."""
        info = job.info
        if topics.camera_info is None and (info or job.frame.calibration_due):
            topics.camera_info = self.add_output(job.stream, CalibrationOutput, INFO)
        if topics.camera_info and info and topics.camera_info.wanted:
            topics.camera_info.publish(info, job.frame.header)

    def _bypass(self, job: Job, output: ImageOutput) -> None:
        image = task.accepted(job.image)
        as_it_came = image is job.frame.image and isinstance(job.frame.source, ImageMessage)
        output.publish(image, job.frame.header, job.frame.source if as_it_came else None)

    def _enhanced(self, job: Job, outputs: Mapping[str, np.ndarray], topics: EnhancementOutputs) -> Image:
        assert self.engine and job.tensor is not None
        stamp = stamp_of(job.frame)
        if self.parameters.flicker_time and not stamp:
            self.advise_once(
                job.stream, "unstamped", "flicker is not damped: the images have no stamps; set them in the driver"
            )
        rows, columns = job.fit.window  # without what lies around the image
        before = sum(cv2.mean(job.tensor[0, rows, columns])) / 3 / 255  # the fourth of them is 0
        after = float(outputs["enhanced"][:, :, rows, columns].mean())
        factor = topics.exposure.factor(before, after, stamp, self._damping(job))
        image = task.accepted(job.image)
        out = topics.image.pixels(image.size, image.encoding)
        bright = task.parse(outputs, job.fit, self.engine.config, image, factor, job.tensor, out).image
        if job.decision < 1:
            cv2.addWeighted(bright, job.decision, image.data, 1 - job.decision, 0.0, bright)
        return Image(bright, image.encoding)


def main() -> int:
    return run_node(EnhancementNode)


if __name__ == "__main__":
    sys.exit(main())

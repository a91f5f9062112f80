"""Frames of one camera as messages of a recording."""

from __future__ import annotations

import numpy as np

from perception.evaluation import bags
from perception.tasks.calibration import Calibration
from perception.tasks.image import Image

COMPRESSIONS = ("none", "jpeg", "png")


class FrameWriter:
    """Appends frames to a bag: pose, calibration and true depth before the image that they belong to, under one stamp.

    Topics are `image_raw` (or `image_raw/compressed`), `camera_info`, `depth_true` (32FC1 metres, REP 118) and `pose`
    in the camera's namespace, and `/tf`. The poses are those of the optical frame in the frame `world`.

    Args:
        namespace: of the camera; its slashes become underscores in the name of the optical frame.
        compression: of the images, one of `COMPRESSIONS`.
        quality: of a JPEG, 1 to 100.

    Raises:
        ValueError: unknown compression.
    """

    def __init__(
        self, bag: bags.BagWriter, namespace: str = "camera", compression: str = "none", quality: int = 90
    ) -> None:
        if compression not in COMPRESSIONS:
            raise ValueError(f"compression {compression!r} is unknown; accepted: {', '.join(COMPRESSIONS)}")
        name = namespace.strip("/")
        self._bag, self._compression, self._quality = bag, compression, quality
        self._prefix = f"/{name}/" if name else "/"
        self.frame_id = f"{name.replace('/', '_') or 'camera'}_color_optical_frame"

    def write(
        self,
        stamp: int,
        image: Image,
        calibration: Calibration | None = None,
        depth: np.ndarray | None = None,
        pose: np.ndarray | None = None,
    ) -> None:
        """Append a frame.

        Args:
            stamp: nanoseconds, of the headers and of the recording.
            depth: float32 metres (height, width), NaN where unknown.
            pose: camera to world, 4x4.
        """
        head = bags.header(stamp, self.frame_id)
        if pose is not None:
            stamped, transform = bags.pose_messages(pose, bags.header(stamp, "world"), self.frame_id)
            self._bag.write(f"{self._prefix}pose", stamped, stamp)
            self._bag.write("/tf", transform, stamp)
        if calibration is not None:
            self._bag.write(f"{self._prefix}camera_info", bags.info_message(calibration, head), stamp)
        if depth is not None:
            self._bag.write(f"{self._prefix}depth_true", bags.image_message(Image(depth, "32FC1"), head), stamp)
        if self._compression == "none":
            self._bag.write(f"{self._prefix}image_raw", bags.image_message(image, head), stamp)
        else:
            message = bags.compressed_message(image, head, self._compression, self._quality)
            self._bag.write(f"{self._prefix}image_raw/compressed", message, stamp)

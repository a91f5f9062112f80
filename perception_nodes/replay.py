"""Replays a source of images through the depth pipeline on real topics and reports latency, drops and accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from lifecycle_msgs.msg import Transition
from sensor_msgs.msg import Image as ImageMessage

from perception.evaluation.replayed import depth_scores
from perception.nodes.convert import image_from_message
from perception.nodes.diagnostics import counts_of, engine_of, stages_of
from perception.nodes.inputs import SENSOR_DATA
from perception.nodes.session import Observer, Session, SessionError
from perception.tasks import depth as task
from perception.tasks.image import Image, to_color
from perception.tasks.messages import stamp_of

NAMESPACE = "/perception"
SOURCE, DEPTH = f"{NAMESPACE}/image_source_node", f"{NAMESPACE}/depth_node"
STRIDE = 4
"""Accuracy is taken over every fourth row and column: keeping whole maps would cost memory, and scoring them time."""
SETTLE = 0.5
"""Seconds for discovery to reach the last participant."""
REPORTED = 1.5
"""Seconds after which /diagnostics, which come once a second, hold the last frame."""
SILENCE = 10.0
"""Seconds without a new depth map after which a replay is over."""


class DepthObserver(Observer):
    """Keeps the depth maps of a pipeline and, where they are published, the true ones, by stamp."""

    def __init__(self) -> None:
        super().__init__("replay", NAMESPACE)
        self.depth: dict[int, np.ndarray] = {}
        self.truth: dict[int, np.ndarray] = {}
        self.arrivals: list[float] = []
        self.views: dict[str, dict[int, Image]] = {"image": {}, "depth": {}, "depth/overlay": {}}
        self.create_subscription(ImageMessage, "depth", self._on_depth, SENSOR_DATA)
        self._truth = self.create_subscription(ImageMessage, "depth_true", self._on_truth, SENSOR_DATA)
        self._view_subscriptions: list[Any] = []

    def _on_depth(self, message: ImageMessage) -> None:
        self.arrivals.append(time.monotonic())
        self.depth[stamp_of(message)] = image_from_message(message).data[::STRIDE, ::STRIDE].copy()

    def _on_truth(self, message: ImageMessage) -> None:
        self.truth[stamp_of(message)] = image_from_message(message).data[::STRIDE, ::STRIDE].copy()

    def watch_views(self) -> None:
        """Subscribe to what the picture shows; only after measuring, because it costs the node time."""
        for topic in self.views:
            self._view_subscriptions.append(
                self.create_subscription(ImageMessage, topic, lambda m, t=topic: self._on_view(t, m), SENSOR_DATA)
            )

    def _on_view(self, topic: str, message: ImageMessage) -> None:
        recent = self.views[topic] | {stamp_of(message): image_from_message(message)}
        self.views[topic] = dict(list(recent.items())[-8:])

    def complete_view(self) -> list[np.ndarray] | None:
        """Input, depth in colours that span this frame's depths, and overlay, BGR."""
        stamps = set.intersection(*(set(seen) for seen in self.views.values()))
        if not stamps:
            return None
        image, depth, overlay = (self.views[topic][max(stamps)] for topic in self.views)
        finite = depth.data[np.isfinite(depth.data)]
        near, far = np.percentile(finite, (1, 99)) if finite.size else (0.5, 8.0)
        return [to_color(image, "bgr"), task.colorize(depth.data, near, far), to_color(overlay, "bgr")]


@dataclass
class Replay:
    """What to replay and how.

    The source starts over at its end, until `frames` depth maps have come. `parameters` are the depth node's.
    """

    source: str
    frames: int
    out: Path
    rate: float = 0.0
    parameters: dict[str, Any] = field(default_factory=dict)
    progress: Callable[[int, int], None] = lambda done, total: None

    def run(self) -> dict[str, Any]:
        """Replay, write picture.png, and return the report.

        Raises:
            SessionError: a node could not start or gave nothing; with its last words.
        """
        with Session(DepthObserver, self.out / "log") as session:
            observer: DepthObserver = session.observer
            source = {"source": self.source, "rate": float(self.rate), "loop": True, "autostart": False}
            session.start("image_source_node", source, namespace=NAMESPACE)
            process = session.start("depth_node", self.parameters, namespace=NAMESPACE)
            session.change_state(SOURCE, Transition.TRANSITION_CONFIGURE)
            image = f"{NAMESPACE}/image"
            session.wait(lambda: observer.count_subscribers(image), 60, "the depth node to subscribe")
            time.sleep(SETTLE)
            session.change_state(SOURCE)
            self._collect(session, observer)
            session.change_state(SOURCE, Transition.TRANSITION_DEACTIVATE)  # so that all counts are of the same frames
            time.sleep(REPORTED)
            values = dict(observer.diagnostics.get(DEPTH, {}))
            memory = psutil.Process(process.pid).memory_info().rss
            report = self._report(observer, values, observer.diagnostics.get(SOURCE, {})) | {
                "memory_mib": round(memory / 2**20, 1),
                "picture": self._picture(session, observer),
            }
        return report

    def _collect(self, session: Session, observer: DepthObserver) -> None:
        session.wait(lambda: observer.arrivals, 30, "the first depth map")
        while len(observer.arrivals) < self.frames and time.monotonic() - observer.arrivals[-1] < SILENCE:
            session.check()
            self.progress(min(len(observer.arrivals), self.frames), self.frames)
            time.sleep(0.05)
        self.progress(min(len(observer.arrivals), self.frames), self.frames)

    def _report(self, observer: DepthObserver, values: dict[str, str], source: dict[str, str]) -> dict[str, Any]:
        times = observer.arrivals
        report: dict[str, Any] = {
            "input": self.source,
            "engine": engine_of(values),
            "frames": len(times),
            "rate_hz": round((len(times) - 1) / max(times[-1] - times[0], 1e-9), 2),
            "counts": counts_of(values),
            "stages_ms": stages_of(values),
        }
        if source.get("published"):
            report["counts"]["sent"] = int(source["published"])
        if scores := depth_scores(observer.depth, observer.truth):
            report["accuracy"] = scores
        return report

    def _picture(self, session: Session, observer: DepthObserver) -> str | None:
        """Write input, depth and overlay side by side; None where they do not come (a camera that vanished)."""
        observer.watch_views()
        try:
            session.change_state(SOURCE)
            views = session.wait(observer.complete_view, 10, "a frame with depth and overlay")
        except SessionError:
            return None
        path = self.out / "picture.png"
        cv2.imwrite(str(path), np.hstack(views))
        return str(path)

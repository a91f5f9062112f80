"""Replays a source of images through a node on real topics and reports latency, drops and accuracy."""

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

from perception.nodes.diagnostics import counts_of, engine_of, stages_of
from perception.nodes.replay_observers import NAMESPACE, OBSERVERS, ResultObserver
from perception.nodes.session import Session, SessionError

SOURCE = f"{NAMESPACE}/image_source_node"
SETTLE = 0.5
"""Seconds for discovery to reach the last participant."""
REPORTED = 1.5
"""Seconds after which /diagnostics, which come once a second, hold the last frame."""
SILENCE = 10.0
"""Seconds without a new result after which a replay is over."""


@dataclass
class Replay:
    """What to replay and how.

    The source starts over at its end, until `frames` results have come. `parameters` are those of the node, which is
    the `executable` of a task.
    """

    executable: str
    source: str
    frames: int
    out: Path
    rate: float = 0.0
    parameters: dict[str, Any] = field(default_factory=dict)
    progress: Callable[[int, int], None] = lambda done, total: None

    def run(self) -> dict[str, Any]:
        """Replay, write picture.png and what else there is to see, and return the report.

        Raises:
            SessionError: a node could not start or gave nothing; with its last words.
        """
        name = f"{NAMESPACE}/{self.executable}"
        with Session(OBSERVERS[self.executable], self.out / "log") as session:
            observer: ResultObserver = session.observer
            source = {"source": self.source, "rate": float(self.rate), "loop": True, "autostart": False}
            session.start("image_source_node", source, namespace=NAMESPACE)
            parameters = {**observer.parameters, **self.parameters}
            process = session.start(self.executable, parameters, namespace=NAMESPACE)
            session.change_state(SOURCE, Transition.TRANSITION_CONFIGURE)
            image = f"{NAMESPACE}/image"
            session.wait(lambda: observer.count_subscribers(image), 60, "the node to subscribe")
            time.sleep(SETTLE)
            session.change_state(SOURCE)
            self._collect(session, observer)
            session.change_state(SOURCE, Transition.TRANSITION_DEACTIVATE)  # so that all counts are of the same frames
            time.sleep(REPORTED)
            values = dict(observer.diagnostics.get(name, {}))
            memory = psutil.Process(process.pid).memory_info().rss
            report = self._report(observer, values, observer.diagnostics.get(SOURCE, {})) | {
                "memory_mib": round(memory / 2**20, 1),
                "picture": self._picture(session, observer),
            }
            report |= self._more_pictures(session, observer, name) if report["picture"] else {}
        return report

    def _collect(self, session: Session, observer: ResultObserver) -> None:
        session.wait(lambda: observer.arrivals, 30, "the first result")
        while len(observer.arrivals) < self.frames and time.monotonic() - observer.arrivals[-1] < SILENCE:
            session.check()
            self.progress(min(len(observer.arrivals), self.frames), self.frames)
            time.sleep(0.05)
        self.progress(min(len(observer.arrivals), self.frames), self.frames)

    def _report(self, observer: ResultObserver, values: dict[str, str], source: dict[str, str]) -> dict[str, Any]:
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
        return report | observer.report()

    def _more_pictures(self, session: Session, observer: ResultObserver, node: str) -> dict[str, str]:
        """What else the observer has to show; nothing where a node does not answer."""

        def idle() -> bool:
            counts = counts_of(observer.diagnostics[node]) if node in observer.diagnostics else {}
            ends = ("published", "dropped", "failed", "skipped")
            return bool(counts) and counts["received"] == sum(counts[end] for end in ends)

        try:
            session.change_state(SOURCE, Transition.TRANSITION_DEACTIVATE)
            observer.diagnostics.pop(node, None)
            session.wait(idle, 30, "the node to be done")
            time.sleep(SETTLE)
            return observer.more_pictures(session, self.out)
        except SessionError:
            return {}

    def _picture(self, session: Session, observer: ResultObserver) -> str | None:
        """Write input and results side by side; None where they do not come (a camera that vanished)."""
        observer.watch_views()
        try:
            session.change_state(SOURCE)
            views = session.wait(observer.complete_view, 10, "a frame with its overlay")
        except SessionError:
            return None
        path = self.out / "picture.png"
        cv2.imwrite(str(path), np.hstack(views))
        return str(path)

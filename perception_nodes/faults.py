"""How soon a depth node that was killed is replaced, and how soon an interrupt ends one, whatever it is doing."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable

from lifecycle_msgs.msg import Transition

from perception.nodes.rig import NAMESPACE, SETTLE, Counter, Figures, Rig
from perception.nodes.session import Session

FLOOD = 300.0
"""Images a second, more than a node on a processor can take."""
ON_THE_WAY = 0.2
"""Seconds in which what a killed node has sent may still arrive."""
HANGS = 20.0
"""Seconds after which a process that was interrupted counts as hanging."""
STARTING = (0.2, 0.6, 1.0, 1.4, 1.8, 2.4)
"""Seconds after its start at which a node is interrupted: among imports, in ROS's start, while the engine is loaded."""


class Faults(Rig):
    """Ends of the node that nobody asked for, and those that somebody did."""

    def faults(self, rounds: int = 3) -> Figures:
        """Seconds from SIGKILL in a flood to the next node's first result, and from SIGINT to the end of the process
        in each state, with its exit status."""
        states: dict[str, Callable[[Session], None]] = {
            f"starting for {seconds} s": lambda session, seconds=seconds: time.sleep(seconds)  # type: ignore[misc]
            for seconds in STARTING
        }
        states |= {
            "not configured": lambda session: session.wait(
                lambda: session.observer.count_publishers(f"{self.node.full_name}/transition_event"), 60, "the node"
            ),
            "inactive": lambda session: session.change_state(self.node.full_name, Transition.TRANSITION_CONFIGURE),
            "without images": lambda session: session.wait(
                lambda: session.observer.count_subscribers(f"{NAMESPACE}/image"), 60, "the node"
            ),
            "at 30 Hz": lambda session: self._serve(session, 30.0),
            "in a flood": lambda session: self._serve(session, FLOOD),
            "beside a stalled reader": self._serve_stalled,
        }
        return {
            "killed_to_next_result_s": [self._replaced() for _ in range(rounds)],
            "interrupted": {name: self._end(name, state) for name, state in states.items()},
        }

    def _replaced(self) -> float:
        with Session(lambda: Counter(self.node), self.out / "log") as session:
            process = self._start_node(session, self.threads)
            self._serve(session, FLOOD)
            killed = time.monotonic()
            process.send_signal(signal.SIGKILL)
            process.wait()
            session.processes.pop(self.node.executable)  # its end is no surprise
            self._start_node(session, self.threads)

            def next_arrival() -> float | None:
                return next((time for time in list(session.observer.arrivals) if time > killed + ON_THE_WAY), None)

            return round(session.wait(next_arrival, 60, "a result once more") - killed, 2)

    def _end(self, name: str, state: Callable[[Session], None]) -> Figures:
        """Seconds from the interrupt to the end, None if it did not come, and the exit status."""
        with Session(lambda: Counter(self.node), self.out / "log") as session:
            waits = {"autostart": False} if name in ("not configured", "inactive") else {}
            process = self._start_node(session, self.threads, waits)
            state(session)
            session.check()
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            seconds = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(HANGS)
                seconds = round(time.monotonic() - begin, 2)
                session.processes.pop(self.node.executable)
            return {"seconds": seconds, "status": process.returncode}

    def _serve(self, session: Session, rate: float) -> None:
        """Until results have come for a while."""
        session.start("feeder", {"source": self.source, "rate": rate}, namespace=NAMESPACE)
        session.wait(lambda: session.observer.arrivals, 60, "the first result")
        time.sleep(SETTLE)

    def _serve_stalled(self, session: Session) -> None:
        self._serve(session, 30.0)
        self._stall_a_reader(session)
        time.sleep(SETTLE)

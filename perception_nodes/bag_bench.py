"""A rosbag through an unmodified pipeline over real topics: latency, loss, processors, memory and accuracy."""

from __future__ import annotations

import posixpath
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message

from perception.evaluation.bags import Bag
from perception.evaluation.replayed import Passage, highest_rate
from perception.evaluation.truth import Truth
from perception.nodes.bag_player import message_type
from perception.nodes.diagnostics import counts_of, engine_of, stages_of
from perception.nodes.receiver import Receiver
from perception.nodes.sampler import Sampler, usage
from perception.nodes.session import Observer, Session, SessionError
from perception.nodes.subject import COMPRESSED, Subject, described
from perception.tasks.messages import MessageError, stamp_in

PLAYER = "/perception_bench/bag_player"
SETTLE = 1.0
"""Seconds for discovery to reach the last participant."""
REPORTED = 1.5
"""Seconds after which /diagnostics, which come once a second, hold the last frame; results on their way come too."""
QUEUE = 200
"""Results that wait for this process at most."""
PLAYED = 0.97
"""Share of a rate that must really have been sent for the rate to count."""


class Watcher(Observer):
    """Notes when each result arrives, and keeps the results where they are to be compared with the truth."""

    def __init__(self, output: str, truths: Sequence[Truth]) -> None:
        super().__init__("watcher", "/perception_bench")
        self._output, self._truths = output, truths
        self._kind: Any = None
        self._subscription: Any = None
        self.truth: Truth | None = None
        self._receiver = Receiver(self, self._on_lost)  # the executor would be late to note when a result arrived
        self.arrived: list[tuple[int, int]] = []
        self.unreadable = 0
        self.kept: dict[int, Any] = {}

    def subscribe(self) -> bool:
        """Listen to the output once somebody publishes it; whether both are connected."""
        types = dict(self.get_topic_names_and_types()).get(self._output)
        publishers = self.get_publishers_info_by_topic(self._output)
        if types and publishers and self._kind is None:
            self._kind = message_type(types[0])
            self.truth = next((truth for truth in self._truths if types[0] in truth.kinds), None)
            # As reliable as the publisher, and a deep queue: what this process does not take would count as lost.
            qos = QoSProfile(depth=QUEUE, reliability=publishers[0].qos_profile.reliability)
            self._subscription = self._receiver.add(self._kind, self._output, self._on_result, qos, raw=True)
        # Humble cannot tell.
        return self._subscription is not None and getattr(self._subscription, "get_publisher_count", lambda: 1)() > 0

    def way(self, subject: Subject) -> list[str]:
        """Those of the subject's nodes that an image passes until there is a result, in order; others may branch off.

        Empty where the ROS graph does not tell: of a pipeline that is not ours, or a topic that several nodes publish.
        """
        topic, way = self._output, list[str]()
        while topic not in (subject.images, subject.images.removesuffix(COMPRESSED)):
            publishers = self.get_publishers_info_by_topic(topic)
            names = {posixpath.join(each.node_namespace, each.node_name) for each in publishers}
            makers = names & subject.nodes.keys() - set(way)
            if len(makers) != 1:
                return []
            way.insert(0, makers.pop())
            topic = subject.nodes[way[0]]
        return way

    def destroy_node(self) -> None:
        self._receiver.close()
        super().destroy_node()

    def _on_lost(self, _topic: str, reason: str) -> None:
        self.get_logger().error(reason)

    def _on_result(self, data: bytes, _middleware: Mapping[str, int]) -> None:
        now = time.monotonic_ns()
        stamp = stamp_in(data)
        self.arrived.append((stamp, now))
        if self.truth is not None and self.truth.knows(stamp):
            try:
                self.kept[stamp] = self.truth.read(deserialize_message(data, self._kind))
            except MessageError:
                self.unreadable += 1


@dataclass(frozen=True)
class Feed:
    """How images come.

    Args:
        rate: images a second; 0: as they were recorded.
        seconds: how long, the bag starting again at its end; None: to its end.
        one_by_one: the next image when the last one's result has come.
        least: seconds before which a bag that is over starts again, where it is played to its end.
    """

    rate: float = 0.0
    seconds: float | None = None
    one_by_one: bool = False
    least: float = 0.0

    def __str__(self) -> str:
        return "one by one" if self.one_by_one else f"{self.rate:g} Hz" if self.rate else "as recorded"


@dataclass
class Trial:
    """What one run showed."""

    passage: Passage
    figures: dict[str, Any]
    """For the report."""
    series: dict[str, np.ndarray]
    """For its plots, see `perception.evaluation.replay_plots`."""
    truth: Truth | None = None
    """That which results of this kind can be held against."""
    kept: dict[int, Any] = field(default_factory=dict)
    """What it reads of results, by stamp."""


@dataclass
class BagBench:
    """Runs of one bag. `topics` of the bag are played besides the subject's images; `progress` is told what is done."""

    bag: Path
    topics: tuple[str, ...]
    out: Path
    progress: Callable[[str], None] = print

    def build(self, subject: Subject) -> float:
        """Build what the subject needs and does not have; seconds that took.

        Raises:
            ValueError: a build failed; what it said is on the terminal.
        """
        start = time.monotonic()
        for command in subject.builds:
            if status := subprocess.call(command):
                raise ValueError(f"`{' '.join(command)}` ended with status {status}")
        return round(time.monotonic() - start, 2)

    def compare(
        self, subjects: Sequence[Subject], feeds: Sequence[Feed], rounds: int, truths: Sequence[Truth]
    ) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """Run every subject at every feed, in turn for so many rounds.

        Args:
            truths: what the bag says is true of its images.

        Returns:
            What the report says of each subject, and the series of all runs: a run's names begin with its "series".
        """
        entries = [described(subject) | {"build_s": self.build(subject), "runs": []} for subject in subjects]
        series: dict[str, np.ndarray] = {}
        for _ in range(rounds):
            for number, (subject, entry) in enumerate(zip(subjects, entries, strict=True)):
                for feed in feeds:
                    self.progress(f"{subject.name}: {feed}" + (f", {feed.seconds:g} s" if feed.seconds else ""))
                    trial = self.run(subject, feed, truths)
                    if trial.kept:
                        trial.figures["accuracy"] = self._accuracy(trial)
                    key = trial.figures["series"] = f"{number}/{len(entry['runs'])}"
                    entry["runs"].append(trial.figures)
                    series |= {f"{key}/{name}": values for name, values in trial.series.items()}
        return entries, series

    def _accuracy(self, trial: Trial) -> dict[str, Any] | None:
        """Of a trial of which results were kept; None, and a word on why, where they cannot be compared."""
        assert trial.truth is not None
        try:
            return trial.truth.scores(trial.kept)
        except ValueError as error:
            self.progress(f"no accuracy: {error}")
            return None

    def search(self, subject: Subject, seconds: float) -> dict[str, float | None]:
        """The highest input in Hz of which nothing, and of which 1 % is lost, in runs of so many seconds.

        Raises:
            ValueError: there were no two results from which to begin.
        """
        losses: dict[float, float] = {}

        def loss(rate: float) -> float:
            if rate not in losses:
                trial = self.run(subject, Feed(rate, seconds))
                sent = trial.figures["input_hz"]
                self.progress(f"{subject.name}: {rate:.1f} Hz loses {trial.passage.loss:.2%}")
                if sent < PLAYED * rate:
                    self.progress(f"the player reached only {sent:.1f} Hz: such a rate is not counted")
                losses[rate] = trial.passage.loss if sent >= PLAYED * rate else 1.0
            return losses[rate]

        begin = self.run(subject, Feed(seconds=seconds, one_by_one=True)).figures["output_hz"]
        if begin <= 0:
            raise ValueError(
                f"{subject.name} gave no two results on {subject.output}, one by one; see the logs in {self.out}"
            )
        found = {share: highest_rate(loss, begin, share) for share in (0.0, 0.01)}
        return {f"{share:g}": None if rate is None else round(rate, 1) for share, rate in found.items()}

    def run(self, subject: Subject, feed: Feed, truths: Sequence[Truth] = ()) -> Trial:
        """Start the subject anew, play the bag, and end everything.

        Args:
            truths: the results are kept that one of them can be held against.

        Raises:
            SessionError: a process ended, a topic never appeared, or the bag could not be played to its end.
        """
        sent = self.out / "sent.npy"
        sent.unlink(missing_ok=True)
        player = {
            "bag": str(self.bag),
            "images": subject.images,
            "topics": " ".join(topic for topic in self.topics if topic != subject.images),
            "rate": float(feed.rate),
            "answers": subject.output if feed.one_by_one else "",
            "least": float(feed.seconds or feed.least),
            "sent": str(sent),
            "autostart": False,
        }
        with Session(lambda: Watcher(subject.output, truths), self.out / "log") as session:
            watcher: Watcher = session.observer
            begin = time.monotonic()
            for name, command in subject.commands.items():
                session.run(name, command)
            pids = {name: process.pid for name, process in session.processes.items()}
            session.wait(lambda: watcher.count_subscribers(subject.images), 120, f"a subscriber of {subject.images}")
            session.wait(watcher.subscribe, 120, f"a publisher of {subject.output}")
            ready = time.monotonic() - begin
            session.start("bag_player", player, namespace=PLAYER.rpartition("/")[0])
            session.change_state(PLAYER, Transition.TRANSITION_CONFIGURE)
            time.sleep(SETTLE)
            session.change_state(PLAYER)
            sampler = Sampler(pids)
            sampler.start()
            self._wait_for_end(session, feed.seconds)
            rows = sampler.stop()
            session.change_state(PLAYER, Transition.TRANSITION_DEACTIVATE)
            time.sleep(REPORTED)
            passage = Passage(np.load(sent), np.array(watcher.arrived, np.int64).reshape(-1, 2))
            figures = {"asked": str(feed), "ready_s": round(ready, 2)} | _figures(passage, watcher, subject)
            figures |= {"processes": {name: usage(seen) for name, seen in rows.items()}, **sampler.weather()}
            return Trial(passage, figures, passage.series(rows), watcher.truth, watcher.kept)

    def _wait_for_end(self, session: Session, seconds: float | None) -> None:
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            session.check()
            said = session.observer.diagnostics.get(PLAYER, {}).get("message", "")
            if "ends early" in said:
                raise SessionError(said)
            if end is None and "has ended" in said:
                return
            time.sleep(0.05)


def _figures(passage: Passage, watcher: Watcher, subject: Subject) -> dict[str, Any]:
    """What was sent and came, and what the nodes say."""
    nodes = {name: node_figures(watcher.diagnostics.get(name, {})) for name in subject.nodes}
    first = (passage.arrived[0, 1] - passage.sent[0, 1]) / 1e6 if len(passage.arrived) and len(passage.sent) else None
    return {
        "first_result_ms": None if first is None else round(float(first), 1),
        **passage.summary(),
        "unreadable": watcher.unreadable,
        "lost_where": lost_where(passage, [nodes[name]["counts"] for name in watcher.way(subject) if nodes[name]]),
        "nodes": nodes,
    }


def lost_where(passage: Passage, counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Where images were lost, by the counts of the nodes in the order in which these pass them on.

    Of each node: "transport" before it, "slot" (a newer frame came), "error" and "unwanted" in it. "unexplained" is
    what the last node says it published and did not come; for a pipeline that tells no counts, all that was lost.
    """
    places = dict.fromkeys(("transport", "slot", "error", "unwanted"), 0)
    before = len(passage.sent)
    for node in counts:
        places["transport"] += before - node["received"]
        places["slot"] += node["dropped"]
        places["error"] += node["failed"]
        places["unwanted"] += node["skipped"]
        before = node["published"]
    return places | {"unexplained": before - (len(passage.sent) - passage.lost)}


def node_figures(values: Mapping[str, str]) -> dict[str, Any]:
    """What a node says about itself."""
    if "received" not in values:
        return {}
    told = {"counts": counts_of(values), "stages_ms": stages_of(values), "engine": engine_of(values)}
    return told | ({"engine_load_s": float(values["load_s"])} if "load_s" in values else {})


def playable(bag: Bag, topics: Iterable[str | None], progress: Callable[[str], None] = print) -> tuple[str, ...]:
    """Those of the topics that are in the bag and can be sent here; a type that is not known here is told of."""
    found = []
    for topic in topics:
        if topic and bag.counts.get(topic):
            try:
                message_type(bag.types[topic])
                found.append(topic)
            except ValueError as error:
                progress(f"{topic} is not played: {error}")
    return tuple(found)
